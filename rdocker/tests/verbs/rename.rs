use crate::host::TestHost;

#[test]
fn rename_moves_the_name_and_refuses_a_taken_one() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "one"], &["sleep", "100"])
        .ok();
    host.run(&["create", "--name", "two", "--network", "none", "busybox"])
        .ok();
    assert!(
        host.run(&["rename", "one", "two"])
            .fails(1)
            .contains("already in use")
    );
    host.run(&["rename", "one", "three"]).ok();
    assert_eq!(host.inspect("three", "{{.Name}}"), "/three");
    assert!(
        host.run(&["rename", "one", "x1"])
            .fails(1)
            .contains("No such container: one")
    );
    host.run(&["create", "--name", "one", "--network", "none", "busybox"])
        .ok();
}
