//! Mounts: what each option of config.json means, and the list that the child works through.

use std::ffi::{CStr, CString};
use std::path::Path;

use libc::{MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME};
use libc::{MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY};
use libc::{MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME};
use oci_spec::runtime as oci;

use super::idmap::{self, IdMap, Owners};
use super::text::{absolute, cstring, is_within};
use crate::error::{Error, Result};
use crate::sys::mount::{Attr, Reach};

/// One mount of the container, ready to be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it goes, as a path inside the root file system.
    pub target: CString,
    /// What is mounted.
    pub what: What,
    /// Attributes of this mount alone, set while it is detached.
    pub attr: Attr,
    /// Those bits of `attr.clear` that config.json does not name: where they are locked they stay.
    pub unasked: u64,
    /// Attributes of it and everything below it (the options that begin with `r`).
    pub attr_tree: Attr,
    /// Propagation changes after it is attached, in order: `MS_*` and whether it takes in the tree.
    pub propagation: Vec<(u64, Reach)>,
    /// It becomes read-only only after all mounts are in place, so that mount points can be made on it.
    pub readonly_last: bool,
    /// It starts with a copy of what it covers.
    pub copy_up: bool,
}

/// The two kinds of mount.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// A new instance of a file system.
    New {
        /// Its type.
        fs: CString,
        /// Its source, as shown in mountinfo.
        source: CString,
        /// Parameters: a flag without value, a string with one.
        params: Vec<(CString, Option<CString>)>,
        /// All parameters in one string for mount(2), if one is too long for fsconfig(2).
        joined: Option<CString>,
    },
    /// A copy of what is mounted (or just there) at a path of the host.
    Bind {
        /// The path, absolute.
        source: CString,
        /// The path in the root file system, if an earlier mount of the container brings the source:
        /// then the child opens it when its turn has come.
        inside: Option<CString>,
        /// With the mounts below it.
        reach: Reach,
        /// Maps the owners of the files, if asked for.
        idmap: Option<IdMap>,
    },
}

/// What one word in `mounts[].options` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Attribute bits to set and to clear on this mount or on the whole tree.
    Attr(Reach, u64, u64),
    /// Takes back an earlier choice of this access time mode; the source's own stays, as in mount(8).
    NoAtime(u64),
    /// A parameter of the superblock: set or left out.
    Super(&'static str, bool),
    /// `MS_*` propagation.
    Propagate(u64, Reach),
    /// A bind mount.
    Bind(Reach),
    /// An id-mapped bind mount.
    IdMap(Reach),
    /// Copy what the mount covers.
    CopyUp,
    /// Nothing on a new mount.
    Ignored,
}

const ONE: Reach = Reach::One;
const TREE: Reach = Reach::Tree;

const fn set(reach: Reach, bits: u64) -> Meaning {
    Meaning::Attr(reach, bits, 0)
}
const fn clear(reach: Reach, bits: u64) -> Meaning {
    Meaning::Attr(reach, 0, bits)
}
/// The atime modes share one field, which is cleared as a whole before it is set.
const fn atime(reach: Reach, mode: u64) -> Meaning {
    Meaning::Attr(reach, mode, MOUNT_ATTR__ATIME)
}

