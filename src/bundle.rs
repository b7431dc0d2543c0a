//! Opens a bundle and reads its `config.json`, once.
//!
//! A bundle is a directory with a `config.json` (runtime-spec, bundle.md). Whoever wrote it may be
//! hostile or careless, so the file is opened without blocking, must be regular, is read up to a
//! limit, and every complaint about its content names the JSON path: `.linux.namespaces[2].type`.
//!
//! The types are `oci_spec`'s. Where they are stricter than the specification (and than runc, which
//! decodes with Go's rules), a second, slower reading repairs the difference: see [`lenient`].

mod lenient;
mod objects;
mod place;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use oci_spec::runtime::{Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::lenient::Lenient;
use self::objects::Objects;
use self::place::place_of_line;
use crate::error::{Error, Result};

/// The version of runtime-spec that keel decodes and implements.
pub const SPEC_VERSION: &str = "1.3.0";

/// The name that runtime-spec gives the file.
pub const CONFIG: &str = "config.json";

/// The largest config.json that is read, in bytes: 16 MiB.
///
/// Engines write 10 to 50 KiB; a profile of every system call with arguments stays below 1 MiB. The
/// limit keeps a wrong `--bundle` from being read into memory without end.
pub const MAX_CONFIG: u64 = 16 << 20;

/// An open bundle; see the module text.
#[derive(Debug)]
pub struct Bundle {
    /// The bundle's directory. Relative paths in the spec are resolved from here.
    pub dir: OwnedFd,
    /// Where that directory is: absolute, without symbolic links, as `state` reports it.
    pub path: PathBuf,
    /// config.json, decoded.
    pub spec: Spec,
    /// config.json as it was read.
    pub raw: Vec<u8>,
    /// What was ignored in it and why, one line each.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// Opens the bundle at `path`; an empty path is the current directory.
    ///
    /// `config` replaces the bundle's `config.json`, as crun's `--config` does; it is resolved from
    /// the current directory, not from the bundle.
    ///
    /// # Errors
    /// [`Error::Host`] if the directory or file cannot be opened, [`Error::Failed`] if the file is
    /// missing (in runc's words), [`Error::Spec`] if its content does not decode.
    pub fn open(path: &Path, config: Option<&Path>) -> Result<Self> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let dir = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(path)
            .map_err(|errno| Error::host("open bundle", path.display(), errno))?;
        // The kernel's own name of the open directory: a rename or a link between two look-ups
        // cannot make it name another one.
        let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
        let real =
            std::fs::read_link(&link).map_err(|errno| Error::host("readlink", link, errno))?;
        let (file, name) = match config {
            Some(file) => (file.to_path_buf(), file.display().to_string()),
            None => (real.join(CONFIG), CONFIG.to_owned()),
        };
        let raw = read_json_file(&file, &name)?;
        let (spec, warnings) = parse(&raw, &name, &Lenient::Spec)?;
        Ok(Self {
            dir: dir.into(),
            path: real,
            spec,
            raw,
            warnings,
        })
    }

    /// The container's root directory: `root.path`, resolved from the bundle.
    ///
    /// # Errors
    /// Refuses a path that is missing, that is no directory, or that passes a symbolic link: the
    /// link's owner could exchange the root under a container that is being set up. runc refuses
    /// it in the same words.
    pub fn rootfs(&self) -> Result<PathBuf> {
        let root = self.spec.root().as_ref().ok_or_else(|| {
            Error::spec(
                ".root",
                "must be specified: the directory of the container's files",
            )
        })?;
        let wanted = clean(&self.path.join(root.path()));
        let failed = |error| Error::host("invalid rootfs", wanted.display(), error);
        if is_directory_without_symlinks(&wanted) {
            return Ok(wanted);
        }
        let real = wanted.canonicalize().map_err(failed)?;
        if real != wanted {
            return Err(Error::spec(
                ".root.path",
                format!(
                    "invalid rootfs: not an absolute path, or a symlink: {} leads to {}",
                    wanted.display(),
                    real.display()
                ),
            ));
        }
        if !real.is_dir() {
            return Err(Error::spec(
                ".root.path",
                format!("invalid rootfs: {} is not a directory", real.display()),
            ));
        }
        Ok(real)
    }
}

