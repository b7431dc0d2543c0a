//! What `update` makes of a container's limits and the wanted ones; pure.
//!
//! Source: runc, update.go, whose users rely on which value is kept and which is dropped.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice,
    LinuxWeightDeviceBuilder,
};

/// The limits of a container with the limits `stored` after an update by `wanted`, to be applied
/// and stored.
///
/// Kept where `wanted` is silent: memory, shares, real-time limits, block I/O, huge pages, network
/// and RDMA, and one of quota and period if the other is set alone. Dropped, which leaves the
/// kernel's value as it is: cpusets, burst, idle, the number of processes, `unified`. Device rules
/// are never touched.
pub fn merge(stored: &LinuxResources, wanted: &LinuxResources) -> LinuxResources {
    let mut merged = stored.clone();
    let cpu = wanted.cpu().clone().unwrap_or_default();
    merged.set_cpu(Some(merge_cpu(
        stored.cpu().clone().unwrap_or_default(),
        &cpu,
    )));
    if let Some(memory) = wanted.memory() {
        let stored = stored.memory().unwrap_or_default();
        merged.set_memory(Some(merge_memory(stored, memory)));
    }
    if let Some(io) = wanted.block_io() {
        let stored = stored.block_io().clone().unwrap_or_default();
        merged.set_block_io(Some(merge_block_io(stored, io)));
    }
    merged.set_pids(*wanted.pids());
    merged.set_unified(wanted.unified().clone());
    for page in wanted.hugepage_limits().iter().flatten() {
        let mut pages = merged.hugepage_limits().clone().unwrap_or_default();
        pages.retain(|other| other.page_size() != page.page_size());
        pages.push(page.clone());
        merged.set_hugepage_limits(Some(pages));
    }
    if wanted.network().is_some() {
        merged.set_network(wanted.network().clone());
    }
    if let Some(devices) = wanted.rdma() {
        let mut rdma = merged.rdma().clone().unwrap_or_default();
        rdma.extend(devices.iter().map(|(name, limits)| (name.clone(), *limits)));
        merged.set_rdma(Some(rdma));
    }
    merged
}

fn merge_cpu(mut cpu: LinuxCpu, wanted: &LinuxCpu) -> LinuxCpu {
    let given = |value: Option<u64>| value.filter(|value| *value != 0);
    let period = given(wanted.period());
    let quota = wanted.quota().filter(|quota| *quota != 0);
    if period.is_some() == quota.is_some() || period.is_some() {
        cpu.set_period(period);
    }
    if period.is_some() == quota.is_some() || quota.is_some() {
        cpu.set_quota(quota);
    }
    cpu.set_burst(wanted.burst());
    // A weight and an idle group exclude each other: a new value for idle forgets the shares.
    if wanted.shares().is_some() || wanted.idle().is_some() {
        cpu.set_shares(given(wanted.shares()));
    }
    cpu.set_idle(wanted.idle());
    cpu.set_realtime_period(wanted.realtime_period().or(cpu.realtime_period()));
    cpu.set_realtime_runtime(wanted.realtime_runtime().or(cpu.realtime_runtime()));
    cpu.set_cpus(wanted.cpus().clone());
    cpu.set_mems(wanted.mems().clone());
    cpu
}

fn merge_memory(mut memory: LinuxMemory, wanted: &LinuxMemory) -> LinuxMemory {
    // Without a limit on memory there is nothing that a sum could include.
    let lifts_all = wanted.limit() == Some(-1) && wanted.swap().is_none();
    let swap = if lifts_all {
        None
    } else {
        wanted.swap().or(memory.swap())
    };
    memory.set_swap(swap);
    memory.set_limit(wanted.limit().or(memory.limit()));
    memory.set_reservation(wanted.reservation().or(memory.reservation()));
    memory.set_kernel_tcp(wanted.kernel_tcp().or(memory.kernel_tcp()));
    memory.set_swappiness(wanted.swappiness().or(memory.swappiness()));
    memory.set_disable_oom_killer(wanted.disable_oom_killer().or(memory.disable_oom_killer()));
    memory.set_check_before_update(
        wanted
            .check_before_update()
            .or(memory.check_before_update()),
    );
    memory
}

fn merge_block_io(mut io: LinuxBlockIo, wanted: &LinuxBlockIo) -> LinuxBlockIo {
    io.set_weight(wanted.weight().or(io.weight()));
    io.set_leaf_weight(wanted.leaf_weight().or(io.leaf_weight()));
    io.set_weight_device(merge_weights(io.weight_device(), wanted.weight_device()));
    let rates = |stored: &Option<Vec<_>>, wanted: &Option<Vec<_>>| merge_rates(stored, wanted);
    io.set_throttle_read_bps_device(rates(
        io.throttle_read_bps_device(),
        wanted.throttle_read_bps_device(),
    ));
    io.set_throttle_write_bps_device(rates(
        io.throttle_write_bps_device(),
        wanted.throttle_write_bps_device(),
    ));
    io.set_throttle_read_iops_device(rates(
        io.throttle_read_iops_device(),
        wanted.throttle_read_iops_device(),
    ));
    io.set_throttle_write_iops_device(rates(
        io.throttle_write_iops_device(),
        wanted.throttle_write_iops_device(),
    ));
    io
}

