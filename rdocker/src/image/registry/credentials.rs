//! Who we are: `config.json` of the Docker command line, and its credential helpers.
//!
//! Secrets never enter an error, a `Debug` line or the environment of another program.
//!
//! Source: docs.docker.com, "docker login", "Credential stores".

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::super::reference::DEFAULT_DOMAIN;
use super::{Error, Result};

/// docker.io's name in `config.json`.
pub const DOCKER_IO_KEY: &str = "https://index.docker.io/v1/";
/// The user name that marks an identity token in a helper.
const TOKEN_USER: &str = "<token>";
/// What a helper says about a registry that it does not know.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The largest answer of a helper, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// A user's secret for one registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// Who.
        user: String,
        /// The secret.
        password: String,
    },
    /// A token that is exchanged for others.
    Identity {
        /// Who, if that is known.
        user: String,
        /// The secret.
        token: String,
    },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Where credentials come from.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// Nobody is asked.
    #[default]
    Anonymous,
    /// This one, for whatever registry is used: a caller of the API sent it along.
    Given(Credential),
    /// `config.json` and the helpers that it names.
    File(PathBuf),
}

impl Credentials {
    /// `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    pub fn default_file() -> Option<PathBuf> {
        let var = |name| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let dir = var("DOCKER_CONFIG").or_else(|| var("HOME").map(|home| home.join(".docker")))?;
        Some(dir.join("config.json"))
    }

    /// The credential for a registry, by its domain in references.
    ///
    /// # Errors
    /// [`Error::Credentials`] if the file is damaged or a helper that it names fails: asking on
    /// as nobody would tell a wrong story.
    pub fn get(&self, domain: &str) -> Result<Option<Credential>> {
        match self {
            Credentials::Anonymous => Ok(None),
            Credentials::Given(credential) => Ok(Some(credential.clone())),
            Credentials::File(path) => {
                let config = read(path)?;
                let Some(helper) = helper_for(&config, domain) else {
                    return from_auths(&config, domain);
                };
                let answer = run_helper(&helper, "get", key(domain).as_bytes())?;
                answer.map(|answer| parse_answer(&answer)).transpose()
            }
        }
    }

    /// Keeps a credential for a registry, with the helper or in the file (mode 0600).
    pub fn store(&self, domain: &str, credential: &Credential) -> Result<()> {
        let Credentials::File(path) = self else {
            return Ok(());
        };
        let mut config = read(path)?;
        if let Some(helper) = helper_for(&config, domain) {
            let (user, secret) = match credential {
                Credential::Password { user, password } => (user.as_str(), password),
                Credential::Identity { token, .. } => (TOKEN_USER, token),
            };
            let body =
                serde_json::json!({"ServerURL": key(domain), "Username": user, "Secret": secret});
            return run_helper(&helper, "store", body.to_string().as_bytes()).map(drop);
        }
        let entry = match credential {
            Credential::Password { user, password } => {
                serde_json::json!({"auth": STANDARD.encode(format!("{user}:{password}"))})
            }
            Credential::Identity { user, token } => {
                serde_json::json!({"auth": STANDARD.encode(format!("{user}:")), "identitytoken": token})
            }
        };
        let auths = config
            .entry("auths")
            .or_insert_with(|| Value::Object(Map::new()));
        let Some(auths) = auths.as_object_mut() else {
            return Err(failed(format!(
                "{}: \"auths\" is not an object",
                path.display()
            )));
        };
        auths.insert(key(domain).to_owned(), entry);
        write(path, &config)
    }

    /// The file that a stored credential can be read in, if no helper keeps it.
    pub fn plain_file(&self, domain: &str) -> Option<&Path> {
        let Credentials::File(path) = self else {
            return None;
        };
        let config = read(path).ok()?;
        helper_for(&config, domain).is_none().then_some(path)
    }

    /// Forgets the credential for a registry; answers whether there was one.
    pub fn erase(&self, domain: &str) -> Result<bool> {
        let Credentials::File(path) = self else {
            return Ok(false);
        };
        let mut config = read(path)?;
        if let Some(helper) = helper_for(&config, domain) {
            let known = run_helper(&helper, "get", key(domain).as_bytes())?.is_some();
            run_helper(&helper, "erase", key(domain).as_bytes())?;
            return Ok(known);
        }
        let auths = config.get_mut("auths").and_then(Value::as_object_mut);
        let removed = auths.is_some_and(|auths| auths.remove(key(domain)).is_some());
        if removed {
            write(path, &config)?;
        }
        Ok(removed)
    }
}

