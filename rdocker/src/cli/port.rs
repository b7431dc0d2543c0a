//! `rdocker port`

use crate::container::{Container, Containers};
use crate::error::{Error, Result};
use crate::host::Host;
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
        let bindings = &container.record.host_config.port_bindings;
        let Some(wanted) = self.port else {
            for (port, list) in bindings {
                for binding in list {
                    ui.line(format_args!("{port} -> {}", address(binding)))?;
                }
            }
            return Ok(());
        };
        let wanted = if wanted.contains('/') {
            wanted
        } else {
            format!("{wanted}/tcp")
        };
        let list = bindings.get(&wanted).ok_or_else(|| {
            Error::Invalid(format!(
                "no public port '{wanted}' published for {}",
                self.container
            ))
        })?;
        for binding in list {
            ui.line(address(binding))?;
        }
        Ok(())
    }
}

fn address(binding: &crate::container::api::PortBinding) -> String {
    let ip = if binding.host_ip.is_empty() {
        "0.0.0.0"
    } else {
        &binding.host_ip
    };
    match ip.contains(':') {
        true => format!("[{ip}]:{}", binding.host_port),
        false => format!("{ip}:{}", binding.host_port),
    }
}

/// The PORTS column of `ps`: published ports of a running container, then exposed ones.
pub fn summary(container: &Container) -> String {
    if !container.state.status.is_alive() {
        return String::new();
    }
    let bindings = &container.record.host_config.port_bindings;
    let published = bindings.iter().flat_map(|(port, list)| {
        list.iter()
            .map(move |binding| format!("{}->{port}", address(binding)))
    });
    let exposed = container.record.config.exposed_ports.keys();
    let exposed = exposed
        .filter(|port| !bindings.contains_key(*port))
        .cloned();
    published.chain(exposed).collect::<Vec<_>>().join(", ")
}
