//! config-linux.md: control groups. The values are read from the host while the process runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::lab::{Bundle, Container, Lab};
use crate::requirement::Level::{Must, ShouldNot};
use crate::requirement::{Requirement, Verdict, Why, ensure, skip};

const CG: &str = "config-linux.md#control-groups";
const PATH: &str = "config-linux.md#cgroups-path";
const OWN: &str = "config-linux.md#cgroup-ownership";

#[rustfmt::skip]
pub const TABLE: &[Requirement] = &[
    Requirement::must("linux.cgroups-1", CG,
        "a cgroup that is checked and found unfit is an error", used_cgroup),
    Requirement::must("linux.cgroupsPath-1", PATH,
        "an absolute path is taken from the cgroup mount", absolute_path),
    Requirement::must("linux.cgroupsPath-2", PATH,
        "the same value leads to the same place", same_place),
    Requirement::must("linux.cgroupsPath-3", PATH,
        "a value held for invalid is an error: none may leave the hierarchy", escape),
    Requirement::must("linux.cgroupsPath-4", PATH,
        "a relative path is accepted, and leads to the same place each time", relative_path),
    Requirement::should_not("linux.cgroups.owner-1", OWN,
        "owners of a v1 cgroup do not change", v1_owner),
    Requirement::should_not("linux.cgroups.owner-2", OWN,
        "owners do not change without a new cgroup namespace", owner_without_namespace),
    Requirement::should("linux.cgroups.owner-3", OWN,
        "owners change if and only if the cgroup is mounted to be written", owner_of_writable),
    Requirement::should_not("linux.cgroups.owner-4", OWN,
        "without such a mount owners do not change", owner_of_readonly),
    Requirement::should("linux.cgroups.owner-5", OWN,
        "only the directory and the files of /sys/kernel/cgroup/delegate change owner", owned_files),
    Requirement::must_not("linux.cgroups.owner-6", OWN,
        "a listed file that the cgroup lacks is no failure", owner_of_writable),
    Requirement::untestable("linux.cgroups.owner-7", Must, OWN,
        "without /sys/kernel/cgroup/delegate three files are taken for the list",
        "every kernel since 4.15 has the file"),
    Requirement::untestable("linux.cgroups.owner-8", ShouldNot, OWN,
        "no other file changes owner", "linux.cgroups.owner-5 looks at every file"),
    Requirement::with("linux.resources.memory-1", Must, MEM, "limit, bytes", "limit", memory),
    Requirement::with("linux.resources.memory-2", Must, MEM, "reservation, bytes", "reservation", memory),
    Requirement::with("linux.resources.memory-3", Must, MEM, "swap, memory and swap together", "swap", memory),
    Requirement::must("linux.resources.memory-4", MEM,
        "checkBeforeUpdate refuses a limit below what is used", check_before_update),
    Requirement::must("linux.resources.cpu-1", CPU, "shares", cpu_shares),
    Requirement::must("linux.resources.cpu-2", CPU, "quota and period", cpu_quota),
    Requirement::must("linux.resources.cpu-3", CPU, "cpus and mems", cpuset),
    Requirement::untestable("linux.resources.cpu-4", Must, CPU,
        "a quota is not smaller than burst", "either answer is allowed: a runtime may refuse it"),
    Requirement::untestable("linux.resources.cpu-5", Must, CPU,
        "burst is not larger than quota", "either answer is allowed: a runtime may refuse it"),
    Requirement::must("linux.resources.pids-1", PIDS, "limit is the number of tasks", pids_limit),
    Requirement::should("linux.resources.pids-2", PIDS, "zero is a limit", pids_zero),
    Requirement::must("linux.resources.pids-3", PIDS, "-1 is no limit", pids_unlimited),
    Requirement::must("linux.resources.hugepageLimits-1", HUGE,
        "limit is that of the page size", huge_pages),
    Requirement::must("linux.resources.hugepageLimits-2", HUGE,
        "a page size the kernel has no file for is an error", unknown_huge_page),
    Requirement::must("linux.resources.network-1", "config-linux.md#network",
        "classID is net_cls.classid", class_id),
    Requirement::untestable("linux.resources.blockIO-1", Must, "config-linux.md#block-io",
        "an entry of weightDevice has weight or leafWeight", "asks the author of config.json"),
    Requirement::must("linux.resources.blockIO-2", "config-linux.md#block-io",
        "rates are throttles of the device", throttle),
    Requirement::untestable("linux.resources.rdma-1", Must, "config-linux.md#rdma",
        "an entry has hcaHandles or hcaObjects", "asks the author of config.json"),
    Requirement::must("linux.resources.unified-1", UNIFIED,
        "the controllers of the keys are enabled", unified_pids),
    Requirement::must("linux.resources.unified-2", UNIFIED,
        "a key the runtime does not know is written to its file", unified_unknown),
    Requirement::must("linux.resources.unified-3", UNIFIED,
        "a controller that is absent is an error", unified_absent),
    Requirement::must("linux.resources.unified-4", UNIFIED,
        "what cannot be converted to the other version is an error", unified_on_v1),
];

