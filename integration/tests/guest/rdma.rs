//! Limits of RDMA, by a device of software; Debian's cloud kernel has none (README.md of the guest).

use std::fs;
use std::process::Command;

use integration::Runtime;
use serde_json::{Value, json};

use super::{host, outside_the_guest};

/// An RDMA device over an Ethernet interface that leads nowhere. It stays until the guest ends: Debian's
/// 6.1 kernel crashes in `rdma link delete`.
struct Device;

impl Device {
    const NAME: &str = "keel_rxe";

    /// None if the kernel lacks the driver.
    fn new() -> Option<Self> {
        let modprobe = |module| Command::new("modprobe").arg(module).output().expect("kmod");
        if !modprobe("rdma_rxe").status.success() {
            return None;
        }
        assert!(modprobe("ib_uverbs").status.success());
        machine(&["ip", "link", "add", "keel0", "type", "dummy"]);
        machine(&["ip", "link", "set", "keel0", "up"]);
        machine(&[
            "rdma",
            "link",
            "add",
            Self::NAME,
            "type",
            "rxe",
            "netdev",
            "keel0",
        ]);
        Some(Self)
    }
}

/// A command in the first network namespace, where the devices are.
fn machine(words: &[&str]) {
    host(&[&["nsenter", "--target", "1", "--net"], words].concat());
}

#[test]
fn rdma_handles_and_objects_are_limited() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let Some(_device) = Device::new() else {
        // resources/effects.rs shows that a device that is not there is refused.
        println!(
            "SKIPPED: this kernel has no rdma_rxe; see --kernel in integration/guest/README.md"
        );
        return;
    };
    let class = "/sys/class/infiniband_verbs/uverbs0/dev";
    let numbers = fs::read_to_string(class).expect("a device");
    let (major, minor) = numbers.trim().split_once(':').expect("MAJOR:MINOR");
    let [major, minor] = [major, minor].map(|number| number.parse::<i64>().expect("a number"));
    let node = json!({ "path": "/dev/verbs", "type": "c", "major": major, "minor": minor });
    let rule = json!({ "allow": true, "type": "c", "major": major, "minor": minor });
    let said = |limits: Value| {
        let mut bundle = runtime.bundle();
        bundle
            .set("/linux/resources", json!({ "devices": [rule] }))
            .push("/linux/devices", node.clone())
            .probe()
            .args(&["/bin/probe", "verbs", "/dev/verbs"]);
        if limits != json!({}) {
            bundle.set("/linux/resources/rdma", json!({ Device::NAME: limits }));
        }
        runtime.run(&bundle).succeeds().stdout
    };
    assert_eq!(said(json!({})), "[3, 3] []\n");
    assert_eq!(said(json!({ "hcaHandles": 2 })), "[2, 3] [WouldBlock]\n");
    assert_eq!(
        said(json!({ "hcaObjects": 1 })),
        "[3, 1] [WouldBlock, WouldBlock]\n"
    );
    assert_eq!(
        said(json!({ "hcaHandles": 1, "hcaObjects": 2 })),
        "[1, 2] [WouldBlock, WouldBlock, WouldBlock]\n"
    );
}