/// Asked of the kernel in one step (`RESOLVE_NO_SYMLINKS`); false where it does not know (before 5.6).
fn is_directory_without_symlinks(path: &Path) -> bool {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(AT_FDCWD, path, how).is_ok()
}

/// Decodes a config.json that is not a bundle's any more, such as the copy that is kept of it.
///
/// # Errors
/// [`Error::Spec`] with `file_name` and the JSON path.
pub fn parse_spec(bytes: &[u8], file_name: &str) -> Result<Spec> {
    parse(bytes, file_name, &Lenient::Spec).map(|(spec, _)| spec)
}

/// Decodes the process object that `exec --process FILE` names; `file_name` is for the errors.
///
/// # Errors
/// [`Error::Spec`] with `file_name` and the JSON path.
pub fn parse_process(bytes: &[u8], file_name: &str) -> Result<(Process, Vec<String>)> {
    parse(bytes, file_name, &Lenient::Process)
}

/// Reads JSON that a caller hands over for this one call: also from a FIFO (`<(…)` of a shell), at
/// most [`MAX_CONFIG`] bytes.
///
/// # Errors
/// [`Error::Host`] if it cannot be read; [`Error::Spec`] if it is longer.
pub fn read_json_stream(path: &Path, name: &str) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_CONFIG + 1).read_to_end(&mut bytes))
        .map_err(|error| Error::host("read", path.display(), error))?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(Error::Spec {
            file: name.to_owned(),
            at: ".".into(),
            why: format!("the file is longer than {MAX_CONFIG} bytes"),
        });
    }
    Ok(bytes)
}

/// Reads a JSON file that a caller named: regular, at most [`MAX_CONFIG`] bytes.
///
/// # Errors
/// See [`Bundle::open`]; a FIFO, a device or a directory is refused without reading it.
pub fn read_json_file(path: &Path, name: &str) -> Result<Vec<u8>> {
    // O_NONBLOCK: opening a FIFO without a writer would wait for one for ever.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|errno| match errno.kind() {
            std::io::ErrorKind::NotFound => {
                Error::Failed(format!("JSON specification file {name} not found"))
            }
            _ => Error::host("open", path.display(), errno),
        })?;
    let meta = file
        .metadata()
        .map_err(|errno| Error::host("stat", path.display(), errno))?;
    if !meta.is_file() {
        let is = if meta.is_dir() {
            "a directory"
        } else {
            "a FIFO, socket or device"
        };
        return Err(Error::Failed(format!(
            "{} is {is}: a regular file is needed",
            path.display()
        )));
    }
    let size = usize::try_from(meta.len().min(MAX_CONFIG)).unwrap_or_default();
    // One more: the read that finds the end needs room.
    let mut raw = Vec::with_capacity(size + 1);
    file.take(MAX_CONFIG + 1)
        .read_to_end(&mut raw)
        .map_err(|errno| Error::host("read", path.display(), errno))?;
    if raw.len() as u64 > MAX_CONFIG {
        return Err(Error::Failed(format!(
            "{} is larger than {MAX_CONFIG} bytes, the most that keel reads",
            path.display()
        )));
    }
    Ok(raw)
}

/// Resolves `.` and `..` by their text, as runc does; symbolic links are the caller's subject.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// Places whose values runc judges itself: what it says of them comes first.
const RUNC_SAYS: &[(&str, &str)] = &[
    (".linux.memoryPolicy.flags", "invalid memory policy flag: "),
    (".linux.memoryPolicy.nodes", "invalid memory policy node: "),
    (".linux.memoryPolicy", "invalid memory policy mode: "),
];

