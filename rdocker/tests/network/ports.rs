use std::io::Write;
use std::net::{TcpListener, UdpSocket};

use crate::host::{TestHost, eventually};
use crate::lan::{HOST4, HOST6, LAN4, LAN6, Lan, echo, echo_from, fetch, sh};
use crate::{address, fetch_from, web};

/// Who asks, at which address, and whom the server sees.
fn matrix(host: &TestHost, lan: &Lan, port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("loopback", fetch(&format!("127.0.0.1:{port}"))),
        ("loopback6", fetch(&format!("[::1]:{port}"))),
        ("host", fetch(&format!("{HOST4}:{port}"))),
        ("host6", fetch(&format!("[{HOST6}]:{port}"))),
        ("lan", lan.fetch(&format!("{HOST4}:{port}"))),
        ("lan6", lan.fetch(&format!("[{HOST6}]:{port}"))),
        (
            "neighbour",
            fetch_from(host, "other", &format!("{HOST4} {port}")),
        ),
        (
            "itself",
            fetch_from(host, "web", &format!("{HOST4} {port}")),
        ),
        (
            "stranger",
            fetch_from(host, "away", &format!("{HOST4} {port}")),
        ),
    ]
}

fn neighbours(host: &TestHost) {
    host.run(&["network", "create", "elsewhere"]).ok();
    host.run(&["run", "-d", "--name", "other", "busybox", "sleep", "1000"])
        .ok();
    host.run(&[
        "run",
        "-d",
        "--name",
        "away",
        "--network",
        "elsewhere",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
}

#[test]
fn a_published_port_is_reached_from_everywhere_before_and_after_a_flush_by_others() {
    let host = TestHost::new();
    let lan = Lan::new();
    web(&host, "web", &["-p", "8080:80"]);
    neighbours(&host);
    let gateway = "from 172.17.0.1".to_owned();
    let want = [
        ("loopback", gateway.clone()),
        ("loopback6", gateway.clone()),
        ("host", format!("from {HOST4}")),
        ("host6", gateway.clone()),
        // The client's address is kept.
        ("lan", format!("from {LAN4}")),
        // The container has no IPv6, so somebody has to speak for the client.
        ("lan6", gateway.clone()),
        ("neighbour", gateway.clone()),
        ("itself", gateway.clone()),
        ("stranger", gateway),
    ];
    assert_eq!(matrix(&host, &lan, 8080), want);
    sh("nft flush ruleset");
    eventually("the rules' return", || {
        sh("nft list tables").contains("rdocker")
    });
    assert_eq!(matrix(&host, &lan, 8080), want);
}

#[test]
fn ipv6_keeps_the_clients_address_too() {
    let host = TestHost::new();
    let lan = Lan::new();
    host.run(&[
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "fd00:6::/64",
        "six",
    ])
    .ok();
    web(&host, "web", &["--network", "six", "-p", "8080:80"]);
    let seen = lan.fetch(&format!("[{HOST6}]:8080"));
    assert!(seen.contains(LAN6), "{seen}");
    let seen = lan.fetch(&format!("{HOST4}:8080"));
    assert!(seen.contains(LAN4), "{seen}");
    assert!(fetch("[::1]:8080").starts_with("from "));
    // No neighbour makes itself its router (CVE-2020-13401).
    let accepts = "cat /proc/sys/net/ipv6/conf/eth0/accept_ra";
    assert_eq!(host.run(&["exec", "web", "sh", "-c", accepts]).ok(), "0");
    // What LAN clients route to a container themselves does not arrive.
    let direct = address(&host, "web", "six");
    let six = host.inspect("web", "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}");
    lan.within(|| {
        sh(&format!(
            "ip route add 172.16.0.0/12 via {HOST4}; ip -6 route add fd00:6::/64 via {HOST6}"
        ));
    });
    assert_eq!(lan.fetch(&format!("{direct}:80")), "");
    assert_eq!(lan.fetch(&format!("[{six}]:80")), "");
    // Control: without our rules it would.
    sh("nft list table inet $(nft list tables | sed -n 's/table inet //p') >/dev/null");
    assert!(fetch(&format!("{direct}:80")).starts_with("from "));
}

#[test]
fn a_port_for_loopback_stays_there() {
    let host = TestHost::new();
    let lan = Lan::new();
    web(
        &host,
        "web",
        &["-p", "127.0.0.1:8081:80", "-p", "[::1]:8082:80"],
    );
    let gateway = "from 172.17.0.1";
    assert_eq!(fetch("127.0.0.1:8081"), gateway);
    assert_eq!(fetch("[::1]:8082"), gateway);
    assert_eq!(fetch("[::1]:8081"), "");
    assert_eq!(lan.fetch(&format!("{HOST4}:8081")), "");
    assert_eq!(lan.fetch(&format!("[{HOST6}]:8082")), "");
    // A neighbour that routes loopback addresses to the host, and a host that would take them.
    sh("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    let attack = || {
        lan.within(|| {
            sh(&format!(
                "ip addr flush dev lo; sysctl -qw net.ipv4.conf.all.route_localnet=1
                 ip route replace 127.0.0.1 via {HOST4} src {LAN4}"
            ));
            fetch("127.0.0.1:8081")
        })
    };
    assert_eq!(attack(), "");
    // Control: it is our rule that keeps it away.
    sh("nft flush chain inet $(nft list tables | sed -n 's/table inet //p') raw");
    assert_eq!(attack(), gateway);
}

#[test]
fn one_address_of_the_host_is_that_address_alone() {
    let host = TestHost::new();
    let lan = Lan::new();
    sh("ip addr add 192.0.2.7/24 dev lan0");
    web(&host, "web", &["-p", "192.0.2.7:80:80"]);
    assert_eq!(lan.fetch("192.0.2.7:80"), format!("from {LAN4}"));
    assert_eq!(lan.fetch(&format!("{HOST4}:80")), "");
    assert_eq!(fetch("127.0.0.1:80"), "");
}

/// Not a test of its own: what a container runs to send datagrams, or to send them back. Alone it
/// does nothing.
#[test]
fn worker() {
    if let Ok(address) = std::env::var("UDP_ASK") {
        writeln!(std::io::stdout(), "\nanswer {}", echo(&address)).unwrap();
        return;
    }
    if std::env::var("UDP_ECHO").is_err() {
        return;
    }
    let socket = UdpSocket::bind("[::]:53").unwrap();
    let mut bytes = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).unwrap();
        let answer = format!(
            "{} from {}",
            String::from_utf8_lossy(&bytes[..length]),
            from.ip().to_canonical()
        );
        socket.send_to(answer.as_bytes(), from).unwrap();
    }
}

