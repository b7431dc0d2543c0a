//! The root file system around the mounts: device nodes, links, masks, read-only paths.

use std::ffi::{CStr, CString};

use oci_spec::runtime as oci;

use super::text::absolute;
use crate::error::{Error, Result};

/// A device node of the container.
#[derive(Debug, PartialEq, Eq)]
pub struct Device {
    /// Where it goes, as a path inside the root file system.
    pub path: CString,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: u32,
    /// Permission bits.
    pub mode: u32,
    /// Device number for mknod(2).
    pub number: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Linux's device number of major and minor. Man page: makedev(3).
const fn number(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// runtime-spec, config-linux.md "Default Devices": path and device number.
const DEFAULT: &[(&CStr, u64)] = &[
    (c"/dev/null", number(1, 3)),
    (c"/dev/random", number(1, 8)),
    (c"/dev/full", number(1, 7)),
    (c"/dev/tty", number(5, 0)),
    (c"/dev/zero", number(1, 5)),
    (c"/dev/urandom", number(1, 9)),
];

/// Links that are made in `/dev`: name and target.
pub const LINKS: &[(&CStr, &CStr)] = &[
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

/// Only with procfs's kcore, as the kernel's own documentation suggests.
pub const CORE_LINK: (&CStr, &CStr) = (c"core", c"/proc/kcore");

/// The default devices and those of `linux.devices`, which replace defaults at the same path.
///
/// # Errors
/// [`Error::Spec`] for a relative path or numbers out of range.
pub fn devices(linux: &oci::Linux) -> Result<Vec<Device>> {
    let default = |(path, number): &(&CStr, u64)| Device {
        path: (*path).to_owned(),
        kind: libc::S_IFCHR,
        mode: 0o666,
        number: *number,
        uid: 0,
        gid: 0,
    };
    let mut devices: Vec<Device> = DEFAULT.iter().map(default).collect();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let device = read(device, &format!(".linux.devices[{index}]"))?;
        // Always a link to that of the container's own devpts: see LINKS.
        if device.path.as_c_str() == c"/dev/ptmx" {
            continue;
        }
        match devices.iter_mut().find(|other| other.path == device.path) {
            Some(other) => *other = device,
            None => devices.push(device),
        }
    }
    Ok(devices)
}

fn read(device: &oci::LinuxDevice, at: &str) -> Result<Device> {
    let path = device.path();
    if !path.is_absolute() {
        return Err(Error::spec(
            format!("{at}.path"),
            "the path is not absolute",
        ));
    }
    let kind = match device.typ() {
        oci::LinuxDeviceType::B => libc::S_IFBLK,
        oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => libc::S_IFCHR,
        oci::LinuxDeviceType::P => libc::S_IFIFO,
        oci::LinuxDeviceType::A => {
            let why = "type \"a\" is for cgroup rules; a node is \"c\", \"b\", \"u\" or \"p\"";
            return Err(Error::spec(format!("{at}.type"), why));
        }
    };
    let part = |value: i64, bits: u32, name: &str| {
        u32::try_from(value)
            .ok()
            .filter(|value| value >> bits == 0)
            .ok_or_else(|| {
                let why = format!("{value} is not between 0 and {}", (1u64 << bits) - 1);
                Error::spec(format!("{at}.{name}"), why)
            })
    };
    let number = match kind {
        libc::S_IFIFO => 0,
        _ => number(
            part(device.major(), 12, "major")?,
            part(device.minor(), 20, "minor")?,
        ),
    };
    Ok(Device {
        path: absolute(path, &format!("{at}.path"))?,
        kind,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        number,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// `linux.maskedPaths` or `linux.readonlyPaths`, cleaned, each once.
///
/// # Errors
/// [`Error::Spec`] for a path that is relative or the root.
pub fn paths(list: Option<&Vec<String>>, at: &str) -> Result<Vec<CString>> {
    let mut clean: Vec<CString> = Vec::new();
    for (index, path) in list.into_iter().flatten().enumerate() {
        let at = format!("{at}[{index}]");
        if !path.starts_with('/') {
            return Err(Error::spec(at, "the path is not absolute"));
        }
        let path = absolute(path.as_ref(), &at)?;
        if !clean.contains(&path) {
            clean.push(path);
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_the_container_replaces_the_default_at_its_path() {
        let linux = serde_json::from_str(
            r#"{"devices":[{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":420,"uid":7},
                {"path":"/dev/sub/x","type":"b","major":8,"minor":0},{"path":"/p","type":"p"}]}"#,
        )
        .unwrap();
        let devices = devices(&linux).unwrap();
        assert_eq!(devices.len(), 8);
        assert_eq!((devices[0].mode, devices[0].uid), (0o644, 7));
        assert_eq!(devices[6].kind, libc::S_IFBLK);
        assert_eq!(devices[7].number, 0);
    }

    #[test]
    fn the_hosts_ptmx_is_no_device_of_a_container() {
        let linux = r#"{"devices":[{"path":"/dev/ptmx","type":"c","major":5,"minor":2}]}"#;
        let devices = devices(&serde_json::from_str(linux).unwrap()).unwrap();
        assert_eq!(devices.len(), DEFAULT.len());
    }

    #[test]
    fn impossible_devices_are_refused_with_their_place() {
        let cases = [
            (
                r#"{"path":"dev/x","type":"c","major":1,"minor":1}"#,
                ".linux.devices[0].path",
            ),
            (
                r#"{"path":"/dev/x","type":"a","major":1,"minor":1}"#,
                ".linux.devices[0].type",
            ),
            (
                r#"{"path":"/dev/x","type":"c","major":4096,"minor":1}"#,
                ".linux.devices[0].major",
            ),
            (
                r#"{"path":"/dev/x","type":"c","major":1,"minor":-1}"#,
                ".linux.devices[0].minor",
            ),
        ];
        for (json, wanted) in cases {
            let linux = serde_json::from_str(&format!(r#"{{"devices":[{json}]}}"#)).unwrap();
            match devices(&linux) {
                Err(Error::Spec { at, .. }) => assert_eq!(at, wanted, "{json}"),
                other => panic!("{json}: {other:?}"),
            }
        }
    }
}
