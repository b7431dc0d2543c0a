//! Containers in scopes of the system's systemd.

use integration::{Runtime, by_version, wait_for};
use serde_json::json;

use super::{host, outside_the_guest, read, scope, scoped, shown, start};

#[test]
fn a_scope_has_the_limits_and_an_update_reaches_systemd_and_the_kernel() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let mut bundle = scoped(
        &runtime,
        json!({
            "memory": { "limit": 64 << 20 }, "pids": { "limit": 9 },
            "cpu": { "shares": 512, "quota": 50_500, "period": 100_000 },
        }),
    );
    bundle.new_namespace("cgroup");
    let container = start(&runtime, &bundle);
    // The scope is all that it sees of the host's cgroups: it was moved there first.
    let own = runtime.call(&["exec", container.id(), "/bin/cat", "/proc/self/cgroup"]);
    for line in own.run().succeeds().stdout.lines() {
        assert!(line.ends_with(":/"), "{line}");
    }
    let check = |rows: &[(&str, &str, &str, &str)]| {
        for (property, value, file, text) in rows {
            assert_eq!(shown(&container, property), *value, "{property}");
            assert_eq!(read(&container, file), *text, "{file}");
        }
    };
    // systemd counts a quota in steps of 10 ms a second.
    check(&by_version(
        [
            (
                "MemoryLimit",
                "67108864",
                "memory.limit_in_bytes",
                "67108864",
            ),
            ("TasksMax", "9", "pids.max", "9"),
            ("CPUQuotaPerSecUSec", "510ms", "cpu.cfs_quota_us", "51000"),
        ],
        [
            ("MemoryMax", "67108864", "memory.max", "67108864"),
            ("TasksMax", "9", "pids.max", "9"),
            ("CPUQuotaPerSecUSec", "510ms", "cpu.max", "51000 100000"),
        ],
    ));
    assert_eq!(shown(&container, "Delegate"), "yes");
    let flags = [
        "update",
        "--memory",
        "80M",
        "--pids-limit",
        "8",
        "--cpu-quota",
        "20000",
    ];
    let _ = container.call(&flags).run().succeeds();
    let after = by_version(
        [
            (
                "MemoryLimit",
                "83886080",
                "memory.limit_in_bytes",
                "83886080",
            ),
            ("TasksMax", "8", "pids.max", "8"),
            ("CPUQuotaPerSecUSec", "200ms", "cpu.cfs_quota_us", "20000"),
        ],
        [
            ("MemoryMax", "83886080", "memory.max", "83886080"),
            ("TasksMax", "8", "pids.max", "8"),
            ("CPUQuotaPerSecUSec", "200ms", "cpu.max", "20000 100000"),
        ],
    );
    check(&after);
    host(&["systemctl", "daemon-reload"]);
    check(&after);
    let _ = container.call(&["pause"]).run().succeeds();
    assert_eq!(container.status(), "paused");
    let _ = container.call(&["delete", "--force"]).run().succeeds();
    wait_for("the end of the unit", || {
        shown(&container, "ActiveState") == "inactive"
    });
}

#[test]
fn devices_survive_a_daemon_reload_also_those_that_were_allowed_later() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let one = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" });
    let mut bundle = scoped(&runtime, json!({ "devices": [{ "allow": false }, one] }));
    bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    let container = start(&runtime, &bundle);
    // kmsg, then zram-control's number, which only has to get past the rules: ENXIO is enough.
    let opens = |minor: &str, major: &str| {
        let script =
            format!("mknod /tmp/d{minor} c {major} {minor} 2>/dev/null; exec 3</tmp/d{minor}");
        let run = runtime
            .call(&["exec", container.id(), "sh", "-c", &script])
            .run();
        !run.stderr.contains("not permitted")
    };
    let (first, later) = (|| opens("11", "1"), || opens("237", "10"));
    assert!(first() && !later());
    host(&["systemctl", "daemon-reload"]);
    assert!(first() && !later(), "after a reload");
    let update = |flag: &str| {
        let _ = container
            .call(&["update", flag, "c 10:237 r"])
            .run()
            .succeeds();
    };
    update("--device-allow");
    assert!(first() && later());
    host(&["systemctl", "daemon-reload"]);
    host(&[
        "systemctl",
        "set-property",
        "--runtime",
        &scope(&container),
        "TasksMax=50",
    ]);
    assert!(first() && later(), "after a reload and a change by systemd");
    update("--device-deny");
    assert!(first() && !later());
    container.finish();
}

#[test]
fn a_unit_name_of_odd_characters_works_or_is_refused_in_one_line() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let token = runtime.token().to_owned();
    for (path, refused) in [
        (format!("system.slice:kt:{token}.a_b-c"), None),
        (format!("kt-a.slice:kt:{token}"), None),
        (format!(":kt:{token}"), None),
        (
            format!("system.slice:kt:{token}/x"),
            Some(".linux.cgroupsPath"),
        ),
        (
            format!("system.slice:kt:{token}@x"),
            Some(".linux.cgroupsPath"),
        ),
        (
            format!("system.slice:kt:{token} x"),
            Some(".linux.cgroupsPath"),
        ),
        (format!("nosuffix:kt:{token}"), Some(".linux.cgroupsPath")),
        (format!("a--b.slice:kt:{token}"), Some(".linux.cgroupsPath")),
        (
            format!("system.slice:kt:{}", "n".repeat(300)),
            Some(".linux.cgroupsPath"),
        ),
        (format!("/absolute/{token}"), Some(".linux.cgroupsPath")),
    ] {
        let mut bundle = runtime.bundle();
        bundle.set("/linux/cgroupsPath", path.as_str());
        let run = runtime
            .call_run(&bundle)
            .global(&["--systemd-cgroup"])
            .run();
        match refused {
            None => drop(run.succeeds()),
            Some(words) => {
                assert_eq!(run.stderr.lines().count(), 1, "{path}: {}", run.stderr);
                let _ = run.fails_with(words);
            }
        }
    }
}

