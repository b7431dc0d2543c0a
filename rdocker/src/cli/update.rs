//! `rdocker update`

use crate::container::api::Resources;
use crate::container::parse::value;
use crate::container::record::Status;
use crate::container::request::check_limits;
use crate::container::session::Session;
use crate::container::spec::{self, Facts};
use crate::container::{Container, Containers};
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::monitor::wire::Request;
use crate::runtime::Runtime;
use crate::ui::Ui;

use super::each::each;

/// Update configuration of one or more containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker update [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Update {
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Limit the CPU real-time period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<i64>,
    /// Limit the CPU real-time runtime
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short, long)]
    cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "DECIMAL", value_parser = value::nano_cpus)]
    cpus: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory limit
    #[arg(short, long, value_name = "BYTES", value_parser = value::bytes)]
    memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_name = "BYTES", value_parser = value::bytes)]
    memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, value_name = "BYTES", value_parser = value::bytes_or_unlimited,
          allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Restart policy to apply when a container exits
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    names: Vec<String>,
}

impl Update {
    fn asks_for_nothing(&self) -> bool {
        let numbers = [
            self.cpu_period,
            self.cpu_quota,
            self.cpu_rt_period,
            self.cpu_rt_runtime,
            self.cpu_shares,
            self.cpus,
            self.memory,
            self.memory_reservation,
            self.memory_swap,
            self.pids_limit,
        ];
        let texts = [&self.cpuset_cpus, &self.cpuset_mems, &self.restart];
        numbers.iter().all(Option::is_none)
            && texts.iter().all(|text| text.is_none())
            && self.blkio_weight.is_none()
    }

    /// Changes the running container first: what the kernel refuses is not recorded.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        if self.asks_for_nothing() {
            return Err(Error::Usage(
                "you must provide one or more flags when using this command".to_owned(),
            ));
        }
        let policy = self
            .restart
            .as_deref()
            .map(value::restart_policy)
            .transpose();
        let policy = policy.map_err(Error::Invalid)?;
        each(&self.names, ui, |name, _| {
            let containers = Containers::new(host);
            let found = containers.find(name)?;
            let _lock = found.lock()?;
            let mut container = containers.load(&found.record.id)?;
            let mut resources = container.record.host_config.resources.clone();
            self.apply(&mut resources)?;
            if resources != container.record.host_config.resources {
                self.apply_live(host, &container, &resources)?;
            }
            container.record.host_config.resources = resources;
            if let Some(policy) = &policy {
                if container.record.host_config.auto_remove && policy.name != "no" {
                    return Err(Error::Conflict(
                        "Restart policy cannot be updated because AutoRemove is enabled for the \
                         container"
                            .to_owned(),
                    ));
                }
                container.record.host_config.restart_policy = policy.clone();
            }
            container.save()?;
            if container.state.status.is_alive() {
                Session::connect(&container)?.request(&Request::Reload)?;
            }
            events::container(host, &container.record, "update", &[])
        })
    }

    fn apply(&self, resources: &mut Resources) -> Result<()> {
        fn set<T: Clone>(field: &mut T, given: Option<&T>) {
            if let Some(given) = given {
                field.clone_from(given);
            }
        }
        set(&mut resources.blkio_weight, self.blkio_weight.as_ref());
        set(&mut resources.cpu_period, self.cpu_period.as_ref());
        set(&mut resources.cpu_quota, self.cpu_quota.as_ref());
        set(
            &mut resources.cpu_realtime_period,
            self.cpu_rt_period.as_ref(),
        );
        set(
            &mut resources.cpu_realtime_runtime,
            self.cpu_rt_runtime.as_ref(),
        );
        set(&mut resources.cpu_shares, self.cpu_shares.as_ref());
        set(&mut resources.nano_cpus, self.cpus.as_ref());
        set(&mut resources.cpuset_cpus, self.cpuset_cpus.as_ref());
        set(&mut resources.cpuset_mems, self.cpuset_mems.as_ref());
        set(&mut resources.memory, self.memory.as_ref());
        set(
            &mut resources.memory_reservation,
            self.memory_reservation.as_ref(),
        );
        set(&mut resources.memory_swap, self.memory_swap.as_ref());
        if let Some(limit) = self.pids_limit {
            resources.pids_limit = Some(limit).filter(|limit| *limit > 0);
        }
        if resources.memory > 0
            && resources.memory_swap > 0
            && resources.memory_swap < resources.memory
        {
            return Err(Error::Hinted {
                message: "Memory limit should be smaller than already set memoryswap limit, \
                          update the memoryswap at the same time"
                    .to_owned(),
                hint: "give --memory-swap too".to_owned(),
            });
        }
        check_limits(resources)
    }

    fn apply_live(&self, host: &Host, container: &Container, limits: &Resources) -> Result<()> {
        if !matches!(container.state.status, Status::Running | Status::Paused) {
            return Ok(());
        }
        let mut wanted = spec::limits(limits, &Facts::default());
        if self.pids_limit.is_some_and(|limit| limit <= 0) {
            wanted["pids"]["limit"] = (-1).into();
        }
        let runtime = Runtime::find(host, &container.record.host_config.runtime)?;
        runtime.update(&container.places.run, &container.record.id, &wanted)
    }
}
