//! config.md, the table of Linux mount options: one requirement for each row.

use nix::mount::MsFlags;

use super::mounts::HostMount;
use crate::inside::{Mount, View};
use crate::lab::Lab;
use crate::requirement::Level::{Must, Should};
use crate::requirement::{Requirement, Verdict, Why, ensure};

const AT: &str = "config.md#linux-mount-options";

/// A row: the option's name twice, as `concat!` wants literals.
macro_rules! option {
    ($level:ident, $name:literal) => {
        Requirement::with(
            concat!("config.mounts.option.", $name),
            $level,
            AT,
            concat!("the mount option ", $name, " is implemented"),
            $name,
            option,
        )
    };
}

pub const TABLE: &[Requirement] = &[
    option!(Must, "async"),
    option!(Must, "atime"),
    option!(Must, "bind"),
    option!(Must, "defaults"),
    option!(Must, "dev"),
    option!(Must, "diratime"),
    option!(Must, "dirsync"),
    option!(Must, "exec"),
    option!(Must, "iversion"),
    option!(Must, "lazytime"),
    option!(Must, "loud"),
    option!(Must, "noatime"),
    option!(Must, "nodev"),
    option!(Must, "nodiratime"),
    option!(Must, "noexec"),
    option!(Must, "noiversion"),
    option!(Must, "nolazytime"),
    option!(Must, "norelatime"),
    option!(Must, "nostrictatime"),
    option!(Must, "nosuid"),
    option!(Should, "nosymfollow"),
    option!(Must, "private"),
    option!(Should, "ratime"),
    option!(Must, "rbind"),
    option!(Should, "rdev"),
    option!(Should, "rdiratime"),
    option!(Must, "relatime"),
    option!(Must, "remount"),
    option!(Should, "rexec"),
    option!(Should, "rnoatime"),
    option!(Should, "rnodev"),
    option!(Should, "rnodiratime"),
    option!(Should, "rnoexec"),
    option!(Should, "rnorelatime"),
    option!(Should, "rnostrictatime"),
    option!(Should, "rnosuid"),
    option!(Should, "rnosymfollow"),
    option!(Must, "ro"),
    option!(Must, "rprivate"),
    option!(Should, "rrelatime"),
    option!(Should, "rro"),
    option!(Should, "rrw"),
    option!(Must, "rshared"),
    option!(Must, "rslave"),
    option!(Should, "rstrictatime"),
    option!(Should, "rsuid"),
    option!(Should, "rsymfollow"),
    option!(Must, "runbindable"),
    option!(Must, "rw"),
    option!(Must, "shared"),
    option!(Must, "silent"),
    option!(Must, "slave"),
    option!(Must, "strictatime"),
    option!(Must, "suid"),
    option!(Should, "symfollow"),
    option!(Must, "sync"),
    option!(Must, "unbindable"),
];

/// How the effect of an option shows.
enum Effect {
    /// The kernel does not show it; the mount must succeed, and the option must not reach the
    /// file system as data (tmpfs refuses words it does not know).
    Accepted,
    /// A tmpfs with these options and then the one in question has, or lacks, a word in
    /// mountinfo.
    Word {
        before: &'static [&'static str],
        word: &'static str,
        shown: bool,
    },
    /// A mount below an rbind has, or lacks, a word.
    Deep { word: &'static str, shown: bool },
    /// A bind of a shared mount, and what is below it if `deep`, has this propagation.
    Spread { prefix: &'static str, deep: bool },
}

const fn shows(word: &'static str) -> Effect {
    Effect::Word {
        before: &[],
        word,
        shown: true,
    }
}

const fn clears(before: &'static [&'static str], word: &'static str) -> Effect {
    Effect::Word {
        before,
        word,
        shown: false,
    }
}

const fn deep(word: &'static str, shown: bool) -> Effect {
    Effect::Deep { word, shown }
}

