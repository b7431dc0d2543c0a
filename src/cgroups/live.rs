//! Tests on the machine's own cgroups; they want root. Every test has cgroups of its own name.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// A driver whose cgroups are gone when the test ends, and the processes that it started.
pub struct Live {
    pub driver: Box<dyn Driver>,
    pub saved: Saved,
    children: Vec<Child>,
}

impl Live {
    pub fn at(path: &str) -> Self {
        Self::of(plan(&request(path)).unwrap())
    }

    /// v2 rules in a v2 tree, be it the only one or the hybrid's without controllers.
    pub fn v2_at(path: &str) -> Self {
        let mut saved = plan(&request(path)).unwrap();
        saved
            .hierarchies
            .retain(|hierarchy| hierarchy.controllers.is_empty());
        assert!(!saved.hierarchies.is_empty(), "a cgroup2 mount is needed");
        saved.version = Version::V2;
        Self::of(saved)
    }

    fn of(saved: Saved) -> Self {
        Self {
            driver: open(&saved),
            saved,
            children: Vec::new(),
        }
    }

    /// Starts a shell with `script` in the cgroups.
    pub fn start(&mut self, script: &str) -> i32 {
        let child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        self.children.push(child);
        let child = self.children.last_mut().unwrap();
        let pid = child.id() as i32;
        self.driver.place(pid).unwrap();
        drop(child.stdin.take());
        pid
    }

    /// Waits for all that were started.
    pub fn reap(&mut self) {
        for mut child in self.children.drain(..) {
            child.wait().unwrap();
        }
    }

    pub fn paths(&self) -> Vec<String> {
        self.saved
            .hierarchies
            .iter()
            .map(Hierarchy::full_path)
            .collect()
    }

    pub fn exists(&self) -> Vec<String> {
        let mut paths = self.paths();
        paths.retain(|path| std::path::Path::new(path).exists());
        paths
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.driver.kill(libc::SIGKILL);
        self.reap();
        let _ = self.driver.remove();
    }
}

pub fn request(path: &str) -> Request<'_> {
    Request {
        id: "keel-test",
        cgroups_path: Some(path),
        manager: Manager::Cgroupfs,
        rootless: false,
        annotations: None,
        resources: None,
        owner: None,
    }
}

