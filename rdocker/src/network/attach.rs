//! A container gets its places in networks, keeps them while it runs, and gives them back.
//!
//! All of it happens in the container's monitor. Addresses, ports and rules change under one lock
//! of the data root; links belong to the container's namespace and go with it.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::dns::names::{self, Names};
use super::dns::{NameServer, Zone};
use super::netlink::Socket;
use super::netlink::link::{Port, Veth};
use super::pasta::{self, Pasta};
use super::place::{Place, endpoints, is_link_name, known_as, require_new, reserve, sysctls};
use super::ports::{self, Want};
use super::proxy::Proxy;
use super::registry::{self, Networks};
use super::sandbox::Sandbox;
use super::{
    Address, DEFAULT, Endpoint, Network, Protocol, Wish, bridge, conntrack, firewall, parse_mac,
};
use crate::container::id;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::store::{self, Store};

/// What a container wants of its networks.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its networks, the one it started with first.
    pub wishes: &'a [Wish],
    /// What it publishes.
    pub ports: &'a [Want],
    /// Name servers that it asked for.
    pub servers: &'a [IpAddr],
    /// The monitor that keeps its places.
    pub keeper: (i32, u64),
}

/// A container's places while it runs.
#[derive(Debug)]
pub struct Attached {
    sandbox: Sandbox,
    /// Where it is, the first network first.
    pub endpoints: Vec<Endpoint>,
    proxy: Option<Proxy>,
    names: Option<NameServer>,
    pasta: Option<Pasta>,
    /// The links and gateways that lead out, by IPv4 and by IPv6.
    leading: [Option<(String, IpAddr)>; 2],
    /// Hears of changed rules; `None` if the kernel tells nobody.
    pub rules: Option<Socket>,
}

/// Takes the container's places.
///
/// # Errors
/// A network or an address is not to be had, a port is taken, the kernel refuses; nothing is kept
/// then.
pub fn up(host: &Host, plan: &Plan<'_>) -> Result<Attached> {
    let mut attached = Attached {
        sandbox: Sandbox::new()?,
        endpoints: Vec::new(),
        proxy: None,
        names: None,
        pasta: None,
        leading: [None, None],
        rules: firewall::listen().ok(),
    };
    let store = Store::open(&host.data_root)?;
    let networks = Networks { store: &store };
    let joined = attached.join(host, &networks, plan, plan.wishes, plan.ports);
    if let Err(error) = joined {
        // The first error is the one to tell.
        let _ = give_back(host, &networks, plan.id);
        return Err(error);
    }
    Ok(attached)
}

/// The same for a plain user's container: pasta connects it, no bridge does.
///
/// # Errors
/// There is no pasta, or it refuses; a port is taken.
pub fn up_without_root(host: &Host, plan: &Plan<'_>, run: &Path) -> Result<Attached> {
    let store = Store::open(&host.data_root)?;
    let networks = Networks { store: &store };
    let network = networks.find(DEFAULT)?;
    let sandbox = Sandbox::new()?;
    let bound = ports::bind(plan.name, plan.ports, |_, _| None)?;
    let published: Vec<_> = bound.iter().map(|one| one.published.clone()).collect();
    // pasta binds them itself.
    drop(bound);
    let pasta = Pasta::start(&sandbox, run, &published)?;
    let endpoint = Endpoint {
        id: id::random(),
        network: network.id,
        name: network.name,
        container: plan.id.to_owned(),
        interface: pasta::INTERFACE.to_owned(),
        ports: published,
        keeper: plan.keeper,
        ..Endpoint::default()
    };
    networks
        .store
        .write(|change| -> store::Result<()> { registry::put_endpoint(change, &endpoint) })?;
    Ok(Attached {
        sandbox,
        endpoints: vec![endpoint],
        proxy: None,
        names: None,
        pasta: Some(pasta),
        leading: [None, None],
        rules: None,
    })
}