fn effect(option: &str) -> Option<Effect> {
    Some(match option {
        // Without relatime the kernel still gives it, as its default.
        "rnorelatime" | "defaults" | "iversion" | "noiversion" | "loud" | "silent" => {
            Effect::Accepted
        }
        "async" => clears(&["sync"], "sync"),
        "atime" => clears(&["noatime"], "noatime"),
        "dev" => clears(&["nodev"], "nodev"),
        "diratime" => clears(&["nodiratime"], "nodiratime"),
        "exec" => clears(&["noexec"], "noexec"),
        "nolazytime" => clears(&["lazytime"], "lazytime"),
        "suid" => clears(&["nosuid"], "nosuid"),
        "symfollow" => clears(&["nosymfollow"], "nosymfollow"),
        "rw" => clears(&["ro"], "ro"),
        "strictatime" => clears(&[], "relatime"),
        // With neither noatime nor strictatime the kernel's default is relatime.
        "nostrictatime" => Effect::Word {
            before: &["strictatime"],
            word: "relatime",
            shown: true,
        },
        "norelatime" => clears(&["relatime", "strictatime"], "noatime"),
        "dirsync" => shows("dirsync"),
        "lazytime" => shows("lazytime"),
        "noatime" => shows("noatime"),
        "nodev" => shows("nodev"),
        "nodiratime" => shows("nodiratime"),
        "noexec" => shows("noexec"),
        "nosuid" => shows("nosuid"),
        "nosymfollow" => shows("nosymfollow"),
        "relatime" => shows("relatime"),
        "ro" => shows("ro"),
        "sync" => shows("sync"),
        "rro" => deep("ro", true),
        "rnodev" => deep("nodev", true),
        "rnoexec" => deep("noexec", true),
        "rnosuid" => deep("nosuid", true),
        "rnosymfollow" => deep("nosymfollow", true),
        "rnoatime" => deep("noatime", true),
        "rnodiratime" => deep("nodiratime", true),
        "rrelatime" | "rnostrictatime" => deep("relatime", true),
        "rrw" => deep("ro", false),
        "rdev" => deep("nodev", false),
        "rexec" => deep("noexec", false),
        "rsuid" => deep("nosuid", false),
        "rsymfollow" => deep("nosymfollow", false),
        "rdiratime" => deep("nodiratime", false),
        "ratime" | "rstrictatime" => deep("noatime", false),
        "private" => Effect::Spread {
            prefix: "",
            deep: false,
        },
        "rprivate" => Effect::Spread {
            prefix: "",
            deep: true,
        },
        "shared" => Effect::Spread {
            prefix: "shared:",
            deep: false,
        },
        "rshared" => Effect::Spread {
            prefix: "shared:",
            deep: true,
        },
        "slave" => Effect::Spread {
            prefix: "master:",
            deep: false,
        },
        "rslave" => Effect::Spread {
            prefix: "master:",
            deep: true,
        },
        "unbindable" => Effect::Spread {
            prefix: "unbindable",
            deep: false,
        },
        "runbindable" => Effect::Spread {
            prefix: "unbindable",
            deep: true,
        },
        _ => return None,
    })
}

fn option(lab: &Lab, name: &str) -> Verdict {
    match (name, effect(name)) {
        ("bind", _) => binding(lab, "bind", false),
        ("rbind", _) => binding(lab, "rbind", true),
        ("remount", _) => remount(lab),
        ("rnorelatime", _) => {
            let view = bound(lab, &["rbind", name], MsFlags::empty(), MsFlags::empty())?;
            at(&view, "/mnt/below").map(drop)
        }
        (_, Some(Effect::Accepted)) => {
            let view = lab.see(&[], |c| {
                c.mount("/mnt", "tmpfs", "x", &[name]);
            })?;
            at(&view, "/mnt").map(drop)
        }
        (
            _,
            Some(Effect::Word {
                before,
                word,
                shown,
            }),
        ) => {
            let mut options = before.to_vec();
            options.push(name);
            let view = lab.see(&[], |c| {
                c.mount("/mnt", "tmpfs", "x", &options);
            })?;
            has(at(&view, "/mnt")?, word, shown)
        }
        (_, Some(Effect::Deep { word, shown })) => below(lab, name, word, shown),
        (_, Some(Effect::Spread { prefix, deep })) => spread(lab, name, prefix, deep),
        (_, None) => Err(Why::Fail(format!("no test for the option {name}"))),
    }
}

