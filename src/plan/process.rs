//! The process of the container: what it executes, as whom, and with which rights.

use std::ffi::CString;

use oci_spec::runtime as oci;

use super::text::cstring;
use crate::error::{Error, Result};
use crate::sys::caps::Sets;
use crate::sys::proc::{CStrings, SchedAttr};
use crate::sys::tty::Size;

/// Everything between the ready root file system and execve.
#[derive(Debug)]
pub struct Process {
    /// Arguments, the first as config.json has it.
    pub args: CStrings,
    /// Environment, later duplicates first removed; one more entry (HOME) fits.
    pub env: CStrings,
    /// Whether HOME must be looked up in the container's `/etc/passwd`.
    pub needs_home: bool,
    /// Where to look for the program, in order.
    pub candidates: Vec<CString>,
    /// The working directory; made (0755) if it is missing.
    pub cwd: CString,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// The five capability sets; `None` leaves them as they are.
    pub caps: Option<Sets>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// `RLIMIT_*` number, soft and hard limit.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// `/proc/PID/oom_score_adj`; `None` inherits.
    pub oom_score_adj: Option<i32>,
    /// Processors of the program, one bit each; `None` for all that its cgroup has.
    pub affinity: Option<Vec<u64>>,
    /// Scheduling policy and its values.
    pub scheduler: Option<SchedAttr>,
    /// Value for `ioprio_set(2)`.
    pub io_priority: Option<u32>,
    /// A new terminal and its size, zero for the default.
    pub terminal: Option<Size>,
    /// AppArmor profile for execve.
    pub apparmor: Option<CString>,
    /// SELinux label for execve.
    pub selinux: Option<CString>,
}

/// Where PATH is looked up when the container's environment has none: none, like runc.
const NO_PATH: &str = "";

impl Process {
    /// Reads `process`. `listen_fds` becomes `LISTEN_FDS` and `LISTEN_PID=1`, see sd_listen_fds(3).
    ///
    /// # Errors
    /// [`Error::Spec`] for what no process can have; runtime-spec, config.md "Process".
    pub fn read(process: &oci::Process, listen_fds: u32) -> Result<Self> {
        let args = process.args().as_deref().unwrap_or_default();
        let Some(program) = args.first() else {
            return Err(Error::spec(".process.args", "args must not be empty"));
        };
        let mut env = environment(process.env().as_deref().unwrap_or_default());
        if listen_fds > 0 {
            env.push(format!("LISTEN_FDS={listen_fds}"));
            env.push("LISTEN_PID=1".into());
        }
        let path = env
            .iter()
            .find_map(|entry| entry.strip_prefix("PATH="))
            .unwrap_or(NO_PATH);
        let candidates = candidates(program, path)?;
        let has_home = |entry: &String| {
            entry
                .strip_prefix("HOME=")
                .is_some_and(|home| !home.is_empty())
        };
        let needs_home = !env.iter().any(has_home);
        env.retain(|entry| entry != "HOME=");
        let user = process.user();
        Ok(Self {
            args: strings(args, ".process.args", 0)?,
            env: strings(&env, ".process.env", 1)?,
            needs_home,
            candidates,
            cwd: cwd(process)?,
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask().unwrap_or(0o022),
            caps: process.capabilities().as_ref().map(capabilities),
            no_new_privs: process.no_new_privileges().unwrap_or(false),
            rlimits: rlimits(process)?,
            oom_score_adj: process.oom_score_adj(),
            affinity: None,
            scheduler: process.scheduler().as_ref().map(scheduler),
            io_priority: process
                .io_priority()
                .as_ref()
                .map(io_priority)
                .transpose()?,
            terminal: terminal(process)?,
            apparmor: label(
                process.apparmor_profile().as_deref(),
                ".process.apparmorProfile",
            )?,
            selinux: label(process.selinux_label().as_deref(), ".process.selinuxLabel")?,
        })
    }
}

impl Process {
    /// Leaves out the capabilities that the runtime does not have itself and so cannot give;
    /// config.md: runtimes "SHOULD NOT fail". `validate` has warned of them.
    pub fn limit_capabilities(&mut self, own: u64) {
        if let Some(sets) = &mut self.caps {
            for set in [
                &mut sets.bounding,
                &mut sets.effective,
                &mut sets.permitted,
                &mut sets.inheritable,
                &mut sets.ambient,
            ] {
                *set &= own;
            }
        }
    }

    /// Points `NOTIFY_SOCKET` at the socket in the directory `inside`; sd_notify(3).
    ///
    /// # Errors
    /// [`Error::Spec`] never happens for a path without a zero byte.
    pub fn set_notify_socket(&mut self, inside: &str) -> Result<()> {
        let mut strings: Vec<CString> = self.env.strings().to_vec();
        strings.retain(|entry| !entry.as_bytes().starts_with(b"NOTIFY_SOCKET="));
        strings.push(cstring(
            format!("NOTIFY_SOCKET={inside}/notify.sock"),
            ".process.env",
        )?);
        self.env = CStrings::new(strings, 1);
        Ok(())
    }
}