/// How the worker is called in a container that has this program as `/echo`.
const WORKER: [&str; 4] = ["/echo", "--exact", "ports::worker", "--test-threads=1"];

/// The volume that is this program.
pub fn worker_volume() -> String {
    format!("{}:/echo:ro", std::env::current_exe().unwrap().display())
}

/// Starts a container that sends datagrams to its port 53 back.
pub fn udp_server(host: &TestHost, flags: &[&str]) {
    let volume = worker_volume();
    let run = ["run", "-d", "-e", "UDP_ECHO=1", "-v", &volume];
    host.run(&[&run[..], flags, &["busybox"], &WORKER].concat())
        .ok();
}

/// What comes back to a container for a datagram; empty if nothing does.
pub fn echo_in(host: &TestHost, name: &str, address: &str) -> String {
    let ask = format!("UDP_ASK={address}");
    let told = host.run(&[&["exec", "-e", &ask, name], &WORKER[..]].concat());
    let mut lines = told.out.lines();
    let answer = lines.find_map(|line| line.strip_prefix("answer "));
    answer.unwrap_or_default().to_owned()
}

#[test]
fn datagrams_are_published_too() {
    let host = TestHost::new();
    let lan = Lan::new();
    udp_server(&host, &["-p", "5300:53/udp"]);
    let gateway = "ping from 172.17.0.1".to_owned();
    eventually("the server's start", || echo("127.0.0.1:5300") == gateway);
    assert_eq!(echo("[::1]:5300"), gateway);
    let on_host = format!("{HOST4}:5300");
    assert_eq!(echo(&on_host), format!("ping from {HOST4}"));
    assert_eq!(lan.within(|| echo(&on_host)), format!("ping from {LAN4}"));
}

#[test]
fn a_client_that_keeps_its_port_reaches_the_container_that_follows() {
    let host = TestHost::new();
    let lan = Lan::new();
    host.run(&["network", "create", "--subnet", "10.77.0.0/24", "n"])
        .ok();
    let start = |address: &str| {
        let flags = ["--network", "n", "--ip", address, "-p", "5300:53/udp"];
        udp_server(&host, &[&flags[..], &["--name", "web"]].concat());
        eventually("the server's start", || !echo("127.0.0.1:5300").is_empty());
    };
    let ask = || lan.within(|| echo_from(4444, &format!("{HOST4}:5300")));
    start("10.77.0.10");
    assert_eq!(ask(), format!("ping from {LAN4}"));
    // It asks on while nobody is there, which the kernel remembers too.
    host.run(&["rm", "-f", "web"]).ok();
    assert_eq!(ask(), "");
    start("10.77.0.11");
    assert_eq!(ask(), format!("ping from {LAN4}"));
    host.run(&["network", "disconnect", "n", "web"]).ok();
    assert_eq!(ask(), "");
}

