//! The tutorials' projects with the real programs, out of Debian's packages over the network: minutes,
//! so only when asked (`KEEL_SOAK=full`).

use std::path::Path;
use std::process::Command;

use crate::address;
use crate::host::{TestHost, eventually};
use crate::lan::sh;

/// A Debian root file system with these packages, made before there is a host without a network.
fn debian(packages: &str, dir: &Path) -> Option<String> {
    if std::env::var("KEEL_SOAK").as_deref() != Ok("full") {
        return None;
    }
    let tar = dir.join("debian.tar").to_str().unwrap().to_owned();
    let made = Command::new("mmdebstrap")
        .args(["--variant=apt", "--include", packages, "bookworm", &tar])
        .status();
    assert!(made.unwrap().success());
    Some(tar)
}

/// Tutorial 4: `db` and `web`, joined by `--link`, with a real PostgreSQL.
#[test]
fn a_web_container_asks_a_linked_postgresql() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tar) = debian("postgresql", dir.path()) else {
        return;
    };
    let host = TestHost::new();
    host.run(&["import", &tar, "debian:base"]).ok();
    let dockerfile = "FROM debian:base\n\
        RUN echo 'host all all 0.0.0.0/0 trust' >> /etc/postgresql/15/main/pg_hba.conf\n\
        RUN install -d -o postgres /run/postgresql\nUSER postgres\nEXPOSE 5432\nSTOPSIGNAL SIGINT\n\
        CMD [\"/usr/lib/postgresql/15/bin/postgres\", \"-D\", \"/var/lib/postgresql/15/main\", \
        \"-c\", \"config_file=/etc/postgresql/15/main/postgresql.conf\", \"-c\", \"listen_addresses=*\"]\n";
    std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    std::fs::remove_file(&tar).unwrap();
    let context = dir.path().to_str().unwrap();
    host.run(&["build", "-t", "training/postgres", context])
        .ok();
    host.run(&["run", "-d", "--name", "db", "training/postgres"])
        .ok();
    let ask = "psql -At -h db -p $DB_PORT_5432_TCP_PORT -U postgres -c 'select 6*7'";
    let web = [
        "run",
        "--rm",
        "--link",
        "db",
        "training/postgres",
        "sh",
        "-c",
        ask,
    ];
    eventually("the database's answer", || {
        host.run(&web).out.trim() == "42"
    });
    let env = ["run", "--rm", "--link", "db:db", "training/postgres", "env"];
    let env = host.run(&env).ok();
    let line = format!("DB_PORT_5432_TCP_ADDR={}\n", address(&host, "db", "bridge"));
    assert!(env.contains(&line), "{env}");
    // It ends by its own signal, with its data written.
    host.run(&["stop", "db"]).ok();
    let code = host.inspect("db", "{{.State.ExitCode}}");
    let log = host.run(&["logs", "db"]);
    assert_eq!(code, "0", "{}", log.err);
    assert!(
        log.err.contains("database system is shut down"),
        "{}",
        log.err
    );
}

/// Tutorial 0: a blog of Node.js, published with `-p 4000:4000`.
#[test]
fn a_node_server_is_reached_at_its_published_port() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tar) = debian("nodejs", dir.path()) else {
        return;
    };
    let host = TestHost::new();
    host.run(&["import", &tar, "node"]).ok();
    std::fs::remove_file(&tar).unwrap();
    let dockerfile = "FROM node\nWORKDIR /hexofile\nCOPY server.js .\nEXPOSE 4000\n\
        CMD [\"node\", \"server.js\"]\n";
    let server = "require('http').createServer((q, a) => a.end('<h1>hexo ' + process.version + '</h1>'))\
        .listen(4000);";
    std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(dir.path().join("server.js"), server).unwrap();
    let context = dir.path().to_str().unwrap();
    host.run(&["build", "-t", "hexo/node", context]).ok();
    let run = [
        "run",
        "-d",
        "-p",
        "4000:4000",
        "--name",
        "blog",
        "hexo/node",
    ];
    host.run(&run).ok();
    let get = "curl -s --max-time 2 http://localhost:4000/ || true";
    eventually("the page", || sh(get).starts_with("<h1>hexo v18"));
    assert_eq!(
        host.run(&["port", "blog"]).ok(),
        "4000/tcp -> 0.0.0.0:4000\n4000/tcp -> [::]:4000"
    );
}
