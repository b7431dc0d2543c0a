//! Networks and a container's places in them as `docker inspect` shows them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::cli::port::private;
use crate::container::{Container, network};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::network::registry::{Networks, lock};
use crate::network::sandbox::Sandbox;
use crate::network::{Address, Endpoint, Network, Wish, bridge};
use crate::store::Store;

/// A network as `docker network inspect` shows it; `None` if there is none of this name.
///
/// # Errors
/// The database failed.
pub fn describe(host: &Host, name: &str) -> Result<Option<Value>> {
    let store = Store::open(&host.data_root)?;
    let networks = Networks { store: &store };
    let network = match networks.find(name) {
        Ok(network) => network,
        Err(Error::Conflict(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let network = match network.is_default() && network.pools.is_empty() {
        true => {
            let _lock = lock(host)?;
            bridge::settle_default(host, &networks, network)?
        }
        false => network,
    };
    let mut places = networks.endpoints()?;
    places.retain(|place| place.network == network.id && place.is_kept());
    Ok(Some(whole(&network, &places)))
}

fn whole(network: &Network, places: &[Endpoint]) -> Value {
    let config: Vec<Value> = network.pools.iter().map(pool).collect();
    let address = |address: &Option<Address>| {
        address
            .as_ref()
            .map(|a| a.net.to_string())
            .unwrap_or_default()
    };
    let containers: Map<String, Value> = places
        .iter()
        .map(|place| {
            let value = json!({
                "Name": place.names.first(), "EndpointID": place.id, "MacAddress": place.mac,
                "IPv4Address": address(&place.ipv4), "IPv6Address": address(&place.ipv6),
            });
            (place.container.clone(), value)
        })
        .collect();
    let mut options = network.options.clone();
    if network.is_default() && !network.bridge.is_empty() {
        let name = "com.docker.network.bridge.name".to_owned();
        options.insert(name, network.bridge.clone());
    }
    json!({
        "Name": network.name, "Id": network.id, "Created": network.created.to_string(),
        "Scope": "local", "Driver": network.driver, "EnableIPv4": true,
        "EnableIPv6": network.ipv6,
        "IPAM": {"Driver": "default", "Options": {}, "Config": config},
        "Internal": network.internal, "Attachable": network.attachable, "Ingress": false,
        "ConfigFrom": {"Network": ""}, "ConfigOnly": false, "Containers": containers,
        "Options": options, "Labels": network.labels,
    })
}

fn pool(pool: &crate::network::Pool) -> Value {
    let mut value = json!({"Subnet": pool.subnet.to_string()});
    if let Some(range) = pool.range {
        value["IPRange"] = range.to_string().into();
    }
    value["Gateway"] = pool.gateway.to_string().into();
    if !pool.reserved.is_empty() {
        value["AuxiliaryAddresses"] = json!(pool.reserved);
    }
    value
}

/// Published ports as Docker maps them: `80/tcp` to host addresses, `null` if only exposed.
fn ports(container: &Container, places: &[Endpoint]) -> Map<String, Value> {
    let mut ports: BTreeMap<String, Value> = BTreeMap::new();
    if !container.state.status.is_alive() {
        return Map::new();
    }
    for port in container.record.config.exposed_ports.keys() {
        ports.insert(port.clone(), Value::Null);
    }
    for port in places.iter().flat_map(|place| &place.ports) {
        let binding = json!({
            "HostIp": port.host_ip.to_string(), "HostPort": port.host_port.to_string(),
        });
        match ports.entry(private(port)).or_insert(Value::Null) {
            Value::Array(list) => list.push(binding),
            slot => *slot = json!([binding]),
        }
    }
    ports.into_iter().collect()
}

fn place_of(wish: &Wish, place: &Endpoint) -> Value {
    let address = |address: &Option<Address>| {
        address
            .as_ref()
            .map_or((String::new(), 0, String::new()), |address| {
                let gateway = address.gateway.map(|gateway| gateway.to_string());
                let (ip, prefix) = (address.net.addr(), address.net.prefix_len());
                (ip.to_string(), prefix, gateway.unwrap_or_default())
            })
    };
    let (v4, v6) = (address(&place.ipv4), address(&place.ipv6));
    let config = match (wish.ipv4, wish.ipv6) {
        (None, None) => json!({}),
        (v4, v6) => {
            let mut config = Map::new();
            v4.map(|v4| config.insert("IPv4Address".to_owned(), v4.to_string().into()));
            v6.map(|v6| config.insert("IPv6Address".to_owned(), v6.to_string().into()));
            Value::Object(config)
        }
    };
    let or_null = |list: &[String]| match list.is_empty() {
        true => Value::Null,
        false => json!(list),
    };
    let names = if place.name == crate::network::DEFAULT {
        Value::Null
    } else {
        or_null(&place.names)
    };
    json!({
        "IPAMConfig": if config == json!({}) { Value::Null } else { config },
        "Links": or_null(&wish.links), "Aliases": or_null(&wish.aliases),
        "MacAddress": place.mac, "GwPriority": wish.gw_priority,
        "DriverOpts": if wish.driver_opts.is_empty() { Value::Null } else { json!(wish.driver_opts) },
        "NetworkID": place.network, "EndpointID": place.id, "Gateway": v4.2,
        "IPAddress": v4.0, "IPPrefixLen": v4.1, "IPv6Gateway": v6.2,
        "GlobalIPv6Address": v6.0, "GlobalIPv6PrefixLen": v6.1, "DNSNames": names,
    })
}

/// `NetworkSettings` of a container.
pub fn settings(container: &Container, places: &[Endpoint]) -> Value {
    let record = &container.record;
    let mode = &record.host_config.network_mode;
    let mut networks = Map::new();
    for wish in &record.networks {
        let place = places.iter().find(|place| place.name == wish.network);
        let value = place_of(wish, &place.cloned().unwrap_or_default());
        networks.insert(wish.network.clone(), value);
    }
    if matches!(mode.as_str(), "host" | "none") {
        let value = place_of(&Wish::default(), &Endpoint::default());
        networks.insert(mode.clone(), value);
    }
    let sandbox = match container.state.pid {
        0 => String::new(),
        _ if network::is_bridged(mode) => {
            Sandbox::path(&container.places.run).display().to_string()
        }
        pid => format!("/proc/{pid}/ns/net"),
    };
    let sandbox_id = if sandbox.is_empty() { "" } else { &record.id };
    // The fields beside `Networks` are those of the default bridge, from before there were others.
    let default = networks.get(crate::network::DEFAULT);
    let default = default
        .cloned()
        .unwrap_or_else(|| place_of(&Wish::default(), &Endpoint::default()));
    json!({
        "Bridge": "", "SandboxID": sandbox_id, "SandboxKey": sandbox,
        "Ports": ports(container, places),
        "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null, "SecondaryIPv6Addresses": null,
        "EndpointID": default["EndpointID"], "Gateway": default["Gateway"],
        "GlobalIPv6Address": default["GlobalIPv6Address"],
        "GlobalIPv6PrefixLen": default["GlobalIPv6PrefixLen"],
        "IPAddress": default["IPAddress"], "IPPrefixLen": default["IPPrefixLen"],
        "IPv6Gateway": default["IPv6Gateway"], "MacAddress": default["MacAddress"],
        "Networks": networks,
    })
}
