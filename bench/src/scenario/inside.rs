//! Commands on a running container: exec and state.

use std::collections::HashMap;
use std::fs;

use super::{Scenario, Turn, fresh_id};
use crate::bundle::{self, Variant};
use crate::host::{Host, reap};
use crate::measure::Gauge;
use crate::runtime::{Kind, Runtime};

/// What is done to the container.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Exec,
    State,
}

/// One command on one container that lives through all turns.
pub struct Inside {
    name: &'static str,
    about: &'static str,
    verb: Verb,
    /// What the container runs meanwhile.
    args: &'static [&'static str],
    /// The container of each runtime: id and pid.
    containers: HashMap<String, (String, i32)>,
}

impl Inside {
    pub fn exec() -> Self {
        Self::new(
            "exec",
            "exec of /bin/true in an idle container",
            Verb::Exec,
            &["/bin/sleep", "9999"],
        )
    }

    pub fn exec_busy() -> Self {
        // It leaves most of a processor to the measured command, yet always has something to run.
        const LOOP: &str = "while :; do /bin/true; done";
        Self::new(
            "exec-busy",
            "exec of /bin/true in a container that starts processes without end",
            Verb::Exec,
            &["/bin/sh", "-c", LOOP],
        )
    }

    pub fn state() -> Self {
        Self::new(
            "state",
            "state of a running container",
            Verb::State,
            &["/bin/sleep", "9999"],
        )
    }

    fn new(
        name: &'static str,
        about: &'static str,
        verb: Verb,
        args: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            about,
            verb,
            args,
            containers: HashMap::new(),
        }
    }

    fn is_busy(&self) -> bool {
        self.args[0] == "/bin/sh"
    }
}

/// The runtime that holds the container: for the floor, the donor.
fn owner<'a>(runtime: &'a Runtime, donor: &'a Runtime) -> &'a Runtime {
    if runtime.kind == Kind::Floor {
        donor
    } else {
        runtime
    }
}

impl Scenario for Inside {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> &str {
        self.about
    }

    fn rounds(&self, wanted: usize) -> usize {
        if self.is_busy() {
            wanted.div_ceil(3)
        } else {
            wanted
        }
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Oci || self.verb == Verb::Exec
    }

    fn begin(&mut self, host: &Host, runtime: &Runtime, donor: &Runtime) -> Result<(), String> {
        let owner = owner(runtime, donor);
        let bundle = bundle::write(host, Variant::Plain, self.args)?;
        let id = fresh_id();
        owner.launch(&["run", "--detach", "--bundle", &bundle, &id])?;
        let pid = owner.pid(&id)?;
        self.containers.insert(runtime.name.clone(), (id, pid));
        Ok(())
    }

    fn once(&mut self, host: &Host, runtime: &Runtime, gauge: Gauge) -> Turn {
        let (id, pid) = self
            .containers
            .get(&runtime.name)
            .ok_or("it has no container")?;
        let argv = match (runtime.kind, self.verb) {
            (Kind::Oci, Verb::State) => runtime.argv(&["state", id]),
            (Kind::Oci, Verb::Exec) => runtime.argv(&["exec", id, "/bin/true"]),
            (Kind::Floor, _) => vec![
                runtime.path.to_string_lossy().into_owned(),
                "exec".to_owned(),
                pid.to_string(),
                cgroup_of(*pid)?,
            ],
        };
        Ok(vec![(self.name.to_owned(), gauge.take(host, &argv)?)])
    }

    fn end(&mut self, _host: &Host, runtime: &Runtime, donor: &Runtime) {
        if let Some((id, pid)) = self.containers.remove(&runtime.name) {
            let owner = owner(runtime, donor);
            // Whatever fails here shows as a cgroup that `Host` cannot remove.
            if owner.call(&["kill", &id, "KILL"]).is_ok() {
                reap(pid);
            }
            let _ = owner.call(&["delete", "--force", &id]);
        }
    }
}

/// The directory of the cgroup v2 that holds `pid`.
fn cgroup_of(pid: i32) -> Result<String, String> {
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).map_err(|e| format!("cannot read {file}: {e}"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.map(|path| format!("/sys/fs/cgroup{path}"))
        .ok_or_else(|| format!("{file} has no 0:: line"))
}