/// Every option that is not passed on to the file system: mount(8), "FILESYSTEM-INDEPENDENT MOUNT
/// OPTIONS", and the recursive ones of runtime-spec, config.md "Linux mount options".
const TABLE: &[(&str, Meaning)] = &[
    ("async", Meaning::Super("sync", false)),
    ("atime", Meaning::NoAtime(MOUNT_ATTR_NOATIME)),
    ("bind", Meaning::Bind(ONE)),
    ("defaults", Meaning::Ignored),
    ("dev", clear(ONE, MOUNT_ATTR_NODEV)),
    ("diratime", Meaning::NoAtime(MOUNT_ATTR_NODIRATIME)),
    ("dirsync", Meaning::Super("dirsync", true)),
    ("exec", clear(ONE, MOUNT_ATTR_NOEXEC)),
    ("idmap", Meaning::IdMap(ONE)),
    ("iversion", Meaning::Ignored),
    ("lazytime", Meaning::Super("lazytime", true)),
    ("loud", Meaning::Ignored),
    ("mand", Meaning::Super("mand", true)),
    ("noatime", atime(ONE, MOUNT_ATTR_NOATIME)),
    ("nodev", set(ONE, MOUNT_ATTR_NODEV)),
    ("nodiratime", set(ONE, MOUNT_ATTR_NODIRATIME)),
    ("noexec", set(ONE, MOUNT_ATTR_NOEXEC)),
    ("noiversion", Meaning::Ignored),
    ("nolazytime", Meaning::Super("lazytime", false)),
    ("nomand", Meaning::Super("mand", false)),
    ("norelatime", Meaning::NoAtime(MOUNT_ATTR_RELATIME)),
    ("nostrictatime", Meaning::NoAtime(MOUNT_ATTR_STRICTATIME)),
    ("nosuid", set(ONE, MOUNT_ATTR_NOSUID)),
    ("nosymfollow", set(ONE, MOUNT_ATTR_NOSYMFOLLOW)),
    ("private", Meaning::Propagate(libc::MS_PRIVATE, ONE)),
    ("ratime", atime(TREE, MOUNT_ATTR_RELATIME)),
    ("rbind", Meaning::Bind(TREE)),
    ("rdev", clear(TREE, MOUNT_ATTR_NODEV)),
    ("rdiratime", clear(TREE, MOUNT_ATTR_NODIRATIME)),
    ("relatime", atime(ONE, MOUNT_ATTR_RELATIME)),
    ("remount", Meaning::Ignored),
    ("rexec", clear(TREE, MOUNT_ATTR_NOEXEC)),
    ("ridmap", Meaning::IdMap(TREE)),
    ("rnoatime", atime(TREE, MOUNT_ATTR_NOATIME)),
    ("rnodev", set(TREE, MOUNT_ATTR_NODEV)),
    ("rnodiratime", set(TREE, MOUNT_ATTR_NODIRATIME)),
    ("rnoexec", set(TREE, MOUNT_ATTR_NOEXEC)),
    ("rnorelatime", atime(TREE, MOUNT_ATTR_RELATIME)),
    ("rnostrictatime", atime(TREE, MOUNT_ATTR_RELATIME)),
    ("rnosuid", set(TREE, MOUNT_ATTR_NOSUID)),
    ("rnosymfollow", set(TREE, MOUNT_ATTR_NOSYMFOLLOW)),
    ("ro", set(ONE, MOUNT_ATTR_RDONLY)),
    ("rprivate", Meaning::Propagate(libc::MS_PRIVATE, TREE)),
    ("rrelatime", atime(TREE, MOUNT_ATTR_RELATIME)),
    ("rro", set(TREE, MOUNT_ATTR_RDONLY)),
    ("rrw", clear(TREE, MOUNT_ATTR_RDONLY)),
    ("rshared", Meaning::Propagate(libc::MS_SHARED, TREE)),
    ("rslave", Meaning::Propagate(libc::MS_SLAVE, TREE)),
    ("rstrictatime", atime(TREE, MOUNT_ATTR_STRICTATIME)),
    ("rsuid", clear(TREE, MOUNT_ATTR_NOSUID)),
    ("rsymfollow", clear(TREE, MOUNT_ATTR_NOSYMFOLLOW)),
    ("runbindable", Meaning::Propagate(libc::MS_UNBINDABLE, TREE)),
    ("rw", clear(ONE, MOUNT_ATTR_RDONLY)),
    ("shared", Meaning::Propagate(libc::MS_SHARED, ONE)),
    ("silent", Meaning::Ignored),
    ("slave", Meaning::Propagate(libc::MS_SLAVE, ONE)),
    ("strictatime", atime(ONE, MOUNT_ATTR_STRICTATIME)),
    ("suid", clear(ONE, MOUNT_ATTR_NOSUID)),
    ("symfollow", clear(ONE, MOUNT_ATTR_NOSYMFOLLOW)),
    ("sync", Meaning::Super("sync", true)),
    ("tmpcopyup", Meaning::CopyUp),
    ("unbindable", Meaning::Propagate(libc::MS_UNBINDABLE, ONE)),
];

