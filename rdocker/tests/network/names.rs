use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::address;
use crate::host::TestHost;

fn start(host: &TestHost, name: &str, flags: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(flags);
    args.extend(["busybox", "sleep", "1000"]);
    host.run(&args).ok();
}

fn look_up(host: &TestHost, from: &str, name: &str) -> String {
    let out = host.run(&["exec", from, "nslookup", name]).out;
    let lines = out
        .lines()
        .skip(2)
        .filter_map(|line| line.strip_prefix("Address"));
    lines
        .filter_map(|line| line.split_whitespace().last())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn containers_of_a_network_are_known_by_name_alias_and_id() {
    let host = TestHost::new();
    host.run(&["network", "create", "front"]).ok();
    start(
        &host,
        "server",
        &["--network", "front", "--network-alias", "www"],
    );
    start(&host, "client", &["--network", "front"]);
    let want = address(&host, "server", "front");
    let id = host.inspect("server", "{{slice .Id 0 12}}");
    for name in ["server", "SERVER", "www", "server.front", &id] {
        assert_eq!(look_up(&host, "client", name), want, "{name}");
    }
    let reverse = host.run(&["exec", "client", "nslookup", &want]).ok();
    assert!(reverse.contains("server.front"), "{reverse}");
    // A neighbour that restarts is found at its new address, one that is gone not at all.
    host.run(&["restart", "-t", "0", "server"]).ok();
    assert_eq!(
        look_up(&host, "client", "www"),
        address(&host, "server", "front")
    );
    host.run(&["rename", "server", "waiter"]).ok();
    let now = address(&host, "waiter", "front");
    assert_eq!(look_up(&host, "client", "waiter"), now);
    assert_eq!(look_up(&host, "client", "server"), "");
    host.run(&["rm", "-f", "waiter"]).ok();
    assert_eq!(look_up(&host, "client", "www"), "");
}

#[test]
fn an_alias_of_several_containers_has_all_their_addresses() {
    let host = TestHost::new();
    host.run(&["network", "create", "front"]).ok();
    for name in ["one", "two"] {
        start(
            &host,
            name,
            &["--network", "front", "--network-alias", "pool"],
        );
    }
    let found = look_up(&host, "one", "pool");
    for name in ["one", "two"] {
        assert!(found.contains(&address(&host, name, "front")), "{found}");
    }
}

#[test]
fn other_names_go_to_the_servers_that_were_asked_for_but_not_from_an_internal_network() {
    let host = TestHost::new();
    let server = UdpSocket::bind("127.0.0.1:53").unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    host.run(&["network", "create", "front"]).ok();
    host.run(&["network", "create", "--internal", "inside"])
        .ok();
    let dns = ["--dns", "127.0.0.1"];
    start(
        &host,
        "client",
        &[&dns[..], &["--network", "front"]].concat(),
    );
    start(
        &host,
        "shut",
        &[&dns[..], &["--network", "inside"]].concat(),
    );
    let answers = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut count = 0;
            let mut bytes = [0; 512];
            while let Ok((length, from)) = server.recv_from(&mut bytes) {
                count += 1;
                // No such name, but an answer.
                bytes[2] |= 0x80;
                bytes[3] = 0x83;
                server.send_to(&bytes[..length], from).unwrap();
            }
            count
        });
        let out = host.run(&["exec", "client", "nslookup", "example.org"]);
        assert!((out.out + &out.err).contains("NXDOMAIN"));
        asked.join().unwrap()
    });
    assert!(answers > 0);
    let begun = Instant::now();
    let mut bytes = [0; 512];
    host.run(&["exec", "shut", "nslookup", "example.org"])
        .fails(1);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "it is refused, not left waiting"
    );
    assert!(server.recv_from(&mut bytes).is_err(), "nothing got out");
    assert_eq!(
        look_up(&host, "shut", "shut"),
        address(&host, "shut", "inside")
    );
}

#[test]
fn names_are_answered_under_load() {
    let host = TestHost::new();
    host.run(&["network", "create", "front"]).ok();
    start(&host, "server", &["--network", "front"]);
    start(&host, "client", &["--network", "front"]);
    let script = "for i in $(seq 8); do (for j in $(seq 50); do nslookup server >/dev/null || echo bad; done) & done; wait";
    assert_eq!(host.run(&["exec", "client", "sh", "-c", script]).ok(), "");
}

#[test]
fn a_name_server_of_the_containers_own_may_have_the_port() {
    let host = TestHost::new();
    host.run(&["network", "create", "front"]).ok();
    start(&host, "server", &["--network", "front"]);
    let script = "nc -lk -p 53 -e /bin/cat & nc -lu -p 53 -e /bin/cat & sleep 0.3; nslookup server";
    let out = host.run(&["exec", "server", "sh", "-c", script]);
    assert!(
        out.out.contains(&address(&host, "server", "front")),
        "{}{}",
        out.out,
        out.err
    );
    assert!(!out.err.contains("in use"), "{}", out.err);
}
