//! What a container's record says about its networks, in the words of [`crate::network`].

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::api::{HostConfig, PortBinding};
use super::record::{Places, Record};
use super::session::Session;
use super::{Container, Containers, process};
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::monitor::wire::Request;
use crate::network::attach::{self, Attached, Plan};
use crate::network::files::{Names, Resolver, hosts, replace_link, resolv_conf};
use crate::network::ports::Want;
use crate::network::registry::{Networks, named};
use crate::network::{DEFAULT, Endpoint, Protocol, Wish};
use crate::rootless;
use crate::store::Store;

/// Whether a network mode means bridges of ours.
pub fn is_bridged(mode: &str) -> bool {
    !matches!(mode, "host" | "none") && !mode.starts_with("container:")
}

/// The container's networks, the one it started with first; none if it is on no bridge.
pub fn wishes(record: &Record) -> Vec<Wish> {
    if !is_bridged(&record.host_config.network_mode) {
        return Vec::new();
    }
    record.networks.clone()
}

/// What the container publishes.
///
/// # Errors
/// A port of the record cannot be read.
pub fn wants(host: &Host, record: &Record) -> Result<Vec<Want>> {
    let HostConfig {
        port_bindings,
        publish_all_ports,
        ..
    } = &record.host_config;
    let mut list = Vec::new();
    for (port, bindings) in port_bindings {
        for binding in bindings {
            list.push(want(host, port, binding)?);
        }
    }
    if *publish_all_ports {
        for port in record.config.exposed_ports.keys() {
            if !port_bindings.contains_key(port) {
                list.push(want(host, port, &PortBinding::default())?);
            }
        }
    }
    Ok(list)
}

fn want(host: &Host, port: &str, binding: &PortBinding) -> Result<Want> {
    let bad = |what: &str| Error::Invalid(format!("invalid port specification: {what:?}"));
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let host_ports = match binding.host_port.as_str() {
        "" | "0" => None,
        text => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let number = |text: &str| text.parse().map_err(|_| bad(text));
            Some((number(first)?, number(last)?))
        }
    };
    let host_ip = match binding.host_ip.as_str() {
        "" => host.settings.ip,
        text => Some(text.parse().map_err(|_| bad(text))?),
    };
    Ok(Want {
        container_port: number.parse().map_err(|_| bad(port))?,
        protocol: Protocol::parse(protocol).ok_or_else(|| bad(port))?,
        host_ip,
        host_ports,
    })
}