/// The name of a registry in `config.json`.
pub fn key(domain: &str) -> &str {
    if domain == DEFAULT_DOMAIN {
        DOCKER_IO_KEY
    } else {
        domain
    }
}

fn failed(why: impl Into<String>) -> Error {
    Error::Credentials { why: why.into() }
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(failed(format!("cannot read {}: {error}", path.display()))),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    // The parser's message could quote a secret, so only its place is told.
    serde_json::from_slice(&bytes).map_err(|error| {
        failed(format!(
            "{}: not JSON, line {} column {}",
            path.display(),
            error.line(),
            error.column()
        ))
    })
}

fn write(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let at = |error: io::Error| failed(format!("cannot write {}: {error}", path.display()));
    // The file may be a link to where the user really keeps it.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
        fs::create_dir_all(dir).map_err(at)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(at)?;
    }
    let mut bytes = serde_json::to_vec_pretty(config).map_err(|error| at(error.into()))?;
    bytes.push(b'\n');
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}.new", std::process::id()));
    let options = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .clone();
    let mut file = options.open(&new).map_err(at)?;
    file.write_all(&bytes).map_err(at)?;
    fs::rename(&new, path).map_err(at)
}

/// The helper that a registry's credential is kept by: its own, or the one for all.
fn helper_for(config: &Map<String, Value>, domain: &str) -> Option<String> {
    let own = config
        .get("credHelpers")
        .and_then(|helpers| helpers.get(key(domain)));
    let name = own.or_else(|| config.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The entry of `auths`: written as the domain, or as one of the URLs of older tools.
fn from_auths(config: &Map<String, Value>, domain: &str) -> Result<Option<Credential>> {
    let Some(auths) = config.get("auths").and_then(Value::as_object) else {
        return Ok(None);
    };
    let host = |name: &str| {
        let rest = name.split_once("://").map_or(name, |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest).to_owned()
    };
    let exact = auths.get(key(domain));
    let entry = exact.or_else(|| {
        let same = |name: &&String| domain != DEFAULT_DOMAIN && host(name) == domain;
        auths.keys().find(same).and_then(|name| auths.get(name))
    });
    entry.map_or(Ok(None), |entry| from_entry(entry, domain))
}

fn from_entry(entry: &Value, domain: &str) -> Result<Option<Credential>> {
    let text = |name: &str| {
        entry
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (mut user, mut password) = (text("username"), text("password"));
    let auth = text("auth");
    if !auth.is_empty() {
        let malformed = || {
            failed(format!(
                "the entry of {domain} in \"auths\" is not base64 of user:password"
            ))
        };
        let bytes = STANDARD.decode(auth.trim()).map_err(|_| malformed())?;
        let pair = String::from_utf8(bytes).map_err(|_| malformed())?;
        let (name, secret) = pair.split_once(':').ok_or_else(malformed)?;
        (user, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
    }
    let token = text("identitytoken");
    if !token.is_empty() {
        return Ok(Some(Credential::Identity { user, token }));
    }
    Ok((!user.is_empty() || !password.is_empty())
        .then_some(Credential::Password { user, password }))
}

fn parse_answer(answer: &[u8]) -> Result<Credential> {
    let fields: BTreeMap<String, Value> = serde_json::from_slice(answer)
        .map_err(|_| failed("the credential helper's answer is not JSON"))?;
    let text = |name: &str| {
        fields
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (user, secret) = (text("Username"), text("Secret"));
    Ok(if user == TOKEN_USER {
        Credential::Identity {
            user: String::new(),
            token: secret,
        }
    } else {
        Credential::Password {
            user,
            password: secret,
        }
    })
}

/// Runs `docker-credential-NAME VERB`; `None` if it does not know the registry.
fn run_helper(name: &str, verb: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
    let program = find_helper(name)?;
    let at = |error: io::Error| failed(format!("{}: {error}", program.display()));
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(at)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
            // It may know the answer without reading the question.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(at(error)),
            _ => {}
        }
    }
    let out = child.wait_with_output().map_err(at)?;
    let said =
        String::from_utf8_lossy(&out.stdout[..out.stdout.len().min(ANSWER_MAX)]).into_owned();
    if out.status.success() {
        return Ok(Some(said.into_bytes()));
    }
    if said.contains(NOT_FOUND) {
        return Ok(None);
    }
    // What a failing helper prints is not shown: it may be the secret.
    Err(failed(format!(
        "{} {verb} failed ({})",
        program.display(),
        out.status
    )))
}

/// The helper's absolute path; a name is never a path, and PATH counts only where it is absolute.
fn find_helper(name: &str) -> Result<PathBuf> {
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        return Err(failed(format!(
            "{name:?} is no name of a credential helper"
        )));
    }
    let file = format!("docker-credential-{name}");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    let found = dirs.find_map(|dir| {
        let program = dir.join(&file);
        let meta = fs::metadata(&program).ok()?;
        (meta.is_file() && meta.permissions().mode() & 0o111 != 0).then_some(program)
    });
    found.ok_or_else(|| {
        failed(format!(
            "{file} is not on PATH; install it, or remove it from config.json"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, Credentials) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, text).unwrap();
        (dir, Credentials::File(path))
    }

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password {
            user: user.into(),
            password: password.into(),
        }
    }

    #[test]
    fn entries_are_found_under_every_old_spelling() {
        let auth = STANDARD.encode("joe:se:cret");
        for (name, domain, found) in [
            ("r.io:5000", "r.io:5000", true),
            ("https://r.io/v1/", "r.io", true),
            ("http://r.io", "r.io", true),
            (DOCKER_IO_KEY, "docker.io", true),
            ("docker.io", "docker.io", false),
            ("r.io", "r.io:5000", false),
            ("https://r.io.evil/", "r.io", false),
        ] {
            let (_dir, file) = file(&format!(r#"{{"auths":{{"{name}":{{"auth":"{auth}"}}}}}}"#));
            let want = found.then(|| password("joe", "se:cret"));
            assert_eq!(file.get(domain).unwrap(), want, "{name}");
        }
    }

    #[test]
    fn a_stored_credential_is_private_and_leaves_the_rest_alone() {
        let (dir, file) = file(r#"{"detachKeys":"ctrl-x","auths":{"other":{"auth":"YTpi"}}}"#);
        file.store("r.io", &password("joe", "secret")).unwrap();
        let path = dir.path().join("config.json");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("ctrl-x") && text.contains("other") && !text.contains("secret"));
        assert_eq!(file.get("r.io").unwrap(), Some(password("joe", "secret")));
        assert!(file.erase("r.io").unwrap());
        assert!(!file.erase("r.io").unwrap());
        assert_eq!(file.get("r.io").unwrap(), None);
        assert_eq!(file.get("other").unwrap(), Some(password("a", "b")));
    }

    #[test]
    fn a_missing_or_strange_helper_is_an_error_and_not_anonymity() {
        for name in ["nosuch-rimages", "../../tmp/x", "a/b"] {
            let (_dir, file) = file(&format!(r#"{{"credsStore":"{name}"}}"#));
            assert!(file.get("r.io").is_err(), "{name}");
        }
    }

    #[test]
    fn secrets_are_not_in_errors_or_debug_lines() {
        let (_dir, file) = file(r#"{"auths":{"r.io":{"auth":"seeded-secret"}}"#);
        let error = file.get("r.io").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("seeded"), "{error}");
        assert!(!format!("{:?}", password("joe", "seeded")).contains("seeded"));
    }

    #[test]
    fn no_file_means_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = Credentials::File(dir.path().join("none/config.json"));
        assert_eq!(file.get("r.io").unwrap(), None);
        file.store(
            "r.io",
            &Credential::Identity {
                user: "u".into(),
                token: "t".into(),
            },
        )
        .unwrap();
        let back = file.get("r.io").unwrap();
        assert_eq!(
            back,
            Some(Credential::Identity {
                user: "u".into(),
                token: "t".into()
            })
        );
    }
}
