//! Which sysctls a container may set: those that belong to one of its own namespaces.
//!
//! `/proc/sys` is one tree for host and container. A key that is let through by mistake changes the
//! host; with `kernel.core_pattern` it runs a program there (CVE-2022-0811). So this is a list of
//! what is allowed, on the path that will be opened, and a key of odd characters is refused first.

use oci_spec::runtime::LinuxNamespaceType as Kind;

use super::{View, joined};
use crate::bundle::json_key;
use crate::error::{Error, Result};
use crate::plan::settings::sysctl_path;

/// The settings of an IPC namespace, below `kernel`. Man page: namespaces(7), ipc_namespaces(7).
const IPC: &[&str] = &[
    "msgmax",
    "msgmnb",
    "msgmni",
    "sem",
    "shm_rmid_forced",
    "shmall",
    "shmmax",
    "shmmni",
];

/// Checks every key of `linux.sysctl`.
pub fn allowed(view: &View<'_>) -> Result<()> {
    let Some(all) = view.linux.and_then(|linux| linux.sysctl().as_ref()) else {
        return Ok(());
    };
    // The order of a map is random; the first complaint should not be.
    let mut keys: Vec<&String> = all.keys().collect();
    keys.sort();
    for key in keys {
        if let Err(why) = owner(key).and_then(|owner| belongs(view, key, owner)) {
            return Err(Error::spec(format!(".linux.sysctl{}", json_key(key)), why));
        }
    }
    Ok(())
}

/// The kind of namespace that a key's file belongs to.
fn owner(key: &str) -> Result<Kind, String> {
    let path = sysctl_path(key);
    let parts: Vec<&str> = path.split('/').collect();
    let plain = |part: &&str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        !part.is_empty() && *part != "." && *part != ".." && part.chars().all(allowed)
    };
    if parts.len() < 2 || !parts.iter().all(plain) {
        return Err(format!(
            "{key:?} is not a sysctl: names of letters, digits, _ and -, separated by dots"
        ));
    }
    match parts.as_slice() {
        ["kernel", name] if IPC.contains(name) => Ok(Kind::Ipc),
        ["fs", "mqueue", _] => Ok(Kind::Ipc),
        ["net", ..] => Ok(Kind::Network),
        ["kernel", "domainname"] => Ok(Kind::Uts),
        ["kernel", "hostname"] => Err(format!(
            "sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field; use that"
        )),
        ["user", ..] => Ok(Kind::User),
        _ => Err(format!(
            "sysctl {key:?} is not in a separate kernel namespace: setting it would change the host"
        )),
    }
}

