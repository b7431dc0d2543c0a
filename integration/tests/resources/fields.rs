//! Which test shows the effect of which field of `linux.resources`.

/// A field of the specification, with `v1` or `v2` if only that has it, and the tests that fail if it
/// does nothing. Some of them run in the test guest alone.
#[rustfmt::skip]
const EFFECTS: &[(&str, &[&str])] = &[
    ("devices", &[
        "a_forbidden_device_cannot_be_opened_and_an_allowed_one_can",
        "device_rules_of_a_running_container_change_at_once_and_stay",
        "devices_survive_a_daemon_reload_also_those_that_were_allowed_later",
    ]),
    ("memory.limit", &["a_memory_hog_is_killed_at_the_limit_and_events_tell"]),
    ("memory.reservation", &[
        "a_memory_reservation_is_kept_when_a_neighbour_takes_all",
        "who_is_above_its_reservation_gives_first_when_the_machine_is_short",
    ]),
    ("memory.swap", &["swap_is_counted_together_with_memory"]),
    // Linux since 5.16 refuses it, older ones leak cgroups that have it: keel writes it nowhere.
    ("memory.kernel", &[]),
    ("memory.kernelTCP, v1", &["buffers_of_tcp_are_limited"]),
    ("memory.swappiness, v1", &["without_swappiness_nothing_is_swapped_even_if_memory_runs_out"]),
    ("memory.disableOOMKiller, v1", &["a_hog_waits_for_memory_where_nobody_may_be_killed"]),
    // Deprecated by the specification; every hierarchy of today's kernels is used as one.
    ("memory.useHierarchy", &[]),
    ("memory.checkBeforeUpdate", &[
        "a_limit_below_what_is_in_use_is_refused_if_it_is_to_be_checked",
    ]),
    ("cpu.shares", &["shares_divide_a_processor"]),
    ("cpu.quota", &["cpu_burners_get_their_quota"]),
    ("cpu.period", &["cpu_burners_get_their_quota"]),
    ("cpu.burst", &["burst_lets_a_container_use_what_it_saved"]),
    ("cpu.realtimeRuntime, v1", &[
        "a_process_becomes_real_time_only_where_the_container_has_time_for_it",
    ]),
    ("cpu.realtimePeriod, v1", &[
        "a_process_becomes_real_time_only_where_the_container_has_time_for_it",
    ]),
    ("cpu.cpus", &["shares_divide_a_processor"]),
    ("cpu.mems", &["memory_comes_from_the_nodes_that_are_given"]),
    ("cpu.idle", &["an_idle_container_gets_what_others_leave"]),
    ("pids.limit", &[
        "a_fork_bomb_stops_at_the_pids_limit_and_delete_ends_it",
        "a_limit_of_no_processes_leaves_the_first_one_alone",
    ]),
    ("blockIO.weight", &["weights_divide_a_disk"]),
    // Kernels since 5.0 have no such weights.
    ("blockIO.leafWeight", &["limits_that_no_kernel_takes_are_refused"]),
    ("blockIO.weightDevice", &["weights_divide_a_disk"]),
    ("blockIO.throttle...Device", &["writes_and_reads_are_throttled"]),
    ("hugepageLimits", &["huge_pages_are_limited"]),
    ("network.classID, v1", &["sockets_bear_the_network_class_and_packets_the_priority"]),
    ("network.priorities, v1", &["sockets_bear_the_network_class_and_packets_the_priority"]),
    ("rdma", &["rdma_handles_and_objects_are_limited", "rdma_needs_the_device_that_it_names"]),
    ("unified, v2", &["unified_values_hold_like_those_with_names_of_their_own"]),
    // On a tree of files in the place of resctrl: no machine here has the hardware.
    ("intelRdt", &["intel_rdt_makes_fills_changes_and_removes_a_group"]),
];

#[test]
fn every_field_has_tests_that_exist() {
    let sources = [
        include_str!("main.rs"),
        include_str!("effects.rs"),
        include_str!("../bad_input.rs"),
        include_str!("../guest/disks.rs"),
        include_str!("../guest/limits.rs"),
        include_str!("../guest/memory.rs"),
        include_str!("../guest/rdma.rs"),
        include_str!("../guest/systemd.rs"),
    ];
    let exists = |test: &str| {
        let head = format!("#[test]\nfn {test}() {{");
        sources.iter().any(|source| source.contains(&head))
    };
    let tests = EFFECTS.iter().flat_map(|(_, tests)| *tests);
    let missing: Vec<_> = tests.filter(|test| !exists(test)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