/// Gives `work` the plan of the container whose monitor this process is.
///
/// # Errors
/// A value of the record cannot be read; what `work` gives.
pub fn with_plan<T>(
    host: &Host,
    record: &Record,
    work: impl FnOnce(&Plan<'_>) -> Result<T>,
) -> Result<T> {
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    let servers: Vec<IpAddr> = given(&record.host_config.dns, &host.settings.dns)
        .iter()
        .filter_map(|server| server.parse().ok())
        .collect();
    work(&Plan {
        id: &record.id,
        name: &record.name,
        wishes: &wishes(record),
        ports: &wants(host, record)?,
        servers: &servers,
        keeper: (pid, process::start_ticks(pid).unwrap_or(0)),
    })
}

/// Takes the container's places and writes the files that name them.
///
/// # Errors
/// As [`attach::up`]; a file cannot be written.
pub fn up(host: &Host, record: &Record, places: &Places) -> Result<Attached> {
    let attached = with_plan(host, record, |plan| match rootless::is_entered(host) {
        true => attach::up_without_root(host, plan, &places.run),
        false => attach::up(host, plan),
    })?;
    let published = match attached.is_published() {
        true => Ok(()),
        false => attached.sandbox().publish(&places.run),
    };
    let ready =
        published.and_then(|()| write_files(host, record, &places.dir, &attached.endpoints));
    match ready {
        Ok(()) => Ok(attached),
        Err(error) => {
            // The first error is the one to tell.
            let _ = attach::down(host, &record.id);
            Err(error)
        }
    }
}

fn given<'a>(own: &'a [String], default: &'a [String]) -> &'a [String] {
    if own.is_empty() { default } else { own }
}

/// Writes /etc/hosts, /etc/hostname and /etc/resolv.conf of a container with these places.
///
/// # Errors
/// A file cannot be written; a container that it has a link to does not run.
pub fn write_files(host: &Host, record: &Record, dir: &Path, places: &[Endpoint]) -> Result<()> {
    let (config, host_config) = (&record.config, &record.host_config);
    let settings = &host.settings;
    let resolver = Resolver {
        servers: given(&host_config.dns, &settings.dns),
        search: given(&host_config.dns_search, &settings.dns_search),
        options: given(&host_config.dns_options, &settings.dns_opts),
        own_namespace: host_config.network_mode != "host",
        embedded: places.iter().any(|place| place.name != DEFAULT),
    };
    let addresses: Vec<IpAddr> = places
        .iter()
        .flat_map(Endpoint::addresses)
        .map(|address| address.net.addr())
        .collect();
    let gateways = places.iter().flat_map(Endpoint::addresses);
    let gateway = gateways.filter_map(|address| address.gateway).next();
    let linked = match places.is_empty() {
        true => Vec::new(),
        false => links(host, record)?,
    };
    let linked: Vec<(IpAddr, String)> = linked
        .iter()
        .map(|link| (link.address, link.words()))
        .collect();
    let names = Names {
        hostname: &config.hostname,
        domainname: &config.domainname,
        addresses: &addresses,
        links: &linked,
        extra: host_config.extra_hosts.as_deref().unwrap_or_default(),
        gateway: &gateway
            .map(|address| address.to_string())
            .unwrap_or_default(),
    };
    let host_resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let files = [
        ("hosts", hosts(&names)),
        ("hostname", format!("{}\n", config.hostname)),
        ("resolv.conf", resolv_conf(&host_resolver, &resolver)),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|errno| Error::host("write", &path, errno))?;
    }
    Ok(())
}

/// A running container that another one has a link to, on the default bridge.
pub struct Link {
    alias: String,
    child: Record,
    address: IpAddr,
}

impl Link {
    /// The names in /etc/hosts.
    fn words(&self) -> String {
        let short = self.child.id.get(..12).unwrap_or(&self.child.id);
        format!("{} {short} {}", self.alias, self.child.name)
    }

    /// The variables that Docker sets for a link: where the other's ports are, what its own
    /// environment says (moby `daemon/links/links.go`).
    fn environment(&self, parent: &str) -> Vec<String> {
        let prefix: String = self.alias.to_uppercase().replace('-', "_");
        let mut ports: Vec<(u16, &str)> = self
            .child
            .config
            .exposed_ports
            .keys()
            .filter_map(|port| {
                let (number, protocol) = port.split_once('/')?;
                Some((number.parse().ok()?, protocol))
            })
            .collect();
        // TCP before UDP, then by number, as Docker chooses the port that stands for the rest.
        ports.sort_by_key(|(number, protocol)| (*protocol != "tcp", *number));
        let address = self.address;
        let mut env = vec![format!("{prefix}_NAME=/{parent}/{}", self.alias)];
        if let Some((number, protocol)) = ports.first() {
            env.push(format!("{prefix}_PORT={protocol}://{address}:{number}"));
        }
        for (number, protocol) in &ports {
            let name = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
            env.push(format!("{name}={protocol}://{address}:{number}"));
            env.push(format!("{name}_ADDR={address}"));
            env.push(format!("{name}_PORT={number}"));
            env.push(format!("{name}_PROTO={protocol}"));
        }
        for variable in &self.child.config.env {
            let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
            if !matches!(key, "HOME" | "PATH") {
                env.push(format!("{prefix}_ENV_{key}={value}"));
            }
        }
        env
    }
}

