//! `RUN --mount=…`: the grammar.
//!
//! Source: docs.docker.com, "Dockerfile reference", section "RUN --mount". Words that would reach
//! beyond the step, such as a propagation, are not part of it and are refused.

use crate::container::parse::value::bytes;

/// One mount of one `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: Kind,
    /// Where; `None` for a secret that is an environment variable alone.
    pub target: Option<String>,
    /// Writes are refused.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Files of the context, a stage or an image; writes are thrown away.
    Bind(Source),
    /// A directory that outlives the build.
    Cache(Cache),
    /// Memory, with this many bytes at most.
    Tmpfs(Option<i64>),
    /// A file that the build was given and that no layer gets.
    Secret(Secret),
    /// A socket of the user's SSH agent.
    Ssh(Secret),
}

/// Where the files of a mount come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// A stage, an image or a named context; the main context if `None`.
    pub from: Option<String>,
    /// A path in it.
    pub path: String,
}

/// A `type=cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Its name.
    pub id: String,
    /// What two steps do that want it at once.
    pub sharing: Sharing,
    /// What a new one begins with.
    pub seed: Option<Source>,
    /// Permissions of a new one.
    pub mode: u32,
    /// Owner of a new one.
    pub owner: (u32, u32),
}

/// What two steps do that want one cache at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Both use it.
    Shared,
    /// The second gets one of its own.
    Private,
    /// The second waits.
    Locked,
}

/// A `type=secret` or `type=ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name on the command line.
    pub id: String,
    /// Without it the step fails.
    pub required: bool,
    /// Permissions of the file or socket.
    pub mode: u32,
    /// Its owner.
    pub owner: (u32, u32),
    /// The variable that has the secret's text.
    pub env: Option<String>,
}

/// The fields as they are collected, before the type says which of them have a meaning.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    target: Option<String>,
    source: Option<String>,
    from: Option<String>,
    id: Option<String>,
    env: Option<String>,
    sharing: Option<Sharing>,
    size: Option<i64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    read_only: Option<bool>,
    required: Option<bool>,
}

impl Mount {
    /// Reads the value of one `--mount`, its variables expanded.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut fields = Fields::default();
        for field in text.split(',').filter(|field| !field.is_empty()) {
            fields.set(field)?;
        }
        fields.finish()
    }
}

fn boolean(name: &str, value: Option<&str>) -> Result<bool, String> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(value) => Err(format!("invalid value for {name}: {value}")),
    }
}