/// Decodes strictly first, which is one pass without allocation for what is ignored; only a document
/// that fails is read again as a tree, repaired and decoded with a note of the place.
fn parse<T: DeserializeOwned>(
    bytes: &[u8],
    file: &str,
    lenient: &Lenient,
) -> Result<(T, Vec<String>)> {
    let broken = |at: String, why: String| Error::Spec {
        file: file.to_owned(),
        at,
        why,
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        broken(
            format!("byte {}", error.valid_up_to()),
            "is not UTF-8: JSON text must be (RFC 8259, section 8.1)".into(),
        )
    })?;
    if text.starts_with('\u{feff}') {
        return Err(broken(
            "byte 0".into(),
            "starts with a byte order mark: save the file without one".into(),
        ));
    }
    let first = match strictly(text) {
        Ok(done) => return Ok((done, Vec::new())),
        Err(error) => error,
    };
    let not_json = |error: &serde_json::Error| {
        let at = format!("line {} column {}", error.line(), error.column());
        broken(at, reason(error))
    };
    // serde_json calls some values of a wrong type a syntax error; the tree shows what is one.
    let mut tree: Value = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    // The tree keeps only the last of two members of one name.
    if first.to_string().starts_with("duplicate field") {
        return Err(not_json(&first));
    }
    let mut warnings = Vec::new();
    lenient.repair(&mut tree, file, &mut warnings);
    // Back to text, one value on each line: the line of an error is then its place. Decoding the
    // tree itself would need the decoder of every type a second time, a tenth of the program.
    let text = format!("{tree:#}");
    match strictly(&text) {
        Ok(done) => Ok((done, warnings)),
        Err(error) => {
            let at = place_of_line(&text, error.line());
            let words = RUNC_SAYS.iter().find(|(start, _)| at.starts_with(start));
            let words = words.map_or("", |(_, words)| words);
            let why = format!("{words}{}", reason(&error));
            Err(broken(at, why))
        }
    }
}

fn strictly<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let done = T::deserialize(Objects(&mut json))?;
    json.end()?;
    Ok(done)
}

