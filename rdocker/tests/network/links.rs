use crate::address;
use crate::host::TestHost;

#[test]
fn a_link_brings_names_and_variables_that_follow_a_restart() {
    let host = TestHost::new();
    host.run(&[
        "run",
        "-d",
        "--name",
        "db",
        "--expose",
        "5432",
        "-e",
        "PASSWORD=x",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let run = [
        "run",
        "-d",
        "--name",
        "app",
        "--link",
        "db:aliasdb",
        "busybox",
        "sleep",
        "1000",
    ];
    host.run(&run).ok();
    let first = address(&host, "db", "bridge");
    let env = host.run(&["exec", "app", "env"]).ok();
    for line in [
        "ALIASDB_NAME=/app/aliasdb".to_owned(),
        format!("ALIASDB_PORT=tcp://{first}:5432"),
        format!("ALIASDB_PORT_5432_TCP_ADDR={first}"),
        "ALIASDB_ENV_PASSWORD=x".to_owned(),
    ] {
        // A program that exec starts has them too, as Docker's has.
        assert!(env.lines().any(|have| have == line), "{line}: {env}");
    }
    for name in ["aliasdb", "db"] {
        host.run(&["exec", "app", "ping", "-c1", "-W2", name]).ok();
    }
    host.run(&["restart", "-t", "0", "db"]).ok();
    let second = address(&host, "db", "bridge");
    assert_ne!(first, second, "the test means a changed address");
    let hosts = host.run(&["exec", "app", "cat", "/etc/hosts"]).ok();
    assert!(hosts.contains(&format!("{second}\taliasdb ")), "{hosts}");
    assert!(!hosts.contains(&first), "{hosts}");
    host.run(&["exec", "app", "ping", "-c1", "-W2", "aliasdb"])
        .ok();
    let links = host.inspect("app", "{{json .HostConfig.Links}}");
    assert_eq!(links, "[\"/db:/app/aliasdb\"]");
    assert_eq!(
        host.run(&["rm", "--link", "/app/aliasdb"]).ok(),
        "/app/aliasdb"
    );
    host.run(&["rm", "-l", "app/aliasdb"]).fails(1);
}

#[test]
fn a_link_needs_a_running_container() {
    let host = TestHost::new();
    let run = |link: &str| host.run(&["run", "--name", "app", "--link", link, "busybox", "true"]);
    let why = run("nosuch:db").fails(125);
    assert!(why.contains("could not get container for nosuch"), "{why}");
    host.run(&["create", "--name", "db", "busybox"]).ok();
    let why = run("db").fails(125);
    assert!(
        why.contains("Cannot link to a non running container: /db AS /app/db"),
        "{why}"
    );
}

#[test]
fn on_a_network_of_its_own_a_link_is_a_private_name() {
    let host = TestHost::new();
    host.run(&["network", "create", "front"]).ok();
    let run = |name: &str, flags: &[&str]| {
        let mut args = vec!["run", "-d", "--name", name, "--network", "front"];
        args.extend(flags);
        args.extend(["busybox", "sleep", "1000"]);
        host.run(&args).ok();
    };
    run("db-one", &[]);
    run("app", &["--link", "db-one:database"]);
    run("stranger", &[]);
    host.run(&["exec", "app", "ping", "-c1", "-W2", "database"])
        .ok();
    assert_ne!(
        host.run(&["exec", "stranger", "ping", "-c1", "-W2", "database"])
            .code,
        0
    );
}