/// The entries, of each name only the last, at the place of the first.
///
/// An entry without `=` is passed on as it is.
fn environment(entries: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map(|(name, _)| name.to_owned());
    let mut places = std::collections::HashMap::new();
    let mut kept: Vec<String> = Vec::with_capacity(entries.len() + 2);
    for entry in entries {
        match name(entry).and_then(|name| places.insert(name, kept.len())) {
            Some(place) => {
                kept[place].clone_from(entry);
                // The name keeps its first place.
                if let Some(name) = name(entry) {
                    places.insert(name, place);
                }
            }
            None => kept.push(entry.clone()),
        }
    }
    kept
}

fn strings(list: &[String], at: &str, spare: usize) -> Result<CStrings> {
    let one = |(index, text): (usize, &String)| cstring(text, &format!("{at}[{index}]"));
    let list: Result<Vec<CString>> = list.iter().enumerate().map(one).collect();
    Ok(CStrings::new(list?, spare))
}

/// The paths at which `program` is tried: itself if it has a slash, else one in each part of PATH.
fn candidates(program: &str, path: &str) -> Result<Vec<CString>> {
    let at = ".process.args[0]";
    if program.contains('/') {
        return Ok(vec![cstring(program, at)?]);
    }
    if program.is_empty() {
        return Ok(Vec::new());
    }
    let join = |dir: &str| {
        let dir = if dir.is_empty() { "." } else { dir };
        cstring(format!("{dir}/{program}"), at)
    };
    path.split(':')
        .filter(|_| !path.is_empty())
        .map(join)
        .collect()
}

fn cwd(process: &oci::Process) -> Result<CString> {
    let cwd = process.cwd();
    let at = ".process.cwd";
    if cwd.as_os_str().is_empty() {
        return Err(Error::spec(at, "Cwd must not be empty"));
    }
    if !cwd.is_absolute() {
        return Err(Error::spec(at, "Cwd must be an absolute path"));
    }
    if cwd.as_os_str().len() >= libc::PATH_MAX as usize {
        return Err(Error::spec(
            at,
            "the path is longer than the 4095 bytes the kernel takes",
        ));
    }
    cstring(cwd.as_os_str(), at)
}

fn capabilities(lists: &oci::LinuxCapabilities) -> Sets {
    let mask = |list: &Option<oci::Capabilities>| list.as_ref().map_or(0, mask_of);
    Sets {
        bounding: mask(lists.bounding()),
        effective: mask(lists.effective()),
        permitted: mask(lists.permitted()),
        inheritable: mask(lists.inheritable()),
        ambient: mask(lists.ambient()),
    }
}

/// The capabilities' bits, by the names that both crates take from the kernel.
fn mask_of(list: &oci::Capabilities) -> u64 {
    list.iter()
        .filter_map(|name| {
            format!("CAP_{}", name.to_string().trim_start_matches("CAP_"))
                .parse()
                .ok()
        })
        .fold(0, |mask, cap: caps::Capability| mask | cap.bitmask())
}

fn rlimits(process: &oci::Process) -> Result<Vec<(u32, u64, u64)>> {
    let mut limits: Vec<(u32, u64, u64)> = Vec::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let at = format!(".process.rlimits[{index}]");
        let number = rlimit_number(limit.typ());
        if limits.iter().any(|(other, ..)| *other == number) {
            let why = format!("a second limit of type {}", limit.typ());
            return Err(Error::spec(format!("{at}.type"), why));
        }
        if limit.soft() > limit.hard() {
            let why = format!("the soft limit is above the hard limit {}", limit.hard());
            return Err(Error::spec(format!("{at}.soft"), why));
        }
        limits.push((number, limit.soft(), limit.hard()));
    }
    Ok(limits)
}

const fn rlimit_number(kind: oci::PosixRlimitType) -> u32 {
    use nix::sys::resource::Resource as R;
    use oci::PosixRlimitType as T;
    let resource = match kind {
        T::RlimitCpu => R::RLIMIT_CPU,
        T::RlimitFsize => R::RLIMIT_FSIZE,
        T::RlimitData => R::RLIMIT_DATA,
        T::RlimitStack => R::RLIMIT_STACK,
        T::RlimitCore => R::RLIMIT_CORE,
        T::RlimitRss => R::RLIMIT_RSS,
        T::RlimitNproc => R::RLIMIT_NPROC,
        T::RlimitNofile => R::RLIMIT_NOFILE,
        T::RlimitMemlock => R::RLIMIT_MEMLOCK,
        T::RlimitAs => R::RLIMIT_AS,
        T::RlimitLocks => R::RLIMIT_LOCKS,
        T::RlimitSigpending => R::RLIMIT_SIGPENDING,
        T::RlimitMsgqueue => R::RLIMIT_MSGQUEUE,
        T::RlimitNice => R::RLIMIT_NICE,
        T::RlimitRtprio => R::RLIMIT_RTPRIO,
        T::RlimitRttime => R::RLIMIT_RTTIME,
    };
    resource as u32
}