/// serde's text without its ` at line 3 column 5`, which the caller puts in front.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// One step of a JSON path into an object: `.name`, or `["odd name"]`.
pub fn json_key(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !key.is_empty() && key.chars().all(plain) {
        format!(".{key}")
    } else {
        format!("[{}]", Value::from(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;
    use std::os::unix::ffi::OsStrExt;

    fn bundle_with(config: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG), config).unwrap();
        dir
    }

    fn line(config: &[u8]) -> String {
        match Bundle::open(bundle_with(config).path(), None) {
            Ok(bundle) => format!("ok, warnings {:?}", bundle.warnings),
            Err(error) => error.line(),
        }
    }

    #[test]
    fn a_broken_config_is_refused_with_its_place() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let deep_unknown = format!(r#"{{"x":{deep}}}"#);
        let cases: &[(&[u8], &str)] = &[
            (b"", "config.json: line 1 column 0: EOF while parsing a value"),
            (b"{", "config.json: line 1 column 1: EOF while parsing an object"),
            (b"{} x", "config.json: line 1 column 4: trailing characters"),
            (b"{,}", "config.json: line 1 column 2: key must be a string"),
            (b"\xff{}", "config.json: byte 0: is not UTF-8: JSON text must be (RFC 8259, section 8.1)"),
            (b"\xef\xbb\xbf{}", "config.json: byte 0: starts with a byte order mark: save the file without one"),
            (b"[]", "config.json: .: invalid type: sequence, expected struct Spec"),
            (b"7", "config.json: .: invalid type: integer `7`, expected struct Spec"),
            (deep.as_bytes(), "config.json: line 1 column 128: recursion limit exceeded"),
            (deep_unknown.as_bytes(), "ok, warnings []"),
            (br#"{"ociVersion":1}"#, "config.json: .ociVersion: invalid type: integer `1`, expected a string"),
            (br#"{"linux":{"namespaces":[{"type":"pid"},{"type":"bogus"}]}}"#,
             "config.json: .linux.namespaces[1].type: unknown variant `bogus`, expected one of `mount`, `cgroup`, `uts`, `ipc`, `user`, `pid`, `network`, `time`"),
            (br#"{"linux":{"namespaces":[{}]}}"#, "config.json: .linux.namespaces[0]: missing field `type`"),
            (br#"{"linux":{"sysctl":{"net.ipv4.ip_forward":1}}}"#,
             r#"config.json: .linux.sysctl["net.ipv4.ip_forward"]: invalid type: integer `1`, expected a string"#),
            (br#"{"linux":{"sysctl":{"a":null}}}"#, "config.json: .linux.sysctl.a: invalid type: null, expected a string"),
            (br#"{"process":{"user":{"uid":-1},"cwd":"/"}}"#,
             "config.json: .process.user.uid: invalid value: integer `-1`, expected u32"),
            (br#"{"process":{"cwd":"/","rlimits":[{"type":"RLIMIT_X"}]}}"#,
             "config.json: .process.rlimits[0].type: unknown variant `RLIMIT_X`"),
            (br#"{"linux":[]}"#, "config.json: .linux: invalid type: sequence, expected struct Linux"),
            (br#"{"mounts":[["/x"]]}"#, "config.json: .mounts[0]: invalid type: sequence, expected struct Mount"),
            (br#"{"linux":{"memoryPolicy":{"mode":"MPOL_BIND","flags":["X"]}}}"#,
             "config.json: .linux.memoryPolicy.flags[0]: invalid memory policy flag: unknown variant `X`"),
            (br#"{"linux":{"memoryPolicy":{}}}"#,
             "config.json: .linux.memoryPolicy: invalid memory policy mode: missing field `mode`"),
            (br#"{"mounts":[{}]}"#, "config.json: .mounts[0]: missing field `destination`"),
            (br#"{"hostname":"a","hostname":"b"}"#, "config.json: line 1 column 26: duplicate field `hostname`"),
            (br#"{"linux":{"seccomp":{"defaultAction":"","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW"}]}}}"#,
             "config.json: .linux.seccomp.defaultAction: unknown variant ``"),
            (br#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}}}"#,
             "config.json: .linux.seccomp.flags[0]: unknown variant `X`"),
        ];
        for (config, want) in cases {
            let got = line(config);
            assert!(got.starts_with(want), "{want:?}, got {got:?}");
            assert!(!got.contains('\n'), "{got:?}");
        }
    }

    #[test]
    fn what_runc_accepts_is_accepted() {
        let cases: &[(&[u8], &str)] = &[
            (b"{}", "ok, warnings []"),
            (br#"{"process":null,"linux":{"namespaces":null,"unknown":[1]},"new":{}}"#, "ok, warnings []"),
            (br#"{"process":{"args":["sh"]}}"#, "ok, warnings []"),
            (br#"{"process":{"cwd":"/","user":null,"capabilities":{"bounding":null}}}"#, "ok, warnings []"),
            (br#"{"process":{"cwd":"/","scheduler":{"policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_DL_OVERRUN","SCHED_FLAG_RECLAIM"]}}}"#, "ok, warnings []"),
            (br#"{"process":{"cwd":"/","execCPUAffinity":{"initial":"","final":"0-1"}}}"#, "ok, warnings []"),
            (br#"{"linux":{"seccomp":{}}}"#, "ok, warnings []"),
            (br#"{"windows":7,"vm":{}}"#, "ok, warnings []"),
            (br#"{"process":{"cwd":"/","capabilities":{"bounding":["CAP_KILL","CAP_NEW"],"ambient":["ODD","CAP_NEW"]}}}"#,
             r#"ok, warnings ["config.json: .process.capabilities: ignoring unknown or unavailable capabilities: [CAP_NEW ODD]"]"#),
        ];
        for (config, want) in cases {
            assert_eq!(line(config), *want, "{}", String::from_utf8_lossy(config));
        }
    }

    #[test]
    fn the_slow_reading_keeps_the_known_capabilities() {
        let dir = bundle_with(
            br#"{"process":{"cwd":"/","capabilities":{"bounding":["CAP_KILL","CAP_NEW"]}}}"#,
        );
        let spec = Bundle::open(dir.path(), None).unwrap().spec;
        let capabilities = spec
            .process()
            .clone()
            .unwrap()
            .capabilities()
            .clone()
            .unwrap();
        assert_eq!(
            capabilities.bounding().clone().unwrap(),
            [Capability::Kill].into_iter().collect()
        );
    }

    #[test]
    fn a_missing_config_has_the_words_that_callers_match() {
        let dir = tempfile::tempdir().unwrap();
        let error = Bundle::open(dir.path(), None).unwrap_err();
        assert_eq!(
            error.line(),
            "JSON specification file config.json not found"
        );
        let error = Bundle::open(&dir.path().join("no"), None).unwrap_err();
        assert!(
            error.line().ends_with("/no: no such file or directory"),
            "{}",
            error.line()
        );
    }

    #[test]
    fn a_directory_fifo_or_device_in_its_place_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join(CONFIG);
        std::fs::create_dir(&config).unwrap();
        let error = Bundle::open(dir.path(), None).unwrap_err().line();
        assert!(error.contains("is a directory"), "{error}");
        std::fs::remove_dir(&config).unwrap();
        nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = Bundle::open(dir.path(), None).unwrap_err().line();
        assert!(error.contains("is a FIFO"), "{error}");
        std::fs::remove_file(&config).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &config).unwrap();
        let error = Bundle::open(dir.path(), None).unwrap_err().line();
        assert!(error.contains("device"), "{error}");
    }

    #[test]
    fn ten_megabytes_are_read_and_seventeen_are_refused() {
        let padded = |size: usize| {
            let mut config = br#"{"hostname":"x"}"#.to_vec();
            config.resize(size, b' ');
            config
        };
        assert_eq!(line(&padded(10 << 20)), "ok, warnings []");
        let error = line(&padded(17 << 20));
        assert!(error.contains("larger than 16777216 bytes"), "{error}");
    }

    #[test]
    fn the_path_is_the_kernels_name_of_the_directory() {
        let dir = bundle_with(b"{}");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(".", &link).unwrap();
        let bundle = Bundle::open(&link, None).unwrap();
        assert_eq!(bundle.path, dir.path().canonicalize().unwrap());
        assert!(bundle.path.as_os_str().as_bytes().starts_with(b"/"));
    }

    #[test]
    fn another_config_file_is_named_in_its_errors() {
        let dir = bundle_with(b"{}");
        let other = dir.path().join("other.json");
        std::fs::write(&other, br#"{"ociVersion":1}"#).unwrap();
        let error = Bundle::open(dir.path(), Some(&other)).unwrap_err().line();
        assert_eq!(
            error,
            format!(
                "{}: .ociVersion: invalid type: integer `1`, expected a string",
                other.display()
            )
        );
    }

    #[test]
    fn a_root_through_a_symbolic_link_is_refused() {
        let dir = bundle_with(br#"{"root":{"path":"./x/../link"}}"#);
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let error = Bundle::open(dir.path(), None)
            .unwrap()
            .rootfs()
            .unwrap_err()
            .line();
        assert!(
            error.contains("invalid rootfs: not an absolute path, or a symlink"),
            "{error}"
        );
        std::fs::write(dir.path().join(CONFIG), br#"{"root":{"path":"real"}}"#).unwrap();
        let root = Bundle::open(dir.path(), None).unwrap().rootfs().unwrap();
        assert_eq!(root, dir.path().canonicalize().unwrap().join("real"));
    }

    #[test]
    fn a_process_document_is_read_with_its_own_name() {
        let (process, warnings) = parse_process(
            br#"{"args":["id"],"capabilities":{"ambient":["CAP_NEW"]}}"#,
            "process.json",
        )
        .unwrap();
        assert_eq!(process.args().clone().unwrap(), ["id"]);
        assert_eq!(
            warnings,
            [
                "process.json: .capabilities: ignoring unknown or unavailable capabilities: [CAP_NEW]"
            ]
        );
        let error = parse_process(br#"{"args":"id"}"#, "process.json").unwrap_err();
        assert!(
            error
                .line()
                .starts_with("process.json: .args: invalid type: string"),
            "{}",
            error.line()
        );
    }
}
