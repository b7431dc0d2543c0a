//! The `features` verb: what this keel can do, whatever the host can.
//!
//! Callers run it bare, without root directory or rights, and read stdout and stderr together.
//! Schema: runtime-spec, features.md and features-linux.md. "Enabled" means compiled in.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use crate::bundle::SPEC_VERSION;
use crate::cgroups;
use crate::criu;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::plan::mounts::option_names;
use crate::plan::{self, seccomp};

/// Prints the features as JSON, indented by four spaces.
///
/// # Errors
/// [`Error::Host`] if `out` cannot be written to.
pub fn run(host: &Host, out: &mut dyn Write) -> Result<()> {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut json = serde_json::Serializer::with_formatter(&mut text, format);
    features(host)
        .serialize(&mut json)
        .expect("plain strings and lists serialize");
    text.push(b'\n');
    out.write_all(&text)
        .map_err(|errno| Error::host("write to", "stdout", errno))
}

type List = Vec<&'static str>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: List,
    mount_options: List,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: List,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: List,
    capabilities: Vec<String>,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: List,
    operators: List,
    archs: List,
    known_flags: List,
    supported_flags: List,
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Serialize)]
struct MemoryPolicy {
    modes: List,
    flags: List,
}

#[derive(Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

fn features(host: &Host) -> Features {
    const YES: Enabled = Enabled { enabled: true };
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: SPEC_VERSION,
        hooks: HOOKS.to_vec(),
        mount_options: option_names().collect(),
        linux: Linux {
            namespaces: NAMESPACES.to_vec(),
            capabilities: capabilities(),
            cgroup: Cgroup {
                v1: true,
                v2: true,
                systemd: true,
                systemd_user: true,
                rdma: true,
            },
            seccomp: Seccomp {
                enabled: true,
                actions: ACTIONS.to_vec(),
                operators: OPERATORS.to_vec(),
                archs: archs(),
                known_flags: FLAGS.to_vec(),
                supported_flags: supported_flags(host),
            },
            apparmor: YES,
            selinux: YES,
            intel_rdt: IntelRdt {
                enabled: true,
                schemata: true,
                monitoring: true,
            },
            memory_policy: MemoryPolicy {
                modes: MODES.to_vec(),
                flags: MODE_FLAGS.to_vec(),
            },
            mount_extensions: MountExtensions { idmap: YES },
            net_devices: YES,
        },
        annotations: [
            ("io.keel.version", env!("CARGO_PKG_VERSION")),
            (
                "io.keel.commit",
                option_env!("KEEL_COMMIT").unwrap_or("unknown"),
            ),
        ]
        .into(),
        // All that keel reads; a trailing dot is a prefix.
        potentially_unsafe_config_annotations: vec![
            criu::CONFIG_FILE,
            cgroups::ANNOTATION,
            plan::KEEP_GROUPS,
        ],
    }
}

/// In the order of their numbers.
fn capabilities() -> Vec<String> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_by_key(|capability| capability.index());
    all.iter().map(ToString::to_string).collect()
}

const HOOKS: &[&str] = &[
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

const NAMESPACES: &[&str] = &[
    "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
];

const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const OPERATORS: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// The architectures of the specification; keel lists those whose system calls it has numbers for.
const ARCHS: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

fn archs() -> List {
    let known = |name: &&str| name.parse().is_ok_and(seccomp::knows);
    ARCHS.iter().copied().filter(known).collect()
}

const FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    WAIT_KILLABLE_RECV,
];

/// The one flag that is younger than the oldest kernel that keel runs on: Linux 5.19.
const WAIT_KILLABLE_RECV: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

fn supported_flags(host: &Host) -> List {
    let supported = |flag: &&str| *flag != WAIT_KILLABLE_RECV || host.kernel() >= (5, 19);
    FLAGS.iter().copied().filter(supported).collect()
}