/// The names of all options that keel handles itself, sorted, as `features` lists them.
pub fn option_names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// File systems whose one instance is shared by many mounts: read-only is a matter of the mount.
const SHARED_INSTANCE: &[&str] = &["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts"];

/// File systems that take a `context=` of SELinux. That of `mqueue` is made with the IPC namespace, and
/// so is labelled later.
const TAKES_CONTEXT: &[&str] = &["tmpfs", "devpts", "ramfs", "overlay"];

/// The options of one mount, read.
#[derive(Debug, Default)]
struct Options {
    attr: Attr,
    /// Whether a word was about the attributes of this mount alone.
    names_attr: bool,
    attr_tree: Attr,
    propagation: Vec<(u64, Reach)>,
    supers: Vec<&'static str>,
    bind: Option<Reach>,
    idmap: Option<Reach>,
    copy_up: bool,
    params: Vec<(CString, Option<CString>)>,
}

impl Options {
    fn read(options: &[String], at: &str) -> Result<Self> {
        let mut read = Self::default();
        for (index, option) in options.iter().enumerate() {
            let known = TABLE.binary_search_by_key(&option.as_str(), |(name, _)| name);
            match known.ok().map(|found| TABLE[found].1) {
                Some(meaning) => read.apply(meaning),
                None => {
                    for param in option.split(',').filter(|param| !param.is_empty()) {
                        read.params
                            .push(parameter(param, &format!("{at}[{index}]"))?);
                    }
                }
            }
        }
        read.complete_atime();
        Ok(read)
    }

    /// One word about access times sets them all: `nodiratime` alone means `relatime`, too.
    fn complete_atime(&mut self) {
        let attr = &mut self.attr;
        if attr.set & MOUNT_ATTR_NODIRATIME != 0 {
            attr.clear |= MOUNT_ATTR__ATIME;
        } else if attr.clear & MOUNT_ATTR__ATIME != 0 {
            attr.clear |= MOUNT_ATTR_NODIRATIME;
        }
    }

    /// The last word wins: setting a bit takes back an earlier clearing, and the reverse.
    fn apply(&mut self, meaning: Meaning) {
        match meaning {
            Meaning::NoAtime(mode) => {
                self.names_attr = true;
                let attr = &mut self.attr;
                if mode == MOUNT_ATTR_NODIRATIME {
                    attr.set &= !mode;
                } else if attr.clear & MOUNT_ATTR__ATIME != 0
                    && attr.set & MOUNT_ATTR__ATIME == mode
                {
                    attr.set &= !MOUNT_ATTR__ATIME;
                    attr.clear &= !MOUNT_ATTR__ATIME;
                }
            }
            Meaning::Attr(reach, set, clear) => {
                self.names_attr |= reach == ONE;
                let attr = if reach == ONE {
                    &mut self.attr
                } else {
                    &mut self.attr_tree
                };
                attr.set = attr.set & !clear & !set | set;
                attr.clear = attr.clear & !set | clear;
                if clear & MOUNT_ATTR__ATIME != 0 {
                    attr.clear |= MOUNT_ATTR__ATIME;
                }
            }
            Meaning::Super(name, true) => self.supers.push(name),
            Meaning::Super(name, false) => self.supers.retain(|other| *other != name),
            Meaning::Propagate(flag, reach) => self.propagation.push((flag, reach)),
            // CRI-O adds `bind` to its `rbind`: that takes nothing back, as with mount(2)'s flags.
            Meaning::Bind(_) if self.bind == Some(TREE) => {}
            Meaning::Bind(reach) => self.bind = Some(reach),
            Meaning::IdMap(reach) => self.idmap = Some(reach),
            Meaning::CopyUp => self.copy_up = true,
            Meaning::Ignored => {}
        }
    }
}

