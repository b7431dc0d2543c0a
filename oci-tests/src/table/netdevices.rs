//! config-linux.md: network devices.

use std::process::Command;

use serde_json::{Value, json};

use super::namespaces::in_new_network;
use crate::inside::View;
use crate::lab::Lab;
use crate::requirement::{Requirement, Verdict, Why, ensure, skip};

const NET: &str = "config-linux.md#network-devices";
const END: &str = "config-linux.md#namespace-lifecycle-and-container-termination";

#[rustfmt::skip]
pub const TABLE: &[Requirement] = &[
    Requirement::must("linux.netDevices-1", NET, "listed devices are in the container", moved),
    Requirement::must("linux.netDevices-2", NET,
        "a device that does not exist is an error", missing),
    Requirement::must("linux.netDevices-3", NET,
        "a name that exists in the container is an error", conflict),
    Requirement::must("linux.netDevices-4", NET, "a name with %d gets a free number", template),
    Requirement::must("linux.netDevices-5", NET,
        "attributes and permanent global addresses are kept", addresses),
    Requirement::must("linux.netDevices-6", NET, "the device is up", up),
    Requirement::must_not("linux.netDevices-7", END,
        "the device is not configured beyond that", untouched),
    Requirement::must_not("linux.netDevices-8", END,
        "the device is not moved back before the namespace goes", not_moved_back),
];

/// A device that every kernel with containers has, and that can move.
const PAIR: &[&str] = &[
    "link", "add", "ocit0", "type", "veth", "peer", "name", "ocit1",
];

fn ip(args: &[&str]) -> Result<String, Why> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .map_err(|e| Why::Skip(format!("no ip(8), of iproute2: {e}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        skip!("ip {}: {}", args.join(" "), text.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A container with the device `ocit0` of a network namespace made for it.
fn with_device(lab: &Lab, devices: &Value, tries: &[&str]) -> Result<View, Why> {
    in_new_network(|| {
        ip(PAIR)?;
        ip(&["link", "set", "ocit0", "mtu", "1300"])?;
        ip(&["addr", "add", "192.0.2.7/24", "dev", "ocit0"])?;
        ip(&["addr", "add", "2001:db8::7/64", "dev", "ocit0"])?;
        lab.see(tries, |c| {
            c.set("/linux/netDevices", devices.clone());
        })
    })
}

fn moved(lab: &Lab) -> Verdict {
    for (devices, want) in [
        (json!({"ocit0": {}}), "ocit0"),
        (json!({"ocit0": {"name": "x0"}}), "x0"),
    ] {
        let view = with_device(lab, &devices, &[])?;
        let found = &view.interfaces;
        ensure!(
            found.iter().any(|i| i == want),
            "{want} is not in {found:?}"
        );
    }
    Ok(())
}

fn refuses(lab: &Lab, what: &str, devices: &Value) -> Verdict {
    in_new_network(|| {
        ip(PAIR)?;
        lab.refuses(what, |c| {
            c.set("/linux/netDevices", devices.clone());
        })
    })
}

fn missing(lab: &Lab) -> Verdict {
    refuses(
        lab,
        "a network device that does not exist",
        &json!({"nowhere0": {}}),
    )
}

fn conflict(lab: &Lab) -> Verdict {
    refuses(lab, "a device named lo", &json!({"ocit0": {"name": "lo"}}))
}

fn template(lab: &Lab) -> Verdict {
    let view = with_device(lab, &json!({"ocit0": {"name": "net%d"}}), &[])?;
    let found = &view.interfaces;
    ensure!(
        found.iter().any(|i| i == "net0"),
        "net0 is not in {found:?}"
    );
    Ok(())
}

fn addresses(lab: &Lab) -> Verdict {
    let try_show = "sh:busybox ip addr show dev ocit0";
    let view = with_device(lab, &json!({"ocit0": {}}), &[try_show])?;
    let shown = &view.tried(0)?.found;
    for want in ["192.0.2.7/24", "2001:db8::7/64", "mtu 1300"] {
        ensure!(shown.contains(want), "{want} is not in {shown:?}");
    }
    Ok(())
}

fn up(lab: &Lab) -> Verdict {
    let try_show = "sh:busybox ip link show dev ocit0";
    let view = with_device(lab, &json!({"ocit0": {}}), &[try_show])?;
    let shown = &view.tried(0)?.found;
    ensure!(shown.contains(",UP"), "it is {shown:?}");
    Ok(())
}

/// No routes but the kernel's own, which come with the addresses.
fn untouched(lab: &Lab) -> Verdict {
    let view = with_device(lab, &json!({"ocit0": {}}), &["sh:busybox ip route"])?;
    let shown = &view.tried(0)?.found;
    ensure!(!shown.contains("default"), "there is a route: {shown:?}");
    ensure!(
        view.interfaces.iter().any(|i| i == "ocit0"),
        "it is not there"
    );
    Ok(())
}

fn not_moved_back(lab: &Lab) -> Verdict {
    in_new_network(|| {
        ip(PAIR)?;
        let mut bundle = lab.bundle()?;
        bundle
            .config
            .sleep()
            .set("/linux/netDevices", json!({"ocit0": {}}));
        let container = lab.started(&bundle)?;
        let left = ip(&["-o", "link"])?;
        ensure!(!left.contains("ocit0"), "it was not moved at all");
        container.stop()?;
        container.delete()?;
        let left = ip(&["-o", "link"])?;
        ensure!(!left.contains("ocit0"), "it is back: {left}");
        Ok(())
    })
}