fn scheduler(scheduler: &oci::Scheduler) -> SchedAttr {
    use oci::LinuxSchedulerFlag as F;
    use oci::LinuxSchedulerPolicy as P;
    let policy = match scheduler.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => 4,
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
    };
    let bit = |flag: &F| match flag {
        F::SchedResetOnFork => 0x01,
        F::SchedFlagReclaim => 0x02,
        F::SchedFlagDLOverrun => 0x04,
        F::SchedFlagKeepPolicy => 0x08,
        F::SchedFlagKeepParams => 0x10,
        F::SchedFlagUtilClampMin => 0x20,
        F::SchedFlagUtilClampMax => 0x40,
    };
    SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy,
        flags: scheduler
            .flags()
            .iter()
            .flatten()
            .fold(0, |bits, flag| bits | bit(flag)),
        nice: scheduler.nice().unwrap_or(0),
        priority: scheduler.priority().unwrap_or(0).unsigned_abs(),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    }
}

/// `class << 13 | level`. Man page: `ioprio_set(2)`.
fn io_priority(priority: &oci::LinuxIOPriority) -> Result<u32> {
    use oci::IOPriorityClass as C;
    let class: u32 = match priority.class() {
        C::IoprioClassRt => 1,
        C::IoprioClassBe => 2,
        C::IoprioClassIdle => 3,
    };
    let level = u32::try_from(priority.priority())
        .ok()
        .filter(|level| *level <= 7);
    level.map(|level| class << 13 | level).ok_or_else(|| {
        let why = format!("{} is not one of the levels 0 to 7", priority.priority());
        Error::spec(".process.ioPriority.priority", why)
    })
}

fn terminal(process: &oci::Process) -> Result<Option<Size>> {
    if !process.terminal().unwrap_or(false) {
        return Ok(None);
    }
    let Some(size) = process.console_size() else {
        return Ok(Some(Size::default()));
    };
    let side = |value: u64, at: &str| {
        u16::try_from(value).map_err(|_| Error::spec(at, format!("{value} is more than 65535")))
    };
    Ok(Some(Size {
        rows: side(size.height(), ".process.consoleSize.height")?,
        columns: side(size.width(), ".process.consoleSize.width")?,
    }))
}

fn label(text: Option<&str>, at: &str) -> Result<Option<CString>> {
    text.filter(|text| !text.is_empty())
        .map(|text| cstring(text, at))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Result<Process> {
        let json = format!(r#"{{"user":{{"uid":0,"gid":0}},"cwd":"/","args":["sh"]{fields}}}"#);
        Process::read(&serde_json::from_str(&json).unwrap(), 0)
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one_of_the_same_name() {
        let entries = ["A=1", "B=2", "A=3", "bare", "A=4"].map(String::from);
        assert_eq!(environment(&entries), ["A=4", "B=2", "bare"]);
    }

    #[test]
    fn the_program_is_looked_for_in_the_containers_path() {
        let shown = |program: &str, path: &str| -> Vec<String> {
            let list = candidates(program, path).unwrap();
            list.iter()
                .map(|path| path.to_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(shown("sh", "/bin:/usr/bin"), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(shown("./sh", "/bin"), ["./sh"]);
        assert_eq!(shown("/sh", "/bin"), ["/sh"]);
        assert_eq!(shown("sh", ""), [""; 0]);
        assert_eq!(shown("sh", ":/bin"), ["./sh", "/bin/sh"]);
    }

    #[test]
    fn capabilities_become_masks() {
        let process = read(
            r#","capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_ADMIN"],
            "effective":["CAP_CHECKPOINT_RESTORE"]}"#,
        )
        .unwrap();
        let caps = process.caps.unwrap();
        assert_eq!(caps.bounding, 1 | 1 << 21);
        assert_eq!(caps.effective, 1 << 40);
        assert_eq!(caps.ambient, 0);
    }

    #[test]
    fn an_empty_home_is_looked_up() {
        assert!(read("").unwrap().needs_home);
        assert!(read(r#","env":["HOME="]"#).unwrap().needs_home);
        assert!(!read(r#","env":["HOME=/x"]"#).unwrap().needs_home);
    }

    #[test]
    fn impossible_processes_are_refused_with_their_place() {
        let cases = [
            (
                r#","rlimits":[{"type":"RLIMIT_NOFILE","soft":2,"hard":1}]"#,
                ".process.rlimits[0].soft",
            ),
            (
                r#","rlimits":[{"type":"RLIMIT_CPU","soft":1,"hard":1},{"type":"RLIMIT_CPU","soft":1,"hard":1}]"#,
                ".process.rlimits[1].type",
            ),
            (
                r#","ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}"#,
                ".process.ioPriority.priority",
            ),
            (
                r#","terminal":true,"consoleSize":{"height":70000,"width":1}"#,
                ".process.consoleSize.height",
            ),
            (r#","env":["A=\u0000"]"#, ".process.env[0]"),
        ];
        for (fields, wanted) in cases {
            match read(fields) {
                Err(Error::Spec { at, .. }) => assert_eq!(at, wanted, "{fields}"),
                other => panic!("{fields}: {other:?}"),
            }
        }
    }
}
