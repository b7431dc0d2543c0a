//! `--log`, `--log-format`, `--debug` and what is said on stderr.
//!
//! Source: containerd's shim takes the last JSON object with level `error`; podman reads the whole
//! file as one object; both say so only when the file exists.

use std::fs;

use integration::Runtime;

#[test]
fn a_failure_is_one_json_object_with_level_msg_and_time() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.args(&["/nosuch"]);
    let path = bundle.save().to_str().expect("UTF-8");
    let line = ["create", "--bundle", path, bundle.id()];
    let run = runtime.call(&line).log_json().run().exits(1);
    assert_eq!(run.log.len(), 1, "{:?}", run.log);
    let entry = &run.log[0];
    assert_eq!(entry["level"], "error");
    let message = entry["msg"].as_str().expect("msg is a string");
    assert!(
        message.contains("exec: \"/nosuch\": stat /nosuch: no such file or directory"),
        "{message}"
    );
    let time = entry["time"].as_str().expect("time is a string");
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    assert!(
        shape.starts_with("9999-99-99T99:99:99"),
        "{time} is not RFC 3339"
    );
}

#[test]
fn a_failure_has_a_code_a_place_and_a_remedy_for_programs() {
    let runtime = Runtime::new();
    if runtime.differs("its records have a level, a message and a time") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.mount("tmpfs", "tmpfs", "/mnt", "size=many");
    let index = bundle.spec["mounts"].as_array().expect("mounts").len() - 1;
    let path = bundle.save().to_str().expect("UTF-8").to_owned();
    let run = runtime.call(&["create", "--bundle", &path, bundle.id()]);
    let entry = run.log_json().run().exits(1).log.remove(0);
    assert_eq!(entry["code"], "mount-failed");
    assert_eq!(entry["step"], "mount-option");
    assert_eq!(entry["item"], index);
    assert_eq!(entry["errno"], "EINVAL");
    assert!(
        entry["remedy"]
            .as_str()
            .is_some_and(|text| text.contains("options")),
        "{entry}"
    );
    let run = runtime.call(&["state", "nobody"]).log_json().run().exits(1);
    assert_eq!(run.log[0]["code"], "container-not-found");
    bundle.set("/process/cwd", 7);
    let _ = bundle.save();
    let run = runtime.call(&["create", "--bundle", &path, bundle.id()]);
    let entry = run.log_json().run().exits(1).log.remove(0);
    assert_eq!(
        (&entry["code"], &entry["at"]),
        (&"config-invalid".into(), &".process.cwd".into())
    );
}

#[test]
fn a_failure_goes_to_the_log_and_once_in_plain_words_to_stderr() {
    let runtime = Runtime::new();
    let run = runtime
        .call(&["state", &runtime.id("x")])
        .log_json()
        .run()
        .exits(1);
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("container does not exist"),
        "{}",
        run.stderr
    );
    assert!(
        !run.stderr.starts_with('{'),
        "stderr is for people: {}",
        run.stderr
    );
    assert_eq!(run.log.len(), 1);
}

#[test]
fn the_log_file_is_made_even_if_nothing_is_logged() {
    let runtime = Runtime::new();
    let log = runtime.dir().join("empty.json");
    let flags = [
        "--log",
        log.to_str().expect("UTF-8"),
        "--log-format",
        "json",
    ];
    let _ = runtime.call(&["list"]).global(&flags).run().succeeds();
    assert_eq!(fs::read_to_string(log).expect("the log file is there"), "");
}

#[test]
fn the_log_is_appended_to() {
    let runtime = Runtime::new();
    let log = runtime.dir().join("log.json");
    let flags = ["--log", log.to_str().expect("UTF-8"), "--log-format=json"];
    for _ in 0..2 {
        let _ = runtime
            .call(&["state", &runtime.id("x")])
            .global(&flags)
            .run()
            .exits(1);
    }
    let text = fs::read_to_string(log).expect("the log file is there");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn without_a_log_file_the_text_format_goes_to_stderr() {
    let runtime = Runtime::new();
    let run = runtime.call(&["state", &runtime.id("x")]).run().exits(1);
    let line = run.stderr.trim_end();
    assert!(
        line.starts_with("time=\"") || !line.contains('\n'),
        "{line}"
    );
    assert!(
        line.contains("level=error") && line.contains("msg="),
        "{line}"
    );
}

#[test]
fn the_text_format_in_a_file_is_logrus_text() {
    let runtime = Runtime::new();
    let log = runtime.dir().join("log.txt");
    let flags = [
        "--log",
        log.to_str().expect("UTF-8"),
        "--log-format",
        "text",
    ];
    let _ = runtime
        .call(&["state", &runtime.id("x")])
        .global(&flags)
        .run()
        .exits(1);
    let text = fs::read_to_string(log).expect("the log file is there");
    let parts = [
        "time=\"",
        "level=error",
        "msg=\"",
        "container does not exist",
    ];
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
}

#[test]
fn an_unknown_log_format_is_refused() {
    let runtime = Runtime::new();
    let run = runtime
        .call(&["list"])
        .global(&["--log-format", "xml"])
        .run()
        .exits(1);
    // runc 1.1.5 says "unknown log-format", 1.5 "invalid log-format"; both name the value.
    assert!(run.stderr.contains("xml"), "{}", run.stderr);
}

#[test]
fn a_log_file_that_cannot_be_made_fails_the_command() {
    let runtime = Runtime::new();
    let log = runtime.dir().join("no/such/dir/log");
    let flags = ["--log", log.to_str().expect("UTF-8")];
    let run = runtime.call(&["list"]).global(&flags).run().exits(1);
    assert!(
        run.stderr.contains("no such file or directory") || run.stderr.contains("No such file"),
        "{}",
        run.stderr
    );
}

#[test]
fn success_is_silent_for_every_command_of_a_life() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.start(&bundle);
    let id = container.id();
    for line in [
        &["state", id][..],
        &["kill", id, "0"],
        &["kill", id, "KILL"],
        &["list", "-q"],
    ] {
        let run = runtime.call(line).log_json().run().succeeds();
        assert_eq!((run.stderr.as_str(), run.log.len()), ("", 0), "{line:?}");
    }
    container.wait();
    let run = runtime.call(&["delete", id]).log_json().run().succeeds();
    assert_eq!(
        (run.stderr.as_str(), run.stdout.as_str(), run.log.len()),
        ("", "", 0)
    );
}

#[test]
fn debug_logs_more_than_errors() {
    let runtime = Runtime::new();
    let bundle = runtime.bundle();
    let run = runtime
        .call_run(&bundle)
        .log_json()
        .global(&["--debug"])
        .run()
        .succeeds();
    assert!(
        run.log.iter().any(|entry| entry["level"] == "debug"),
        "{:?}",
        run.log
    );
    assert!(
        run.log.iter().all(|entry| entry["level"] != "error"),
        "{:?}",
        run.log
    );
}
