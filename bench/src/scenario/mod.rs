//! What is measured, and the loop that measures it in turns.

mod crowd;
mod inside;
mod lifecycle;
mod run;

use std::sync::atomic::{AtomicU32, Ordering};

use crate::bundle::Variant;
use crate::host::{Host, PREFIX};
use crate::measure::{Gauge, Reading};
use crate::report::Report;
use crate::runtime::{Kind, Runtime};

/// What one turn of one runtime gives: a reading for each command, by the name of its row.
pub type Turn = Result<Vec<(String, Reading)>, String>;

/// One thing to measure.
///
/// For every runtime: `begin`, then many turns of `once` in alternation with the others, then
/// `end`. A turn cleans up after itself; `end` undoes `begin`.
pub trait Scenario {
    /// For `--only`, and the row's name where there is only one.
    fn name(&self) -> &str;

    /// One line for a reader of the table.
    fn about(&self) -> &str;

    /// How many turns to take when the user asks for `wanted`; fewer where one turn is long. A
    /// single turn is taken cold.
    fn rounds(&self, wanted: usize) -> usize {
        wanted
    }

    /// Whether a program of this kind can take part at all.
    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Oci
    }

    /// Prepares what all turns of `runtime` share. `donor` is an OCI runtime, for the floor's use.
    fn begin(&mut self, host: &Host, runtime: &Runtime, donor: &Runtime) -> Result<(), String>;

    /// One turn.
    fn once(&mut self, host: &Host, runtime: &Runtime, gauge: Gauge) -> Turn;

    /// Removes what `begin` made.
    fn end(&mut self, _host: &Host, _runtime: &Runtime, _donor: &Runtime) {}
}

/// All scenarios in the order of the table; `crowd` is how many containers live at once in the
/// scenario of that name.
pub fn all(crowd: usize) -> Vec<Box<dyn Scenario>> {
    vec![
        Box::new(run::Run::new(
            "run",
            "run /bin/true in the default bundle",
            Variant::Plain,
        )),
        Box::new(run::Run::new(
            "run-devices",
            "run with all devices denied",
            Variant::Devices,
        )),
        Box::new(run::Run::new(
            "run-seccomp",
            "run with a profile like Docker's",
            Variant::Seccomp,
        )),
        Box::new(run::Run::new(
            "run-binds50",
            "run with 50 bind mounts",
            Variant::Binds(50),
        )),
        Box::new(run::Run::new(
            "run-docker",
            "run with a profile like Docker's and 20 bind mounts",
            Variant::Docker { binds: 20 },
        )),
        Box::new(run::Run::new(
            "run-userns",
            "run in a user namespace",
            Variant::UserNamespace,
        )),
        Box::new(lifecycle::Lifecycle::default()),
        Box::new(lifecycle::Kill::default()),
        Box::new(inside::Inside::exec()),
        Box::new(inside::Inside::exec_busy()),
        Box::new(inside::Inside::state()),
        Box::new(run::Parallel::default()),
        Box::new(crowd::Crowd::new(crowd)),
    ]
}

/// Measures `scenario` for every runtime that supports it and adds the readings to `report`.
///
/// A runtime that fails is left out from there on, with the reason in the report.
pub fn measure(
    scenario: &mut dyn Scenario,
    host: &Host,
    runtimes: &[Runtime],
    rounds: usize,
    report: &mut Report,
    say: &dyn Fn(&str),
) {
    let Some(donor) = runtimes.iter().find(|r| r.kind == Kind::Oci) else {
        return;
    };
    let rounds = scenario.rounds(rounds).max(1);
    say(&format!("{}: {} rounds", scenario.name(), rounds));
    let mut begun: Vec<&Runtime> = Vec::new();
    let mut able: Vec<&Runtime> = Vec::new();
    for runtime in runtimes {
        if !scenario.takes(runtime.kind) {
            continue;
        }
        let mut ready = scenario.begin(host, runtime, donor);
        if ready.is_ok() {
            begun.push(runtime);
            if rounds > 1 {
                // This turn warms the caches and shows whether the runtime can do it at all.
                ready = scenario.once(host, runtime, Gauge::Usage).map(drop);
            }
        }
        match ready {
            Ok(()) => able.push(runtime),
            Err(why) => report.skip(scenario.name(), runtime, &why),
        }
    }
    for round in 0..rounds {
        let mut lost = Vec::new();
        let count = able.len().max(1);
        for &runtime in able.iter().cycle().skip(round % count).take(able.len()) {
            match scenario.once(host, runtime, Gauge::Usage) {
                Ok(readings) => report.add(runtime, &readings),
                Err(why) => {
                    report.skip(
                        scenario.name(),
                        runtime,
                        &format!("in round {round}: {why}"),
                    );
                    lost.push(runtime.name.clone());
                }
            }
        }
        able.retain(|runtime| !lost.contains(&runtime.name));
    }
    for &runtime in &able {
        match scenario.once(host, runtime, Gauge::Syscalls) {
            Ok(readings) => report.add_syscalls(runtime, &readings),
            Err(why) => say(&format!("{} {}: {why}", scenario.name(), runtime.name)),
        }
    }
    for runtime in begun {
        scenario.end(host, runtime, donor);
    }
}

/// An id that no other container has.
pub fn fresh_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{PREFIX}{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
