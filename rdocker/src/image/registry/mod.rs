//! Registries: what they are called, how they are spoken to, and who is told which secret.
//!
//! Source: distribution-spec; docs.docker.com, "Token authentication specification".

pub mod challenge;
pub mod credentials;
pub mod endpoint;
pub mod http;
pub mod login;
pub mod search;
pub mod session;
pub mod tags;

use std::path::PathBuf;

pub use credentials::{Credential, Credentials};
pub use session::{Access, Session};

/// What the user configured about registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Mirrors of docker.io, as URLs, tried in this order before docker.io itself.
    pub mirrors: Vec<String>,
    /// Hosts (`host` or `host:port`) and networks (`10.0.0.0/8`) that may be spoken to without
    /// a verified certificate, or in plain HTTP. Loopback addresses always may.
    pub insecure: Vec<String>,
    /// Directories like `/etc/docker/certs.d`, the first that has the host is used.
    pub certs_dirs: Vec<PathBuf>,
    /// Who we are, by registry.
    pub credentials: Credentials,
}

/// Why a registry could not be used; the words are Docker's where scripts match them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry did not answer, or not in HTTP.
    #[error("{method} \"{url}\": {why}")]
    Unreachable {
        /// GET, PUT…
        method: &'static str,
        /// Where, without query.
        url: String,
        /// What happened.
        why: String,
    },
    /// The registry answered with an error.
    #[error("{method} \"{url}\": {why}")]
    Refused {
        /// GET, PUT…
        method: &'static str,
        /// Where, without query.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the registry says.
        why: String,
    },
    /// Neither the name nor the right to see it.
    #[error(
        "pull access denied for {name}, repository does not exist or may require 'docker login': {why}"
    )]
    PullDenied {
        /// The repository.
        name: String,
        /// What the registry says.
        why: String,
    },
    /// No right to write.
    #[error("{why}")]
    PushDenied {
        /// What the registry says: `denied: requested access to the resource is denied`.
        why: String,
    },
    /// The repository has no such tag or digest.
    #[error("manifest for {name} not found: manifest unknown: manifest unknown")]
    NotFound {
        /// The reference.
        name: String,
    },
    /// A push of a name that no local image has.
    #[error("An image does not exist locally with the tag: {name}")]
    NotLocal {
        /// The repository.
        name: String,
    },
    /// The registry broke a rule of the protocol, or one that protects us.
    #[error("registry {registry}: {why}")]
    Protocol {
        /// Its host.
        registry: String,
        /// The rule.
        why: String,
    },
    /// A blob's bytes are not those that the manifest names.
    #[error("filesystem layer verification failed for digest {digest}: {why}")]
    Verification {
        /// The digest.
        digest: String,
        /// What is wrong.
        why: String,
    },
    /// A credential helper or the file of credentials failed.
    #[error("error getting credentials: {why}")]
    Credentials {
        /// What failed.
        why: String,
    },
    /// A file of certs.d cannot be used.
    #[error("certificates in {}: {why}", path.display())]
    Certificates {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// What the user can do about it, if there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::PullDenied { .. } => Some("check the name, or log in with 'rdocker login'"),
            Error::PushDenied { .. } => Some("log in with 'rdocker login' as a user who may push"),
            Error::NotLocal { .. } => Some("'rdocker images' lists what there is to push"),
            Error::Verification { .. } => Some("the registry or a proxy damages blobs; try again"),
            _ => None,
        }
    }

    /// The HTTP status, if the registry answered with an error.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Results of work with registries.
pub type Result<T> = std::result::Result<T, Error>;