/// Whether the container has that kind of namespace for itself, in runc's words if not.
fn belongs(view: &View<'_>, key: &str, owner: Kind) -> Result<(), String> {
    let Some(namespace) = view.namespace(owner) else {
        return Err(match owner {
            Kind::Ipc => format!("sysctl {key:?} is not allowed in the hosts ipc namespace"),
            Kind::Network => format!("sysctl {key:?} not allowed in host network namespace"),
            Kind::User => format!("setting ucounts without a user namespace not allowed: {key}"),
            _ => format!("sysctl {key:?} is not in a separate kernel namespace"),
        });
    };
    // A network namespace may be joined by a path that leads to the host's own.
    if let Some(path) = joined(namespace).filter(|_| owner == Kind::Network) {
        match view.host.is_own_namespace("net", path) {
            Ok(false) => {}
            Ok(true) => {
                return Err(format!(
                    "sysctl {key:?} not allowed in host network namespace, which {} is",
                    path.display()
                ));
            }
            Err(error) => return Err(format!("invalid netns path: {}", error.line())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_all;

    /// The keys with one value each, in a container with these namespaces.
    fn document(key: &str, namespaces: &[&str]) -> String {
        let namespaces: Vec<_> = namespaces
            .iter()
            .map(|kind| match kind.split_once(':') {
                Some((kind, path)) => serde_json::json!({"type": kind, "path": path}),
                None => serde_json::json!({"type": kind}),
            })
            .collect();
        serde_json::json!({"linux": {
            "sysctl": {key: "1"}, "namespaces": namespaces,
            "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
        }})
        .to_string()
    }

    const ALL: &[&str] = &["ipc", "network", "uts", "user", "pid", "mount"];

    #[test]
    fn a_container_sets_what_belongs_to_its_namespaces() {
        for key in [
            "net.ipv4.ip_forward",
            "net/ipv4/ip_forward",
            "net/ipv4/conf/eno2.100/rp_filter",
            "net.ipv4.conf.eno2/100.rp_filter",
            "kernel.shmmax",
            "kernel/sem",
            "fs.mqueue.msg_max",
            "kernel.domainname",
            "user.max_user_namespaces",
        ] {
            check_all(&[(&document(key, ALL), "ok")]);
            let refused = format!(".linux.sysctl{}: ", crate::bundle::json_key(key));
            check_all(&[(&document(key, &["pid", "mount"]), &refused)]);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for key in [
            "kernel.core_pattern",
            "kernel/core_pattern",
            "kernel.hostname",
            "kernel.shmmax.x",
            "kernel.shmmaxx",
            "vm.swappiness",
            "fs.file-max",
            "fs.mqueue",
            "fs.mqueue.a.b",
            "fs.mqueue..x",
            "net",
            "net.",
            "net..",
            "net/../kernel/core_pattern",
            "net.//.kernel.core_pattern",
            "net/./../kernel/core_pattern",
            "/net/ipv4/ip_forward",
            ".net.ipv4.ip_forward",
            "net.ipv4.ip_forward\n",
            "net.ipv4.ip+forward",
            "net.ipv4.ip_forward=1",
            "net ipv4",
            "net.é",
            "NET.ipv4.ip_forward",
            "",
            ".",
            "/",
            "..",
        ] {
            let refused = format!(".linux.sysctl{}: ", crate::bundle::json_key(key));
            check_all(&[(&document(key, ALL), &refused)]);
        }
    }

    #[test]
    fn a_path_to_the_host_s_own_network_does_not_count() {
        let own = "network:/proc/self/ns/net";
        check_all(&[
            (
                &document("net.ipv4.ip_forward", &[own]),
                r#".linux.sysctl["net.ipv4.ip_forward"]: sysctl "net.ipv4.ip_forward" not allowed in host network namespace"#,
            ),
            (
                &document("net.ipv4.ip_forward", &["network:/nope"]),
                r#".linux.sysctl["net.ipv4.ip_forward"]: invalid netns path: "#,
            ),
        ]);
    }

    /// A second, independent statement of the rule, on the dotted form and by prefixes, compared on
    /// many keys put together from dangerous pieces.
    #[test]
    fn random_keys_never_reach_another_file() {
        const PIECES: &[&str] = &[
            "net",
            "kernel",
            "fs",
            "mqueue",
            "user",
            "core_pattern",
            "shmmax",
            "domainname",
            ".",
            "/",
            "..",
            "//",
            "",
            "a",
            "-",
            "+",
            "\n",
            "\0",
            "%",
            "hostname",
            "é",
            "ipv4",
        ];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..200_000 {
            let mut key = String::new();
            for _ in 0..(state % 7) + 1 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                key.push_str(PIECES[(state % PIECES.len() as u64) as usize]);
            }
            let Ok(_) = super::owner(&key) else { continue };
            let path = crate::plan::settings::sysctl_path(&key);
            let file = std::path::Path::new("/proc/sys").join(&path);
            let inside = ["net/", "fs/mqueue/", "user/"]
                .iter()
                .any(|prefix| path.starts_with(prefix))
                || ["kernel/shmmax", "kernel/domainname"].contains(&path.as_str());
            assert!(inside, "{key:?} leads to {path}");
            let odd = file.components().any(|part| part.as_os_str() == "..");
            assert!(
                !odd && !path.contains("//") && !path.ends_with('/'),
                "{key:?}"
            );
            assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "{key:?}");
        }
    }
}
