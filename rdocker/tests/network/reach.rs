//! From where each form of `-p` is reached, and from where it is not, by TCP and UDP, IPv4 and IPv6,
//! before and after others have changed the machine's packet filter.

use std::collections::BTreeSet;
use std::thread;

use crate::host::{TestHost, eventually};
use crate::lan::{HOST4, HOST6, LAN4, LAN6, Lan, echo, fetch, sh};
use crate::ports::{echo_in, udp_server, worker_volume};
use crate::{fetch_from, web};

/// Which addresses of the host a form means.
#[derive(Clone, Copy, PartialEq)]
enum To {
    All,
    All4,
    All6,
    Loopback4,
    Loopback6,
    Host4,
    Host6,
}

/// Every form: `P` is the container's port, `Q` the next.
fn forms(protocol: &str, inside: u16) -> Vec<(String, To)> {
    let forms: &[(&str, To)] = &[
        ("8080:P", To::All),
        ("P", To::All),
        ("0.0.0.0:8081:P", To::All4),
        ("[::]:8082:P", To::All6),
        ("127.0.0.1:8083:P", To::Loopback4),
        ("127.0.0.1::P", To::Loopback4),
        ("[::1]:8084:P", To::Loopback6),
        ("[::1]::P", To::Loopback6),
        ("HOST4:8085:P", To::Host4),
        ("HOST4::P", To::Host4),
        ("[HOST6]:8086:P", To::Host6),
        ("9000-9001:P-Q", To::All),
        ("9010-9015:P", To::All),
    ];
    let text = |form: &str| {
        let form = form.replace("HOST4", HOST4).replace("HOST6", HOST6);
        let form = form.replace('P', &inside.to_string());
        let form = form.replace('Q', &(inside + 1).to_string());
        format!("{form}/{protocol}")
    };
    forms.iter().map(|(form, to)| (text(form), *to)).collect()
}

/// Where somebody stands, the address that is asked, and the forms that answer there.
const PLACES: &[(&str, &str, &[To])] = &[
    ("loopback", "127.0.0.1", &[To::All, To::All4, To::Loopback4]),
    ("loopback", "[::1]", &[To::All, To::All6, To::Loopback6]),
    ("host", HOST4, &[To::All, To::All4, To::Host4]),
    ("host", "[2001:db8::1]", &[To::All, To::All6, To::Host6]),
    ("lan", HOST4, &[To::All, To::All4, To::Host4]),
    ("lan", "[2001:db8::1]", &[To::All, To::All6, To::Host6]),
    ("neighbour", HOST4, &[To::All, To::All4, To::Host4]),
    (
        "neighbour",
        "[2001:db8::1]",
        &[To::All, To::All6, To::Host6],
    ),
    ("itself", HOST4, &[To::All, To::All4, To::Host4]),
    ("itself", "[2001:db8::1]", &[To::All, To::All6, To::Host6]),
];

/// What a published container is asked by, and how.
struct Asked<'a> {
    host: &'a TestHost,
    lan: &'a Lan,
    name: &'static str,
    udp: bool,
    /// Whether the containers have IPv6.
    six: bool,
}

