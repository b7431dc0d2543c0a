//! A mount of type `cgroup`: one file system on v2, a directory of them on v1 and hybrid.

use std::ffi::CString;

use super::mounts::{Mount, What};
use super::text::cstring;
use crate::cgroups::{Saved, Version};
use crate::error::Result;
use crate::sys::mount::{Attr, Reach};

/// What the entry `mount` of type `cgroup` stands for on a host with these hierarchies.
///
/// With a cgroup namespace of its own (`own_root`) the container mounts the hierarchies themselves,
/// which then begin at its cgroup; without, on v1, its own cgroup is bound in their place.
pub fn expand(mount: Mount, saved: Option<&Saved>, own_root: bool) -> Result<Vec<Mount>> {
    let target = mount.target.to_string_lossy().into_owned();
    let v1 = saved.filter(|saved| saved.version == Version::V1);
    let Some(saved) = v1 else {
        let what = new(c"cgroup2", &[])?;
        return Ok(vec![Mount { what, ..mount }]);
    };
    let readonly = mount.attr.set & libc::MOUNT_ATTR_RDONLY;
    let shared = Attr {
        set: mount.attr.set & !libc::MOUNT_ATTR_RDONLY,
        ..mount.attr
    };
    let mut list = vec![Mount {
        what: new(c"tmpfs", &["mode=755".to_owned()])?,
        attr: shared,
        readonly_last: readonly != 0,
        ..mount
    }];
    for hierarchy in &saved.hierarchies {
        let name = hierarchy.mount.rsplit('/').next().unwrap_or_default();
        let at = cstring(format!("{target}/{name}"), ".mounts")?;
        let what = match own_root {
            true if hierarchy.controllers.is_empty() => new(c"cgroup2", &[])?,
            true => new(c"cgroup", &hierarchy.controllers)?,
            false => What::Bind {
                source: cstring(hierarchy.full_path(), ".linux.cgroupsPath")?,
                reach: Reach::One,
                idmap: None,
            },
        };
        list.push(Mount::new(
            at,
            what,
            Attr {
                set: shared.set | readonly,
                ..shared
            },
        ));
    }
    Ok(list)
}

fn new(fs: &std::ffi::CStr, params: &[String]) -> Result<What> {
    let param = |text: &String| -> Result<(CString, Option<CString>)> {
        Ok(match text.split_once('=') {
            Some((key, value)) => (cstring(key, ".mounts")?, Some(cstring(value, ".mounts")?)),
            None => (cstring(text, ".mounts")?, None),
        })
    };
    let params: Result<Vec<_>> = params.iter().map(param).collect();
    Ok(What::New {
        fs: fs.to_owned(),
        source: c"cgroup".to_owned(),
        params: params?,
        joined: None,
    })
}