const MEM: &str = "config-linux.md#memory";
const CPU: &str = "config-linux.md#cpu";
const PIDS: &str = "config-linux.md#pids";
const HUGE: &str = "config-linux.md#huge-page-limits";
const UNIFIED: &str = "config-linux.md#unified";

const ROOT: &str = "/sys/fs/cgroup";

fn pure_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The directory of `controller` for a process, on v1 or v2.
fn dir_of(pid: i64, controller: &str) -> Result<PathBuf, Why> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|e| e.to_string())?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if pure_v2() && controllers.is_empty() {
            return Ok(Path::new(ROOT).join(path));
        }
        if !pure_v2() && controllers.split(',').any(|c| c == controller) {
            return Ok(Path::new(ROOT).join(controller).join(path));
        }
    }
    skip!("no {controller} controller here")
}

/// The value of a cgroup file, by its names on v1 and on v2, in a container with `resources`.
fn value(
    lab: &Lab,
    resources: &Value,
    controller: &str,
    v1: &str,
    v2: &str,
) -> Result<String, Why> {
    let file = if pure_v2() { v2 } else { v1 };
    if !root_has(controller, file) {
        skip!("no {controller} controller here, or no {file}");
    }
    running(lab, resources, |c| knob(c, controller, file))
}

/// One file of a running container's cgroup.
fn knob(c: &Container<'_>, controller: &str, file: &str) -> Result<String, Why> {
    let file = dir_of(c.pid()?, controller)?.join(file);
    let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// Whether this machine can have the controller (v2) or the file (v1) at all.
fn root_has(controller: &str, file: &str) -> bool {
    if !pure_v2() {
        return Path::new(ROOT).join(controller).join(file).exists();
    }
    let listed = fs::read_to_string(format!("{ROOT}/cgroup.controllers")).unwrap_or_default();
    listed.split_whitespace().any(|c| c == controller)
}

/// A running container with these resources, for `look`; it is stopped afterwards.
fn running<T>(
    lab: &Lab,
    resources: &Value,
    look: impl FnOnce(&Container<'_>) -> Result<T, Why>,
) -> Result<T, Why> {
    let mut bundle = lab.bundle()?;
    bundle
        .config
        .sleep()
        .set("/linux/resources", resources.clone());
    let container = lab.started(&bundle)?;
    let found = look(&container);
    container.stop()?;
    found
}

fn is(found: &str, want: &str, what: &str) -> Verdict {
    ensure!(found == want, "{what} is {found:?}, not {want:?}");
    Ok(())
}

fn with_path(lab: &Lab, path: &str) -> Result<(Bundle, PathBuf), Why> {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep().set("/linux/cgroupsPath", json!(path));
    let container = lab.started(&bundle)?;
    let dir = dir_of(container.pid()?, "pids")?;
    container.stop()?;
    container.delete()?;
    ensure!(!dir.exists(), "{} is left", dir.display());
    Ok((bundle, dir))
}

/// A second container in the cgroup of a living one: refused, or, where the runtime does not
/// check, made; but never a failure half-way.
fn used_cgroup(lab: &Lab) -> Verdict {
    let path = format!("/{}/shared", lab.fresh());
    let mut bundle = lab.bundle()?;
    bundle.config.sleep().set("/linux/cgroupsPath", json!(path));
    let holder = lab.started(&bundle)?;
    let (guest, create) = lab.try_create(&bundle)?;
    ensure!(create.ok() || !guest.exists()?, "refused, but it exists");
    ensure!(
        holder.status()? == "running",
        "the holder is {}",
        holder.status()?
    );
    Ok(())
}

fn absolute_path(lab: &Lab) -> Verdict {
    let path = format!("/{}/deep/er", lab.fresh());
    let (_, dir) = with_path(lab, &path)?;
    let base = if pure_v2() {
        ROOT.to_owned()
    } else {
        format!("{ROOT}/pids")
    };
    ensure!(
        dir == Path::new(&format!("{base}{path}")),
        "it is in {}",
        dir.display()
    );
    let _ = fs::remove_dir(dir.with_file_name(""));
    Ok(())
}

fn same_place(lab: &Lab) -> Verdict {
    let path = format!("/{}", lab.fresh());
    let (_, first) = with_path(lab, &path)?;
    let (_, second) = with_path(lab, &path)?;
    ensure!(
        first == second,
        "first {}, then {}",
        first.display(),
        second.display()
    );
    Ok(())
}

fn relative_path(lab: &Lab) -> Verdict {
    let path = lab.fresh();
    let (_, first) = with_path(lab, &path)?;
    let (_, second) = with_path(lab, &path)?;
    ensure!(
        first == second,
        "first {}, then {}",
        first.display(),
        second.display()
    );
    Ok(())
}

fn escape(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    let name = lab.fresh();
    bundle
        .config
        .sleep()
        .set("/linux/cgroupsPath", json!(format!("/../../../{name}")));
    let (container, create) = lab.try_create(&bundle)?;
    if create.ok() {
        let dir = dir_of(container.pid()?, "pids")?;
        ensure!(dir.starts_with(ROOT), "it is in {}", dir.display());
        ensure!(
            !dir.to_string_lossy().contains(".."),
            "it is in {}",
            dir.display()
        );
    }
    Ok(())
}

/// Owners of the files of a container's cgroup; `edit` makes its configuration.
fn owners(lab: &Lab, mount: Option<&[&str]>, namespace: bool) -> Result<Vec<(String, u32)>, Why> {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep().user_namespace(300_000);
    if namespace {
        bundle
            .config
            .namespace("cgroup", Some(json!({"type": "cgroup"})));
    }
    if let Some(options) = mount {
        bundle
            .config
            .mount("/sys/fs/cgroup", "cgroup", "cgroup", options);
    }
    let container = lab.started(&bundle)?;
    let dir = dir_of(container.pid()?, "pids")?;
    let mut found = vec![(".".to_owned(), uid(&dir)?)];
    for entry in fs::read_dir(&dir)
        .map_err(|e| format!("{}: {e}", dir.display()))?
        .flatten()
    {
        found.push((
            entry.file_name().to_string_lossy().into_owned(),
            uid(&entry.path())?,
        ));
    }
    container.stop()?;
    Ok(found)
}

fn uid(path: &Path) -> Result<u32, Why> {
    Ok(fs::metadata(path)
        .map_err(|e| format!("{}: {e}", path.display()))?
        .uid())
}

fn nobody_changed(owners: &[(String, u32)]) -> Verdict {
    let changed: Vec<_> = owners.iter().filter(|(_, uid)| *uid != 0).collect();
    ensure!(changed.is_empty(), "changed: {changed:?}");
    Ok(())
}

const WRITABLE: &[&str] = &["nosuid", "noexec", "nodev", "relatime"];
const READONLY: &[&str] = &["nosuid", "noexec", "nodev", "relatime", "ro"];

fn v1_owner(lab: &Lab) -> Verdict {
    if pure_v2() {
        skip!("cgroup v2 here");
    }
    nobody_changed(&owners(lab, Some(WRITABLE), true)?)
}

fn owner_without_namespace(lab: &Lab) -> Verdict {
    nobody_changed(&owners(lab, None, false)?)
}

fn owner_of_readonly(lab: &Lab) -> Verdict {
    nobody_changed(&owners(lab, Some(READONLY), true)?)?;
    nobody_changed(&owners(lab, None, true)?)
}

fn owner_of_writable(lab: &Lab) -> Verdict {
    if !pure_v2() {
        skip!("cgroup v1 here");
    }
    let found = owners(lab, Some(WRITABLE), true)?;
    for name in [
        ".",
        "cgroup.procs",
        "cgroup.subtree_control",
        "cgroup.threads",
    ] {
        let uid = found.iter().find(|(n, _)| n == name).map(|(_, uid)| *uid);
        ensure!(uid == Some(300_000), "{name} belongs to {uid:?}");
    }
    Ok(())
}

fn owned_files(lab: &Lab) -> Verdict {
    if !pure_v2() {
        skip!("cgroup v1 here");
    }
    let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_default();
    for (name, uid) in owners(lab, Some(WRITABLE), true)? {
        let may = name == "." || listed.lines().any(|l| l == name);
        ensure!(
            uid == if may { 300_000 } else { 0 },
            "{name} belongs to {uid}"
        );
    }
    Ok(())
}

const MIB: i64 = 1 << 20;

fn memory(lab: &Lab, field: &str) -> Verdict {
    let resources = json!({"memory": {"limit": 64 * MIB, "reservation": 32 * MIB,
                                      "swap": 96 * MIB}});
    let (v1, v2, on_v1, on_v2) = match field {
        "limit" => ("memory.limit_in_bytes", "memory.max", 64 * MIB, 64 * MIB),
        "reservation" => (
            "memory.soft_limit_in_bytes",
            "memory.low",
            32 * MIB,
            32 * MIB,
        ),
        _ => (
            "memory.memsw.limit_in_bytes",
            "memory.swap.max",
            96 * MIB,
            32 * MIB,
        ),
    };
    if field == "swap" && !pure_v2() && !root_has("memory", v1) {
        skip!("no swap accounting here");
    }
    let resources = if root_has("memory", "memory.memsw.limit_in_bytes") {
        resources
    } else {
        json!({"memory": {"limit": 64 * MIB, "reservation": 32 * MIB}})
    };
    let found = value(lab, &resources, "memory", v1, v2)?;
    let want = if pure_v2() { on_v2 } else { on_v1 };
    is(&found, &want.to_string(), field)
}

fn check_before_update(lab: &Lab) -> Verdict {
    if !pure_v2() {
        skip!("on cgroup v1 the kernel itself refuses it");
    }
    if !root_has("memory", "memory.max") {
        skip!("no memory controller here");
    }
    running(lab, &json!({"memory": {"limit": 64 * MIB}}), |c| {
        let file = lab.dir()?.join("resources.json");
        let less = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}});
        fs::write(&file, less.to_string()).map_err(|e| e.to_string())?;
        let call = c.call(&["update", "--resources", &file.to_string_lossy(), &c.id])?;
        ensure!(!call.ok(), "update accepts a limit below what is used");
        ensure!(c.status()? == "running", "the container is {}", c.status()?);
        Ok(())
    })
}

