//! The tutorials' projects with the real programs. Those that this machine has installed are put in
//! images as they are; with `KEEL_SOAK=full` they come with the rest of Debian out of its packages,
//! over the network, which takes minutes.

use std::path::Path;
use std::process::Command;

use crate::address;
use crate::host::{TestHost, eventually};
use crate::lan::sh;

/// A Debian root file system with these packages, made before there is a host without a network.
fn debian(packages: &str, dir: &Path) -> Option<String> {
    let name = packages.split(',').next().unwrap_or_default();
    if std::env::var("KEEL_SOAK").as_deref() != Ok("full") {
        return None;
    }
    let tar = dir.join(format!("{name}.tar")).to_str().unwrap().to_owned();
    let made = Command::new("mmdebstrap")
        .args(["--variant=apt", "--include", packages, "bookworm", &tar])
        .status();
    assert!(made.unwrap().success());
    Some(tar)
}

/// Copies files of this machine to `dir/root`, with the libraries that the `programs` want.
fn installed(programs: &str, files: &str, dir: &Path) {
    let root = dir.join("root");
    std::fs::create_dir(&root).unwrap();
    sh(&format!(
        "{{ ls -d {programs} {files}; ldd {programs} | grep -o '/[^ :]*'; }} | sort -u \
         | xargs cp -rL --parents -t {}",
        root.display()
    ));
}

/// Builds the context `dir` with this Dockerfile.
fn build(host: &TestHost, name: &str, dockerfile: &str, dir: &Path) {
    std::fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    host.run(&["build", "-t", name, dir.to_str().unwrap()]).ok();
}

/// Tutorial 4: `db` and `web`, joined by `--link`, with a real PostgreSQL.
#[test]
fn a_web_container_asks_a_linked_postgresql() {
    let dir = tempfile::tempdir().unwrap();
    let tar = debian("postgresql", dir.path());
    let host = TestHost::new();
    let dockerfile = match &tar {
        Some(tar) => {
            host.run(&["import", tar, "debian:base"]).ok();
            std::fs::remove_file(tar).unwrap();
            "FROM debian:base\nENV PATH=/usr/lib/postgresql/15/bin:$PATH\n\
             RUN install -d -o postgres /data\n"
                .to_owned()
        }
        None => {
            let own = sh("ls -d /usr/lib/postgresql/* | tail -n1");
            let own = own.trim();
            let share = own.replace("/lib/", "/share/");
            let programs = ["bin/postgres", "bin/initdb", "bin/psql", "lib/plpgsql.so"];
            let programs = programs.map(|name| format!("{own}/{name}")).join(" ");
            let files = format!("{own}/lib/dict_snowball.so {share}");
            installed(&programs, &files, dir.path());
            format!(
                "FROM busybox\nCOPY root /\nENV PATH=$PATH:{own}/bin\n\
                 RUN echo postgres:x:70:70::/:/bin/sh >> /etc/passwd && \
                 mkdir /data && chown 70:70 /data\n"
            )
        }
    };
    let server = "USER postgres\n\
        RUN initdb -D /data -A trust --no-sync -E UTF8 --locale=C && \
        echo 'host all all 0.0.0.0/0 trust' >> /data/pg_hba.conf\nEXPOSE 5432\nSTOPSIGNAL SIGINT\n\
        CMD [\"postgres\", \"-D\", \"/data\", \"-c\", \"listen_addresses=*\", \"-c\", \"unix_socket_directories=\"]\n";
    build(
        &host,
        "training/postgres",
        &(dockerfile + server),
        dir.path(),
    );
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

/// Tutorial 0: a blog of Node.js, published with `-p 4000:4000`; in the long form a browser looks at
/// it, with its scripts run.
#[test]
fn a_node_server_is_reached_at_its_published_port() {
    let dir = tempfile::tempdir().unwrap();
    let tar = debian("nodejs", dir.path());
    let browser = debian("chromium,fonts-dejavu-core", dir.path());
    let host = TestHost::new();
    let base = match &tar {
        Some(tar) => {
            host.run(&["import", tar, "node"]).ok();
            std::fs::remove_file(tar).unwrap();
            "FROM node\n"
        }
        None => {
            installed("/usr/bin/node", "", dir.path());
            "FROM busybox\nCOPY root /\nENV PATH=/usr/bin:$PATH\n"
        }
    };
    let page = "require('http').createServer((q, a) => { a.setHeader('Content-Type', 'text/html');\
        a.end('<h1>hexo ' + process.version + '</h1><p></p><script>\
        document.querySelector(\"p\").textContent = 6 * 7</script>') }).listen(4000);";
    std::fs::write(dir.path().join("server.js"), page).unwrap();
    let server = "RUN mkdir -p /hexofile\nWORKDIR /hexofile\nCOPY server.js .\nEXPOSE 4000\n\
        CMD [\"node\", \"server.js\"]\n";
    build(&host, "hexo/node", &format!("{base}{server}"), dir.path());
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
    eventually("the page", || sh(get).starts_with("<h1>hexo v"));
    assert_eq!(
        host.run(&["port", "blog"]).ok(),
        "4000/tcp -> 0.0.0.0:4000\n4000/tcp -> [::]:4000"
    );
    let Some(browser) = browser else { return };
    host.run(&["import", &browser, "browser"]).ok();
    let look = [
        "run",
        "--rm",
        "--network",
        "host",
        "--shm-size",
        "256m",
        "browser",
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--dump-dom",
        "http://localhost:4000/",
    ];
    let seen = host.run(&look).ok();
    assert!(
        seen.contains("<h1>hexo v") && seen.contains("<p>42</p>"),
        "{seen}"
    );
}