/// Whom a container has links to; all of them have to run.
///
/// # Errors
/// `Cannot link to a non running container: /db AS /web/db`.
fn links(host: &Host, record: &Record) -> Result<Vec<Link>> {
    if record.host_config.links.is_none() {
        return Ok(Vec::new());
    }
    let store = Store::open(&host.data_root)?;
    let networks = Networks { store: &store };
    let containers = Containers::new(host);
    let mut list = Vec::new();
    for (id, alias) in networks.children(&record.id)? {
        let child = containers.load(&id)?;
        let places = networks.of_container(&id)?;
        let place = places.iter().find(|place| place.name == DEFAULT);
        let address = place.and_then(|place| place.ipv4.as_ref());
        let (Some(address), true) = (address, child.state.pid > 0) else {
            return Err(Error::Conflict(format!(
                "Cannot link to a non running container: /{} AS /{}/{alias}",
                child.record.name, record.name
            )));
        };
        list.push(Link {
            alias,
            address: address.net.addr(),
            child: child.record,
        });
    }
    Ok(list)
}

/// The variables that the container's links bring.
///
/// # Errors
/// A container that it has a link to does not run.
pub fn link_environment(host: &Host, record: &Record) -> Result<Vec<String>> {
    if !record
        .networks
        .iter()
        .any(|wish| named(&wish.network) == DEFAULT)
    {
        return Ok(Vec::new());
    }
    let links = links(host, record)?;
    let each = links.iter().map(|link| link.environment(&record.name));
    Ok(each.flatten().collect())
}

/// Notes the links of a new container, or gives them to its user-defined network.
///
/// # Errors
/// `could not get container for db: No such container: db`.
pub fn note_links(host: &Host, record: &mut Record) -> Result<()> {
    let Some(texts) = record.host_config.links.clone() else {
        return Ok(());
    };
    let Some(first) = record.networks.first_mut() else {
        return Err(Error::Invalid(
            "conflicting options: host type networking can't be used with links. This would \
             result in undefined behavior"
                .to_owned(),
        ));
    };
    let by_name = named(&first.network) != DEFAULT;
    let store = Store::open(&host.data_root)?;
    let networks = Networks { store: &store };
    for text in &texts {
        let (name, alias) = text.split_once(':').unwrap_or((text, text));
        let alias = alias.rsplit('/').next().unwrap_or(alias);
        let name = name.trim_start_matches('/');
        if by_name {
            first.links.push(format!("{name}:{alias}"));
            continue;
        }
        let child = Containers::new(host).find(name).map_err(|error| {
            Error::Conflict(format!("could not get container for {name}: {error}"))
        })?;
        networks.link(&record.id, &child.record.id, alias)?;
    }
    Ok(())
}

/// Forgets the link `CONTAINER/ALIAS`.
///
/// # Errors
/// There is none of this name.
pub fn unlink(host: &Host, text: &str) -> Result<()> {
    let none = || Error::NotFound {
        kind: "link",
        name: text.to_owned(),
    };
    let (parent, alias) = text
        .trim_start_matches('/')
        .split_once('/')
        .ok_or_else(none)?;
    let parent = Containers::new(host).find(parent)?;
    let store = Store::open(&host.data_root)?;
    let networks = Networks { store: &store };
    match networks.unlink(&parent.record.id, alias)? {
        true => Ok(()),
        false => Err(none()),
    }
}

/// Tells of the container's places coming and going: `connect` or `disconnect`.
///
/// # Errors
/// The log of events cannot be written.
pub fn tell(host: &Host, action: &str, places: &[Endpoint]) -> Result<()> {
    for place in places {
        let more = [
            ("container", place.container.clone()),
            ("name", place.name.clone()),
            ("type", "bridge".to_owned()),
        ];
        events::other(host, "network", action, &place.network, &more)?;
    }
    Ok(())
}

/// Tells the running containers that have links to this one where it now is.
///
/// # Errors
/// A file cannot be written.
pub fn tell_parents(host: &Host, record: &Record, places: &[Endpoint]) -> Result<()> {
    let place = places.iter().find(|place| place.name == DEFAULT);
    let Some(address) = place.and_then(|place| place.ipv4.as_ref()) else {
        return Ok(());
    };
    let store = Store::open(&host.data_root)?;
    let parents = Networks { store: &store }.parents(&record.id)?;
    for (id, alias) in parents {
        let Ok(Container { places, .. }) = Containers::new(host).load(&id) else {
            continue;
        };
        let link = Link {
            alias,
            address: address.net.addr(),
            child: record.clone(),
        };
        let path = places.dir.join("hosts");
        let text = fs::read_to_string(&path).unwrap_or_default();
        // In place: the file is mounted in the container.
        if let Some(text) = replace_link(&text, link.address, &link.words()) {
            fs::write(&path, text).map_err(|errno| Error::host("write", &path, errno))?;
        }
    }
    Ok(())
}