fn parameter(text: &str, at: &str) -> Result<(CString, Option<CString>)> {
    match text.split_once('=') {
        Some((key, value)) => Ok((cstring(key, at)?, Some(cstring(value, at)?))),
        None => Ok((cstring(text, at)?, None)),
    }
}

/// What mounts depend on besides their own entry in config.json.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Relative bind sources start here.
    pub bundle: &'a Path,
    /// The root file system on the host.
    pub rootfs: &'a Path,
    /// `linux.mountLabel`.
    pub label: Option<&'a str>,
    /// For an `idmap` without maps: the container's own.
    pub owners: Option<&'a Owners>,
}

/// Reads `mounts[index]`.
///
/// # Errors
/// [`Error::Spec`] for values that no mount can have; see runtime-spec, config.md "Mounts".
pub fn read(mount: &oci::Mount, index: usize, context: Context<'_>) -> Result<Mount> {
    let at = format!(".mounts[{index}]");
    let destination = mount.destination();
    // Older callers, and runc for their sake, take it for a path of the host.
    let destination = destination
        .strip_prefix(context.rootfs)
        .unwrap_or(destination);
    let target = absolute(destination, &format!("{at}.destination"))?;
    let options = mount.options().as_deref().unwrap_or_default();
    let options = Options::read(options, &format!("{at}.options"))?;
    let fs = mount.typ().as_deref().unwrap_or_default();
    let bind = options.bind.or((fs == "bind").then_some(ONE));
    let what = match bind {
        Some(reach) => bind_source(mount, reach, &options, &at, context)?,
        None => new_instance(mount, fs, &options, &at, context)?,
    };
    // A tmpfs, and everything at /dev, must stay writable until mount points and nodes are made.
    let fills_later = bind.is_none() && (fs == "tmpfs" || target.as_bytes() == b"/dev");
    let readonly_last = fills_later && options.attr.set & MOUNT_ATTR_RDONLY != 0;
    let mut attr = options.attr;
    if readonly_last {
        attr.set &= !MOUNT_ATTR_RDONLY;
    }
    // As in mount(2) with MS_REMOUNT, and unlike mount(8): one attribute given, the source's others
    // are gone, but for those of access times.
    let replaces = bind.is_some() && options.names_attr;
    let unasked = if replaces {
        REPLACED & !attr.set & !attr.clear
    } else {
        0
    };
    attr.clear |= unasked;
    Ok(Mount {
        target,
        what,
        attr,
        unasked,
        attr_tree: options.attr_tree,
        propagation: options.propagation,
        readonly_last,
        copy_up: options.copy_up,
    })
}

/// The attributes of a mount that are not about access times.
const REPLACED: u64 = MOUNT_ATTR_RDONLY
    | MOUNT_ATTR_NOSUID
    | MOUNT_ATTR_NODEV
    | MOUNT_ATTR_NOEXEC
    | MOUNT_ATTR_NOSYMFOLLOW;

/// Words of buildah's `--volume` and `--mount`, about labels and owners, that it leaves in the options of
/// a bind (1.28 does). crun and runc 1.1 hand them to the kernel, which ignores them.
const CALLERS_WORDS: [&CStr; 3] = [c"U", c"Z", c"z"];

/// Parameters of tmpfs, tmpfs(5), which some callers give to each of their mounts. On a bind they say
/// nothing about what is allowed, so they are left out; others may, and are refused, as runc does with
/// all since 1.2.
const TMPFS_PARAMETERS: [&[u8]; 6] = [b"gid", b"mode", b"nr_blocks", b"nr_inodes", b"size", b"uid"];

/// Whether the parameter `key`, given with a value, is left out of a bind mount. `validate` warns of it.
pub fn is_left_out_of_a_bind(key: &[u8]) -> bool {
    TMPFS_PARAMETERS.contains(&key)
}

