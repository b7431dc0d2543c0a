//! create, start and delete as separate commands, as containerd and CRI-O call them; kill.

use super::{Scenario, Turn, fresh_id};
use crate::bundle::{self, Variant};
use crate::host::{Host, reap};
use crate::measure::Gauge;
use crate::runtime::Runtime;

/// create, start, delete of /bin/true.
#[derive(Default)]
pub struct Lifecycle {
    bundle: String,
}

impl Scenario for Lifecycle {
    fn name(&self) -> &str {
        "lifecycle"
    }

    fn about(&self) -> &str {
        "create, start and delete of /bin/true, each and in sum"
    }

    fn begin(&mut self, host: &Host, _runtime: &Runtime, _donor: &Runtime) -> Result<(), String> {
        self.bundle = bundle::write(host, Variant::Plain, &["/bin/true"])?;
        Ok(())
    }

    fn once(&mut self, host: &Host, runtime: &Runtime, gauge: Gauge) -> Turn {
        let id = &fresh_id();
        let argv = runtime.argv(&["create", "--bundle", &self.bundle, id]);
        let is_created = || runtime.status(id).is_ok_and(|status| status == "created");
        let create = gauge.begin(host, &argv, is_created)?;
        let pid = runtime.pid(id)?;
        let start = gauge.take(host, &runtime.argv(&["start", id]))?;
        reap(pid);
        let create = create.finish()?;
        let delete = gauge.take(host, &runtime.argv(&["delete", id]))?;
        let mut sum = create;
        for part in [start, delete] {
            sum.wall_usec += part.wall_usec;
            sum.cpu_usec += part.cpu_usec;
            sum.rss_kib = sum.rss_kib.max(part.rss_kib);
            sum.syscalls += part.syscalls;
        }
        let rows = [
            ("create", create),
            ("start", start),
            ("delete", delete),
            ("create+start+delete", sum),
        ];
        Ok(rows
            .map(|(name, reading)| (name.to_owned(), reading))
            .into())
    }
}

/// SIGKILL to a running container, then its deletion.
#[derive(Default)]
pub struct Kill {
    bundle: String,
}

impl Scenario for Kill {
    fn name(&self) -> &str {
        "kill"
    }

    fn about(&self) -> &str {
        "kill of a running container with SIGKILL, then delete"
    }

    fn begin(&mut self, host: &Host, _runtime: &Runtime, _donor: &Runtime) -> Result<(), String> {
        self.bundle = bundle::write(host, Variant::Plain, &["/bin/sleep", "1000"])?;
        Ok(())
    }

    fn once(&mut self, host: &Host, runtime: &Runtime, gauge: Gauge) -> Turn {
        let id = &fresh_id();
        runtime.launch(&["run", "--detach", "--bundle", &self.bundle, id])?;
        let pid = runtime.pid(id)?;
        let kill = gauge.take(host, &runtime.argv(&["kill", id, "KILL"]))?;
        reap(pid);
        let delete = gauge.take(host, &runtime.argv(&["delete", id]))?;
        Ok(vec![
            ("kill".to_owned(), kill),
            ("delete-killed".to_owned(), delete),
        ])
    }
}
