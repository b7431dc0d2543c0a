use crate::host::{TestHost, eventually};
use crate::lan::{LAN4, Lan, sh};
use crate::{address, fetch_from, web};

#[test]
fn networks_are_listed_inspected_and_removed_as_dockers() {
    let host = TestHost::new();
    let id = host.run(&["network", "create", "front"]).ok();
    assert_eq!(id.len(), 64);
    let list = host.run(&["network", "ls"]).ok();
    let names: Vec<String> = list
        .lines()
        .map(|line| {
            line.split_whitespace()
                .skip(1)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert_eq!(
        names,
        [
            "ID NAME DRIVER SCOPE",
            "bridge bridge local",
            "front bridge local",
            "host host local",
            "none null local"
        ]
    );
    assert_eq!(
        host.run(&["network", "ls", "-q", "--no-trunc", "-f", "name=front"])
            .ok(),
        id
    );
    let why = host.run(&["network", "create", "front"]).fails(1);
    assert!(
        why.contains("network with name front already exists"),
        "{why}"
    );
    let template =
        "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}} {{.Driver}} {{.Internal}}";
    let shown = host
        .run(&["network", "inspect", "-f", template, "front"])
        .ok();
    assert_eq!(shown, "172.18.0.0/24 172.18.0.1 bridge false");
    host.run(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "front",
        "busybox",
        "sleep",
        "100",
    ])
    .ok();
    let why = host.run(&["network", "rm", "front"]).fails(1);
    assert!(
        why.contains("network front has active endpoints (name:\"web\" id:"),
        "{why}"
    );
    host.run(&["rm", "-f", "web"]).ok();
    let bridge = format!("br-{}", &id[..12]);
    assert!(sh("ip -br link").contains(&bridge));
    assert_eq!(host.run(&["network", "rm", &id[..6]]).ok(), &id[..6]);
    assert!(!sh("ip -br link").contains(&bridge));
    let why = host.run(&["network", "inspect", "front"]).fails(1);
    assert!(why.contains("network front not found"), "{why}");
    let why = host.run(&["network", "rm", "bridge"]).fails(1);
    assert!(
        why.contains("bridge is a pre-defined network and cannot be removed"),
        "{why}"
    );
    host.run(&["network", "create", "bridge"]).fails(1);
}

#[test]
fn prune_removes_what_nobody_is_on() {
    let host = TestHost::new();
    for name in ["one", "two"] {
        host.run(&["network", "create", name]).ok();
    }
    host.run(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "two",
        "busybox",
        "sleep",
        "100",
    ])
    .ok();
    let young = ["network", "prune", "-f", "--filter", "until=1h"];
    assert_eq!(host.run(&young).ok(), "");
    assert_eq!(
        host.run(&["network", "prune", "-f"]).ok(),
        "Deleted Networks:\none"
    );
    let left = host
        .run(&[
            "network",
            "ls",
            "-f",
            "type=custom",
            "--format",
            "{{.Name}}",
        ])
        .ok();
    assert_eq!(left, "two");
}

#[test]
fn addresses_can_be_chosen_within_the_networks_range() {
    let host = TestHost::new();
    host.run(&[
        "network",
        "create",
        "--subnet",
        "10.77.0.0/24",
        "--ip-range",
        "10.77.0.128/25",
        "--gateway",
        "10.77.0.254",
        "front",
    ])
    .ok();
    let run = |name: &str, ip: &str| {
        host.run(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "front",
            "--ip",
            ip,
            "busybox",
            "sleep",
            "100",
        ])
    };
    run("web", "10.77.0.9").ok();
    assert_eq!(address(&host, "web", "front"), "10.77.0.9");
    assert_eq!(
        host.inspect("web", "{{.NetworkSettings.Networks.front.Gateway}}"),
        "10.77.0.254"
    );
    let why = run("two", "10.77.0.9").fails(125);
    assert!(why.contains("Address already in use"), "{why}");
    let why = run("three", "10.78.0.9").fails(125);
    assert!(
        why.contains("no configured subnet or ip-range contain the IP address"),
        "{why}"
    );
    host.run(&[
        "run",
        "-d",
        "--name",
        "four",
        "--network",
        "front",
        "busybox",
        "sleep",
        "100",
    ])
    .ok();
    assert_eq!(address(&host, "four", "front"), "10.77.0.128");
    // The same address again, at once: the link of the one before is gone.
    host.run(&["restart", "-t", "0", "web"]).ok();
    host.run(&["exec", "four", "ping", "-c1", "-W2", "10.77.0.9"])
        .ok();
    let why = host
        .run(&["run", "--rm", "--ip", "172.17.0.9", "busybox", "true"])
        .fails(125);
    assert!(
        why.contains("user specified IP address is supported on user defined networks only"),
        "{why}"
    );
    let why = host
        .run(&["network", "create", "--subnet", "10.77.0.0/16", "wide"])
        .fails(1);
    assert!(
        why.contains("Pool overlaps with other one on this address space"),
        "{why}"
    );
}

