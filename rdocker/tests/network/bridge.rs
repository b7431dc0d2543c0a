use crate::host::{TestHost, eventually};
use crate::lan::{HOST4, LAN4, Lan, sh};
use crate::{address, fetch_from, web};

#[test]
fn a_container_without_a_wish_is_on_the_default_bridge() {
    let host = TestHost::new();
    let script = "ip addr show eth0; ip route; cat /etc/hosts /etc/resolv.conf";
    let out = host
        .run(&["run", "--rm", "busybox", "sh", "-c", script])
        .ok();
    for line in [
        "inet 172.17.0.2/16",
        "link/ether 02:42:ac:11:00:02",
        "default via 172.17.0.1 dev eth0",
        "172.17.0.2\t",
        "nameserver ",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(!out.contains("inet6"), "no IPv6 at all: {out}");
    assert!(sh("ip -br addr show docker0").contains("172.17.0.1/16"));
}

#[test]
fn inspect_and_ps_tell_where_a_running_container_is() {
    let host = TestHost::new();
    host.run(&[
        "run", "-d", "--name", "web", "-p", "8080:80", "--expose", "90", "busybox", "sleep", "100",
    ])
    .ok();
    let want = "172.17.0.2 16 172.17.0.1 02:42:ac:11:00:02";
    for base in [
        ".NetworkSettings",
        "(index .NetworkSettings.Networks \"bridge\")",
    ] {
        let template = format!(
            "{{{{with {base}}}}}{{{{.IPAddress}}}} {{{{.IPPrefixLen}}}} {{{{.Gateway}}}} \
             {{{{.MacAddress}}}}{{{{end}}}}"
        );
        assert_eq!(host.inspect("web", &template), want);
    }
    let ports = host
        .run(&["ps", "--format", "{{.Ports}} {{.Networks}}"])
        .ok();
    assert_eq!(
        ports,
        "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 90/tcp bridge"
    );
    assert_eq!(
        host.run(&["port", "web", "80"]).ok(),
        "0.0.0.0:8080\n[::]:8080"
    );
    assert_eq!(
        host.inspect("web", "{{json .NetworkSettings.Ports}}"),
        "{\"80/tcp\":[{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"8080\"},\
         {\"HostIp\":\"::\",\"HostPort\":\"8080\"}],\"90/tcp\":null}"
    );
    host.run(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(host.inspect("web", "{{.NetworkSettings.IPAddress}}|"), "|");
    assert_eq!(host.run(&["port", "web"]).ok(), "");
}

#[test]
fn containers_reach_each_other_and_the_world_behind_the_host() {
    let host = TestHost::new();
    let lan = Lan::new();
    web(&host, "web", &[]);
    host.run(&["run", "-d", "--name", "other", "busybox", "sleep", "100"])
        .ok();
    let server = address(&host, "web", "bridge");
    let client = address(&host, "other", "bridge");
    assert_eq!(
        fetch_from(&host, "other", &format!("{server} 80")),
        format!("from {client}")
    );
    let ping = ["exec", "other", "ping", "-c1", "-W2", LAN4];
    host.run(&ping).ok();
    // Masqueraded: the other machine knows nothing of the containers' addresses.
    let seen = lan.within(|| sh("ip neigh; ip route"));
    assert!(!seen.contains("172.17"), "{seen}");
}

#[test]
fn the_host_does_not_become_a_router_for_its_neighbours() {
    let host = TestHost::new();
    // A new network namespace has what the machine's has.
    sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
    let lan = Lan::new();
    let far = Lan::beyond("198.51.100.1", "198.51.100.2");
    lan.within(|| sh(&format!("ip route add 198.51.100.0/24 via {HOST4}")));
    far.within(|| sh("ip route add 192.0.2.0/24 via 198.51.100.1"));
    let reaches = || {
        let ping = "busybox ping -c1 -W1 198.51.100.2 >/dev/null && echo yes || echo no";
        lan.within(|| sh(ping)).trim().to_owned()
    };
    assert_eq!(reaches(), "no", "control: it was none");
    host.run(&["run", "--rm", "busybox", "true"]).ok();
    assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
    assert_eq!(reaches(), "no");
    sh("nft flush ruleset");
    assert_eq!(reaches(), "yes", "control: it is our rule that keeps it so");
}

#[test]
fn names_and_ranges_that_others_have_are_left_to_them() {
    let host = TestHost::new();
    sh(
        "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up",
    );
    sh("nft add table inet mine; nft add chain inet mine c");
    let out = host.run(&["run", "--rm", "busybox", "ip", "route"]).ok();
    assert!(out.contains("default via 172.18.0.1"), "{out}");
    let links = sh("ip -br addr");
    assert!(
        links.contains("rdocker0") && links.contains("172.18.0.1/24"),
        "{links}"
    );
    assert!(sh("nft list tables").contains("table inet mine"));
}

#[test]
fn a_hundred_containers_share_a_bridge_and_leave_nothing() {
    let host = TestHost::new();
    let count: usize = if std::env::var("KEEL_SOAK").is_ok_and(|mode| mode == "full") {
        100
    } else {
        12
    };
    let names: Vec<String> = (0..count).map(|n| format!("node{n}")).collect();
    std::thread::scope(|scope| {
        let host = &host;
        // Each thread is in the host's namespace, as the one that starts it.
        for chunk in names.chunks(count.div_ceil(4)) {
            scope.spawn(move || {
                for name in chunk {
                    host.run(&["run", "-d", "--name", name, "busybox", "sleep", "1000"])
                        .ok();
                }
            });
        }
    });
    let mut addresses: Vec<String> = names
        .iter()
        .map(|name| address(&host, name, "bridge"))
        .collect();
    let last = addresses[count - 1].clone();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), count);
    host.run(&["exec", "node0", "ping", "-c1", "-W2", &last])
        .ok();
    let mut args = vec!["rm", "-f"];
    args.extend(names.iter().map(String::as_str));
    host.run(&args).ok();
    eventually("the end of all links", || {
        !sh("ip -br link").contains("veth")
    });
    assert_eq!(
        host.run(&["network", "inspect", "-f", "{{len .Containers}}", "bridge"])
            .ok(),
        "0"
    );
}
