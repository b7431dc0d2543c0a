//! Verbs that talk to registries: `login logout search`.

use std::io::Read;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::image::registry::credentials::key;
use crate::image::registry::login::login;
use crate::image::registry::search::search;
use crate::image::registry::{Credential, RegistryOptions};
use crate::ui::format::{ellipsis, printable};
use crate::ui::list::Columns;
use crate::ui::{Ui, stdin_is_terminal};

use super::filter::Filters;
use super::transfer::registry_options;

const DOCKER_IO: &str = "docker.io";
/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

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
        let domain = domain(self.server.as_deref());
        let options = registry_options(host);
        let known = options
            .credentials
            .get(&domain)
            .map_err(crate::image::Error::from)?;
        let asks = self.username.is_none() && self.password.is_none() && !self.password_stdin;
        if asks
            && let Some(credential) = &known
            && login_again(&domain, credential, &options, ui)?
        {
            return ui.line("Login Succeeded");
        }
        let user = self.user(&domain, known.as_ref(), ui)?;
        let password = self.secret(ui)?;
        let credential = Credential::Password { user, password };
        login(&domain, &credential, &options).map_err(crate::image::Error::from)?;
        if let Some(path) = options.credentials.plain_file(&domain) {
            ui.error_line(format_args!(
                "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a \
                 credential helper to remove this warning. See\n\
                 https://docs.docker.com/go/credential-store/\n",
                path.display()
            ))?;
        }
        ui.line("Login Succeeded")
    }

    /// Who logs in: the given one, or the one who answers at the terminal.
    fn user(&self, domain: &str, known: Option<&Credential>, ui: &mut Ui) -> Result<String> {
        let given = self.username.as_deref().map_or("", str::trim);
        if !given.is_empty() {
            return Ok(given.to_owned());
        }
        if self.password_stdin {
            return Err(Error::Usage(
                "the --password-stdin option requires --username to be set".to_owned(),
            ));
        }
        require_terminal()?;
        if domain == DOCKER_IO {
            ui.line(
                "Log in with your Docker ID or email address to push and pull images from Docker \
                 Hub. If you don't have a Docker ID, head over to https://hub.docker.com/ to \
                 create one.\nA Personal Access Token (PAT) can be used instead of the password.\n",
            )?;
        }
        let before = match known {
            Some(Credential::Password { user, .. } | Credential::Identity { user, .. }) => user,
            None => "",
        };
        let answer = match before {
            "" => ui.ask("Username: ")?,
            before => ui.ask(&format!("Username ({before}): "))?,
        };
        match (answer.as_str(), before) {
            ("", "") => Err(Error::Usage("Error: Non-null Username Required".to_owned())),
            ("", before) => Ok(before.to_owned()),
            (answer, _) => Ok(answer.to_owned()),
        }
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
        let password = if self.password_stdin {
            let mut text = String::new();
            std::io::stdin()
                .take(64 << 10)
                .read_to_string(&mut text)
                .map_err(|errno| Error::host("read the password from", "stdin".as_ref(), errno))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        } else {
            require_terminal()?;
            ui.ask_secret("Password: ")?
                .ok_or(Error::Exit(INTERRUPTED))?
        };
        match password.is_empty() {
            true => Err(Error::Usage("Error: Password Required".to_owned())),
            false => Ok(password),
        }
    }
}

/// Tries a credential that is known already; whether the registry still takes it.
fn login_again(
    domain: &str,
    credential: &Credential,
    options: &RegistryOptions,
    ui: &mut Ui,
) -> Result<bool> {
    let (Credential::Password { user, .. } | Credential::Identity { user, .. }) = credential;
    ui.error_line(format_args!(
        "Authenticating with existing credentials... [Username: {user}]\n\nTo login with a \
         different account, run '{0} logout' followed by '{0} login'\n",
        ui.program.clone()
    ))?;
    match login(domain, credential, options) {
        Ok(()) => Ok(true),
        Err(error) if error.status() == Some(401) => {
            ui.error_line("Stored credentials invalid or expired")?;
            Ok(false)
        }
        Err(error) => {
            let error = Error::from(crate::image::Error::from(error));
            ui.error_line(format_args!(
                "Login did not succeed, error: {}",
                error.chain()
            ))?;
            Ok(false)
        }
    }
}

/// # Errors
/// docker's words for a question that nobody could answer.
fn require_terminal() -> Result<()> {
    if stdin_is_terminal() {
        return Ok(());
    }
    Err(Error::Usage(
        "Error: Cannot perform an interactive login from a non TTY device".to_owned(),
    ))
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
        ui.line(format_args!(
            "Removing login credentials for {}",
            key(&domain)
        ))
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