impl Attached {
    /// Whether the namespace can be found at its path already.
    pub fn is_published(&self) -> bool {
        self.pasta.is_some()
    }

    /// What becomes readable when a plain user's pasta ends, and the container's way out with it.
    pub fn way_out(&self) -> Option<BorrowedFd<'_>> {
        self.pasta.as_ref().map(Pasta::fd)
    }

    /// pasta has ended: begins another with the same ports.
    ///
    /// # Errors
    /// It ended soon after it began, or does not begin; the container has no network then.
    pub fn find_way_out(&mut self, run: &Path) -> Result<()> {
        let lasted = self.pasta.take().is_none_or(|old| old.has_lasted());
        if !lasted {
            return Err(Error::Conflict("pasta ended again at once".to_owned()));
        }
        let mut places = self.endpoints.iter();
        let published = places.next().map_or(&[][..], |place| &place.ports);
        self.pasta = Some(Pasta::start(&self.sandbox, run, published)?);
        Ok(())
    }

    /// Lets go of the namespace, and the kernel take its links down in its own time.
    ///
    /// An address that was asked for may be asked for again at once, so its link goes now.
    pub fn close(mut self) {
        for endpoint in self.endpoints.iter().filter(|endpoint| endpoint.fixed) {
            // It goes with the namespace at the latest.
            let _ = self.sandbox.remove_link(&endpoint.interface);
        }
    }

    /// Where the runtime finds the namespace.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn join(
        &mut self,
        host: &Host,
        networks: &Networks<'_>,
        plan: &Plan<'_>,
        wishes: &[Wish],
        wanted: &[Want],
    ) -> Result<()> {
        let mut socket =
            Socket::route().map_err(|error| bridge::failed("open", "netlink", error))?;
        let mut places = Vec::new();
        {
            let _lock = registry::lock(host)?;
            let all = sweep(host, networks)?;
            for wish in wishes {
                let network = networks.find(registry::named(&wish.network))?;
                require_new(
                    &network,
                    plan,
                    self.endpoints.iter().chain(endpoints(&places)),
                )?;
                let interface = self.interface(&places, &network, wish)?;
                let sysctls = sysctls(wish, &interface)?;
                let place = reserve(host, networks, &mut socket, (network, wish), &all, plan);
                let mut place = place?;
                place.endpoint.interface = interface;
                place.sysctls = sysctls;
                places.push(place);
            }
            self.publish(&mut places, plan, wanted, &all)?;
            write_places(networks, &places)?;
            firewall::sync(host, networks)?;
            for place in &places {
                conntrack::forget(&place.endpoint);
                publish_names(host, networks, &place.network)?;
            }
        }
        for place in places {
            self.plug(&mut socket, &place)?;
            self.endpoints.push(place.endpoint);
        }
        self.lead_out()?;
        self.serve_names(host, networks, plan)
    }

    /// The name of a new link in the container: what the user or the network wants, else a free
    /// `ethN`.
    fn interface(&self, places: &[Place], network: &Network, wish: &Wish) -> Result<String> {
        let taken = |name: &String| {
            let mut others = self.endpoints.iter().chain(endpoints(places));
            name == "lo" || others.any(|other| other.interface == *name)
        };
        if let Some(name) = wish.driver_opts.get("com.docker.network.endpoint.ifname") {
            if !is_link_name(name) || taken(name) {
                return Err(Error::Invalid(format!(
                    "invalid ifname {name:?}: it is taken, or no name of a link"
                )));
            }
            return Ok(name.clone());
        }
        let prefix = network
            .options
            .get("com.docker.network.container_iface_prefix");
        let prefix = prefix.filter(|prefix| prefix.len() < 12 && is_link_name(prefix));
        let (prefix, first) = match prefix {
            Some(prefix) => (prefix.as_str(), 0),
            None => ("eth", self.endpoints.len() + places.len()),
        };
        let mut names = (first..).map(|n| format!("{prefix}{n}"));
        Ok(names.find(|name| !taken(name)).expect("numbers do not end"))
    }

    /// Leads everything else through the network that the user prefers, of equals the first.
    fn lead_out(&mut self) -> Result<()> {
        for (at, ipv6) in [false, true].into_iter().enumerate() {
            let gateway = |endpoint: &Endpoint| {
                let mut gateways = endpoint.addresses().filter_map(|address| address.gateway);
                let gateway = gateways.find(|gateway| gateway.is_ipv6() == ipv6)?;
                Some((endpoint.gw_priority, endpoint.interface.clone(), gateway))
            };
            let all = self.endpoints.iter().rev().filter_map(gateway);
            let best = all.max_by_key(|(priority, ..)| *priority);
            let best = best.map(|(_, interface, gateway)| (interface, gateway));
            if best == self.leading[at] {
                continue;
            }
            if let Some((interface, gateway)) = &best {
                self.sandbox.lead_out(interface, *gateway)?;
            }
            self.leading[at] = best;
        }
        Ok(())
    }

    /// Binds what is published; it belongs to the first network that leads out.
    fn publish(
        &mut self,
        places: &mut [Place],
        plan: &Plan<'_>,
        wanted: &[Want],
        all: &[Endpoint],
    ) -> Result<()> {
        let Some(place) = places.iter_mut().find(|place| !place.network.internal) else {
            return Ok(());
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let owner = |protocol: Protocol, port: u16| {
            let mut others = all.iter().filter(|other| other.container != plan.id);
            let has = |other: &&Endpoint| {
                let mut ports = other.ports.iter();
                ports.any(|one| one.protocol == protocol && one.host_port == port)
            };
            let name = |other: &Endpoint| other.names.first().cloned().unwrap_or_default();
            others.find(has).map(name)
        };
        let bound = ports::bind(plan.name, wanted, owner)?;
        let endpoint = &mut place.endpoint;
        endpoint.ports = bound.iter().map(|bound| bound.published.clone()).collect();
        let of = |address: &Option<Address>| address.as_ref().map(|address| address.net.addr());
        let proxy = Proxy::start(bound, of(&endpoint.ipv4), of(&endpoint.ipv6));
        self.proxy =
            Some(proxy.map_err(|error| bridge::failed("serve the ports of", plan.name, error))?);
        Ok(())
    }

    /// Makes the pair of links and gives the container's end its addresses.
    fn plug(&mut self, socket: &mut Socket, place: &Place) -> Result<()> {
        let endpoint = &place.endpoint;
        let fail = |error| {
            bridge::failed(
                "connect a container to the bridge",
                &place.network.bridge,
                error,
            )
        };
        let mac =
            parse_mac(&endpoint.mac).ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?;
        let veth = Veth {
            name: &endpoint.veth,
            bridge: place.bridge.index,
            peer: &endpoint.interface,
            mac,
            netns: self.sandbox.fd(),
            mtu: place.network.mtu(),
        };
        socket.add_veth(&veth).map_err(fail)?;
        let port = Port {
            // What a container sends to its own published port then turns around in the bridge.
            hairpin: !endpoint.ports.is_empty() && bridge::is_filtered(),
            isolated: !place.network.option("enable_icc", true),
        };
        if port != Port::default()
            && let Some(link) = socket.link(&endpoint.veth).map_err(fail)?
        {
            socket.set_port(link.index, port).map_err(fail)?;
        }
        self.sandbox.configure(endpoint)?;
        self.sandbox.set_parameters(&place.sysctls)
    }

    /// Begins or renews the name server, which only containers on user-defined networks have.
    fn serve_names(&mut self, host: &Host, networks: &Networks<'_>, plan: &Plan<'_>) -> Result<()> {
        let all = networks.list()?;
        let find = |endpoint: &Endpoint| all.iter().find(|network| network.id == endpoint.network);
        let own = || {
            self.endpoints
                .iter()
                .filter_map(find)
                .filter(|n| !n.is_default())
        };
        if own().next().is_none() && self.names.is_none() {
            return Ok(());
        }
        let link = |text: &String| {
            let (name, alias) = text.split_once(':').unwrap_or((text, text));
            (alias.to_lowercase(), name.to_lowercase())
        };
        let zone = Zone {
            networks: own()
                .map(|network| Names::new(names_file(host, network), &network.name))
                .collect(),
            links: plan
                .wishes
                .iter()
                .flat_map(|wish| &wish.links)
                .map(link)
                .collect(),
            servers: plan.servers.to_vec(),
            forwards: self
                .endpoints
                .iter()
                .filter_map(find)
                .any(|network| !network.internal),
        };
        if let Some(server) = &self.names {
            let mut old = server
                .zone
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            *old = zone;
            return Ok(());
        }
        let (udp, tcp) = self.sandbox.name_sockets()?;
        let server = NameServer::start(udp, tcp, zone);
        self.names =
            Some(server.map_err(|error| bridge::failed("serve the names of", plan.name, error))?);
        Ok(())
    }

    /// Brings the running container to what its record now says.
    ///
    /// # Errors
    /// As [`up`]; the container keeps the places it had.
    pub fn reload(&mut self, host: &Host, plan: &Plan<'_>) -> Result<()> {
        let store = Store::open(&host.data_root)?;
        let networks = Networks { store: &store };
        let wanted: Vec<(Network, &Wish)> = plan
            .wishes
            .iter()
            .map(|wish| Ok((networks.find(registry::named(&wish.network))?, wish)))
            .collect::<Result<_>>()?;
        let gone: Vec<Endpoint> = self
            .endpoints
            .iter()
            .filter(|endpoint| {
                !wanted
                    .iter()
                    .any(|(network, _)| network.id == endpoint.network)
            })
            .cloned()
            .collect();
        for endpoint in &gone {
            self.leave(host, &networks, endpoint)?;
        }
        self.rename(host, &networks, plan, &wanted)?;
        let new: Vec<Wish> = wanted
            .iter()
            .filter(|(network, _)| !self.endpoints.iter().any(|own| own.network == network.id))
            .map(|(_, wish)| (*wish).clone())
            .collect();
        let ports = if self.proxy.is_none() {
            plan.ports
        } else {
            &[]
        };
        self.join(host, &networks, plan, &new, ports)
    }

    /// The container may have another name by now.
    fn rename(
        &mut self,
        host: &Host,
        networks: &Networks<'_>,
        plan: &Plan<'_>,
        wanted: &[(Network, &Wish)],
    ) -> Result<()> {
        for endpoint in &mut self.endpoints {
            let place = wanted
                .iter()
                .find(|(network, _)| network.id == endpoint.network);
            let Some((network, wish)) = place else {
                continue;
            };
            let names = known_as(plan, wish);
            if names == endpoint.names {
                continue;
            }
            endpoint.names = names;
            let _lock = registry::lock(host)?;
            let put = |change: &rusqlite::Transaction<'_>| -> store::Result<()> {
                registry::put_endpoint(change, endpoint)
            };
            networks.store.write(put)?;
            publish_names(host, networks, network)?;
        }
        Ok(())
    }

    fn leave(&mut self, host: &Host, networks: &Networks<'_>, endpoint: &Endpoint) -> Result<()> {
        let _lock = registry::lock(host)?;
        self.sandbox.remove_link(&endpoint.interface)?;
        networks.store.write(|change| -> store::Result<()> {
            change.execute(
                "DELETE FROM endpoints WHERE container = ? AND network = ?",
                [&endpoint.container, &endpoint.network],
            )?;
            Ok(())
        })?;
        if !endpoint.ports.is_empty() {
            self.proxy = None;
            firewall::sync(host, networks)?;
            conntrack::forget(endpoint);
        }
        self.endpoints.retain(|own| own.network != endpoint.network);
        self.lead_out()?;
        publish_names(host, networks, &networks.find(&endpoint.network)?)
    }

    /// Somebody changed packet filter rules: puts ours back if they are gone.
    pub fn on_rules(&self, host: &Host) {
        let heard = self.rules.as_ref().is_some_and(Socket::drain);
        if heard && firewall::is_missing(host) {
            // The next command tries again.
            let _ = restore(host);
        }
    }
}

