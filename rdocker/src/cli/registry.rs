//! Verbs that talk to registries: `login logout search`.

use std::io::Read;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::image::registry::Credential;
use crate::image::registry::login::login;
use crate::image::registry::search::search;
use crate::ui::Ui;
use crate::ui::format::{ellipsis, printable};
use crate::ui::list::Columns;

use super::filter::Filters;
use super::transfer::registry_options;

const DOCKER_IO: &str = "docker.io";

/// `docker.io` for what stands for Docker Hub, else the host without scheme and path.
fn domain(server: Option<&str>) -> String {
    let Some(server) = server else {
        return DOCKER_IO.to_owned();
    };
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    match host {
        "index.docker.io" | "registry-1.docker.io" | "" => DOCKER_IO.to_owned(),
        host => host.to_owned(),
    }
}

/// Authenticate to a registry
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker login [OPTIONS] [SERVER]")]
pub struct Login {
    /// Password or Personal Access Token (PAT)
    #[arg(short, long)]
    password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Username
    #[arg(short, long)]
    username: Option<String>,
    /// Email (no longer used)
    #[arg(short, long, hide = true)]
    email: Option<String>,
    #[arg(hide = true)]
    server: Option<String>,
}

impl Login {
    /// Asks the registry and keeps the credential.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        if self.email.is_some() {
            ui.warn("--email is no longer used and is ignored")?;
        }
        let user = self.username.clone().ok_or_else(|| Error::Hinted {
            message: "Must provide --username".to_owned(),
            hint: "rdocker login -u NAME --password-stdin [SERVER]".to_owned(),
        })?;
        let password = self.secret(ui)?;
        let credential = Credential::Password { user, password };
        let options = registry_options(host);
        login(&domain(self.server.as_deref()), &credential, &options)
            .map_err(crate::image::Error::from)?;
        ui.line("Login Succeeded")
    }

    fn secret(&self, ui: &mut Ui) -> Result<String> {
        if let Some(password) = &self.password {
            if self.password_stdin {
                return Err(Error::Usage(
                    "conflicting options: cannot specify both --password and --password-stdin"
                        .to_owned(),
                ));
            }
            ui.warn("Using --password via the CLI is insecure. Use --password-stdin.")?;
            return Ok(password.clone());
        }
        if !self.password_stdin {
            return Err(Error::Hinted {
                message: "Cannot perform an interactive login from a non TTY device".to_owned(),
                hint: "give it with --password-stdin".to_owned(),
            });
        }
        let mut text = String::new();
        std::io::stdin()
            .take(64 << 10)
            .read_to_string(&mut text)
            .map_err(|errno| Error::host("read the password from", "stdin".as_ref(), errno))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// Log out from a registry
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker logout [SERVER]")]
pub struct Logout {
    #[arg(hide = true)]
    server: Option<String>,
}

impl Logout {
    /// Forgets the credential.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let domain = domain(self.server.as_deref());
        registry_options(host)
            .credentials
            .erase(&domain)
            .map_err(crate::image::Error::from)?;
        ui.line(format_args!("Removing login credentials for {domain}"))
    }
}

const COLUMNS: Columns = Columns {
    template: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    headers: &[
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
    ],
};

/// Search Docker Hub for images
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker search [OPTIONS] TERM")]
pub struct Search {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Max number of search results
    #[arg(long, default_value_t = 25)]
    limit: usize,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    #[arg(hide = true)]
    term: String,
}

impl Search {
    /// Lists what the registry finds.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let filters = Filters::parse(&self.filter, &["stars", "is-official", "is-automated"])?;
        if !(1..=100).contains(&self.limit) {
            return Err(Error::Invalid(format!(
                "Limit {} is outside the range of [1, 100]",
                self.limit
            )));
        }
        let found = search(&self.term, self.limit, &registry_options(host))
            .map_err(crate::image::Error::from)?;
        let truth = |wanted: &str| matches!(wanted, "true" | "1");
        let rows: Vec<Value> = found
            .iter()
            .filter(|one| {
                filters.any("stars", |n| {
                    n.parse::<u64>().is_ok_and(|n| one.star_count >= n)
                }) && filters.any("is-official", |wanted| truth(wanted) == one.is_official)
                    && filters.any("is-automated", |wanted| truth(wanted) == one.is_automated)
            })
            .map(|one| {
                let text = printable(&one.description.replace('\n', " "));
                json!({
                    "Name": printable(&one.name),
                    "Description": if self.no_trunc { text } else { ellipsis(&text, 45) },
                    "StarCount": one.star_count.to_string(),
                    "IsOfficial": if one.is_official { "[OK]" } else { "" },
                    "IsAutomated": if one.is_automated { "[OK]" } else { "" },
                })
            })
            .collect();
        COLUMNS.show(ui, self.format.as_deref(), &rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_its_host() {
        let cases = [
            (None, "docker.io"),
            (Some("https://index.docker.io/v1/"), "docker.io"),
            (Some("localhost:5000"), "localhost:5000"),
            (Some("https://r.example/v2/"), "r.example"),
        ];
        for (server, want) in cases {
            assert_eq!(domain(server), want, "{server:?}");
        }
    }
}