/// A path that no other test run has.
pub fn unique(name: &str) -> String {
    format!("/keel-cgroups-test-{}-{name}", std::process::id())
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn both(name: &str) -> [Live; 2] {
    [
        Live::at(&unique(name)),
        Live::v2_at(&unique(&format!("{name}-v2"))),
    ]
}

#[test]
fn a_placed_process_is_in_every_hierarchy_and_found_by_processes() {
    for mut live in both("placed") {
        live.driver.prepare(None).unwrap();
        let pid = live.start("sleep 100 & wait");
        wait_until("the shell's child", || {
            live.driver.processes().unwrap().len() == 2
        });
        assert!(live.driver.processes().unwrap().contains(&pid));
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let inside = text.lines().filter(|line| line.contains("-placed")).count();
        assert_eq!(inside, live.saved.hierarchies.len(), "{text}");
    }
}

#[test]
fn kill_reaches_frozen_and_nested_processes_and_remove_leaves_nothing() {
    for mut live in both("killed") {
        live.driver.prepare(None).unwrap();
        for path in live.paths() {
            std::fs::create_dir_all(format!("{path}/below/deeper")).unwrap();
        }
        live.start("while :; do sleep 0.01 & done");
        let pid = live.start("sleep 100");
        let last = live.saved.hierarchies.iter().rfind(|h| h.has("")).unwrap();
        let nested = format!("{}/below/deeper/cgroup.procs", last.full_path());
        std::fs::write(nested, pid.to_string()).unwrap();
        live.driver.freeze().unwrap();
        assert!(live.driver.is_frozen().unwrap());
        live.driver.kill(libc::SIGKILL).unwrap();
        live.reap();
        live.driver.remove().unwrap();
        assert_eq!(live.exists(), [""; 0]);
        live.driver
            .remove()
            .expect("nothing left to remove is a success");
    }
}

#[test]
fn a_frozen_container_stays_frozen_when_it_gets_a_signal() {
    for mut live in both("frozen") {
        live.driver.prepare(None).unwrap();
        live.start("trap 'exit 7' TERM; while :; do sleep 0.01; done");
        wait_until("the trap", || live.driver.processes().unwrap().len() == 2);
        live.driver.freeze().unwrap();
        live.driver.kill(libc::SIGTERM).unwrap();
        assert!(live.driver.is_frozen().unwrap());
        assert!(!live.driver.processes().unwrap().is_empty());
        live.driver.thaw().unwrap();
        assert!(!live.driver.is_frozen().unwrap());
        live.reap();
    }
}

#[test]
fn remove_names_the_process_that_keeps_the_cgroup_busy() {
    for mut live in both("busy") {
        live.driver.prepare(None).unwrap();
        let pid = live.start("exec sleep 100");
        let line = live.driver.remove().unwrap_err().line();
        assert!(line.contains(&format!("{pid} (s")), "{line}");
    }
}

#[test]
fn remove_waits_for_the_last_process_to_end() {
    for mut live in both("ending") {
        live.driver.prepare(None).unwrap();
        let pid = live.start("exec sleep 0.2");
        let name = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        wait_until("the last process", || name().trim() != "sh");
        live.driver.remove().unwrap();
        assert_eq!(live.exists(), [""; 0]);
    }
}

#[test]
fn a_cgroup_in_use_or_frozen_is_refused() {
    for mut live in both("used") {
        live.driver.prepare(None).unwrap();
        live.start("exec sleep 100");
        let mut second = open(&live.saved);
        let line = second.prepare(None).unwrap_err().line();
        assert!(
            line.starts_with("container's cgroup is not empty: 1 process(es) found"),
            "{line}"
        );
        live.driver.kill(libc::SIGKILL).unwrap();
        live.reap();
        second
            .prepare(None)
            .expect("an empty cgroup may be taken over");
        live.driver.freeze().unwrap();
        let line = second.prepare(None).unwrap_err().line();
        assert_eq!(line, "container's cgroup unexpectedly frozen");
        live.driver.thaw().unwrap();
    }
}

#[test]
fn a_failed_create_removes_the_parents_that_it_made() {
    for name in ["parents/a/b", "parents-v2/a/b"] {
        let path = unique(name);
        let mut live = if name.contains("v2") {
            Live::v2_at(&path)
        } else {
            Live::at(&path)
        };
        live.driver.prepare(None).unwrap();
        live.driver.remove().unwrap();
        let parents = live.paths();
        let left = parents.iter().map(|path| path.replace("/a/b", ""));
        assert_eq!(
            left.filter(|path| std::path::Path::new(path).exists())
                .count(),
            0
        );
    }
}

#[test]
fn a_container_without_cgroups_can_be_asked_everything() {
    let disabled = Request {
        manager: Manager::Disabled,
        ..request("/x")
    };
    let saved = plan(&disabled).unwrap();
    let mut driver = open(&saved);
    assert!(matches!(driver.prepare(None).unwrap(), Placement::Nowhere));
    assert!(matches!(
        driver.join(1, &Below::new()).unwrap(),
        Placement::Nowhere
    ));
    driver.place(1).unwrap();
    assert!(!driver.is_frozen().unwrap());
    assert_eq!(driver.processes().unwrap(), [0; 0]);
    driver.kill(libc::SIGKILL).unwrap();
    driver.remove().unwrap();
    assert!(
        driver
            .freeze()
            .unwrap_err()
            .line()
            .contains("cgroup not exist")
    );
}

#[test]
fn who_joins_goes_below_only_where_the_container_has_a_cgroup() {
    let mut live = Live::v2_at(&unique("joined-v2"));
    live.driver.prepare(None).unwrap();
    let init = live.start("exec sleep 100");
    let path = &live.paths()[0];
    std::fs::create_dir(format!("{path}/sub")).unwrap();
    let below = |path: &str| Below::from([(String::new(), path.to_owned())]);
    let line = live.driver.join(init, &below("../x")).unwrap_err().line();
    assert_eq!(line, "bad sub cgroup path: ../x");
    let line = live.driver.join(init, &below("none")).unwrap_err().line();
    assert!(line.ends_with("none: no such file or directory"), "{line}");
    assert!(matches!(
        live.driver.join(init, &below("/sub/")).unwrap(),
        Placement::AtBirth(_)
    ));
    let joined = live.start("exec sleep 100");
    let procs = std::fs::read_to_string(format!("{path}/sub/cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), joined.to_string());
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// What a shell in the container's cgroups answers to `script`.
fn answer(live: &mut Live, script: &str) -> Option<i32> {
    live.start(script);
    live.children.pop().unwrap().wait().unwrap().code()
}

/// Opens /dev/full for reading and for writing, and /dev/null; the exit code has a bit for each.
const OPEN_DEVICES: &str = "code=0; (: < /dev/full) 2>/dev/null || code=$((code + 1)); \
    (: >> /dev/full) 2>/dev/null || code=$((code + 2)); \
    (: < /dev/null) 2>/dev/null || code=$((code + 4)); \
    (: < /dev/kmsg) 2>/dev/null || code=$((code + 8)); exit $code";

#[test]
fn device_rules_hold_and_change_while_the_container_runs() {
    for mut live in both("devices") {
        live.driver.prepare(None).unwrap();
        live.driver.confine(None).unwrap();
        assert_eq!(
            answer(&mut live, OPEN_DEVICES),
            Some(8),
            "only the harmless devices"
        );
        let kmsg = resources(
            r#"{"devices":[{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#,
        );
        live.driver.confine(Some(&kmsg)).unwrap();
        assert_eq!(answer(&mut live, OPEN_DEVICES), Some(0), "one more");
        live.driver.allow_devices(&[]).unwrap();
        assert_eq!(
            answer(&mut live, OPEN_DEVICES),
            Some(8),
            "and without it again"
        );
    }
}

#[test]
fn exactly_one_device_program_is_attached_after_every_change() {
    let live = Live::v2_at(&unique("programs-v2"));
    let mut driver = open(&live.saved);
    driver.prepare(None).unwrap();
    let mount = dir::Dir::mount(
        &live.saved.hierarchies[0].mount,
        nix::sys::statfs::CGROUP2_SUPER_MAGIC,
    );
    let leaf = mount
        .unwrap()
        .unwrap()
        .open(&live.saved.hierarchies[0].path)
        .unwrap();
    assert_eq!(program::count(&leaf).unwrap(), 0);
    for _ in 0..3 {
        driver.allow_devices(&[]).unwrap();
        assert_eq!(program::count(&leaf).unwrap(), 1);
    }
}

#[test]
fn a_fork_bomb_stops_at_the_pids_limit() {
    let mut live = Live::at(&unique("pids"));
    live.driver.prepare(None).unwrap();
    live.driver
        .limit(&resources(r#"{"pids":{"limit":5}}"#))
        .unwrap();
    let code = answer(&mut live, "while :; do sleep 100 & done 2>/dev/null");
    assert_eq!(code, Some(2), "the shell gives up when it cannot fork");
    assert_eq!(live.driver.processes().unwrap().len(), 4);
}

#[test]
fn a_memory_hog_is_killed_at_its_limit_and_the_watch_tells() {
    let mut live = Live::at(&unique("memory"));
    live.driver.prepare(None).unwrap();
    let limits = resources(r#"{"memory":{"limit":8388608,"swap":8388608}}"#);
    live.driver.limit(&limits).unwrap();
    let mut watch = live
        .driver
        .watch_oom()
        .unwrap()
        .expect("a memory controller");
    let fill = "exec head -c 64M /dev/zero > /dev/null";
    assert_eq!(
        answer(&mut live, fill),
        Some(0),
        "reading is no use of memory"
    );
    assert_eq!(watch.new_events().unwrap(), Some(0));
    live.start("exec tail /dev/zero");
    let ended = live.children.pop().unwrap().wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended),
        Some(libc::SIGKILL)
    );
    let timeout = nix::poll::PollTimeout::from(10_000_u16);
    assert_eq!(nix::poll::poll(&mut [watch.poll_fd()], timeout), Ok(1));
    assert_eq!(watch.new_events().unwrap(), Some(1));
    assert_eq!(live.driver.oom_kills().unwrap(), 1);
    live.driver.remove().unwrap();
    assert_eq!(watch.new_events().unwrap(), None);
}

#[test]
fn limits_are_raised_and_lowered_in_an_order_that_the_kernel_takes() {
    let mut live = Live::at(&unique("order"));
    live.driver.prepare(None).unwrap();
    let steps = [
        r#"{"memory":{"limit":10485760,"swap":20971520},"cpu":{"quota":50000,"period":100000}}"#,
        r#"{"memory":{"limit":41943040,"swap":83886080},"cpu":{"quota":400000,"period":200000}}"#,
        r#"{"memory":{"limit":10485760,"swap":10485760},"cpu":{"quota":1000,"period":1000000}}"#,
        r#"{"memory":{"limit":-1},"cpu":{"quota":-1,"burst":0}}"#,
        r#"{"memory":{"limit":10485760,"swap":-1},"cpu":{"quota":5000,"burst":5000}}"#,
        r#"{"cpu":{"idle":1}}"#,
        r#"{"cpu":{"idle":0,"shares":3}}"#,
        r#"{"cpu":{"cpus":"0","mems":"0"},"pids":{"limit":-1}}"#,
        r#"{"blockIO":{"weight":200}}"#,
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]}"#,
    ];
    for step in steps {
        let has_bfq = live
            .paths()
            .iter()
            .any(|path| std::path::Path::new(path).join("blkio.bfq.weight").exists());
        if step.contains("blockIO") && !has_bfq {
            continue;
        }
        live.driver
            .limit(&resources(step))
            .unwrap_or_else(|error| panic!("{step}: {}", error.line()));
    }
    live.driver.limit(&resources(steps[0])).unwrap();
}

#[test]
fn a_limit_without_a_controller_is_refused_in_one_line() {
    let live = Live::v2_at(&unique("lacking-v2"));
    let limits = resources(r#"{"pids":{"limit":5}}"#);
    let offered = std::fs::read_to_string(format!(
        "{}/cgroup.controllers",
        live.saved.hierarchies[0].mount
    ));
    if offered.unwrap().contains("pids") {
        return;
    }
    let mut driver = open(&live.saved);
    let line = driver.prepare(Some(&limits)).unwrap_err().line();
    assert!(line.contains("controller pids is not available"), "{line}");
    let line = driver.limit(&limits).unwrap_err().line();
    assert!(line.contains("has no pids controller"), "{line}");
}

#[test]
fn verify_sees_a_limit_that_somebody_changed_and_a_process_that_left() {
    let mut live = Live::at(&unique("verified"));
    let asked = resources(
        r#"{"pids":{"limit":5},"cpu":{"shares":512},"devices":[{"allow":true,"type":"b","major":8}]}"#,
    );
    live.driver.prepare(Some(&asked)).unwrap();
    let pid = live.start("exec sleep 100");
    live.driver.confine(Some(&asked)).unwrap();
    live.driver.verify_placed(pid).unwrap();
    live.driver.verify(Some(&asked)).unwrap();
    live.driver
        .limit(&resources(r#"{"pids":{"limit":6}}"#))
        .unwrap();
    let line = live.driver.verify(Some(&asked)).unwrap_err().line();
    assert!(
        line.ends_with("pids.max is \"6\", not \"5\": the kernel did not take it"),
        "{line}"
    );
    live.driver.limit(&asked).unwrap();
    live.driver.verify(Some(&asked)).unwrap();
    if live.saved.version == Version::V1 {
        live.driver.allow_devices(&[]).unwrap();
        let line = live.driver.verify(Some(&asked)).unwrap_err().line();
        assert!(line.contains("is not what config.json asks for"), "{line}");
    }
    let line = live.driver.verify_placed(1).unwrap_err().line();
    assert!(line.starts_with("process 1 is not in the"), "{line}");
}

#[test]
fn stats_count_what_the_container_used() {
    for mut live in both("stats") {
        live.driver.prepare(None).unwrap();
        let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done";
        assert_eq!(answer(&mut live, burn), Some(0));
        live.start("exec sleep 100");
        let stats = live.driver.stats().unwrap();
        assert!(stats.cpu.usage.total > 10_000_000, "{:?}", stats.cpu);
        assert!(
            stats.cpu.usage.user + stats.cpu.usage.kernel > 0,
            "{:?}",
            stats.cpu
        );
        assert_eq!(
            stats.pids,
            stats::Pids {
                current: 1,
                limit: 0
            }
        );
        if live.saved.hierarchy("memory").is_some() {
            assert!(stats.memory.usage.max > 0, "{:?}", stats.memory);
            assert!(stats.memory.swap.limit > 0 && stats.memory.raw.contains_key("rss"));
            assert!(stats.cpu.usage.percpu.iter().sum::<u64>() > 0);
            assert!(stats.cpu.usage.percpu_user.iter().sum::<u64>() > 0);
            assert_eq!(stats.cpuset.cpus.first(), Some(&0));
        }
    }
}

/// Where systemd does not run there is no unit to be made; the test guest has it.
fn has_systemd() -> bool {
    let runs = std::path::Path::new("/run/systemd/private").exists();
    assert!(runs || std::env::var_os("KEEL_MUST_RUN").is_none());
    runs
}

fn systemd_at(name: &str, annotations: &HashMap<String, String>) -> Live {
    let path = format!("keel-test.slice:keel:{}-{name}", std::process::id());
    let request = Request {
        manager: Manager::Systemd,
        annotations: Some(annotations),
        ..request(&path)
    };
    Live::of(plan(&request).unwrap())
}

fn systemctl(args: &[&str]) -> String {
    let output = Command::new("systemctl").args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_scope_has_its_limits_and_keeps_its_devices_over_a_daemon_reload() {
    if !has_systemd() {
        return;
    }
    let annotations = HashMap::from([
        (
            "org.systemd.property.TimeoutStopSec".to_owned(),
            "7".to_owned(),
        ),
        (
            "org.systemd.property.Description".to_owned(),
            "'keel test'".to_owned(),
        ),
    ]);
    let mut live = systemd_at("scope", &annotations);
    let asked = resources(
        r#"{"memory":{"limit":67108864},"cpu":{"shares":512,"quota":50500,"period":100000},"pids":{"limit":9},
            "devices":[{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#,
    );
    live.driver.prepare(Some(&asked)).unwrap();
    // In the scope from its start to its end, so that there is a scope.
    let pid = live.start("exec sleep 100");
    live.driver.confine(Some(&asked)).unwrap();
    live.driver.verify(Some(&asked)).unwrap();
    let unit = live.saved.unit.clone().unwrap().name;
    let shown = systemctl(&[
        "show",
        "-p",
        "Description,Slice,Delegate,TimeoutStopUSec,TasksMax,CPUQuotaPerSecUSec,DevicePolicy",
        &unit,
    ]);
    // On v1 systemd is told the rules, or it would write its own at the reload.
    let policy = match live.saved.version {
        Version::V1 => "DevicePolicy=strict",
        Version::V2 => "DevicePolicy=auto",
    };
    for line in [
        policy,
        "Description=keel test",
        "Slice=keel-test.slice",
        "Delegate=yes",
        "TimeoutStopUSec=7s",
        "TasksMax=9",
        "CPUQuotaPerSecUSec=510ms",
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} in {shown}"
        );
    }
    let mut joins = || {
        live.driver.join(pid, &Below::new()).unwrap();
        answer(&mut live, OPEN_DEVICES)
    };
    assert_eq!(joins(), Some(0));
    systemctl(&["daemon-reload"]);
    assert_eq!(joins(), Some(0), "after a reload");
    live.driver.verify(Some(&asked)).unwrap();
    live.driver
        .limit(&resources(r#"{"pids":{"limit":8}}"#))
        .unwrap();
    assert_eq!(
        systemctl(&["show", "-p", "TasksMax", &unit]).trim(),
        "TasksMax=8"
    );
    live.driver.kill(libc::SIGKILL).unwrap();
    live.reap();
    live.driver.remove().unwrap();
    assert_eq!(live.exists(), [""; 0]);
    let state = systemctl(&["show", "-p", "LoadState,ActiveState", &unit]);
    assert!(state.contains("ActiveState=inactive"), "{state}");
    live.driver.remove().expect("a second time");
}

#[test]
fn a_unit_that_runs_already_is_refused_and_its_processes_stay() {
    if !has_systemd() {
        return;
    }
    let mut live = systemd_at("taken", &HashMap::new());
    live.driver.prepare(None).unwrap();
    let pid = live.start("exec sleep 100");
    let mut second = open(&live.saved);
    let line = second.prepare(None).unwrap_err().line();
    assert!(
        line.starts_with("container's cgroup is not empty: 1 process(es) found"),
        "{line}"
    );
    assert_eq!(live.driver.processes().unwrap(), [pid]);
}

#[test]
fn a_property_that_systemd_refuses_is_named_in_the_error() {
    if !has_systemd() {
        return;
    }
    let annotations = HashMap::from([(
        "org.systemd.property.KillMode".to_owned(),
        "'nonsense'".to_owned(),
    )]);
    let mut live = systemd_at("refused", &annotations);
    live.driver.prepare(None).unwrap();
    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    let line = live.driver.place(child.id() as i32).unwrap_err().line();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        line.starts_with("systemd cannot start unit keel-"),
        "{line}"
    );
    assert!(
        line.contains("KillMode") || line.contains("nonsense"),
        "{line}"
    );
    assert_eq!(live.exists(), [""; 0]);
}

#[test]
fn a_cgroup_in_use_is_refused_before_it_is_recorded() {
    let path = unique("recorded");
    let mut live = Live::at(&path);
    live.driver.prepare(None).unwrap();
    plan(&request(&path)).expect("an empty cgroup may be taken over");
    live.start("exec sleep 100");
    let line = plan(&request(&path)).unwrap_err().line();
    assert!(
        line.starts_with("container's cgroup is not empty"),
        "{line}"
    );
}

#[test]
fn a_refused_prepare_leaves_nothing_of_its_own_and_all_of_the_others() {
    let mut live = Live::at(&unique("half"));
    let last = live.paths().pop().unwrap();
    std::fs::create_dir(&last).unwrap();
    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    std::fs::write(format!("{last}/cgroup.procs"), child.id().to_string()).unwrap();
    let line = live.driver.prepare(None).unwrap_err().line();
    assert!(
        line.starts_with("container's cgroup is not empty"),
        "{line}"
    );
    assert_eq!(live.exists(), [last]);
    child.kill().unwrap();
    child.wait().unwrap();
}