fn cpu_shares(lab: &Lab) -> Verdict {
    let resources = json!({"cpu": {"shares": 512}});
    let found = value(lab, &resources, "cpu", "cpu.shares", "cpu.weight")?;
    if !pure_v2() {
        return is(&found, "512", "cpu.shares");
    }
    // Two formulas are about: the linear one gives 20, the newer logarithmic one 59.
    ensure!(
        ["20", "59"].contains(&found.as_str()),
        "cpu.weight is {found}"
    );
    Ok(())
}

fn cpu_quota(lab: &Lab) -> Verdict {
    let resources = json!({"cpu": {"quota": 25000, "period": 50000}});
    let quota = value(lab, &resources, "cpu", "cpu.cfs_quota_us", "cpu.max")?;
    if pure_v2() {
        return is(&quota, "25000 50000", "cpu.max");
    }
    let period = value(lab, &resources, "cpu", "cpu.cfs_period_us", "cpu.max")?;
    is(&quota, "25000", "the quota")?;
    is(&period, "50000", "the period")
}

fn cpuset(lab: &Lab) -> Verdict {
    let resources = json!({"cpu": {"cpus": "0", "mems": "0"}});
    let cpus = value(lab, &resources, "cpuset", "cpuset.cpus", "cpuset.cpus")?;
    let mems = value(lab, &resources, "cpuset", "cpuset.mems", "cpuset.mems")?;
    is(&cpus, "0", "cpuset.cpus")?;
    is(&mems, "0", "cpuset.mems")
}