impl Fields {
    fn set(&mut self, field: &str) -> Result<(), String> {
        let (name, value) = match field.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (field, None),
        };
        let name = name.trim().to_ascii_lowercase();
        match name.as_str() {
            "ro" | "readonly" => return self.read_only(boolean(&name, value)?),
            "rw" | "readwrite" => return self.read_only(!boolean(&name, value)?),
            "required" => {
                self.required = Some(boolean(&name, value)?);
                return Ok(());
            }
            _ => {}
        }
        let value =
            value.ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        let number = |radix| {
            u32::from_str_radix(value, radix)
                .map_err(|_| format!("invalid value {value} for {name}"))
        };
        let text = Some(value.to_owned());
        match name.as_str() {
            "type" => self.kind = Some(value.to_ascii_lowercase()),
            "target" | "dst" | "destination" => self.target = text,
            "source" | "src" => self.source = text,
            "from" => self.from = text,
            "id" => self.id = text,
            "env" => self.env = text,
            "size" => self.size = Some(bytes(value)?),
            "mode" => self.mode = Some(number(8)? & 0o7777),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "sharing" => {
                self.sharing = Some(match value {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => return Err(format!("unsupported sharing value {value:?}")),
                });
            }
            _ => return Err(format!("unexpected key '{name}' in '{field}'")),
        }
        Ok(())
    }

    fn read_only(&mut self, read_only: bool) -> Result<(), String> {
        self.read_only = Some(read_only);
        Ok(())
    }

    /// Refuses fields that have no meaning for the type.
    fn only(&self, kind: &str, allowed: &[&str]) -> Result<(), String> {
        let given = [
            ("source", self.source.is_some()),
            ("from", self.from.is_some()),
            ("id", self.id.is_some()),
            ("env", self.env.is_some()),
            ("sharing", self.sharing.is_some()),
            ("size", self.size.is_some()),
            ("mode", self.mode.is_some()),
            ("uid", self.uid.is_some()),
            ("gid", self.gid.is_some()),
            ("required", self.required.is_some()),
        ];
        let stray = given
            .iter()
            .find(|(name, given)| *given && !allowed.contains(name));
        match stray {
            Some((name, _)) => Err(format!("unexpected key '{name}' for mount type '{kind}'")),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Mount, String> {
        let kind = self.kind.clone().unwrap_or_else(|| "bind".to_owned());
        let owner = (self.uid.unwrap_or(0), self.gid.unwrap_or(0));
        let source = || Source {
            from: self.from.clone(),
            path: self.source.clone().unwrap_or_default(),
        };
        let secret = |mode| Secret {
            id: self.id.clone().unwrap_or_default(),
            required: self.required.unwrap_or(false),
            mode: self.mode.unwrap_or(mode),
            owner,
            env: self.env.clone(),
        };
        let mut mount = Mount {
            kind: Kind::Tmpfs(self.size),
            target: self.target.clone(),
            read_only: self.read_only.unwrap_or(false),
        };
        match kind.as_str() {
            "bind" => {
                self.only(&kind, &["source", "from"])?;
                mount.kind = Kind::Bind(source());
                mount.read_only = self.read_only.unwrap_or(true);
            }
            "cache" => {
                self.only(
                    &kind,
                    &["source", "from", "id", "sharing", "mode", "uid", "gid"],
                )?;
                let id = self
                    .id
                    .clone()
                    .or_else(|| self.target.clone())
                    .unwrap_or_default();
                mount.kind = Kind::Cache(Cache {
                    id,
                    sharing: self.sharing.unwrap_or(Sharing::Shared),
                    seed: self.from.is_some().then(source),
                    mode: self.mode.unwrap_or(0o755),
                    owner,
                });
            }
            "tmpfs" => self.only(&kind, &["size"])?,
            "secret" => {
                self.only(
                    &kind,
                    &["source", "id", "env", "required", "mode", "uid", "gid"],
                )?;
                return finish_secret(&self, secret(0o400), mount);
            }
            "ssh" => {
                self.only(&kind, &["id", "required", "mode", "uid", "gid"])?;
                let mut ssh = secret(0o600);
                if ssh.id.is_empty() {
                    "default".clone_into(&mut ssh.id);
                }
                mount.kind = Kind::Ssh(ssh);
                return Ok(mount);
            }
            other => return Err(format!("unsupported mount type {other:?}")),
        }
        if mount.target.as_deref().is_none_or(str::is_empty) {
            return Err(format!("target is required for mount type {kind:?}"));
        }
        Ok(mount)
    }
}

/// A secret needs a name or a target, and each can be made of the other.
fn finish_secret(fields: &Fields, mut secret: Secret, mut mount: Mount) -> Result<Mount, String> {
    if secret.id.is_empty() {
        let from = fields
            .source
            .as_deref()
            .or(fields.target.as_deref())
            .unwrap_or_default();
        from.rsplit('/')
            .next()
            .unwrap_or_default()
            .clone_into(&mut secret.id);
    }
    if secret.id.is_empty() {
        return Err("invalid secret mount: it has neither id nor target".to_owned());
    }
    if mount.target.is_none() && secret.env.is_none() {
        mount.target = Some(format!("/run/secrets/{}", secret.id.replace('/', "_")));
    }
    mount.kind = Kind::Secret(secret);
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Mount {
        Mount::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_type_has_its_defaults() {
        let bind = parse("target=/t");
        assert_eq!(
            (bind.kind, bind.read_only),
            (Kind::Bind(Source::default()), true)
        );
        let bind = parse("type=bind,from=a,source=/b,dst=/t,rw");
        let source = Source {
            from: Some("a".into()),
            path: "/b".into(),
        };
        assert_eq!((bind.kind, bind.read_only), (Kind::Bind(source), false));
        let Kind::Cache(cache) = parse("type=cache,target=/c,sharing=locked,mode=0700,uid=5").kind
        else {
            panic!()
        };
        assert_eq!((cache.id.as_str(), cache.sharing), ("/c", Sharing::Locked));
        assert_eq!((cache.mode, cache.owner), (0o700, (5, 0)));
        assert_eq!(
            parse("type=tmpfs,target=/t,size=1m").kind,
            Kind::Tmpfs(Some(1 << 20))
        );
        let secret = parse("type=secret,id=a");
        assert_eq!(secret.target.as_deref(), Some("/run/secrets/a"));
        let Kind::Secret(secret) = secret.kind else {
            panic!()
        };
        assert_eq!((secret.mode, secret.required), (0o400, false));
        assert_eq!(parse("type=secret,id=a,env=A").target, None);
        let Kind::Secret(secret) = parse("type=secret,target=/x/key,required").kind else {
            panic!()
        };
        assert_eq!((secret.id.as_str(), secret.required), ("key", true));
        let Kind::Ssh(ssh) = parse("type=ssh").kind else {
            panic!()
        };
        assert_eq!((ssh.id.as_str(), ssh.mode), ("default", 0o600));
    }

    #[test]
    fn what_reaches_beyond_the_step_or_has_no_meaning_is_refused() {
        for (text, want) in [
            (
                "type=bind,target=/t,bind-propagation=shared",
                "unexpected key 'bind-propagation'",
            ),
            (
                "type=bind,target=/t,propagation=rshared",
                "unexpected key 'propagation'",
            ),
            ("type=volume,target=/t", "unsupported mount type \"volume\""),
            ("type=bind", "target is required"),
            ("type=cache", "target is required"),
            (
                "type=tmpfs,target=/t,from=x",
                "unexpected key 'from' for mount type 'tmpfs'",
            ),
            (
                "type=cache,target=/t,sharing=x",
                "unsupported sharing value",
            ),
            ("type=cache,target=/t,mode=9", "invalid value 9 for mode"),
            ("type=secret", "neither id nor target"),
            ("target", "must be a key=value pair"),
        ] {
            let error = Mount::parse(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
