//! config.md: `process.user`, hostname, domainname, and the terminal.

use serde_json::json;

use crate::console;
use crate::lab::Lab;
use crate::requirement::{Requirement, Verdict, ensure};

const USER: &str = "config.md#posix-platform-user";

#[rustfmt::skip]
pub const TABLE: &[Requirement] = &[
    Requirement::must("config.user-1", USER, "uid is the user id inside", uid_and_gid),
    Requirement::must("config.user-2", USER, "gid is the group id inside", uid_and_gid),
    Requirement::must("config.user-3", USER, "umask is the process's umask", umask),
    Requirement::must("config.user-4", USER,
        "additionalGids are supplementary groups, and no others are", additional_gids),
    Requirement::should("config.user-5", USER,
        "without umask the caller's umask stays", umask_stays),
    Requirement::must("config.hostname-1", "config.md#hostname",
        "hostname is the name that processes inside see", hostname),
    Requirement::must("config.domainname-1", "config.md#domainname",
        "domainname is the domain that processes inside see", domainname),
    Requirement::must("config.process.terminal-1", "config.md#process",
        "with terminal the standard streams are a pseudoterminal", terminal),
    Requirement::must("config.process.consoleSize-2", "config.md#process",
        "consoleSize is the size of the terminal", console_size),
    Requirement::must("linux.default-devices.console-1", "config-linux.md#default-devices",
        "with terminal /dev/console is the terminal", console_device),
];

fn uid_and_gid(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set("/process/user", json!({"uid": 1234, "gid": 5678}));
    })?;
    ensure!(
        (view.uid, view.gid) == (1234, 5678),
        "uid {} gid {}",
        view.uid,
        view.gid
    );
    let ids = (view.status("Uid"), view.status("Gid"));
    ensure!(
        ids == ("1234\t1234\t1234\t1234", "5678\t5678\t5678\t5678"),
        "ids are {ids:?}"
    );
    Ok(())
}

fn umask(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set("/process/user/umask", json!(0o137));
    })?;
    ensure!(
        view.status("Umask") == "0137",
        "umask is {}",
        view.status("Umask")
    );
    Ok(())
}

fn additional_gids(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set("/process/user/additionalGids", json!([11, 12, 65534]));
    })?;
    let mut groups = view.groups.clone();
    groups.retain(|&g| g != 0);
    ensure!(groups == [11, 12, 65534], "groups are {:?}", view.groups);
    let view = lab.see(&[], |_| ())?;
    ensure!(
        view.groups.iter().all(|&g| g == 0),
        "without any, groups are {:?}",
        view.groups
    );
    Ok(())
}

fn umask_stays(lab: &Lab) -> Verdict {
    use nix::sys::stat::{Mode, umask};
    let before = umask(Mode::from_bits_truncate(0o027));
    let view = lab.see(&[], |_| ());
    umask(before);
    let found = view?.status("Umask").to_owned();
    ensure!(found == "0027", "umask is {found}, and 0027 outside");
    Ok(())
}

fn hostname(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set("/hostname", json!("some-host"));
    })?;
    ensure!(
        view.hostname == "some-host",
        "hostname is {}",
        view.hostname
    );
    Ok(())
}

fn domainname(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set("/domainname", json!("some.domain"));
    })?;
    ensure!(
        view.domainname == "some.domain",
        "domainname is {}",
        view.domainname
    );
    Ok(())
}

fn terminal(lab: &Lab) -> Verdict {
    let script = "test -t 0 && test -t 1 && test -t 2 && tty";
    let output = console::output(lab, script, |_| ())?;
    ensure!(
        output.contains("/dev/pts/0") || output.contains("/dev/console"),
        "tty: {output:?}"
    );
    Ok(())
}

fn console_size(lab: &Lab) -> Verdict {
    let output = console::output(lab, "stty size", |c| {
        c.set("/process/consoleSize", json!({"height": 17, "width": 123}));
    })?;
    ensure!(output.contains("17 123"), "stty says {output:?}");
    Ok(())
}

fn console_device(lab: &Lab) -> Verdict {
    let output = console::output(lab, "echo through the console >/dev/console", |_| ())?;
    ensure!(
        output.contains("through the console"),
        "the terminal shows {output:?}"
    );
    Ok(())
}