impl Asked<'_> {
    /// The answer to somebody at `place`; empty if there is none.
    fn ask(&self, place: &str, address: &str, port: u16) -> String {
        let to = format!("{address}:{port}");
        let container = match place {
            "neighbour" => "other",
            _ => self.name,
        };
        let words = format!("{} {port}", address.trim_matches(['[', ']']));
        match (place, self.udp) {
            ("lan", true) => self.lan.within(|| echo(&to)),
            ("lan", false) => self.lan.fetch(&to),
            ("loopback" | "host", true) => echo(&to),
            ("loopback" | "host", false) => fetch(&to),
            (_, false) => fetch_from(self.host, container, &words),
            (_, true) => echo_in(self.host, container, &to),
        }
    }

    /// The same at all ports at once: what does not answer takes its time.
    fn ask_all(&self, place: &str, address: &str, ports: &[u16]) -> Vec<String> {
        thread::scope(|scope| {
            let ask = |port: &u16| {
                let port = *port;
                scope.spawn(move || self.ask(place, address, port))
            };
            let threads: Vec<_> = ports.iter().map(ask).collect();
            threads.into_iter().map(|one| one.join().unwrap()).collect()
        })
    }

    /// The host's port of every form, by what `port` tells, in the order of the forms.
    fn ports(&self, forms: &[(String, To)], inside: u16, protocol: &str) -> Vec<u16> {
        let told = self
            .host
            .run(&["port", self.name, &format!("{inside}/{protocol}")])
            .ok();
        let mut chosen: Vec<&str> = told.lines().collect();
        let fixed = |form: &str| {
            let numbers = form.split('/').next().unwrap().rsplit_once(':')?.0;
            let port = numbers.rsplit([':', ']']).next()?;
            port.split('-').next()?.parse::<u16>().ok()
        };
        let known: BTreeSet<u16> = forms.iter().filter_map(|(form, _)| fixed(form)).collect();
        let number = |line: &str| line.rsplit(':').next().unwrap().parse::<u16>().unwrap();
        chosen.retain(|line| !known.contains(&number(line)));
        let mut take = |prefix: &str| {
            let at = chosen.iter().position(|line| line.starts_with(prefix));
            let port = number(chosen[at.unwrap()]);
            chosen.retain(|line| number(line) != port);
            port
        };
        let prefix = |to: To| match to {
            To::Loopback4 => "127.0.0.1:",
            To::Loopback6 => "[::1]:",
            To::Host4 => HOST4,
            _ => "0.0.0.0:",
        };
        forms
            .iter()
            .map(|(form, to)| fixed(form).unwrap_or_else(|| take(prefix(*to))))
            .collect()
    }

    /// Asks everywhere; names what answered and should not have, and what should have and did not.
    fn check(&self, when: &str, forms: &[(String, To)], ports: &[u16]) {
        let mut wrong = Vec::new();
        for (place, address, answering) in PLACES {
            let six = address.starts_with('[');
            // A container without IPv6 reaches nobody by it.
            let cut_off = six && !self.six && matches!(*place, "neighbour" | "itself");
            let answers = self.ask_all(place, address, ports);
            for ((form, to), answer) in forms.iter().zip(answers) {
                let want = answering.contains(to) && !cut_off;
                if answer.is_empty() == want {
                    wrong.push(format!("-p {form} from {place} to {address}: {answer:?}"));
                }
                let client = if six { LAN6 } else { LAN4 };
                let is_kept = !six || self.six;
                if *place == "lan" && want && is_kept && !answer.contains(client) {
                    wrong.push(format!("-p {form}: {answer:?} instead of {client}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{when}:\n{}", wrong.join("\n"));
    }
}

/// Others' own table, made anew as a firewall's reload does it.
const THEIRS: &str = "nft 'add table inet theirs; delete table inet theirs; table inet theirs { \
    chain input { type filter hook input priority 0; policy accept; }; \
    chain forward { type filter hook forward priority 0; policy accept; }; }'";

fn every_form(udp: bool, six: bool) {
    let host = TestHost::new();
    let lan = Lan::new();
    let (protocol, inside) = if udp { ("udp", 53) } else { ("tcp", 80) };
    let network = if six { "six" } else { "bridge" };
    if six {
        let args = [
            "network",
            "create",
            "--ipv6",
            "--subnet",
            "fd00:6::/64",
            "six",
        ];
        host.run(&args).ok();
    }
    let sleep = ["busybox", "sleep", "1000"];
    let volume = worker_volume();
    let other = [
        "run",
        "-d",
        "--name",
        "other",
        "-v",
        &volume,
        "--network",
        network,
    ];
    host.run(&[&other[..], &sleep].concat()).ok();
    let forms = forms(protocol, inside);
    let mut flags = vec!["--network", network];
    for (form, _) in &forms {
        flags.extend(["-p", form]);
    }
    let name = "published";
    if udp {
        udp_server(&host, &[&flags[..], &["--name", name]].concat());
        eventually("the server's start", || !echo("127.0.0.1:8080").is_empty());
    } else {
        web(&host, name, &flags);
    }
    let (host, lan) = (&host, &lan);
    let asked = Asked {
        host,
        lan,
        name,
        udp,
        six,
    };
    let ports = asked.ports(&forms, inside, protocol);
    asked.check("at first", &forms, &ports);
    sh(THEIRS);
    sh("nft flush ruleset");
    eventually("the rules' return", || {
        sh("nft list tables").contains("rdocker")
    });
    sh(THEIRS);
    asked.check("after others' changes", &forms, &ports);
}

#[test]
fn tcp_is_reached_as_published() {
    every_form(false, false);
}

#[test]
fn tcp_is_reached_as_published_with_ipv6() {
    every_form(false, true);
}

#[test]
fn udp_is_reached_as_published() {
    every_form(true, false);
}

#[test]
fn udp_is_reached_as_published_with_ipv6() {
    every_form(true, true);
}

#[test]
fn what_is_exposed_is_reached_when_all_is_published() {
    let host = TestHost::new();
    let lan = Lan::new();
    web(&host, "published", &["-P", "--expose", "80"]);
    let told = host.run(&["port", "published", "80"]).ok();
    let port = told
        .lines()
        .next()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let name = "published";
    host.run(&["run", "-d", "--name", "other", "busybox", "sleep", "1000"])
        .ok();
    let (host, lan) = (&host, &lan);
    let asked = Asked {
        host,
        lan,
        name,
        udp: false,
        six: false,
    };
    asked.check("-P", &[("-P".to_owned(), To::All)], &[port]);
}