/// Puts the rules in place that the state asks for.
///
/// # Errors
/// There is no nft, or it refuses the rules.
pub fn restore(host: &Host) -> Result<()> {
    let store = Store::open(&host.data_root)?;
    let _lock = registry::lock(host)?;
    firewall::sync(host, &Networks { store: &store })
}

fn write_places(networks: &Networks<'_>, places: &[Place]) -> Result<()> {
    let write = |change: &rusqlite::Transaction<'_>| -> store::Result<()> {
        for Place {
            endpoint, network, ..
        } in places
        {
            registry::put_endpoint(change, endpoint)?;
            for address in endpoint.addresses() {
                registry::remember_address(change, &network.id, address.net.addr())?;
            }
        }
        Ok(())
    };
    Ok(networks.store.write(write)?)
}

fn names_file(host: &Host, network: &Network) -> PathBuf {
    host.exec_root.join("networks").join(&network.id)
}

/// Writes who is on a network for the name servers on it; the default network has none.
fn publish_names(host: &Host, networks: &Networks<'_>, network: &Network) -> Result<()> {
    if network.is_default() {
        return Ok(());
    }
    let list = networks
        .store
        .read(|view| registry::endpoints_on(view, &network.id))?;
    names::write(&names_file(host, network), &list)
}

/// Forgets the places whose monitor died without giving them back, their rules, flows and names;
/// gives the places that are left.
///
/// The caller holds the network lock.
///
/// # Errors
/// The database failed; there is no nft.
pub fn sweep(host: &Host, networks: &Networks<'_>) -> Result<Vec<Endpoint>> {
    let (kept, lost): (Vec<_>, Vec<_>) = networks
        .endpoints()?
        .into_iter()
        .partition(Endpoint::is_kept);
    if lost.is_empty() {
        return Ok(kept);
    }
    networks.store.write(|change| -> store::Result<()> {
        for endpoint in &lost {
            registry::remove_endpoints(change, &endpoint.container)?;
        }
        Ok(())
    })?;
    firewall::sync(host, networks)?;
    lost.iter().for_each(conntrack::forget);
    let had = |network: &&Network| lost.iter().any(|place| place.network == network.id);
    for network in networks.list()?.iter().filter(had) {
        publish_names(host, networks, network)?;
    }
    Ok(kept)
}