#[test]
fn a_running_container_joins_and_leaves_networks() {
    let host = TestHost::new();
    host.run(&["network", "create", "front"]).ok();
    host.run(&["network", "create", "back"]).ok();
    web(&host, "web", &["--network", "back"]);
    host.run(&[
        "run",
        "-d",
        "--name",
        "client",
        "--network",
        "front",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let old = address(&host, "web", "back");
    assert_eq!(
        fetch_from(&host, "client", &format!("{old} 80")),
        "",
        "networks are kept apart"
    );
    host.run(&["network", "connect", "--alias", "www", "front", "web"])
        .ok();
    let seen = fetch_from(&host, "client", "www 80");
    assert_eq!(seen, format!("from {}", address(&host, "client", "front")));
    let why = host.run(&["network", "connect", "front", "web"]).fails(1);
    assert!(
        why.contains("endpoint with name web already exists in network front"),
        "{why}"
    );
    host.run(&["network", "disconnect", "front", "web"]).ok();
    assert_eq!(fetch_from(&host, "client", "www 80"), "");
    let why = host
        .run(&["network", "disconnect", "front", "web"])
        .fails(1);
    assert!(why.contains("is not connected to network front"), "{why}");
    // What is not running is connected when it starts.
    host.run(&["stop", "-t", "0", "web"]).ok();
    host.run(&["network", "connect", "front", "web"]).ok();
    host.run(&["start", "web"]).ok();
    let links = host.run(&["exec", "web", "ip", "addr"]).ok();
    assert!(links.contains("eth0") && links.contains("eth1"), "{links}");
}

#[test]
fn the_way_out_is_the_network_that_is_preferred_and_follows_changes() {
    let host = TestHost::new();
    for (name, subnet) in [("front", "10.77.1.0/24"), ("back", "10.77.2.0/24")] {
        let args = ["network", "create", "--subnet", subnet, name];
        host.run(&args).ok();
    }
    let run = ["run", "-d", "--name", "web", "--network", "front"];
    let more = [
        "--network",
        "name=back,gw-priority=5",
        "busybox",
        "sleep",
        "1000",
    ];
    host.run(&[&run[..], &more].concat()).ok();
    let way_out = || {
        let routes = host.run(&["exec", "web", "ip", "route"]).ok();
        let mut lines = routes
            .lines()
            .filter_map(|line| line.strip_prefix("default via "));
        let way = lines.next().unwrap_or_default().split(' ').next();
        assert_eq!(lines.next(), None, "{routes}");
        way.unwrap_or_default().to_owned()
    };
    assert_eq!(way_out(), "10.77.2.1");
    let priority = "{{.NetworkSettings.Networks.back.GwPriority}}";
    assert_eq!(host.inspect("web", priority), "5");
    host.run(&["network", "disconnect", "back", "web"]).ok();
    assert_eq!(way_out(), "10.77.1.1");
    host.run(&["network", "connect", "back", "web"]).ok();
    assert_eq!(way_out(), "10.77.1.1", "of equals the first");
    host.run(&["network", "disconnect", "back", "web"]).ok();
    let connect = ["network", "connect", "--gw-priority", "1", "back", "web"];
    host.run(&connect).ok();
    assert_eq!(way_out(), "10.77.2.1");
    host.run(&["network", "disconnect", "front", "web"]).ok();
    assert_eq!(way_out(), "10.77.2.1");
}

#[test]
fn links_are_named_and_tuned_as_their_options_say() {
    let host = TestHost::new();
    let prefix = "com.docker.network.container_iface_prefix=lan";
    host.run(&["network", "create", "-o", prefix, "front"]).ok();
    let option = |name: &str| format!("name=bridge,driver-opt=com.docker.network.endpoint.{name}");
    let run = |network: &str, script: &str| {
        let args = [
            "run",
            "--rm",
            "--network",
            network,
            "busybox",
            "sh",
            "-c",
            script,
        ];
        host.run(&args)
    };
    assert_eq!(run("front", "ls /sys/class/net").ok(), "lan0\nlo");
    let named = run(&option("ifname=out7"), "ls /sys/class/net");
    assert_eq!(named.ok(), "lo\nout7");
    let read = "cat /proc/sys/net/ipv4/conf/eth0/log_martians";
    assert_eq!(run("bridge", read).ok(), "0", "control");
    let set = option("sysctls=net.ipv4.conf.IFNAME.log_martians=1");
    assert_eq!(run(&set, read).ok(), "1");
    for wrong in [
        "ifname=lo",
        "ifname=a/b",
        "ifname=longer-than-a-link",
        "sysctls=net.ipv4.ip_forward=1",
        "sysctls=net.ipv4.conf.IFNAME.../x=1",
        "sysctls=kernel.x=1",
    ] {
        let why = run(&option(wrong), "true").fails(125);
        assert!(why.contains("invalid "), "{wrong}: {why}");
    }
}

#[test]
fn an_internal_network_has_no_way_out() {
    let host = TestHost::new();
    let _lan = Lan::new();
    host.run(&["network", "create", "--internal", "inside"])
        .ok();
    host.run(&["network", "create", "front"]).ok();
    for (name, network) in [("shut", "inside"), ("near", "inside"), ("open", "front")] {
        host.run(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            network,
            "--cap-add",
            "NET_ADMIN",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    }
    let ping = |from: &str, to: &str| host.run(&["exec", from, "ping", "-c1", "-W1", to]).code == 0;
    assert!(ping("open", LAN4), "control");
    assert!(ping("shut", "near"));
    assert!(!ping("shut", LAN4));
    // Not even with a route of its own.
    let gateway = host
        .run(&[
            "network",
            "inspect",
            "-f",
            "{{range .IPAM.Config}}{{.Gateway}}{{end}}",
            "inside",
        ])
        .ok();
    host.run(&[
        "exec", "shut", "ip", "route", "add", "default", "via", &gateway,
    ])
    .ok();
    assert!(!ping("shut", LAN4));
}

#[test]
fn icc_off_keeps_neighbours_apart() {
    let host = TestHost::new();
    host.run(&[
        "network",
        "create",
        "-o",
        "com.docker.network.bridge.enable_icc=false",
        "apart",
    ])
    .ok();
    for name in ["one", "two"] {
        host.run(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "apart",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    }
    let to = address(&host, "two", "apart");
    assert_ne!(
        host.run(&["exec", "one", "ping", "-c1", "-W1", &to]).code,
        0
    );
}

#[test]
fn a_container_can_share_anothers_network() {
    let host = TestHost::new();
    web(&host, "web", &[]);
    let run = [
        "run",
        "-d",
        "--name",
        "side",
        "--network",
        "container:web",
        "busybox",
        "sleep",
        "1000",
    ];
    host.run(&run).ok();
    assert_eq!(fetch_from(&host, "side", "127.0.0.1 80"), "from 127.0.0.1");
    let host_name = |name: &str| host.run(&["exec", name, "hostname"]).ok();
    assert_eq!(host_name("side"), host_name("web"));
    assert!(
        host.run(&["exec", "side", "cat", "/etc/hosts"])
            .ok()
            .contains("172.17.0.2")
    );
}

#[test]
fn host_rules_that_deny_forwarding_keep_their_force() {
    let host = TestHost::new();
    let lan = Lan::new();
    web(&host, "web", &["-p", "8080:80"]);
    assert!(lan.fetch("192.0.2.1:8080").starts_with("from"), "control");
    sh(
        "nft 'table inet wall { chain f { type filter hook forward priority 10; policy accept; \
        iifname \"lan0\" tcp dport 80 drop; }; }'",
    );
    assert_eq!(lan.fetch("192.0.2.1:8080"), "");
    sh("nft delete table inet wall");
    eventually("the way", || {
        lan.fetch("192.0.2.1:8080").starts_with("from")
    });
}
