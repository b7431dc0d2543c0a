use crate::host::TestHost;

#[test]
fn create_prints_an_id_and_start_runs_it() {
    let host = TestHost::new();
    let id = host
        .run(&["create", "--network", "none", "busybox", "echo", "hi"])
        .ok();
    assert_eq!(host.inspect(&id, "{{.State.Status}}"), "created");
    assert_eq!(host.run(&["start", "-a", &id]).ok(), "hi");
    assert_eq!(
        host.inspect(&id[..6], "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 0"
    );
}

#[test]
fn a_change_survives_the_exit_at_the_path_inspect_names() {
    let host = TestHost::new();
    host.busybox(&["--name", "keep"], &["touch", "/happiness.txt"])
        .ok();
    let upper = host.inspect("keep", "{{.GraphDriver.Data.UpperDir}}");
    assert!(std::path::Path::new(&upper).join("happiness.txt").exists());
}

#[test]
fn a_container_without_a_command_is_refused() {
    let host = TestHost::new();
    let tar = host.path().join("busybox.tar").display().to_string();
    host.run(&["import", &tar, "bare"]).ok();
    let why = host.run(&["create", "bare"]).fails(1);
    assert!(why.contains("no command specified"), "{why}");
    assert_eq!(host.run(&["ps", "-aq"]).ok(), "");
}
