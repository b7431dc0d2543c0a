//! `linux.resources` for cgroup v2: which controllers it needs and what is written where; pure.

use std::collections::BTreeSet;

use oci_spec::runtime::LinuxResources;

/// The v2 controllers without which `resources` cannot be applied.
pub fn controllers(resources: &LinuxResources) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut need = |name, needed: bool| needed.then(|| names.insert(name));
    let cpu = resources.cpu().as_ref();
    need(
        "cpu",
        cpu.is_some_and(|cpu| {
            cpu.shares().is_some_and(|shares| shares > 0)
                || cpu.quota().is_some_and(|quota| quota != 0)
                || cpu.period().is_some_and(|period| period > 0)
                || cpu.burst().is_some()
                || cpu.idle().is_some()
        }),
    );
    let is_given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    need(
        "cpuset",
        cpu.is_some_and(|cpu| is_given(cpu.cpus()) || is_given(cpu.mems())),
    );
    need(
        "memory",
        resources.memory().as_ref().is_some_and(|memory| {
            [memory.limit(), memory.reservation(), memory.swap()]
                .iter()
                .any(|bytes| bytes.is_some_and(|bytes| bytes != 0))
        }),
    );
    need("pids", resources.pids().is_some());
    need(
        "io",
        resources.block_io().as_ref().is_some_and(|io| {
            let rates = [
                io.throttle_read_bps_device(),
                io.throttle_write_bps_device(),
                io.throttle_read_iops_device(),
                io.throttle_write_iops_device(),
            ];
            io.weight().is_some_and(|weight| weight > 0)
                || io
                    .weight_device()
                    .as_ref()
                    .is_some_and(|devices| !devices.is_empty())
                || rates
                    .iter()
                    .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
        }),
    );
    need(
        "hugetlb",
        resources
            .hugepage_limits()
            .as_ref()
            .is_some_and(|list| !list.is_empty()),
    );
    need(
        "rdma",
        resources.rdma().as_ref().is_some_and(|map| !map.is_empty()),
    );
    if let Some(unified) = resources.unified() {
        let named = unified
            .keys()
            .filter_map(|file| file.split_once('.'))
            .map(|(name, _)| name);
        names.extend(named.filter(|name| *name != "cgroup"));
    }
    names
}
