//! Device rules in systemd's words, which only v1 needs (see `unit`); pure.
//!
//! Sources: systemd.resource-control(5), `DeviceAllow=`; systemd, cgroup.c (`cgroup_apply_devices`).

use super::dbus::Value;
use super::devices::{self, Device, V1List};
use super::unit::Property;
use crate::error::{Error, Result};

/// The properties that hold a v1 cgroup's device rules; for a new unit and for an update.
///
/// # Errors
/// systemd knows a list of allowed devices, by both numbers or by none but the major; what else v1
/// can do would be lost at the next reload, and is refused.
pub fn device_properties(list: &V1List) -> Result<Vec<Property>> {
    if list.open && !list.entries.is_empty() {
        let why = "systemd on cgroup v1 cannot deny single devices; list what is allowed instead";
        return Err(Error::spec(".linux.resources.devices", why));
    }
    let policy = if list.open { "auto" } else { "strict" };
    let entries = list.entries.iter();
    let allowed = entries.map(|(device, bits)| Ok((node(*device)?, devices::letters(*bits))));
    Ok(vec![
        Property::new("DevicePolicy", Value::Text(policy.into())),
        // What it has now goes first: a list only adds.
        Property::new("DeviceAllow", Value::Pairs(Vec::new())),
        Property::new("DeviceAllow", Value::Pairs(allowed.collect::<Result<_>>()?)),
    ])
}

/// A device as `DeviceAllow=` has it. systemd takes the numbers from the name, there need be no file.
fn node(device: Device) -> Result<String> {
    let kind = match device.kind {
        devices::Kind::Block => "block",
        devices::Kind::Char => "char",
    };
    match (device.major, device.minor) {
        (Some(major), Some(minor)) => Ok(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => Ok(format!("{kind}-{major}")),
        (None, None) => Ok(format!("{kind}-*")),
        (None, Some(_)) => {
            let why = format!("systemd on cgroup v1 has no rule for {device}; name the major");
            Err(Error::spec(".linux.resources.devices", why))
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxDeviceCgroup;

    use super::*;

    #[test]
    fn rules_become_properties_or_are_refused() {
        let properties = |json: &str| {
            let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
            device_properties(&V1List::of(&devices::rules(&rules)?)?)
        };
        let policy = |text: &str| Property::new("DevicePolicy", Value::Text(text.into()));
        let allow = |list: &[(&str, &str)]| {
            let list = list
                .iter()
                .map(|(one, other)| ((*one).into(), (*other).into()));
            Property::new("DeviceAllow", Value::Pairs(list.collect()))
        };
        let json = r#"[{"allow":false},
            {"allow":true,"type":"c","major":1,"minor":11,"access":"r"},
            {"allow":true,"type":"b","major":8,"access":"rw"}]"#;
        let want = allow(&[
            ("/dev/char/1:11", "r"),
            ("block-8", "rw"),
            ("char-*", "m"),
            ("block-*", "m"),
            ("/dev/char/1:3", "rwm"),
            ("/dev/char/1:5", "rwm"),
            ("/dev/char/1:7", "rwm"),
            ("/dev/char/1:8", "rwm"),
            ("/dev/char/1:9", "rwm"),
            ("/dev/char/5:0", "rwm"),
            ("/dev/char/5:2", "rwm"),
            ("char-136", "rwm"),
            ("/dev/char/10:200", "rwm"),
        ]);
        assert_eq!(
            properties(json).unwrap(),
            [policy("strict"), allow(&[]), want]
        );
        assert_eq!(
            properties(r#"[{"allow":true}]"#).unwrap(),
            [policy("auto"), allow(&[]), allow(&[])]
        );
        for json in [
            r#"[{"allow":true},{"allow":false,"type":"c","major":1,"minor":11}]"#,
            r#"[{"allow":true,"type":"c","minor":7}]"#,
        ] {
            assert!(properties(json).is_err(), "{json}");
        }
    }
}