/// A device that is there already gets the weights that are given, another one is added.
fn merge_weights(
    stored: &Option<Vec<LinuxWeightDevice>>,
    wanted: &Option<Vec<LinuxWeightDevice>>,
) -> Option<Vec<LinuxWeightDevice>> {
    let mut list = stored.clone();
    for device in wanted.iter().flatten() {
        let list = list.get_or_insert_default();
        let number = |device: &LinuxWeightDevice| (device.major(), device.minor());
        let known = list
            .iter()
            .rposition(|other| number(other) == number(device));
        let known = known.map(|at| list.remove(at)).unwrap_or_default();
        let mut merged = LinuxWeightDeviceBuilder::default()
            .major(device.major())
            .minor(device.minor());
        if let Some(weight) = device.weight().or(known.weight()) {
            merged = merged.weight(weight);
        }
        if let Some(weight) = device.leaf_weight().or(known.leaf_weight()) {
            merged = merged.leaf_weight(weight);
        }
        list.extend(merged.build());
    }
    list
}

/// A device that is there already gets the rate, another one is added.
fn merge_rates(
    stored: &Option<Vec<LinuxThrottleDevice>>,
    wanted: &Option<Vec<LinuxThrottleDevice>>,
) -> Option<Vec<LinuxThrottleDevice>> {
    let mut list = stored.clone();
    for device in wanted.iter().flatten() {
        let list = list.get_or_insert_default();
        list.retain(|other| (other.major(), other.minor()) != (device.major(), device.minor()));
        list.push(*device);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored, wanted, and what comes of it.
    const CASES: &[(&str, &str, &str)] = &[
        ("{}", "{}", r#"{"cpu":{}}"#),
        (
            r#"{"memory":{"limit":10,"swap":20,"reservation":5}}"#,
            r#"{"memory":{"limit":12}}"#,
            r#"{"cpu":{},"memory":{"limit":12,"swap":20,"reservation":5}}"#,
        ),
        (
            r#"{"memory":{"limit":10,"swap":20}}"#,
            r#"{"memory":{"limit":-1}}"#,
            r#"{"cpu":{},"memory":{"limit":-1}}"#,
        ),
        (
            r#"{"memory":{"limit":10,"swap":20}}"#,
            r#"{"memory":{"limit":-1,"swap":-1}}"#,
            r#"{"cpu":{},"memory":{"limit":-1,"swap":-1}}"#,
        ),
        (
            r#"{"cpu":{"quota":1000,"period":2000}}"#,
            r#"{"cpu":{"quota":1500}}"#,
            r#"{"cpu":{"quota":1500,"period":2000}}"#,
        ),
        (
            r#"{"cpu":{"quota":1000,"period":2000}}"#,
            r#"{"cpu":{"period":3000,"quota":0}}"#,
            r#"{"cpu":{"quota":1000,"period":3000}}"#,
        ),
        (
            r#"{"cpu":{"quota":1000,"period":2000}}"#,
            "{}",
            r#"{"cpu":{}}"#,
        ),
        (
            r#"{"cpu":{"shares":5,"burst":1,"cpus":"0","mems":"0","realtimePeriod":7}}"#,
            r#"{"cpu":{"realtimeRuntime":6}}"#,
            r#"{"cpu":{"shares":5,"realtimePeriod":7,"realtimeRuntime":6}}"#,
        ),
        (
            r#"{"cpu":{"shares":5}}"#,
            r#"{"cpu":{"idle":1}}"#,
            r#"{"cpu":{"idle":1}}"#,
        ),
        (
            r#"{"cpu":{"idle":1}}"#,
            r#"{"cpu":{"shares":5}}"#,
            r#"{"cpu":{"shares":5}}"#,
        ),
        (r#"{"pids":{"limit":5}}"#, "{}", r#"{"cpu":{}}"#),
        (
            "{}",
            r#"{"pids":{"limit":5}}"#,
            r#"{"cpu":{},"pids":{"limit":5}}"#,
        ),
        (
            r#"{"unified":{"a.b":"1"}}"#,
            r#"{"unified":{"c.d":"2"}}"#,
            r#"{"cpu":{},"unified":{"c.d":"2"}}"#,
        ),
        (
            r#"{"blockIO":{"weight":10,"weightDevice":[{"major":8,"minor":0,"weight":1,"leafWeight":2}]}}"#,
            r#"{"blockIO":{"leafWeight":20,"weightDevice":[{"major":8,"minor":0,"weight":3},{"major":8,"minor":1,"weight":4}]}}"#,
            r#"{"cpu":{},"blockIO":{"weight":10,"leafWeight":20,"weightDevice":[{"major":8,"minor":0,"weight":3,"leafWeight":2},{"major":8,"minor":1,"weight":4}]}}"#,
        ),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]}}"#,
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":2}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":3}]}}"#,
            r#"{"cpu":{},"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":2}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":3}]}}"#,
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1},{"pageSize":"1GB","limit":2}]}"#,
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":3}]}"#,
            r#"{"cpu":{},"hugepageLimits":[{"pageSize":"1GB","limit":2},{"pageSize":"2MB","limit":3}]}"#,
        ),
        (
            r#"{"network":{"classID":1},"rdma":{"a":{"hcaHandles":1}}}"#,
            r#"{"rdma":{"b":{"hcaHandles":2}}}"#,
            r#"{"cpu":{},"network":{"classID":1},"rdma":{"a":{"hcaHandles":1},"b":{"hcaHandles":2}}}"#,
        ),
        (
            r#"{"devices":[{"allow":true,"access":"r"}]}"#,
            r#"{"devices":[{"allow":false,"access":"w"}]}"#,
            r#"{"cpu":{},"devices":[{"allow":true,"access":"r"}]}"#,
        ),
    ];

    #[test]
    fn an_update_keeps_and_drops_what_runc_keeps_and_drops() {
        for (stored, wanted, want) in CASES {
            let parse = |json: &str| serde_json::from_str::<LinuxResources>(json).unwrap();
            let got = merge(&parse(stored), &parse(wanted));
            assert_eq!(got, parse(want), "{stored} updated by {wanted}");
        }
    }
}