const ANNOTATION: &str = "org.systemd.property.";

/// Annotations by their last part, and what systemd then shows of the property.
#[rustfmt::skip]
const ALLOWED: &[(&str, &str, &str, &str)] = &[
    ("After", "['dbus.service', 'kt-none.service']", "After", "dbus.service"),
    ("Before", "['shutdown.target']", "Before", "shutdown.target"),
    ("CollectMode", "'inactive-or-failed'", "CollectMode", "inactive-or-failed"),
    ("Description", "'a container of keel'", "Description", "a container of keel"),
    ("Documentation", "['man:keel(8)']", "Documentation", "\"man:keel(8)\""),
    ("FinalKillSignal", "int32 6", "FinalKillSignal", "6"),
    ("JobRunningTimeoutSec", "120", "JobRunningTimeoutUSec", "2min"),
    ("KillMode", "'mixed'", "KillMode", "mixed"),
    ("KillSignal", "10", "KillSignal", "10"),
    ("ManagedOOMMemoryPressure", "'kill'", "ManagedOOMMemoryPressure", "kill"),
    ("ManagedOOMPreference", "'avoid'", "ManagedOOMPreference", "avoid"),
    ("ManagedOOMSwap", "'kill'", "ManagedOOMSwap", "kill"),
    ("RuntimeMaxSec", "3600", "RuntimeMaxUSec", "1h"),
    ("SendSIGHUP", "true", "SendSIGHUP", "yes"),
    ("SendSIGKILL", "false", "SendSIGKILL", "no"),
    ("TimeoutStopSec", "0.25", "TimeoutStopUSec", "250ms"),
];

/// Annotations that are refused, and what is said of them.
#[rustfmt::skip]
const REFUSED: &[(&str, &str, &str)] = &[
    ("ExecStop", "['/bin/true']", "not one of the allowed properties: After, "),
    ("DevicePolicy", "'auto'", "not one of the allowed properties"),
    ("MemoryMax", "uint64 1", "not one of the allowed properties"),
    ("Delegate", "false", "not one of the allowed properties"),
    ("Slice", "'user.slice'", "not one of the allowed properties"),
    // Read-only to whoever starts a unit.
    ("JobTimeoutUSec", "uint64 1", "not one of the allowed properties"),
    ("", "1", "not one of the allowed properties"),
    ("Description", "no quotes", "is not a text in quotes"),
    ("After", "'dbus.service'", "is not a list of texts"),
    ("KillSignal", "'TERM'", "is not a number"),
    ("SendSIGHUP", "yes", "is not true or false"),
    ("TimeoutStopSec", "soon", "is not a number"),
    ("TimeoutStopUSec", "uint64 -1", "is not a number"),
    // Of the right type, but systemd knows no such mode or unit.
    ("KillMode", "'nonsense'", "systemd cannot start unit kt-"),
    ("After", "['no unit']", "systemd cannot start unit kt-"),
];

#[test]
fn annotations_become_properties_of_the_unit_as_systemd_shows_them() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let mut bundle = scoped(&runtime, json!({}));
    let mut annotations = json!({});
    for (name, value, _, _) in ALLOWED {
        annotations[format!("{ANNOTATION}{name}")] = (*value).into();
    }
    bundle.set("/annotations", annotations);
    let container = start(&runtime, &bundle);
    let lost = |(_, _, property, value): &(&str, &str, &str, &str)| {
        let text = shown(&container, property);
        // systemd adds units of its own to the lists.
        let is_shown = text == *value || text.split(' ').any(|word| word == *value);
        (!is_shown).then(|| format!("{property} is {text:?}, not {value:?}"))
    };
    for when in ["at once", "after a reload"] {
        let lost: Vec<_> = ALLOWED.iter().filter_map(lost).collect();
        assert!(lost.is_empty(), "{when}: {lost:?}");
        host(&["systemctl", "daemon-reload"]);
    }
    container.finish();
}

#[test]
fn other_annotations_for_systemd_are_refused_and_leave_nothing() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    for (name, value, words) in REFUSED {
        let mut bundle = scoped(&runtime, json!({}));
        let key = format!("{ANNOTATION}{name}");
        bundle.set("/annotations", json!({ &key: value }));
        let run = runtime
            .call_run(&bundle)
            .global(&["--systemd-cgroup"])
            .run();
        assert_eq!(run.stderr.lines().count(), 1, "{key}: {}", run.stderr);
        if !words.starts_with("systemd") {
            assert!(run.stderr.contains(&key), "{}", run.stderr);
        }
        let _ = run.fails_with(words);
        runtime.assert_clean(&key);
        let unit = format!("kt-{}.scope", bundle.id());
        let state = host(&["systemctl", "show", "-P", "LoadState", &unit]);
        assert_eq!(state.trim(), "not-found", "{key}");
    }
}