fn pids(lab: &Lab, limit: i64) -> Result<String, Why> {
    value(
        lab,
        &json!({"pids": {"limit": limit}}),
        "pids",
        "pids.max",
        "pids.max",
    )
}

fn pids_limit(lab: &Lab) -> Verdict {
    is(&pids(lab, 77)?, "77", "pids.max")
}

fn pids_zero(lab: &Lab) -> Verdict {
    if !root_has("pids", "pids.max") && pure_v2() {
        skip!("no pids controller here");
    }
    let mut bundle = lab.bundle()?;
    bundle
        .config
        .sleep()
        .set("/linux/resources/pids/limit", json!(0));
    let (container, create) = lab.try_create(&bundle)?;
    // No task may be made under a limit of zero; to refuse it is to treat it as a limit.
    if !create.ok() {
        return Ok(());
    }
    let found = knob(&container, "pids", "pids.max")?;
    ensure!(["0", "1"].contains(&found.as_str()), "pids.max is {found}");
    Ok(())
}

fn pids_unlimited(lab: &Lab) -> Verdict {
    is(&pids(lab, -1)?, "max", "pids.max")
}

fn huge_pages(lab: &Lab) -> Verdict {
    let resources = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]});
    let (v1, v2) = ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
    if !root_has("hugetlb", v1) {
        skip!("no hugetlb controller with pages of 2 MB here");
    }
    is(
        &value(lab, &resources, "hugetlb", v1, v2)?,
        &(4 * MIB).to_string(),
        v2,
    )
}

