//! `linux.intelRdt`: shares of the last cache and of memory bandwidth, through resctrl.
//!
//! A container gets a group of its own, named like it, or joins the one that `closID` names, and
//! may be monitored apart. Sources: runtime-spec, config-linux.md "IntelRdt"; kernel, resctrl.rst.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use super::stats::{CmtStats, IntelRdt, L3CacheInfo, MbmStats, MemBwInfo};
use crate::error::{Error, Result};

/// The kernel makes this directory if there is anything to control; mounting is up to the host.
const MOUNT: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC`, linux/magic.h.
const MAGIC: FsType = FsType(0x0765_5821);
const AT: &str = ".linux.intelRdt";

/// The `closID` of the group that everybody is in at first, which has resctrl's own directory.
const ROOT_GROUP: &str = "/";

/// A container's group: what state.json keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Where resctrl is mounted.
    pub root: PathBuf,
    /// The name of the group below it; empty for the group that everybody is in at first.
    pub clos: String,
    /// Whether the group is the container's own, to be removed with it.
    pub is_own: bool,
    /// The name of the monitoring group in the group, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
}

/// Where resctrl is mounted, if it is.
pub fn mount() -> Option<PathBuf> {
    let is_there = |path: &Path| statfs(path).is_ok_and(|fs| fs.filesystem_type() == MAGIC);
    let usual = PathBuf::from(MOUNT);
    if is_there(&usual) {
        return Some(usual);
    }
    // Without the directory the kernel has no resctrl, wherever anybody might mount it.
    usual.is_dir().then(mounted_elsewhere).flatten()
}

fn mounted_elsewhere() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = text.lines().find(|line| line.contains(" - resctrl "))?;
    procfs::process::MountInfo::from_line(line)
        .ok()
        .map(|info| info.mount_point)
}

impl Group {
    /// Decides the group of container `id` with resctrl mounted at `root`; makes nothing.
    ///
    /// # Errors
    /// [`Error::Spec`] if the host has not what is asked for, for a `closID` that is no name, and
    /// for one without a schema that does not exist.
    pub fn plan(id: &str, rdt: &LinuxIntelRdt, root: Option<&Path>) -> Result<Self> {
        let Some(root) = root else {
            let why = "the host has no Intel RDT, or resctrl is not mounted at /sys/fs/resctrl";
            return Err(Error::spec(AT, why));
        };
        let clos_id = rdt.clos_id().as_deref().unwrap_or_default();
        let is_name =
            !matches!(clos_id, "." | "..") && !clos_id.contains('/') && clos_id.len() < 256;
        if clos_id != ROOT_GROUP && (!is_name || clos_id.contains(char::is_control)) {
            return Err(Error::spec(
                format!("{AT}.closID"),
                format!("{clos_id:.80?} is no name of a group"),
            ));
        }
        for (field, schema, feature) in [
            ("l3CacheSchema", rdt.l3_cache_schema(), "L3"),
            ("memBwSchema", rdt.mem_bw_schema(), "MB"),
        ] {
            if given(schema).is_some() && !root.join("info").join(feature).exists() {
                let why = format!("resctrl has no {feature} on this host");
                return Err(Error::spec(format!("{AT}.{field}"), why));
            }
        }
        let clos = match clos_id {
            "" => id,
            ROOT_GROUP => "",
            name => name,
        };
        let exists = root.join(clos).exists();
        if !clos_id.is_empty() && !exists && schemata(rdt).is_empty() {
            let why = format!("the group {clos} does not exist; make it, or give it a schema");
            return Err(Error::spec(format!("{AT}.closID"), why));
        }
        let is_monitored = rdt.enable_monitoring().unwrap_or(false);
        Ok(Self {
            root: root.to_owned(),
            clos: clos.to_owned(),
            is_own: clos_id.is_empty() && !exists,
            monitor: is_monitored.then(|| id.to_owned()),
        })
    }

    /// Makes the group if it is not there, and writes its schemata.
    pub fn make(&self, rdt: &LinuxIntelRdt) -> Result<()> {
        self.mkdir(&self.path())?;
        if let Some(monitor) = self.monitor_path() {
            self.mkdir(&monitor)?;
        }
        self.write_schemata(&schemata(rdt))
    }

    /// Puts a process into the group.
    pub fn place(&self, pid: i32) -> Result<()> {
        self.write(&self.path().join("tasks"), &pid.to_string())?;
        let monitor = self.monitor_path().map(|path| path.join("tasks"));
        monitor.map_or(Ok(()), |tasks| self.write(&tasks, &pid.to_string()))
    }

    /// Changes the schemata while the container runs; `None` leaves as it is.
    pub fn update(&self, l3_cache: Option<&str>, mem_bw: Option<&str>) -> Result<()> {
        let lines: Vec<String> = [l3_cache, mem_bw]
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .collect();
        self.write_schemata(&lines)
    }

    /// Removes the group if it is the container's own, and its monitoring group in any case.
    pub fn remove(&self) -> Result<()> {
        // With a group of its own the kernel removes the monitoring group inside.
        let path = if self.is_own {
            Some(self.path())
        } else {
            self.monitor_path()
        };
        match path.map_or(Ok(()), fs::remove_dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::host("rmdir", self.path().display(), error))
            }
            _ => Ok(()),
        }
    }

    /// What the group may use and, where the host measures it, what it uses.
    pub fn stats(&self) -> Result<IntelRdt> {
        let own = self.read(&self.path().join("schemata"))?;
        let all = self.read(&self.root.join("schemata"))?;
        let line = |text: &str, name: &str| {
            let found = text
                .lines()
                .map(str::trim)
                .find(|line| line.starts_with(name));
            found.unwrap_or_default().to_owned()
        };
        let mut stats = IntelRdt {
            schemata: own.lines().map(|line| line.trim().to_owned()).collect(),
            ..IntelRdt::default()
        };
        let info = self.root.join("info");
        if info.join("L3").exists() {
            stats.l3_cache_info = Some(L3CacheInfo {
                cbm_mask: self.read(&info.join("L3/cbm_mask"))?,
                min_cbm_bits: self.number(&info.join("L3/min_cbm_bits"))?,
                num_closids: self.number(&info.join("L3/num_closids"))?,
            });
            stats.l3_cache_schema_root = line(&all, "L3:");
            stats.l3_cache_schema = line(&own, "L3:");
        }
        if info.join("MB").exists() {
            stats.mem_bw_info = Some(MemBwInfo {
                bandwidth_gran: self.number(&info.join("MB/bandwidth_gran"))?,
                delay_linear: self.number(&info.join("MB/delay_linear"))?,
                min_bandwidth: self.number(&info.join("MB/min_bandwidth"))?,
                num_closids: self.number(&info.join("MB/num_closids"))?,
            });
            stats.mem_bw_schema_root = line(&all, "MB:");
            stats.mem_bw_schema = line(&own, "MB:");
        }
        self.add_monitored(&mut stats)?;
        Ok(stats)
    }

    /// One entry for each cache domain, in the order of their numbers.
    fn add_monitored(&self, stats: &mut IntelRdt) -> Result<()> {
        let Ok(features) = fs::read_to_string(self.root.join("info/L3_MON/mon_features")) else {
            return Ok(());
        };
        let has = |name: &str| features.lines().any(|line| line == name);
        let (total, local) = (has("mbm_total_bytes"), has("mbm_local_bytes"));
        let occupancy = has("llc_occupancy");
        let data = self
            .monitor_path()
            .unwrap_or_else(|| self.path())
            .join("mon_data");
        let entries =
            fs::read_dir(&data).map_err(|error| Error::host("read", data.display(), error))?;
        let mut domains: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        domains.sort();
        let value = |is_there: bool, domain: &Path, file: &str| match is_there {
            true => self.number(&domain.join(file)),
            false => Ok(0),
        };
        for domain in &domains {
            if total || local {
                stats.mbm_stats.get_or_insert_default().push(MbmStats {
                    mbm_total_bytes: value(total, domain, "mbm_total_bytes")?,
                    mbm_local_bytes: value(local, domain, "mbm_local_bytes")?,
                });
            }
            if occupancy {
                let llc_occupancy = value(true, domain, "llc_occupancy")?;
                stats
                    .cmt_stats
                    .get_or_insert_default()
                    .push(CmtStats { llc_occupancy });
            }
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.root.join(&self.clos)
    }

    fn monitor_path(&self) -> Option<PathBuf> {
        self.monitor
            .as_ref()
            .map(|name| self.path().join("mon_groups").join(name))
    }

    /// The kernel takes all lines or none.
    fn write_schemata(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.write(&self.path().join("schemata"), &text)
    }

    fn mkdir(&self, path: &Path) -> Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(self.explained(Error::host("mkdir", path.display(), error)))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).map_err(|error| {
            let what = format!("{:?} to {}", text.trim_end(), path.display());
            self.explained(Error::host("write", what, error))
        })
    }

    fn read(&self, path: &Path) -> Result<String> {
        fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .map_err(|error| Error::host("read", path.display(), error))
    }

    fn number(&self, path: &Path) -> Result<u64> {
        // Counters say `Unavailable` or `Error` when the hardware does not tell.
        self.read(path).map(|text| text.parse().unwrap_or(0))
    }

    /// resctrl says in words what it did not like: resctrl.rst "last_cmd_status".
    fn explained(&self, error: Error) -> Error {
        match fs::read_to_string(self.root.join("info/last_cmd_status")) {
            Ok(status) if !matches!(status.trim(), "" | "ok") => {
                Error::Failed(format!("{}: resctrl says: {}", error.line(), status.trim()))
            }
            _ => error,
        }
    }
}

/// All lines in the specification's order: cache, bandwidth, then the general ones, which win.
fn schemata(rdt: &LinuxIntelRdt) -> Vec<String> {
    let single = [rdt.l3_cache_schema(), rdt.mem_bw_schema()];
    let single = single.into_iter().filter_map(given);
    let lines = rdt.schemata().iter().flatten().map(String::as_str);
    single
        .chain(lines.filter(|line| !line.is_empty()))
        .map(str::to_owned)
        .collect()
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with resctrl's files. No machine of the project has the hardware, so the kernel's own
    /// part (making the files of a new group, refusing a schema) is played by the test.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            fake.put("schemata", "MB:0=100\nL3:0=fffff\n");
            for (file, text) in [
                ("L3/cbm_mask", "fffff"),
                ("L3/min_cbm_bits", "1"),
                ("L3/num_closids", "16"),
                ("MB/bandwidth_gran", "10"),
                ("MB/delay_linear", "1"),
                ("MB/min_bandwidth", "10"),
                ("MB/num_closids", "8"),
                ("last_cmd_status", "ok"),
                ("L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\n"),
            ] {
                fake.put(&format!("info/{file}"), text);
            }
            fake
        }

        fn root(&self) -> &Path {
            self.0.path()
        }

        fn put(&self, file: &str, text: &str) {
            let path = self.root().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }

        fn get(&self, file: &str) -> String {
            fs::read_to_string(self.root().join(file)).unwrap()
        }
    }

    fn rdt(json: &str) -> LinuxIntelRdt {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_group_of_its_own_is_made_filled_changed_and_removed() {
        let fake = Fake::new();
        let asked = rdt(
            r#"{"memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=ff","schemata":["L2:0=1"],"enableMonitoring":true}"#,
        );
        let group = Group::plan("c1", &asked, Some(fake.root())).unwrap();
        assert!(!fake.root().join("c1").exists(), "a plan makes nothing");
        fs::create_dir_all(fake.root().join("c1/mon_groups")).unwrap();
        group.make(&asked).unwrap();
        assert_eq!(fake.get("c1/schemata"), "L3:0=ff\nMB:0=20\nL2:0=1\n");
        group.place(7).unwrap();
        assert_eq!(
            (fake.get("c1/tasks"), fake.get("c1/mon_groups/c1/tasks")),
            ("7".into(), "7".into())
        );
        group.update(None, Some("MB:0=30")).unwrap();
        assert_eq!(fake.get("c1/schemata"), "MB:0=30\n");
        fs::remove_dir_all(fake.root().join("c1")).unwrap();
        fs::create_dir(fake.root().join("c1")).unwrap();
        group.remove().unwrap();
        assert!(!fake.root().join("c1").exists());
        group.remove().expect("a second time");
    }

    #[test]
    fn a_named_group_is_joined_and_stays() {
        let fake = Fake::new();
        let named = rdt(r#"{"closID":"gold","enableMonitoring":true}"#);
        let line = Group::plan("c1", &named, Some(fake.root()))
            .unwrap_err()
            .line();
        assert!(
            line.contains(".closID: the group gold does not exist"),
            "{line}"
        );
        fs::create_dir_all(fake.root().join("gold/mon_groups")).unwrap();
        let group = Group::plan("c1", &named, Some(fake.root())).unwrap();
        assert!(!group.is_own);
        group.make(&named).unwrap();
        group.place(7).unwrap();
        fs::remove_file(fake.root().join("gold/mon_groups/c1/tasks")).unwrap();
        group.remove().unwrap();
        assert_eq!(fake.get("gold/tasks"), "7");
        assert!(!fake.root().join("gold/mon_groups/c1").exists());
    }

    #[test]
    fn a_group_that_was_there_before_is_not_removed() {
        let fake = Fake::new();
        fs::create_dir(fake.root().join("c1")).unwrap();
        let group = Group::plan("c1", &rdt("{}"), Some(fake.root())).unwrap();
        group.remove().unwrap();
        assert!(fake.root().join("c1").exists());
    }

    #[test]
    fn a_slash_is_the_group_that_everybody_is_in() {
        let fake = Fake::new();
        let asked = rdt(r#"{"closID":"/","memBwSchema":"MB:0=50"}"#);
        let group = Group::plan("c1", &asked, Some(fake.root())).unwrap();
        group.make(&asked).unwrap();
        group.place(7).unwrap();
        group.remove().unwrap();
        assert_eq!(fake.get("schemata"), "MB:0=50\n");
        assert_eq!(fake.get("tasks"), "7");
    }

    #[test]
    fn what_the_host_has_not_and_names_that_are_none_are_refused() {
        let fake = Fake::new();
        fs::remove_dir_all(fake.root().join("info/MB")).unwrap();
        let cases = [
            (r#"{"closID":"."}"#, ".closID: \".\" is no name"),
            (r#"{"closID":".."}"#, ".closID: \"..\" is no name"),
            (r#"{"closID":"a/b"}"#, ".closID: \"a/b\" is no name"),
            (
                r#"{"memBwSchema":"MB:0=1"}"#,
                ".memBwSchema: resctrl has no MB",
            ),
        ];
        for (json, want) in cases {
            let line = Group::plan("c1", &rdt(json), Some(fake.root()))
                .unwrap_err()
                .line();
            assert!(line.contains(want), "{json}: {line}");
        }
        let line = Group::plan("c1", &rdt("{}"), None).unwrap_err().line();
        assert!(line.contains("the host has no Intel RDT"), "{line}");
    }

    #[test]
    fn a_refusal_carries_resctrls_own_words() {
        let fake = Fake::new();
        fs::create_dir_all(fake.root().join("c1/schemata")).unwrap();
        fake.put("info/last_cmd_status", "Non-consecutive 1-bits in mask");
        let asked = rdt(r#"{"l3CacheSchema":"L3:0=5"}"#);
        let group = Group::plan("c1", &asked, Some(fake.root())).unwrap();
        let line = group.make(&asked).unwrap_err().line();
        assert!(
            line.ends_with("resctrl says: Non-consecutive 1-bits in mask"),
            "{line}"
        );
    }

    #[test]
    fn stats_are_read_from_the_group_and_the_root() {
        let fake = Fake::new();
        fake.put("c1/schemata", "    MB:0=20\n    L3:0=ff");
        for (domain, bytes) in [("mon_L3_00", "5"), ("mon_L3_01", "Unavailable")] {
            fake.put(&format!("c1/mon_data/{domain}/mbm_total_bytes"), bytes);
            fake.put(&format!("c1/mon_data/{domain}/llc_occupancy"), "9");
        }
        let group = Group::plan("c1", &rdt("{}"), Some(fake.root())).unwrap();
        let stats = group.stats().unwrap();
        let caches = stats.l3_cache_info.unwrap();
        assert_eq!(
            (caches.cbm_mask.as_str(), caches.num_closids),
            ("fffff", 16)
        );
        assert_eq!(stats.mem_bw_info.unwrap().bandwidth_gran, 10);
        assert_eq!(stats.l3_cache_schema, "L3:0=ff");
        assert_eq!(stats.mem_bw_schema_root, "MB:0=100");
        assert_eq!(stats.schemata, ["MB:0=20", "L3:0=ff"]);
        let totals: Vec<u64> = stats
            .mbm_stats
            .unwrap()
            .iter()
            .map(|one| one.mbm_total_bytes)
            .collect();
        assert_eq!(totals, [5, 0]);
        assert_eq!(stats.cmt_stats.unwrap().len(), 2);
    }
}