fn at<'a>(view: &'a View, point: &str) -> Result<&'a Mount, Why> {
    view.mount(point)
        .ok_or_else(|| Why::Fail(format!("nothing is mounted at {point}")))
}

/// Flags of the mount and of its file system alike.
fn has(mount: &Mount, word: &str, shown: bool) -> Verdict {
    let found = mount
        .options
        .iter()
        .chain(&mount.super_options)
        .any(|o| o == word);
    let verb = if shown { "lacks" } else { "has" };
    ensure!(
        found == shown,
        "{} {verb} {word}: {:?} {:?}",
        mount.point,
        mount.options,
        mount.super_options
    );
    Ok(())
}

/// A directory with another mount below it, bound to /mnt; the view inside.
fn bound(lab: &Lab, options: &[&str], top: MsFlags, below: MsFlags) -> Result<View, Why> {
    let mut bundle = lab.bundle()?;
    bundle.report(&[]);
    let data = bundle.dir.join("data").to_string_lossy().into_owned();
    let mounted = HostMount::tmpfs(&data, MsFlags::empty())?;
    let inner = HostMount::tmpfs(&format!("{data}/below"), below)?;
    mounted.change(top)?;
    bundle.config.mount("/mnt", "none", &data, options);
    let output = lab.run(&bundle);
    drop((inner, mounted));
    View::parse(&output?)
}

fn binding(lab: &Lab, option: &str, recursive: bool) -> Verdict {
    let view = bound(lab, &[option], MsFlags::empty(), MsFlags::empty())?;
    at(&view, "/mnt")?;
    let below = view.mount("/mnt/below").is_some();
    ensure!(
        below == recursive,
        "with {option} the mount below is there: {below}"
    );
    Ok(())
}

fn below(lab: &Lab, option: &str, word: &str, shown: bool) -> Verdict {
    // What is to be cleared must be set on the source.
    let all = MsFlags::MS_RDONLY
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODIRATIME;
    let flags = match (shown, word) {
        (true, "relatime") => MsFlags::MS_STRICTATIME,
        (true, _) => MsFlags::empty(),
        (false, "relatime") => MsFlags::MS_RELATIME,
        (false, "noatime") => all | MsFlags::MS_NOATIME,
        (false, "nosymfollow") => MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW),
        (false, _) => all | MsFlags::MS_RELATIME,
    };
    let view = bound(lab, &["rbind", option], MsFlags::empty(), flags)?;
    has(at(&view, "/mnt/below")?, word, shown)
}

fn spread(lab: &Lab, option: &str, prefix: &str, deep: bool) -> Verdict {
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    let view = bound(lab, &["rbind", option], shared, MsFlags::empty())?;
    let points: &[&str] = if deep {
        &["/mnt", "/mnt/below"]
    } else {
        &["/mnt"]
    };
    for point in points {
        let found = &at(&view, point)?.propagation;
        let right = match prefix {
            "" => found.is_empty(),
            _ => found.iter().any(|p| p.starts_with(prefix)),
        };
        ensure!(
            right,
            "with {option}, the propagation of {point} is {found:?}"
        );
    }
    Ok(())
}

fn remount(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.mount("/mnt", "tmpfs", "x", &["nosuid"]);
        c.mount("/mnt", "tmpfs", "x", &["remount", "ro", "nosuid"]);
    })?;
    has(at(&view, "/mnt")?, "ro", true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requirement::Check;

    #[test]
    fn every_option_of_the_table_has_a_test() {
        for row in TABLE {
            let Check::With(name, _) = row.check else {
                panic!("{} has no test", row.id)
            };
            assert!(
                effect(name).is_some() || ["bind", "rbind", "remount"].contains(&name),
                "{name}"
            );
        }
    }
}
