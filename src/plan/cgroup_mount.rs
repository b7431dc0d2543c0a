//! A mount of type `cgroup`: one file system on v2, a directory of them on v1 and hybrid.

use std::ffi::CString;

use super::mounts::{Mount, What};
use super::text::cstring;
use crate::cgroups::{self, Hierarchy, Saved, Version};
use crate::error::Result;
use crate::sys::mount::{Attr, Reach};

/// What the entry `mount` of type `cgroup` stands for on a host with these hierarchies.
///
/// With a cgroup namespace of its own (`own_root`) the container mounts the hierarchies themselves,
/// which then begin at its cgroup. Without one its own cgroup is bound in their place: always on v1,
/// and on v2 where the caller lacks the rights over the host's tree (`unprivileged`), which a
/// container shall not see either (CVE-2023-25809).
pub fn expand(
    mut mount: Mount,
    saved: Option<&Saved>,
    own_root: bool,
    unprivileged: bool,
    label: Option<&str>,
) -> Result<Vec<Mount>> {
    let target = mount.target.to_string_lossy().into_owned();
    let saved = match saved {
        Some(saved) if saved.version == Version::V1 => saved,
        _ => {
            let of_v2 = saved.and_then(|saved| saved.hierarchies.first());
            match (of_v2, &mut mount.what) {
                (Some(hierarchy), what) if unprivileged && !own_root => *what = bind(hierarchy)?,
                (_, What::New { fs, .. }) => c"cgroup2".clone_into(fs),
                (_, What::Bind { .. }) => {}
            }
            return Ok(vec![mount]);
        }
    };
    let readonly = mount.attr.set & libc::MOUNT_ATTR_RDONLY;
    let shared = Attr {
        set: mount.attr.set & !libc::MOUNT_ATTR_RDONLY,
        ..mount.attr
    };
    let mut params = vec!["mode=755".to_owned()];
    params.extend(label.map(|label| format!("context={label}")));
    let mut list = vec![Mount {
        what: new(c"tmpfs", &params)?,
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
            false => bind(hierarchy)?,
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

fn bind(hierarchy: &Hierarchy) -> Result<What> {
    Ok(What::Bind {
        source: source(hierarchy)?,
        inside: None,
        reach: Reach::One,
        idmap: None,
    })
}

fn source(hierarchy: &Hierarchy) -> Result<CString> {
    cstring(hierarchy.full_path(), ".linux.cgroupsPath")
}

/// Shows the runtime's own cgroup in each hierarchy of `planned` in which the container has got none:
/// that is where it stays.
///
/// # Errors
/// [`crate::error::Error::Host`] if the runtime's cgroup cannot be read.
pub fn show_where_it_stays(mounts: &mut [Mount], planned: &Saved, made: &Saved) -> Result<()> {
    let is_made = |one: &Hierarchy| made.hierarchies.iter().any(|it| it.mount == one.mount);
    let missing = |one: &&Hierarchy| !is_made(one);
    let missing: Vec<&Hierarchy> = planned.hierarchies.iter().filter(missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let own = cgroups::own()?;
    for hierarchy in missing {
        let Some(own) = own.iter().find(|own| own.mount == hierarchy.mount) else {
            continue;
        };
        let (theirs, own) = (source(hierarchy)?, source(own)?);
        for mount in mounts.iter_mut() {
            if let What::Bind { source, .. } = &mut mount.what
                && *source == theirs
            {
                source.clone_from(&own);
            }
        }
    }
    Ok(())
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
