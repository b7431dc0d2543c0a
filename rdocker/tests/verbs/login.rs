//! A user who logs in, at a terminal and from a script.

use std::process::Command;

use crate::common::{Protection, Registry};
use crate::host::{TestHost, done};
use crate::terminal::Terminal;

/// `rdocker ARGS…` with an own `config.json`.
fn command(host: &TestHost, args: &[&str]) -> Command {
    let mut command = host.command(args);
    command.env("DOCKER_CONFIG", host.path().join("docker"));
    command
}

#[test]
fn login_asks_at_a_terminal_and_never_shows_the_password() {
    let host = TestHost::new();
    let registry = Registry::start(&Protection {
        auth: true,
        tls: false,
    });
    let at = registry.host.as_str();
    let login = |args: &[&str]| Terminal::of(command(&host, &[&["login"], args].concat()));

    let mut user = login(&[at]);
    user.shows("Username: ");
    user.types("joe\r");
    user.shows("Password: ");
    user.types("wrong\x15secre\x7fet\r");
    user.shows("WARNING! Your credentials are stored unencrypted in '");
    user.shows("Login Succeeded");
    assert!(!user.has_shown("secre") && !user.has_shown("wrong"));
    assert_eq!(user.code(), Some(0));

    let mut user = login(&[at]);
    user.shows("Authenticating with existing credentials... [Username: joe]");
    user.shows("Login Succeeded");
    assert_eq!(user.code(), Some(0));

    let mut user = login(&["-u", "joe", at]);
    user.shows("Password: ");
    user.types("\x03");
    assert_eq!(user.code(), Some(130));

    let mut user = login(&["-u", "joe", at]);
    user.shows("Password: ");
    user.types("no\r");
    user.shows("unauthorized: incorrect username or password");
    assert_eq!(user.code(), Some(1));

    let out = done(command(&host, &["logout", at]).output().unwrap()).ok();
    assert_eq!(out, format!("Removing login credentials for {at}"));
    let mut user = login(&[at]);
    user.shows("Username: ");
    user.types("\r");
    user.shows("Error: Non-null Username Required");
    assert_eq!(user.code(), Some(1));
}

#[test]
fn login_without_a_terminal_takes_the_password_from_stdin_alone() {
    let host = TestHost::new();
    let cases: &[(&[&str], &str)] = &[
        (
            &[],
            "Error: Cannot perform an interactive login from a non TTY device\n",
        ),
        (
            &["-u", "joe"],
            "Error: Cannot perform an interactive login from a non TTY device\n",
        ),
        (
            &["--password-stdin"],
            "Error: the --password-stdin option requires --username to be set\n",
        ),
        (
            &["-u", "joe", "-p", "x", "--password-stdin"],
            "Error: conflicting options: cannot specify both --password and --password-stdin\n",
        ),
        (
            &["-u", "joe", "--password-stdin"],
            "Error: Password Required\n",
        ),
    ];
    for (flags, want) in cases {
        let args = [&["login"], *flags, &["127.0.0.1:1"]].concat();
        let why = done(command(&host, &args).output().unwrap()).fails(1);
        assert_eq!(why, *want, "{flags:?}");
    }
}

#[test]
fn a_manifest_is_shown_as_the_registry_has_it() {
    let host = TestHost::new();
    let registry = Registry::start(&Protection::default());
    let name = format!("{}/shown:1", registry.host);
    host.run(&["tag", "busybox", &name]).ok();
    host.run(&["push", &name]).ok();
    let text = host.run(&["manifest", "inspect", &name]).ok();
    assert!(text.starts_with("{\n\t\"schemaVersion\": 2,\n"), "{text}");
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        shown["config"]["digest"],
        host.inspect("busybox", "{{.Id}}")
    );
    let text = host.run(&["manifest", "inspect", "-v", &name]).ok();
    let detail: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(detail["Ref"], name);
    assert_eq!(detail["SchemaV2Manifest"], shown);
    let why = host
        .run(&["manifest", "inspect", &format!("{name}x")])
        .fails(1);
    assert_eq!(why, format!("Error: no such manifest: {name}x\n"));
}
