//! What scripts written for docker look for: words, streams and exit codes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use crate::host::{Done, TestHost, done};

impl TestHost {
    /// Runs the command line under the name `docker`.
    fn docker(&self, args: &[&str]) -> Done {
        let link = self.path().join("docker");
        if !link.exists() {
            symlink(env!("CARGO_BIN_EXE_rdocker"), &link).unwrap();
        }
        let plain = self.command(args);
        let mut command = Command::new(&link);
        command.args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        done(command.output().unwrap())
    }
}

#[test]
fn whoever_types_docker_reads_dockers_words() {
    let host = TestHost::new();
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["stop", "no"],
            1,
            "Error response from daemon: No such container: no\n",
        ),
        (
            &["start", "no"],
            1,
            "Error response from daemon: No such container: no\n\
             Error: failed to start containers: no\n",
        ),
        (
            &["volume", "inspect", "no"],
            1,
            "Error response from daemon: get no: no such volume\n",
        ),
        (&["inspect", "no"], 1, "Error: No such object: no\n"),
        (
            &["run", "-m", "1k", "busybox"],
            125,
            "docker: Error response from daemon: Minimum memory limit allowed is 6MB\n",
        ),
        (
            &["cp", "a", "b"],
            1,
            "must specify at least one container source\n",
        ),
        (
            &["ps", "--format", "{{.Names"],
            1,
            "failed to parse template: template: :1: unclosed action\n",
        ),
        (
            &["load", "-i", "no.tar"],
            1,
            "open no.tar: no such file or directory\n",
        ),
        (
            &["context", "rm", "default"],
            1,
            "context \"default\" cannot be removed\n",
        ),
        (
            &["plugin", "rm", "no"],
            1,
            "Error response from daemon: plugin \"no\" not found\n",
        ),
        (
            &["rm", "--force=maybe", "x"],
            125,
            "invalid argument \"maybe\" for \"-f, --force\" flag: strconv.ParseBool: parsing \
             \"maybe\": invalid syntax\n\nUsage:  docker rm [OPTIONS] CONTAINER [CONTAINER...]\n\n\
             Run 'docker rm --help' for more information\n",
        ),
        (
            &["container", "ls", "x"],
            1,
            "docker: 'docker container ls' accepts no arguments\n\nUsage:  docker container ls \
             [OPTIONS]\n\nRun 'docker container ls --help' for more information\n",
        ),
    ];
    for (args, code, want) in cases {
        let done = host.docker(args);
        let told = done.err.split("hint: ").next().unwrap_or_default();
        assert_eq!((done.code, told), (*code, *want), "{args:?}");
    }
}

#[test]
fn a_group_without_a_verb_is_explained_on_stderr_and_help_on_stdout() {
    let host = TestHost::new();
    for args in [&[] as &[&str], &["volume"]] {
        let done = host.docker(args);
        assert_eq!((done.code, done.out.as_str()), (0, ""), "{args:?}");
        assert!(done.err.starts_with("Usage:  docker "), "{}", done.err);
    }
    let help = host.docker(&["help", "ps"]).ok();
    assert!(help.starts_with("Usage:  docker ps [OPTIONS]\n\nList containers\n"));
    let version = host.docker(&["-v"]).ok();
    assert!(version.starts_with("Docker version "), "{version}");
}

#[test]
fn what_clients_of_a_daemon_say_is_taken_or_refused() {
    let host = TestHost::new();
    for flags in [
        &["--context", "default"] as &[&str],
        &["-H", ""],
        &["--tlsverify=false", "--tlscacert", "x"],
        &["-l", "info"],
    ] {
        let mut args = flags.to_vec();
        args.extend(["ps", "-q"]);
        assert_eq!(host.docker(&args).ok(), "", "{flags:?}");
    }
    let far = host.docker(&["-H", "tcp://127.0.0.1:1", "ps"]).fails(1);
    assert!(
        far.starts_with("Cannot connect to the Docker daemon at tcp://127.0.0.1:1. Is the docker"),
        "{far}"
    );
    assert!(
        host.docker(&["--context", "far", "ps"])
            .fails(1)
            .contains("context \"far\": context not found")
    );
}