const MODES: &[&str] = &[
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MODE_FLAGS: &[&str] = &[
    "MPOL_F_NUMA_BALANCING",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_STATIC_NODES",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Facts;
    use oci_spec::runtime as oci;

    fn printed() -> Vec<u8> {
        let mut out = Vec::new();
        run(&Host::fixed(Facts::default()), &mut out).unwrap();
        out
    }

    #[test]
    fn the_output_decodes_as_the_specification_s_features() {
        let features: oci::Features = serde_json::from_slice(&printed()).unwrap();
        assert_eq!(features.oci_version_max(), "1.3.0");
        let options = features.mount_options().clone().unwrap();
        for wanted in ["rro", "idmap", "tmpcopyup", "nosymfollow"] {
            assert!(options.iter().any(|option| option == wanted), "{wanted}");
        }
        let linux = features.linux().clone().unwrap();
        let archs = linux.seccomp().clone().unwrap().archs().clone().unwrap();
        assert!(archs.contains(&oci::Arch::ScmpArchX86_64));
        assert!(!archs.contains(&oci::Arch::ScmpArchMips));
        let namespaces = linux.namespaces().clone().unwrap();
        assert_eq!(namespaces.len(), 8);
        assert!(namespaces.contains(&oci::LinuxNamespaceType::User));
        let capabilities = linux.capabilities().clone().unwrap();
        assert_eq!(capabilities.first().unwrap(), "CAP_CHOWN");
        assert_eq!(capabilities.last().unwrap(), "CAP_CHECKPOINT_RESTORE");
    }

    #[test]
    fn what_the_plan_refuses_is_not_offered() {
        let refused = |fields: &str| {
            let spec = format!(
                r#"{{"root":{{"path":"/r"}},"process":{{"user":{{"uid":0,"gid":0}},"cwd":"/","args":["a"]}},
                "linux":{{"namespaces":[{{"type":"network"}}],{fields}}}}}"#
            );
            let spec = serde_json::from_str(&spec).unwrap();
            let facts = crate::plan::Facts::of(std::path::Path::new("/"));
            crate::plan::Plan::for_create(&spec, &facts).is_err()
        };
        let linux = features(&Host::new()).linux;
        assert!(!refused(r#""cgroupsPath":"/a""#));
        let devices = r#""netDevices":{"eth0":{}}"#;
        assert_eq!(refused(devices), !linux.net_devices.enabled);
        assert_eq!(
            refused(r#""intelRdt":{"closID":"a"}"#),
            !linux.intel_rdt.enabled
        );
    }

    #[test]
    fn a_flag_that_the_kernel_lacks_is_known_and_not_supported() {
        let old = Host::fixed(Facts {
            kernel: (5, 18),
            ..Facts::default()
        });
        let seccomp = features(&old).linux.seccomp;
        assert!(seccomp.known_flags.contains(&WAIT_KILLABLE_RECV));
        assert!(!seccomp.supported_flags.contains(&WAIT_KILLABLE_RECV));
        assert_eq!(seccomp.supported_flags.len(), 3);
    }

    #[test]
    fn every_name_is_one_that_the_decoder_knows() {
        for action in ACTIONS {
            action.parse::<oci::LinuxSeccompAction>().unwrap();
        }
        for operator in OPERATORS {
            operator.parse::<oci::LinuxSeccompOperator>().unwrap();
        }
        for arch in ARCHS {
            arch.parse::<oci::Arch>().unwrap();
        }
        for flag in FLAGS {
            flag.parse::<oci::LinuxSeccompFilterFlag>().unwrap();
        }
        for mode in MODES {
            mode.parse::<oci::MemoryPolicyModeType>().unwrap();
        }
        for flag in MODE_FLAGS {
            flag.parse::<oci::MemoryPolicyFlagType>().unwrap();
        }
    }

    #[test]
    fn it_is_indented_by_four_spaces_and_says_what_containerd_looks_for() {
        let text = String::from_utf8(printed()).unwrap();
        assert!(text.starts_with("{\n    \"ociVersionMin\": \"1.0.0\",\n"));
        let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
        let idmap = &tree["linux"]["mountExtensions"]["idmap"]["enabled"];
        assert_eq!(idmap, &serde_json::Value::Bool(true));
    }
}
