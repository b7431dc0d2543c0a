//! `run` of a short-lived command: alone, and many at a time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::{Scenario, Turn, fresh_id};
use crate::bundle::{self, Variant};
use crate::filter;
use crate::host::Host;
use crate::measure::{Gauge, Reading};
use crate::runtime::{Kind, Runtime};

/// `run` of /bin/true in one variant of the default bundle.
pub struct Run {
    name: &'static str,
    about: &'static str,
    variant: Variant,
    bundle: String,
}

impl Run {
    pub fn new(name: &'static str, about: &'static str, variant: Variant) -> Self {
        Self {
            name,
            about,
            variant,
            bundle: String::new(),
        }
    }

    /// The floor's options for this bundle, with a file for the filter if there is one.
    fn floor_options(&self, host: &Host) -> Result<Vec<String>, String> {
        let mut options = Vec::new();
        if let Variant::Seccomp | Variant::Docker { .. } = self.variant {
            let file = host.path("filter");
            std::fs::write(&file, filter::floor()?)
                .map_err(|e| format!("cannot write {}: {e}", file.display()))?;
            options.extend(["-s".to_owned(), file.to_string_lossy().into_owned()]);
        }
        if self.variant == Variant::Devices {
            options.push("-d".to_owned());
        }
        if let Variant::Binds(count) | Variant::Docker { binds: count } = self.variant {
            options.extend(["-b".to_owned(), count.to_string()]);
        }
        Ok(options)
    }

    fn argv(&self, host: &Host, runtime: &Runtime) -> Result<Vec<String>, String> {
        if runtime.kind == Kind::Oci {
            return Ok(runtime.argv(&["run", "--bundle", &self.bundle, &fresh_id()]));
        }
        let mut argv = vec![
            runtime.path.to_string_lossy().into_owned(),
            "run".to_owned(),
        ];
        argv.extend(self.floor_options(host)?);
        argv.push(bundle::rootfs(host)?.to_string_lossy().into_owned());
        Ok(argv)
    }
}

impl Scenario for Run {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> &str {
        self.about
    }

    fn takes(&self, kind: Kind) -> bool {
        // The floor has no user namespace: mapping ids takes a second process or a helper.
        kind == Kind::Oci || self.variant != Variant::UserNamespace
    }

    fn begin(&mut self, host: &Host, _runtime: &Runtime, _donor: &Runtime) -> Result<(), String> {
        self.bundle = bundle::write(host, self.variant, &["/bin/true"])?;
        Ok(())
    }

    fn once(&mut self, host: &Host, runtime: &Runtime, gauge: Gauge) -> Turn {
        let argv = self.argv(host, runtime)?;
        Ok(vec![(self.name.to_owned(), gauge.take(host, &argv)?)])
    }
}

/// A hundred `run`s, eight at a time; wall time is of all together, CPU time the sum.
#[derive(Default)]
pub struct Parallel {
    bundle: String,
}

const STARTS: usize = 100;
const WORKERS: usize = 8;

impl Scenario for Parallel {
    fn name(&self) -> &str {
        "parallel"
    }

    fn about(&self) -> &str {
        "100 runs, 8 at a time: wall time of all, CPU time of all"
    }

    fn rounds(&self, wanted: usize) -> usize {
        wanted.div_ceil(12)
    }

    fn takes(&self, _kind: Kind) -> bool {
        true
    }

    fn begin(&mut self, host: &Host, _runtime: &Runtime, _donor: &Runtime) -> Result<(), String> {
        self.bundle = bundle::write(host, Variant::Plain, &["/bin/true"])?;
        Ok(())
    }

    fn once(&mut self, host: &Host, runtime: &Runtime, gauge: Gauge) -> Turn {
        if gauge == Gauge::Syscalls {
            return Ok(Vec::new());
        }
        let one = Run {
            bundle: self.bundle.clone(),
            ..Run::new("", "", Variant::Plain)
        };
        let left = AtomicUsize::new(STARTS);
        let sum = Mutex::new(Ok(Reading::default()));
        let begin = Instant::now();
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while take_one(&left) {
                        let reading = one
                            .argv(host, runtime)
                            .and_then(|argv| gauge.take(host, &argv));
                        add(&sum, reading);
                    }
                });
            }
        });
        let mut total = sum
            .into_inner()
            .expect("no worker panics while it holds the lock")?;
        total.wall_usec = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(vec![("parallel".to_owned(), total)])
    }
}

fn take_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
        .is_ok()
}

/// Adds CPU time and keeps the largest memory; the first error stays.
fn add(sum: &Mutex<Result<Reading, String>>, reading: Result<Reading, String>) {
    let mut sum = sum
        .lock()
        .expect("no worker panics while it holds the lock");
    match (sum.as_mut(), reading) {
        (Ok(total), Ok(one)) => {
            total.cpu_usec += one.cpu_usec;
            total.rss_kib = total.rss_kib.max(one.rss_kib);
        }
        (Ok(_), Err(why)) => *sum = Err(why),
        (Err(_), _) => {}
    }
}