/// Forgets places that nobody keeps.
///
/// # Errors
/// As [`sweep`].
pub fn clean(host: &Host, networks: &Networks<'_>) -> Result<()> {
    let _lock = registry::lock(host)?;
    sweep(host, networks).map(drop)
}

/// Gives the container's places back; a container that has none is no error.
///
/// # Errors
/// The database failed; there is no nft.
pub fn down(host: &Host, id: &str) -> Result<()> {
    let store = Store::open(&host.data_root)?;
    give_back(host, &Networks { store: &store }, id)
}

fn give_back(host: &Host, networks: &Networks<'_>, id: &str) -> Result<()> {
    let places = networks.of_container(id)?;
    if places.is_empty() {
        return Ok(());
    }
    let _lock = registry::lock(host)?;
    let forget = |change: &rusqlite::Transaction<'_>| -> store::Result<()> {
        registry::remove_endpoints(change, id)
    };
    networks.store.write(forget)?;
    if places.iter().any(|place| !place.ports.is_empty()) {
        firewall::sync(host, networks)?;
        places.iter().for_each(conntrack::forget);
    }
    let all = networks.list()?;
    let on = |network: &&Network| places.iter().any(|place| place.network == network.id);
    for network in all.iter().filter(on) {
        publish_names(host, networks, network)?;
    }
    Ok(())
}
