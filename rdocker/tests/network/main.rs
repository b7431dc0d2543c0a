//! Networks, ports, links and names through the built binary.
//!
//! Each test has a network namespace of its own as its host, and where it needs one a second
//! namespace as another machine on the host's network. Nothing of this machine's own network is
//! touched.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../verbs/host.rs"]
#[expect(dead_code, reason = "the verbs' tests use more of it")]
mod host;
mod lan;

mod bridge;
mod crashes;
mod links;
mod names;
mod networks;
mod ports;
mod reach;
mod tutorials;

use host::TestHost;

/// Starts `busybox httpd` on port 80; `/cgi-bin/who` tells the client's address.
fn web(host: &TestHost, name: &str, flags: &[&str]) {
    let script = "mkdir -p /www/cgi-bin; echo hello > /www/index.html; \
                  printf '#!/bin/sh\\nprintf \"Content-Type: text/plain\\\\n\\\\n\"; \
                  echo from $REMOTE_ADDR\\n' > /www/cgi-bin/who; chmod +x /www/cgi-bin/who; \
                  httpd -p 80 -h /www; touch /ready; sleep 1000";
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", script]);
    host.run(&args).ok();
    host::eventually("the server's start", || {
        host.run(&["exec", name, "test", "-e", "/ready"]).code == 0
    });
}

/// The container's IPv4 address in one network.
fn address(host: &TestHost, name: &str, network: &str) -> String {
    let template = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
    host.inspect(name, &template)
}

/// What a container gets from `address port`; empty if nothing.
fn fetch_from(host: &TestHost, name: &str, to: &str) -> String {
    let script =
        format!("printf 'GET /cgi-bin/who HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {to} | tail -n1");
    let done = host.run(&["exec", name, "sh", "-c", &script]);
    lan::seen(&done.out)
}