#[test]
fn a_start_that_finds_a_lost_container_forgets_its_flows() {
    let host = TestHost::new();
    let lan = Lan::new();
    udp_server(&host, &["-p", "5300:53/udp", "--name", "web"]);
    eventually("the server's start", || !echo("127.0.0.1:5300").is_empty());
    let ask = || lan.within(|| echo_from(4444, &format!("{HOST4}:5300")));
    assert_eq!(ask(), format!("ping from {LAN4}"));
    let pids = [
        host.monitor("web").to_string(),
        host.inspect("web", "{{.State.Pid}}"),
    ];
    sh(&format!("kill -9 {}", pids.join(" ")));
    // Not a word to the engine before the next start.
    udp_server(&host, &["-p", "5400:53/udp", "--name", "next"]);
    let program = UdpSocket::bind(format!("{HOST4}:5300")).unwrap();
    let answering = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        program
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        let (_, from) = program.recv_from(&mut bytes).unwrap();
        program.send_to(b"the host", from).unwrap();
    });
    assert_eq!(ask(), "the host");
    answering.join().unwrap();
}

#[test]
fn every_form_gives_the_binding_that_docker_gives() {
    let host = TestHost::new();
    let both = |port: &str| vec![format!("0.0.0.0:{port}"), format!("[::]:{port}")];
    let cases: &[(&[&str], &str, Vec<String>)] = &[
        (&["-p", "80"], "80", both("32768")),
        (&["-p", "9000:80"], "80", both("9000")),
        (
            &["-p", "127.0.0.1::80"],
            "80",
            vec!["127.0.0.1:32768".into()],
        ),
        (
            &["-p", "127.0.0.1:9000:80"],
            "80",
            vec!["127.0.0.1:9000".into()],
        ),
        (&["-p", "[::1]:9000:80"], "80", vec!["[::1]:9000".into()]),
        (&["-p", "9000-9001:80-81"], "81", both("9001")),
        (&["-p", "9000-9005:80"], "80", both("9000")),
        (&["-p", "9000:53/udp"], "53/udp", both("9000")),
        (&["-P", "--expose", "70-71"], "71", both("32769")),
    ];
    for (flags, port, want) in cases {
        let mut args = vec!["run", "-d", "--name", "web"];
        args.extend(*flags);
        args.extend(["busybox", "sleep", "100"]);
        host.run(&args).ok();
        let got = host.run(&["port", "web", port]).ok();
        assert_eq!(got.lines().collect::<Vec<_>>(), *want, "{flags:?}");
        host.run(&["rm", "-f", "web"]).ok();
    }
    for bad in [
        "80:80:80:80",
        "99999:80",
        "1.2.3:80:80",
        "80/xyz",
        "81-80:80",
    ] {
        host.run(&["run", "--rm", "-p", bad, "busybox", "true"])
            .fails(125);
    }
}

#[test]
fn a_taken_port_is_a_clear_error_and_leaves_nothing() {
    let host = TestHost::new();
    let _program = TcpListener::bind("0.0.0.0:8090").unwrap();
    let run = |name: &str, port: &str| {
        host.run(&[
            "run", "-d", "--name", name, "-p", port, "busybox", "sleep", "100",
        ])
    };
    let why = run("web", "8090:80").fails(125);
    assert!(
        why.contains("failed to bind host port 0.0.0.0:8090/tcp: address already in use"),
        "{why}"
    );
    run("first", "8091:80").ok();
    let why = run("second", "8091:80").fails(125);
    assert!(
        why.contains("Bind for 0.0.0.0:8091 failed: port is already allocated"),
        "{why}"
    );
    assert!(why.contains("container first publishes it"), "{why}");
    assert_eq!(host.inspect("second", "{{.State.Status}}"), "created");
    host.run(&["rm", "-f", "first"]).ok();
    host.run(&["start", "second"]).ok();
    assert!(sh("nft list ruleset").contains("tcp . 8091 : "));
    host.run(&["rm", "-f", "second"]).ok();
    assert!(!sh("nft list ruleset").contains("8091"));
    drop(TcpListener::bind("0.0.0.0:8091").unwrap());
}

#[test]
fn a_restart_keeps_the_ports_and_the_proxy_has_no_capabilities() {
    let host = TestHost::new();
    web(&host, "web", &["-p", "8080:80"]);
    host.run(&["restart", "-t", "0", "web"]).ok();
    eventually("the server", || fetch("127.0.0.1:8080").starts_with("from"));
    let tasks = format!("/proc/{}/task", host.monitor("web"));
    let proxies: Vec<String> = std::fs::read_dir(tasks)
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .filter(|status| status.starts_with("Name:\tproxy"))
        .collect();
    assert!(!proxies.is_empty());
    for status in proxies {
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    }
}