#[test]
fn templates_see_the_fields_of_dockers_types() {
    let host = TestHost::new();
    host.busybox(&["--name", "cc"], &["true"]).ok();
    let health = "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}";
    assert_eq!(host.run(&["inspect", "-f", health, "cc"]).ok(), "none");
    let plain = "{{json .Config.Labels}}{{.Config.User}}{{index .Config.Labels \"x\"}}{{.Variant}}";
    assert_eq!(host.run(&["inspect", "-f", plain, "busybox"]).ok(), "null");
    let list = host.run(&["inspect", "-f", "json", "cc"]).ok();
    assert!(
        list.starts_with("[{") && list.lines().count() == 1,
        "{list}"
    );
    let version = host.run(&["version", "-f", "{{.Server.APIVersion}}"]).ok();
    assert!(version.starts_with("1."), "{version}");
    let events = ["events", "--since", "1h", "--until", "0s", "--format"];
    let line = |format| {
        let all = host.run(&[&events[..], &[format]].concat()).ok();
        all.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(line("{{.Status}} {{.From}}"), "die busybox");
    assert_eq!(line("json").matches("\"die\"").count(), 2);
}

#[test]
fn limits_that_docker_refuses_are_refused_by_update_too() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "cc"], &["sleep", "100"])
        .ok();
    let cases: &[(&[&str], &str)] = &[
        (&["--memory", "1k"], "Minimum memory limit allowed is 6MB"),
        (&["--cpus", "4096"], "range of CPUs is from 0.01 to "),
        (
            &["--blkio-weight", "5"],
            "Range of blkio weight is from 10 to 1000",
        ),
    ];
    for (flags, want) in cases {
        let why = host.run(&[&["update"], *flags, &["cc"]].concat()).fails(1);
        assert!(why.contains(want), "{flags:?}: {why}");
    }
    assert_eq!(host.inspect("cc", "{{.HostConfig.Memory}}"), "0");
}

#[test]
fn saved_files_are_their_owners_and_need_a_directory() {
    let host = TestHost::new();
    let file = host.path().join("saved.tar");
    let path = file.to_str().unwrap();
    host.run(&["save", "-o", path, "busybox"]).ok();
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let why = host.run(&["save", "-o", "no/x.tar", "busybox"]).fails(1);
    assert!(
        why.contains("invalid output path: stat no: no such file or directory"),
        "{why}"
    );
}

#[test]
fn the_only_context_and_no_plugin_are_listed_as_docker_lists_them() {
    let host = TestHost::new();
    let list = host.run(&["context", "ls"]).ok();
    let mut lines = list.lines();
    let header = "NAME        DESCRIPTION                      DOCKER ENDPOINT   ERROR";
    assert_eq!(lines.next(), Some(header));
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("default *   "))
    );
    assert_eq!(host.run(&["context", "show"]).ok(), "default");
    assert_eq!(host.run(&["context", "use", "default"]).ok(), "default");
    let why = host.run(&["context", "use", "far"]).fails(1);
    assert!(
        why.contains("context \"far\": context not found: open "),
        "{why}"
    );
    let host_of = [
        "context",
        "inspect",
        "-f",
        "{{.Name}}{{.Endpoints.docker.Host}}",
    ];
    assert_eq!(host.run(&host_of).ok(), "default");
    assert_eq!(
        host.run(&["plugin", "ls"]).ok(),
        "ID        NAME      DESCRIPTION   ENABLED"
    );
}

#[test]
fn json_has_the_keys_that_programs_index() {
    let host = TestHost::new();
    host.run(&["create", "--name", "cc", "--network", "none", "busybox"])
        .ok();
    let cases: &[(&[&str], &str)] = &[
        (
            &["info", "-f", "json"],
            "ID DriverStatus Plugins MemoryLimit SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares \
             CPUSet PidsLimit IPv4Forwarding Debug NFd OomKillDisable NGoroutines SystemTime \
             NEventsListener OSVersion RegistryConfig GenericResources HttpProxy HttpsProxy \
             NoProxy ExperimentalBuild Runtimes Swarm Isolation InitBinary ContainerdCommit \
             RuncCommit InitCommit SecurityOptions Warnings ClientInfo Containers Images NCPU",
        ),
        (
            &["version", "-f", "{{json .Server}}"],
            "Platform Components GitCommit BuildTime",
        ),
        (
            &["inspect", "-f", "{{json .HostConfig}}", "cc"],
            "Cgroup Isolation DeviceRequests CpuCount CpuPercent IOMaximumIOps \
             IOMaximumBandwidth MaskedPaths ReadonlyPaths Runtime ShmSize",
        ),
    ];
    for (args, keys) in cases {
        let text = host.run(args).ok();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for key in keys.split_whitespace() {
            assert!(value.get(key).is_some(), "{args:?}: {key}");
        }
    }
    let masked = "{{join .HostConfig.MaskedPaths \" \"}}";
    assert!(host.inspect("cc", masked).contains("/proc/kcore"));
    host.run(&[
        "create",
        "--privileged",
        "--name",
        "pp",
        "--network",
        "none",
        "busybox",
    ])
    .ok();
    assert_eq!(host.inspect("pp", masked), "");
}
