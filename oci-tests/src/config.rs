//! The config.json that a test starts from, and small edits to it.

use serde_json::{Map, Value, json};

/// A config.json under construction. Pointers are JSON pointers (RFC 6901).
#[derive(Clone, Debug)]
pub struct Config(pub Value);

impl Config {
    /// A container with every isolation but a user namespace, that runs `true` as root.
    pub fn base() -> Self {
        let caps = json!([
            "CAP_AUDIT_WRITE",
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_KILL",
            "CAP_MKNOD",
            "CAP_NET_BIND_SERVICE",
            "CAP_NET_RAW",
            "CAP_SETFCAP",
            "CAP_SETGID",
            "CAP_SETPCAP",
            "CAP_SETUID",
            "CAP_SYS_CHROOT"
        ]);
        Self(json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/busybox", "true"],
                "env": ["PATH=/bin", "TERM=dumb"],
                "cwd": "/",
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
                "noNewPrivileges": true
            },
            "root": {"path": "rootfs"},
            "hostname": "oci-tests",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                 "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                 "options": ["nosuid", "noexec", "nodev", "ro"]}
            ],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"},
                               {"type": "uts"}, {"type": "mount"}]
            }
        }))
    }

    /// Sets the value at `pointer`, making the objects on the way; numbers index arrays that exist.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut at = &mut self.0;
        for key in pointer.split('/').skip(1) {
            let key = key.replace("~1", "/");
            let index = key.parse::<usize>().ok().filter(|_| at.is_array());
            if let Some(index) = index {
                at = &mut at[index];
                continue;
            }
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[key];
        }
        *at = value;
        self
    }

    /// Appends to the array at `pointer`, making it if it is absent.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut list = self.0.pointer(pointer).cloned().unwrap_or(Value::Null);
        match list.as_array_mut() {
            Some(array) => array.push(value),
            None => list = json!([value]),
        }
        self.set(pointer, list)
    }

    /// Removes the member `key` of the object at `pointer`.
    pub fn remove(&mut self, pointer: &str, key: &str) -> &mut Self {
        if let Some(object) = self.0.pointer_mut(pointer).and_then(Value::as_object_mut) {
            object.remove(key);
        }
        self
    }

    /// Sets the command line.
    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("/process/args", json!(args))
    }

    /// A command that stays until it is killed.
    pub fn sleep(&mut self) -> &mut Self {
        self.args(&["/bin/busybox", "sleep", "1000"])
    }

    /// Adds a mount.
    pub fn mount(&mut self, to: &str, kind: &str, from: &str, options: &[&str]) -> &mut Self {
        self.push(
            "/mounts",
            json!({"destination": to, "type": kind, "source": from, "options": options}),
        )
    }

    /// Replaces the namespace entry of this type by `entry`; `None` drops it.
    pub fn namespace(&mut self, kind: &str, entry: Option<Value>) -> &mut Self {
        if let Some(Value::Array(list)) = self.0.pointer_mut("/linux/namespaces") {
            list.retain(|ns| ns["type"] != kind);
            list.extend(entry);
        }
        self
    }

    /// A user namespace that maps the ids from 0 to 65535 to those from `host`.
    pub fn user_namespace(&mut self, host: u32) -> &mut Self {
        let map = json!([{"containerID": 0, "hostID": host, "size": 65536}]);
        self.namespace("user", Some(json!({"type": "user"})))
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_makes_the_objects_on_the_way() {
        let mut config = Config(json!({"a": 1}));
        config
            .set("/linux/resources/pids/limit", json!(0))
            .set("/linux/sysctl/net~1x", json!("1"));
        let want = json!({"a": 1, "linux": {"resources": {"pids": {"limit": 0}},
                          "sysctl": {"net/x": "1"}}});
        assert_eq!(config.0, want);
    }

    #[test]
    fn push_makes_the_array_and_then_appends() {
        let mut config = Config(json!({}));
        config
            .push("/x", json!(1))
            .push("/x", json!(2))
            .remove("", "y");
        assert_eq!(config.0, json!({"x": [1, 2]}));
    }

    #[test]
    fn a_namespace_entry_is_replaced_or_dropped() {
        let mut config = Config::base();
        config
            .namespace("pid", None)
            .namespace("ipc", Some(json!({"type": "ipc", "path": "/x"})));
        let kinds: Vec<_> = config.0["linux"]["namespaces"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|ns| ns["type"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(kinds, ["network", "uts", "mount", "ipc"]);
    }
}
