//! The `spec` verb: writes a config.json to start from.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::bundle::{CONFIG, SPEC_VERSION};
use crate::error::{Error, Result};
use crate::host::{CgroupMode, Host};

/// Write a config.json to start from
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The bundle's directory
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For a caller that is not root: map the caller's ids, no limits, the host's network
    #[arg(long)]
    pub rootless: bool,
}

impl Args {
    /// Writes the file, which must not exist: someone may have edited it.
    ///
    /// # Errors
    /// [`Error::Failed`] in runc's words if it exists, [`Error::Host`] if it cannot be written.
    pub fn run(&self, host: &Host) -> Result<()> {
        let text = if self.rootless {
            rootless(host)
        } else {
            privileged(host)
        };
        write_new(&self.bundle.join(CONFIG), &text)
    }
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let mut file = File::create_new(path).map_err(|errno| match errno.kind() {
        ErrorKind::AlreadyExists => Error::Failed(format!("File {CONFIG} exists. Remove it first")),
        _ => Error::host("create", path.display(), errno),
    })?;
    file.write_all(text.as_bytes())
        .map_err(|errno| Error::host("write to", path.display(), errno))
}

/// The parts that differ, in the template's order. They are text, so that the file keeps the order
/// that people know from other runtimes.
struct Parts<'a> {
    tty_group: &'a str,
    sys: &'a str,
    limits: &'a str,
    namespaces: &'a [&'a str],
}

/// The same settings as runc's, so that what works there works here.
///
/// Source: runc, `specconv.Example` (the version, host name and ids aside).
fn privileged(host: &Host) -> String {
    fill(
        host,
        &Parts {
            tty_group: ",\n\t\t\t\t\"gid=5\"",
            sys: "\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\",\n\t\t\t\"options\": [",
            limits: "\"resources\": {\n\t\t\t\"devices\": [\n\t\t\t\t{\n\t\t\t\t\t\"allow\": false,\n\
                     \t\t\t\t\t\"access\": \"rwm\"\n\t\t\t\t}\n\t\t\t]\n\t\t}",
            namespaces: &["pid", "network", "ipc", "uts", "mount"],
        },
    )
}

/// Without the network namespace (a user cannot connect it), with the caller as root inside, with
/// the host's `/sys` (only the owner of a network namespace may mount sysfs), and without `gid=5`,
/// which a map of one group does not hold.
///
/// Source: runc, `specconv.ToRootless`.
fn rootless(host: &Host) -> String {
    let map = |kind: &str, id: u32| {
        format!(
            "\"{kind}Mappings\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {id},\n\
             \t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t]"
        )
    };
    let maps = format!(
        "{},\n\t\t{}",
        map("uid", host.euid()),
        map("gid", host.egid())
    );
    fill(
        host,
        &Parts {
            tty_group: "",
            sys: "\"type\": \"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": [\n\t\t\t\t\"rbind\",",
            limits: &maps,
            namespaces: &["pid", "ipc", "uts", "mount", "user"],
        },
    )
}

fn fill(host: &Host, parts: &Parts<'_>) -> String {
    let mut namespaces = parts.namespaces.to_vec();
    // On v1 the namespace hides nothing that the mount of /sys/fs/cgroup does not show anyway.
    if host.cgroup_mode() == CgroupMode::Unified {
        namespaces.push("cgroup");
    }
    let namespaces: Vec<String> = namespaces
        .iter()
        .map(|kind| format!("{{\n\t\t\t\t\"type\": \"{kind}\"\n\t\t\t}}"))
        .collect();
    include_str!("spec_cmd/config.json.in")
        .replace("%VERSION%", SPEC_VERSION)
        .replace("%TTY_GROUP%", parts.tty_group)
        .replace("%SYS%", parts.sys)
        .replace("%LIMITS%", parts.limits)
        .replace("%NAMESPACES%", &namespaces.join(",\n\t\t\t"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;
    use crate::host::Facts;
    use oci_spec::runtime::LinuxNamespaceType as Kind;

    fn written(rootless: bool, facts: Facts) -> Bundle {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().to_path_buf();
        let args = Args { bundle, rootless };
        args.run(&Host::fixed(facts)).unwrap();
        Bundle::open(dir.path(), None).unwrap()
    }

    fn kinds(bundle: &Bundle) -> Vec<Kind> {
        let linux = bundle.spec.linux().clone().unwrap();
        let namespaces = linux.namespaces().clone().unwrap();
        namespaces.iter().map(|namespace| namespace.typ()).collect()
    }

    #[test]
    fn what_it_writes_is_a_bundle() {
        let bundle = written(false, Facts::default());
        assert_eq!(bundle.spec.version(), "1.3.0");
        let linux = bundle.spec.linux().clone().unwrap();
        assert!(linux.resources().is_some());
        assert_eq!(
            kinds(&bundle),
            [Kind::Pid, Kind::Network, Kind::Ipc, Kind::Uts, Kind::Mount]
        );
        let text = String::from_utf8(bundle.raw).unwrap();
        assert!(text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n"));
        assert!(!text.contains('%'), "{text}");
    }

    #[test]
    fn a_unified_host_adds_the_cgroup_namespace() {
        let facts = Facts {
            cgroup_mode: CgroupMode::Unified,
            ..Facts::default()
        };
        assert_eq!(kinds(&written(false, facts)).last(), Some(&Kind::Cgroup));
    }

    #[test]
    fn a_rootless_spec_maps_the_caller_and_leaves_out_network_and_limits() {
        let facts = Facts {
            euid: 1000,
            egid: 100,
            ..Facts::default()
        };
        let bundle = written(true, facts);
        let linux = bundle.spec.linux().clone().unwrap();
        assert_eq!(
            kinds(&bundle),
            [Kind::Pid, Kind::Ipc, Kind::Uts, Kind::Mount, Kind::User]
        );
        assert!(linux.resources().is_none());
        assert_eq!(linux.uid_mappings().clone().unwrap()[0].host_id(), 1000);
        assert_eq!(linux.gid_mappings().clone().unwrap()[0].host_id(), 100);
        let text = String::from_utf8(bundle.raw).unwrap();
        assert!(!text.contains("gid=5"));
        assert!(text.contains("\"rbind\""));
    }

    #[test]
    fn an_existing_config_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG), "mine").unwrap();
        let args = Args {
            bundle: dir.path().into(),
            rootless: false,
        };
        let error = args.run(&Host::fixed(Facts::default())).unwrap_err();
        assert_eq!(error.line(), "File config.json exists. Remove it first");
        let kept = std::fs::read_to_string(dir.path().join(CONFIG)).unwrap();
        assert_eq!(kept, "mine");
    }
}
