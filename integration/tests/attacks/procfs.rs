//! C: what is written to procfs.

use std::fs;

use serde_json::json;

use super::{Case, Control, Outcome, Victim, ended, unless};

pub const CASES: &[Case] = &[
    Case {
        id: "C2",
        seen: "CVE-2025-52881",
        what: "a volume lies where a sysctl is to be written",
        attack: decoy_sysctl,
        control: Control::Naive,
    },
    Case {
        id: "C3",
        seen: "CVE-2022-0811",
        what: "sysctls of the host, and keys that lead to them",
        attack: host_sysctls,
        control: Control::Naive,
    },
];

fn decoy_sysctl(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let decoy = arena.runtime.dir().join("decoy");
    fs::create_dir(&decoy).expect("the scratch directory is writable");
    fs::write(decoy.join("ip_forward"), "untouched").expect("the scratch directory is writable");
    let mut bundle = arena.bundle();
    bundle
        .bind(&decoy, "/proc/sys/net/ipv4", "rbind")
        .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    let run = arena.run(&bundle);
    let written =
        fs::read_to_string(decoy.join("ip_forward")).is_ok_and(|text| text != "untouched");
    unless(
        written,
        "the sysctl was written to a file of the volume",
        &run,
    )
}

/// The values are those that the host has, so that the control harms nobody.
fn host_sysctls(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let value = fs::read_to_string("/proc/sys/kernel/printk_ratelimit").expect("procfs is there");
    let value = value.trim();
    let mut last = None;
    for key in [
        "kernel.printk_ratelimit",
        "kernel/printk_ratelimit",
        "net/../kernel/printk_ratelimit",
        "net.ipv4/../../kernel/printk_ratelimit",
        "fs.mqueue/../../kernel/printk_ratelimit",
        "net//../kernel/printk_ratelimit",
    ] {
        let mut bundle = arena.bundle();
        bundle.set("/linux/sysctl", json!({ key: value }));
        let run = arena.run(&bundle);
        if run.code == 0 {
            return Outcome::Bitten(format!("it wrote {key}"));
        }
        last = Some(ended(&run));
    }
    last.expect("there are keys")
}
