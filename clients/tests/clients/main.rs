//! Real clients with keel as their runtime; see the crate's text for how.

mod buildah;
mod compare;
mod containerd;
mod cri;
mod docker;
mod load;
mod podman;
mod rootless;

use clients::Machine;

/// True, and said, outside the test guest, which has systemd, AppArmor and a kernel that CRIU knows.
fn outside_the_guest() -> bool {
    let must = std::env::var_os("KEEL_MUST_RUN").is_some();
    let is_there = must && std::path::Path::new("/run/systemd/private").exists();
    assert!(is_there || !must, "the guest has systemd");
    if !is_there {
        clients::report("SKIPPED: this host is not the test guest\n");
    }
    !is_there
}

/// Loads the image into podman's store, which buildah shares.
fn import(machine: &Machine) {
    let script = "podman import -c 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' -c 'CMD [\"sh\"]' \
                  /run/image.tar localhost/busybox";
    let _ = machine.sh(script).succeeds();
}

/// podman, and buildah with it, as the documentation configures it.
///
/// The limits are lower than podman's own, which this test must not need `CAP_SYS_RESOURCE` for, and
/// the cgroups lie below one of the test's own.
fn podman() -> Machine {
    let machine = Machine::start();
    machine.write_files_of("podman");
    let trust = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    machine.write("/etc/containers/policy.json", trust);
    let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
                  [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
    machine.write("/etc/containers/containers.conf.d/machine.conf", limits);
    machine
}

#[test]
fn the_node_check_of_the_documentation_holds() {
    let machine = Machine::start();
    machine.write_files_of("kubernetes");
    if clients::is_runc() {
        return;
    }
    machine.run_scripts_of("kubernetes");
    // The check can fail: this one has no runtime.
    let broken = machine.sh("PATH=/usr/bin:/bin sh /usr/local/bin/keel-ready");
    assert_ne!(broken.code, 0);
}

#[test]
fn the_runtime_class_names_the_handler_of_containerds_configuration() {
    use clients::docs::{Block, blocks};
    let file = |page: &str, path: &str| {
        let mut blocks = blocks(page).into_iter();
        blocks.find_map(|block| match block {
            Block::File(name, text) if name == path => Some(text),
            _ => None,
        })
    };
    let class = file("kubernetes", "/run/runtimeclass.yaml").expect("the manifest is there");
    let handler = class
        .lines()
        .find_map(|line| line.strip_prefix("handler: "));
    let handler = handler.expect("a RuntimeClass has a handler");
    let config = file("cri", "/etc/containerd/config.toml").expect("the configuration is there");
    assert!(
        config.contains(&format!(".containerd.runtimes.{handler}]")),
        "{config}"
    );
}

#[test]
fn a_link_named_runc_is_enough_for_callers_that_know_only_that() {
    Machine::start().run_scripts_of("packaging");
}
