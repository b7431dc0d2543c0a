//! `login`: asking a registry whether it knows us.

use super::credentials::Credential;
use super::session::{Access, Session};
use super::{Credentials, Error, RegistryOptions, Result};

/// Checks a credential with the registry and keeps it.
///
/// # Errors
/// [`Error::Refused`] with Docker's words if the registry does not know the user.
pub fn login(domain: &str, credential: &Credential, options: &RegistryOptions) -> Result<()> {
    let given = RegistryOptions {
        credentials: Credentials::Given(credential.clone()),
        ..options.clone()
    };
    // A mirror knows nothing of docker.io's users.
    let sessions = Session::open_all(domain, &given, Access::Push)?;
    let session = sessions.first().ok_or_else(|| Error::Protocol {
        registry: domain.to_owned(),
        why: "it does not answer".to_owned(),
    })?;
    let url = session.url("/v2/");
    let answer = session.get("GET", &url, &[], "")?;
    if answer.status != 200 {
        return Err(match answer.error("Get") {
            Error::Refused {
                method,
                url,
                status: 401,
                ..
            } => Error::Refused {
                method,
                url,
                status: 401,
                why: "unauthorized: incorrect username or password".to_owned(),
            },
            other => other,
        });
    }
    options.credentials.store(domain, credential)
}