/// What a plain user is told of networks that they may not use.
pub fn needs_root(network: &str) -> Error {
    Error::Hinted {
        message: format!("network {network} needs root: it is a bridge of this machine"),
        hint: "leave out --network, or give --network host or --network none".to_owned(),
    }
}

/// Puts the container on one more network; at once if it runs.
///
/// # Errors
/// It is on it already, or cannot be; as [`attach::up`].
pub fn connect(host: &Host, found: &Container, wish: Wish) -> Result<()> {
    if rootless::is_entered(host) {
        return Err(needs_root(&wish.network));
    }
    let _lock = found.lock()?;
    let mut container = Containers::new(host).load(&found.record.id)?;
    let record = &mut container.record;
    if !is_bridged(&record.host_config.network_mode) {
        return Err(Error::Conflict(
            "container sharing network namespace with another container or host cannot be \
             connected to any other network"
                .to_owned(),
        ));
    }
    if record
        .networks
        .iter()
        .any(|own| own.network == wish.network)
    {
        return Err(Error::Conflict(format!(
            "endpoint with name {} already exists in network {}",
            record.name, wish.network
        )));
    }
    record.networks.push(wish);
    reload(&container, found)
}

/// Takes the container off a network; at once if it runs.
///
/// # Errors
/// It is not on it.
pub fn disconnect(host: &Host, found: &Container, network: &str) -> Result<()> {
    let _lock = found.lock()?;
    let mut container = Containers::new(host).load(&found.record.id)?;
    let record = &mut container.record;
    let before = record.networks.len();
    record.networks.retain(|own| own.network != network);
    if record.networks.len() == before {
        return Err(Error::Conflict(format!(
            "container {} is not connected to network {network}",
            record.id
        )));
    }
    reload(&container, found)
}

/// Saves the record and lets a running monitor follow it; the old record comes back if it cannot.
fn reload(container: &Container, old: &Container) -> Result<()> {
    container.save()?;
    if !container.state.status.is_alive() {
        return Ok(());
    }
    let followed = Session::connect(container)?.request(&Request::Reload);
    if followed.is_err() {
        old.save()?;
    }
    followed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::api::Config;
    use crate::image::config::Empty;

    #[test]
    fn a_link_is_told_by_dockers_variables() {
        let ports = ["80/tcp", "53/udp", "22/tcp"];
        let child = Record {
            id: "47fe41f36c34".repeat(5),
            name: "src".to_owned(),
            config: Config {
                exposed_ports: ports.map(|port| (port.to_owned(), Empty {})).into(),
                env: vec!["PATH=/bin".to_owned(), "A=b=c".to_owned()],
                ..Config::default()
            },
            ..Record::default()
        };
        let link = Link {
            alias: "my-db".to_owned(),
            child,
            address: "172.17.0.2".parse().unwrap(),
        };
        assert_eq!(link.words(), "my-db 47fe41f36c34 src");
        let env = link.environment("web");
        assert_eq!(
            env[..3],
            [
                "MY_DB_NAME=/web/my-db",
                "MY_DB_PORT=tcp://172.17.0.2:22",
                "MY_DB_PORT_22_TCP=tcp://172.17.0.2:22",
            ]
        );
        for line in [
            "MY_DB_PORT_80_TCP_ADDR=172.17.0.2",
            "MY_DB_PORT_80_TCP_PORT=80",
            "MY_DB_PORT_53_UDP_PROTO=udp",
            "MY_DB_ENV_A=b=c",
        ] {
            assert!(
                env.iter().any(|variable| variable == line),
                "{line}: {env:?}"
            );
        }
        assert!(!env.iter().any(|variable| variable.contains("ENV_PATH")));
    }
}