fn unknown_huge_page(lab: &Lab) -> Verdict {
    if !root_has("hugetlb", "hugetlb.2MB.limit_in_bytes") {
        skip!("no hugetlb controller here");
    }
    lab.refuses("huge pages of 3 MB", |c| {
        c.set(
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "3MB", "limit": 4 * MIB}]),
        );
    })
}

fn class_id(lab: &Lab) -> Verdict {
    if pure_v2() || !root_has("net_cls", "net_cls.classid") {
        skip!("no net_cls controller here");
    }
    let resources = json!({"network": {"classID": 1_048_577}});
    let found = value(
        lab,
        &resources,
        "net_cls",
        "net_cls.classid",
        "net_cls.classid",
    )?;
    is(&found, "1048577", "net_cls.classid")
}

/// Limits reading of the first whole disk there is.
fn throttle(lab: &Lab) -> Verdict {
    let (controller, v1) = (
        if pure_v2() { "io" } else { "blkio" },
        "blkio.throttle.read_bps_device",
    );
    if !root_has(controller, v1) {
        skip!("no {controller} controller here");
    }
    let disk = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .find_map(|entry| {
            let dev = fs::read_to_string(entry.path().join("dev")).ok()?;
            let (major, minor) = dev.trim().split_once(':')?;
            Some((major.parse::<i64>().ok()?, minor.parse::<i64>().ok()?))
        });
    let Some((major, minor)) = disk else {
        skip!("no disk here")
    };
    let resources = json!({"blockIO": {"throttleReadBpsDevice": [
        {"major": major, "minor": minor, "rate": MIB}]}});
    let found = value(lab, &resources, controller, v1, "io.max")?;
    let want = if pure_v2() {
        format!("rbps={MIB}")
    } else {
        format!("{major}:{minor} {MIB}")
    };
    ensure!(
        found.contains(&want),
        "the throttle is {found:?}, without {want:?}"
    );
    Ok(())
}

fn unified_pids(lab: &Lab) -> Verdict {
    if !pure_v2() || !root_has("pids", "pids.max") {
        skip!("no cgroup v2 with pids here");
    }
    let resources = json!({"unified": {"pids.max": "55"}});
    is(
        &value(lab, &resources, "pids", "", "pids.max")?,
        "55",
        "pids.max",
    )
}

fn unified_unknown(lab: &Lab) -> Verdict {
    if !pure_v2() {
        skip!("cgroup v1 here");
    }
    let resources = json!({"unified": {"cgroup.max.depth": "7"}});
    running(lab, &resources, |c| {
        let file = dir_of(c.pid()?, "")?.join("cgroup.max.depth");
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        is(text.trim(), "7", "cgroup.max.depth")
    })
}

fn unified_absent(lab: &Lab) -> Verdict {
    if !pure_v2() {
        skip!("cgroup v1 here");
    }
    lab.refuses("an absent controller", |c| {
        c.set("/linux/resources/unified", json!({"nonsense.max": "1"}));
    })
}

fn unified_on_v1(lab: &Lab) -> Verdict {
    if pure_v2() {
        skip!("cgroup v2 here");
    }
    lab.refuses("unified on cgroup v1", |c| {
        c.set(
            "/linux/resources/unified",
            json!({"memory.high": "1000000"}),
        );
    })
}
