//! `rdocker port`

use std::net::{IpAddr, SocketAddr};

use crate::container::{Container, Containers};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::network::registry::Networks;
use crate::network::{Endpoint, Protocol, Published};
use crate::store::Store;
use crate::ui::Ui;

/// List port mappings or a specific mapping for the container
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker port CONTAINER [PRIVATE_PORT[/PROTO]]")]
pub struct Port {
    #[arg(hide = true)]
    container: String,
    #[arg(hide = true)]
    port: Option<String>,
}

impl Port {
    /// Lists what is published.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let container = Containers::new(host).find(&self.container)?;
        let store = Store::open(&host.data_root)?;
        let places = Networks { store: &store }.of_container(&container.record.id)?;
        let mut ports: Vec<&Published> = places.iter().flat_map(|place| &place.ports).collect();
        ports.sort_by_key(|port| {
            (
                port.container_port,
                port.protocol,
                port.host_port,
                port.host_ip,
            )
        });
        let Some(wanted) = self.port else {
            for port in ports {
                ui.line(format_args!("{} -> {}", private(port), address(port)))?;
            }
            return Ok(());
        };
        let full = match wanted.contains('/') {
            true => wanted.clone(),
            false => format!("{wanted}/tcp"),
        };
        ports.retain(|port| private(port) == full);
        if ports.is_empty() {
            let container = &self.container;
            ui.error_line(format_args!(
                "Error: No public port '{wanted}' published for {container}"
            ))?;
            return Err(Error::Reported);
        }
        ports
            .into_iter()
            .try_for_each(|port| ui.line(address(port)))
    }
}

/// `80/tcp`
pub fn private(port: &Published) -> String {
    format!("{}/{}", port.container_port, port.protocol.word())
}

fn address(port: &Published) -> SocketAddr {
    SocketAddr::new(port.host_ip, port.host_port)
}

/// Neighbouring ports of one address, as docker draws them together.
struct Run {
    host_ip: Option<IpAddr>,
    host: u16,
    first: u16,
    last: u16,
    protocol: Protocol,
}

impl Run {
    fn takes(&mut self, other: &Self) -> bool {
        let follows = self.host_ip == other.host_ip
            && self.protocol == other.protocol
            && self.last.checked_add(1) == Some(other.first)
            && (self.host_ip.is_none() || self.host + (self.last - self.first) + 1 == other.host);
        if follows {
            self.last = other.last;
        }
        follows
    }

    fn text(&self) -> String {
        let range = |first: u16| match self.last - self.first {
            0 => first.to_string(),
            more => format!("{first}-{}", first + more),
        };
        let inside = format!("{}/{}", range(self.first), self.protocol.word());
        match self.host_ip {
            None => inside,
            Some(IpAddr::V4(ip)) => format!("{ip}:{}->{inside}", range(self.host)),
            Some(IpAddr::V6(ip)) => format!("[{ip}]:{}->{inside}", range(self.host)),
        }
    }
}

/// The PORTS column of `ps`: published ports, then those that are only exposed.
///
/// Source: docker/cli, cli/command/formatter/container.go, `DisplayablePorts`.
pub fn summary(container: &Container, places: &[Endpoint]) -> String {
    if !container.state.status.is_alive() {
        return String::new();
    }
    let published = places.iter().flat_map(|place| &place.ports);
    let mut runs: Vec<Run> = published
        .map(|port| Run {
            host_ip: Some(port.host_ip),
            host: port.host_port,
            first: port.container_port,
            last: port.container_port,
            protocol: port.protocol,
        })
        .collect();
    let known = |number: u16, protocol: Protocol| {
        let mut ports = places.iter().flat_map(|place| &place.ports);
        ports.any(|port| port.container_port == number && port.protocol == protocol)
    };
    let exposed = container.record.config.exposed_ports.keys();
    let exposed = exposed.filter_map(|port| {
        let (number, protocol) = port.split_once('/')?;
        Some((number.parse().ok()?, Protocol::parse(protocol)?))
    });
    let only_exposed = exposed.filter(|(number, protocol)| !known(*number, *protocol));
    runs.extend(only_exposed.map(|(number, protocol)| Run {
        host_ip: None,
        host: 0,
        first: number,
        last: number,
        protocol,
    }));
    runs.sort_by_key(|run| {
        (
            run.host_ip.is_none(),
            run.host_ip,
            run.protocol,
            run.first,
            run.host,
        )
    });
    let mut merged: Vec<Run> = Vec::new();
    for run in runs {
        if !merged.last_mut().is_some_and(|last| last.takes(&run)) {
            merged.push(run);
        }
    }
    let texts: Vec<String> = merged.iter().map(Run::text).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::{Record, State, Status};
    use crate::image::config::Empty;

    #[test]
    fn neighbouring_ports_are_drawn_together() {
        let port = |ip: &str, host_port, container_port| Published {
            container_port,
            protocol: Protocol::Tcp,
            host_ip: ip.parse().unwrap(),
            host_port,
        };
        let place = Endpoint {
            ports: vec![
                port("0.0.0.0", 8000, 80),
                port("::", 8000, 80),
                port("0.0.0.0", 8001, 81),
                port("127.0.0.1", 9000, 90),
            ],
            ..Endpoint::default()
        };
        let mut record = Record::default();
        for exposed in ["80/tcp", "5000/udp", "5001/udp"] {
            record
                .config
                .exposed_ports
                .insert(exposed.to_owned(), Empty {});
        }
        let container = Container {
            places: crate::container::record::Places {
                dir: "/d".into(),
                run: "/r".into(),
            },
            record,
            state: State {
                status: Status::Running,
                ..State::default()
            },
        };
        assert_eq!(
            summary(&container, &[place]),
            "0.0.0.0:8000-8001->80-81/tcp, 127.0.0.1:9000->90/tcp, [::]:8000->80/tcp, 5000-5001/udp"
        );
    }
}