fn bind_source(
    mount: &oci::Mount,
    reach: Reach,
    options: &Options,
    at: &str,
    context: Context<'_>,
) -> Result<What> {
    let Some(source) = mount.source() else {
        return Err(Error::spec(
            format!("{at}.source"),
            "a bind mount needs a source",
        ));
    };
    let source = cstring(
        context.bundle.join(source).as_os_str(),
        &format!("{at}.source"),
    )?;
    let is_ignored = |(key, value): &&(CString, Option<CString>)| match value {
        None => CALLERS_WORDS.contains(&key.as_c_str()),
        Some(_) => is_left_out_of_a_bind(key.to_bytes()),
    };
    if let Some((key, _)) = options.params.iter().find(|param| !is_ignored(param)) {
        // In runc's words.
        let why = format!(
            "bind mounts cannot have any filesystem-specific options applied, and {key:?} is one"
        );
        return Err(Error::spec(format!("{at}.options"), why));
    }
    Ok(What::Bind {
        source,
        inside: None,
        reach,
        idmap: idmap::of_mount(mount, options.idmap, context.owners, at)?,
    })
}

/// Notes which sources lie in the root file system, at, below or (with their tree) above the place of
/// an earlier mount.
pub fn find_sources_inside(list: &mut [Mount], rootfs: &CStr) {
    for index in 0..list.len() {
        let (earlier, rest) = list.split_at_mut(index);
        let What::Bind {
            source,
            inside,
            reach,
            ..
        } = &mut rest[0].what
        else {
            continue;
        };
        let Some(path) = source.to_bytes_with_nul().strip_prefix(rootfs.to_bytes()) else {
            continue;
        };
        let Ok(path) = CStr::from_bytes_with_nul(path) else {
            continue;
        };
        let brought = |mount: &Mount| {
            is_within(path, &mount.target) || *reach == TREE && is_within(&mount.target, path)
        };
        if path.to_bytes().first() == Some(&b'/') && earlier.iter().any(brought) {
            *inside = Some(path.to_owned());
        }
    }
}

fn new_instance(
    mount: &oci::Mount,
    fs: &str,
    options: &Options,
    at: &str,
    context: Context<'_>,
) -> Result<What> {
    if fs.is_empty() {
        let why = "a mount that is not a bind needs a type";
        return Err(Error::spec(format!("{at}.type"), why));
    }
    if mount.uid_mappings().is_some() || options.idmap.is_some() {
        return Err(Error::spec(at, "only bind mounts can be id-mapped"));
    }
    let mut params = options.params.clone();
    for name in &options.supers {
        params.push((cstring(name, at)?, None));
    }
    let readonly = options.attr.set & MOUNT_ATTR_RDONLY != 0;
    if readonly && fs != "tmpfs" && !SHARED_INSTANCE.contains(&fs) {
        params.push((c"ro".to_owned(), None));
    }
    if let Some(label) = context.label.filter(|_| TAKES_CONTEXT.contains(&fs)) {
        params.push((
            c"context".to_owned(),
            Some(cstring(label, ".linux.mountLabel")?),
        ));
    }
    let source = mount
        .source()
        .as_deref()
        .map_or(Path::new(fs), |source| source);
    Ok(What::New {
        fs: cstring(fs, &format!("{at}.type"))?,
        source: cstring(source.as_os_str(), &format!("{at}.source"))?,
        joined: joined(&params),
        params,
    })
}

/// The longest value that fsconfig(2) takes, without its final zero byte.
const MAX_VALUE: usize = 255;

fn joined(params: &[(CString, Option<CString>)]) -> Option<CString> {
    let long = |value: &CString| value.as_bytes().len() > MAX_VALUE;
    if !params
        .iter()
        .any(|(_, value)| value.as_ref().is_some_and(long))
    {
        return None;
    }
    let mut all = Vec::new();
    for (key, value) in params {
        if !all.is_empty() {
            all.push(b',');
        }
        all.extend_from_slice(key.as_bytes());
        if let Some(value) = value {
            all.push(b'=');
            all.extend_from_slice(value.as_bytes());
        }
    }
    CString::new(all).ok()
}

