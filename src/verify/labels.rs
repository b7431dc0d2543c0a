//! The labels of AppArmor and SELinux that a program has, compared with those that config.json gives it.
//!
//! Sources: proc_pid_attr(5); Linux, LSM/apparmor; the SELinux Notebook, "Security Context".

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::File;
use std::io;

use super::{Status, differs, has_ended};
use crate::error::{Error, Result};
use crate::plan::process::Process;
use crate::sys::fd;

/// Looks at the labels of process `pid`, which has executed its program. One that has ended is past
/// harm.
///
/// # Errors
/// [`crate::error::code::Code::NOT_AS_ASKED`] with the first difference.
pub fn check(process: &Process, pid: i32) -> Result<()> {
    if let Some(wanted) = process.apparmor.as_deref().map(CStr::to_string_lossy) {
        // The directory is there since Linux 5.8; without it only one LSM can be active.
        let real = read(pid, &["apparmor/current", "current"])?;
        compare("AppArmor profile", real, &wanted, is_under_profiles)?;
    }
    if let Some(wanted) = process.selinux.as_deref().map(CStr::to_string_lossy) {
        let real = read(pid, &["current"])?;
        compare("SELinux label", real, &wanted, is_same_context)?;
    }
    Ok(())
}

fn compare(
    name: &str,
    real: Option<String>,
    wanted: &str,
    is_as_wanted: fn(&str, &str) -> bool,
) -> Result<()> {
    match real.as_deref() {
        Some("") => Err(differs(format!("it has no {name}, not {wanted}"))),
        Some(real) if !is_as_wanted(real, wanted) => {
            Err(differs(format!("its {name} is {real}, not {wanted}")))
        }
        _ => Ok(()),
    }
}

/// The first of these files that is there; `None` if the process has ended.
fn read(pid: i32, files: &[&str]) -> Result<Option<String>> {
    for file in files {
        let name = format!("/proc/{pid}/attr/{file}");
        match File::open(&name).and_then(fd::read_kernel_text) {
            Ok(text) => return Ok(Some(text.trim_end_matches(['\0', '\n']).to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if has_ended(&error) => return Ok(None),
            Err(error) => return Err(Error::host("read", name, error)),
        }
    }
    Ok(Status::of(pid)?.map(|_| String::new()))
}

/// Whether a process confined by `real` is confined by each profile of `wanted`, or by one below it
/// (`PROFILE//CHILD`), which the program may have taken on already.
///
/// Profiles are stacked with `//&`; `wanted` begins with `&` if it goes on top of what the runtime has.
/// What the kernel says ends with the mode: `docker-default (enforce)`.
fn is_under_profiles(real: &str, wanted: &str) -> bool {
    let real = match real.rsplit_once(" (") {
        Some((names, mode)) if mode.ends_with(')') => names,
        _ => real,
    };
    let real: Vec<String> = real.split("//&").map(profile).collect();
    wanted.trim_start_matches('&').split("//&").all(|wanted| {
        let wanted = profile(wanted);
        let below = format!("{wanted}//");
        real.iter()
            .any(|real| *real == wanted || real.starts_with(&below))
    })
}

/// A profile's name, in one of the two forms that a namespace's can have: `:NS:NAME`, `:NS://NAME`.
fn profile(name: &str) -> String {
    match name.strip_prefix(':').and_then(|name| name.split_once(':')) {
        Some((space, name)) => format!(":{space}:{}", name.trim_start_matches("//")),
        None => name.to_owned(),
    }
}

/// Whether two contexts are the same: the kernel sorts categories, and may join or part their ranges.
fn is_same_context(real: &str, wanted: &str) -> bool {
    let read = |context: &str| {
        let mut parts = context.splitn(4, ':').map(str::to_owned);
        let names: Vec<_> = parts.by_ref().take(3).collect();
        (names, parts.next().map(|range| levels(&range)))
    };
    read(real) == read(wanted)
}

/// The lowest and highest level of a range, each a sensitivity with its categories.
fn levels(range: &str) -> [(String, BTreeSet<String>); 2] {
    let level = |text: &str| {
        let (sensitivity, categories) = text.split_once(':').unwrap_or((text, ""));
        let categories = categories.split(',').flat_map(|one| {
            let number = |name: &str| name.strip_prefix('c')?.parse::<u16>().ok();
            match one.split_once('.').map(|(a, b)| (number(a), number(b))) {
                Some((Some(first), Some(last))) => {
                    (first..=last).map(|it| format!("c{it}")).collect()
                }
                _ => vec![one.to_owned()],
            }
        });
        (sensitivity.to_owned(), categories.collect())
    };
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    [level(low), level(high)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_in_a_stack_and_below() {
        for (real, wanted, is_confined) in [
            ("box (enforce)", "box", true),
            ("box (complain)", "box", true),
            ("box//hat (enforce)", "box", true),
            ("keel//&box (enforce)", "&box", true),
            ("keel//&box (mixed)", "box//&keel", true),
            ("a (b) (enforce)", "a (b)", true),
            (":ns:box (enforce)", ":ns://box", true),
            ("unconfined", "unconfined", true),
            ("unconfined", "box", false),
            ("", "box", false),
            ("boxer (enforce)", "box", false),
            ("box (enforce)", "box//&keel", false),
            ("keel (enforce)", "&box", false),
            (":ns:box (enforce)", "box", false),
        ] {
            assert_eq!(is_under_profiles(real, wanted), is_confined, "{real}");
        }
    }

    #[test]
    fn a_context_is_the_same_however_its_categories_are_written() {
        for (real, wanted, is_same) in [
            ("u:r:t:s0:c1,c2", "u:r:t:s0:c2,c1", true),
            ("u:r:t:s0:c1.c3", "u:r:t:s0:c1,c2,c3", true),
            ("u:r:t:s0", "u:r:t:s0-s0", true),
            ("u:r:t", "u:r:t", true),
            ("u:r:t:s0:c1", "u:r:t:s0:c2", false),
            ("u:r:t:s0-s0:c0.c1023", "u:r:t:s0", false),
            ("u:r:other:s0", "u:r:t:s0", false),
            ("", "u:r:t:s0", false),
        ] {
            assert_eq!(is_same_context(real, wanted), is_same, "{real}");
        }
    }
}
