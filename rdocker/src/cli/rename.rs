//! `rdocker rename`

use crate::container::Containers;
use crate::container::parse::value::container_name;
use crate::container::session::Session;
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::monitor::wire::Request;
use crate::ui::Ui;
use crate::ui::format::printable;

/// Rename a container
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker rename CONTAINER NEW_NAME")]
pub struct Rename {
    #[arg(hide = true)]
    container: String,
    #[arg(hide = true)]
    new_name: String,
}

impl Rename {
    /// Claims the new name first: a taken one changes nothing.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        self.rename(host).or_else(|error| {
            ui.tell(&error)?;
            let name = printable(&self.container);
            ui.error_line(format_args!(
                "Error: failed to rename container named {name}"
            ))?;
            Err(Error::Reported)
        })
    }

    fn rename(&self, host: &Host) -> Result<()> {
        let containers = Containers::new(host);
        let found = containers.find(&self.container)?;
        let _lock = found.lock()?;
        let mut container = containers.load(&found.record.id)?;
        let name = container_name(&self.new_name).map_err(|_| {
            Error::Invalid(format!(
                "Error when allocating new name: Invalid container name (/{}), only \
                 [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
                self.new_name
            ))
        })?;
        if name == container.record.name {
            return Err(Error::Invalid(
                "Renaming a container with the same name as its current name".to_owned(),
            ));
        }
        containers
            .claim_name(&name, &container.record.id)
            .map_err(|error| match error {
                Error::Conflict(why) => {
                    Error::Conflict(format!("Error when allocating new name: {why}"))
                }
                other => other,
            })?;
        let old = std::mem::replace(&mut container.record.name, name);
        container.save()?;
        containers.release_name(&old);
        if container.state.status.is_alive() {
            Session::connect(&container)?.request(&Request::Reload)?;
        }
        events::container(
            host,
            &container.record,
            "rename",
            &[("oldName", format!("/{old}"))],
        )
    }
}