/// The `MS_*` value of a propagation word, as `linux.rootfsPropagation` uses it too.
pub fn propagation(word: &str) -> Option<(u64, Reach)> {
    let found = TABLE.binary_search_by_key(&word, |(name, _)| name).ok()?;
    match TABLE[found].1 {
        Meaning::Propagate(flag, reach) => Some((flag, reach)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(json: &str) -> Result<Mount> {
        let context = Context {
            rootfs: Path::new("/bundle/rootfs"),
            bundle: Path::new("/b"),
            label: None,
            owners: None,
        };
        read(&serde_json::from_str(json).unwrap(), 0, context)
    }

    #[test]
    fn the_table_is_sorted_for_the_binary_search() {
        assert!(TABLE.is_sorted_by_key(|(name, _)| *name));
        assert_eq!(
            TABLE.len(),
            62,
            "runc's 60 and the two for id-mapped mounts"
        );
    }

    #[test]
    fn the_last_of_two_opposite_options_wins() {
        let (ro, nodev) = (MOUNT_ATTR_RDONLY, MOUNT_ATTR_NODEV);
        let nodiratime = MOUNT_ATTR_NODIRATIME;
        let every_time = MOUNT_ATTR__ATIME | nodiratime;
        let cases: &[(&[&str], u64, u64)] = &[
            (&["ro"], ro, 0),
            (&["ro", "rw"], 0, ro),
            (&["rw", "ro"], ro, 0),
            (&["nodev", "ro", "dev"], ro, nodev),
            (&["noatime"], MOUNT_ATTR_NOATIME, every_time),
            (
                &["noatime", "strictatime"],
                MOUNT_ATTR_STRICTATIME,
                every_time,
            ),
            (&["noatime", "relatime"], 0, every_time),
            (&["noatime", "atime"], 0, 0),
            (&["relatime", "norelatime"], 0, 0),
            (
                &["noatime", "nostrictatime"],
                MOUNT_ATTR_NOATIME,
                every_time,
            ),
            (&["nodiratime"], nodiratime, MOUNT_ATTR__ATIME),
            (&["nodiratime", "diratime"], 0, 0),
        ];
        for (words, set, clear) in cases {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let read = Options::read(&words, ".options").unwrap();
            assert_eq!(
                (read.attr.set, read.attr.clear),
                (*set, *clear),
                "{words:?}"
            );
        }
    }

    #[test]
    fn what_the_table_does_not_know_goes_to_the_file_system() {
        let mount = mount(
            r#"{"destination":"/dev","type":"tmpfs","source":"t",
            "options":["nosuid","mode=755","size=65536k","noswap"]}"#,
        )
        .unwrap();
        let What::New { params, .. } = mount.what else {
            panic!("not a new instance")
        };
        let wanted = [
            (c"mode", Some(c"755")),
            (c"size", Some(c"65536k")),
            (c"noswap", None),
        ];
        let wanted = wanted.map(|(key, value)| (key.to_owned(), value.map(|v| v.to_owned())));
        assert_eq!(params, wanted);
        assert_eq!(mount.attr.set, MOUNT_ATTR_NOSUID);
    }

    #[test]
    fn a_read_only_tmpfs_becomes_so_at_the_end() {
        let mount = mount(r#"{"destination":"/x","type":"tmpfs","options":["ro"]}"#).unwrap();
        assert!(mount.readonly_last);
        assert_eq!(mount.attr.set & MOUNT_ATTR_RDONLY, 0);
    }

    #[test]
    fn bind_options_win_over_the_type_and_relative_sources_start_at_the_bundle() {
        let mount =
            mount(r#"{"destination":"/x","type":"tmpfs","source":"data","options":["rbind"]}"#);
        let What::Bind { source, reach, .. } = mount.unwrap().what else {
            panic!("not a bind")
        };
        assert_eq!((source.as_c_str(), reach), (c"/b/data", Reach::Tree));
    }

    #[test]
    fn one_attribute_of_a_bind_mount_replaces_the_others_of_its_source() {
        let (ro, nodev) = (MOUNT_ATTR_RDONLY, MOUNT_ATTR_NODEV);
        let cases = [
            (r#"["bind"]"#, 0, 0),
            (r#"["bind","rprivate"]"#, 0, 0),
            (r#"["bind","ro"]"#, 0, REPLACED & !ro),
            (r#"["bind","ro","dev"]"#, nodev, REPLACED & !ro & !nodev),
        ];
        for (options, asked, unasked) in cases {
            let json = format!(r#"{{"destination":"/x","source":"/y","options":{options}}}"#);
            let mount = mount(&json).unwrap();
            assert_eq!(mount.unasked, unasked, "{options}");
            assert_eq!(mount.attr.clear, asked | unasked, "{options}");
        }
    }

    #[test]
    fn a_destination_may_be_a_path_of_the_host_in_the_root_file_system() {
        let target = |path| {
            let json = format!(r#"{{"destination":"{path}","type":"tmpfs"}}"#);
            mount(&json).unwrap().target
        };
        assert_eq!(target("/bundle/rootfs/a/b").as_c_str(), c"/a/b");
        assert_eq!(target("/bundle/rootfs2").as_c_str(), c"/bundle/rootfs2");
    }

    #[test]
    fn a_source_that_an_earlier_mount_brings_is_opened_inside() {
        let list = ["/m /s", "/n /r/m/x", "/o /r/mx", "/p /r", "/q /r/q2"];
        let mut list: Vec<Mount> = list
            .map(|pair| {
                let (to, from) = pair.split_once(' ').unwrap();
                let options = r#""options":["rbind"]"#;
                let json = format!(r#"{{"destination":"{to}","source":"{from}",{options}}}"#);
                mount(&json).unwrap()
            })
            .into();
        find_sources_inside(&mut list, c"/r");
        let inside: Vec<_> = list
            .iter()
            .map(|mount| match &mount.what {
                What::Bind { inside, .. } => inside.as_deref(),
                What::New { .. } => None,
            })
            .collect();
        assert_eq!(inside, [None, Some(c"/m/x"), None, None, None]);
    }

    #[test]
    fn a_bind_may_have_what_callers_leave_in_it_and_no_more() {
        let bind = |options: &str| {
            mount(&format!(
                r#"{{"destination":"/x","source":"/y","options":["rbind",{options}]}}"#
            ))
        };
        for taken in [r#""z","U""#, r#""Z""#, r#""mode=755","size=1k,uid=0""#] {
            assert!(bind(taken).is_ok(), "{taken}");
        }
        for refused in [
            r#""z=1""#,
            r#""z","mode""#,
            r#""mode=755","huge=always""#,
            r#""r0""#,
        ] {
            assert!(bind(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn impossible_mounts_are_refused_with_their_place() {
        let cases = [
            (
                r#"{"destination":"/","type":"tmpfs"}"#,
                ".mounts[0].destination",
            ),
            (
                r#"{"destination":"/a/..","type":"tmpfs"}"#,
                ".mounts[0].destination",
            ),
            (r#"{"destination":"/x"}"#, ".mounts[0].type"),
            (r#"{"destination":"/x","type":"bind"}"#, ".mounts[0].source"),
            (
                r#"{"destination":"/x","source":"/y","options":["bind","context=x"]}"#,
                ".mounts[0].options",
            ),
            (
                r#"{"destination":"/x","source":"/y","options":["bind","idmap"]}"#,
                ".mounts[0].options",
            ),
            (
                r#"{"destination":"/x","type":"tmpfs","options":["idmap"]}"#,
                ".mounts[0]",
            ),
        ];
        for (json, wanted) in cases {
            match mount(json) {
                Err(Error::Spec { at, .. }) => assert_eq!(at, wanted, "{json}"),
                other => panic!("{json}: {other:?}"),
            }
        }
    }
}
