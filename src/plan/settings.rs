//! Values the kernel keeps for the container: names, sysctls, execution domain, memory policy.

use std::ffi::CString;

use oci_spec::runtime as oci;

use super::text::cstring;
use crate::error::{Error, Result};

/// Everything of `linux` that is one value handed to one call.
#[derive(Debug, Default)]
pub struct Settings {
    /// `hostname`.
    pub hostname: Option<CString>,
    /// `domainname`.
    pub domainname: Option<CString>,
    /// File below `/proc/sys` and the bytes written to it, in the order of the names.
    pub sysctl: Vec<(CString, CString)>,
    /// Value for personality(2).
    pub personality: Option<u32>,
    /// Mode (with flags) and node mask for `set_mempolicy(2)`.
    pub memory_policy: Option<(u32, Vec<u64>)>,
}

/// From linux/personality.h: 32-bit machine name in uname(2).
const PER_LINUX32: u32 = 0x0008;

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// [`Error::Spec`] for values that the kernel cannot take.
    pub fn read(spec: &oci::Spec, linux: &oci::Linux) -> Result<Self> {
        let mut sysctl = Vec::new();
        for (key, value) in linux.sysctl().iter().flatten() {
            let at = format!(".linux.sysctl[{key:?}]");
            sysctl.push((cstring(sysctl_path(key), &at)?, cstring(value, &at)?));
        }
        sysctl.sort();
        let name =
            |name: &Option<String>, at| name.as_ref().map(|name| cstring(name, at)).transpose();
        Ok(Self {
            hostname: name(spec.hostname(), ".hostname")?.filter(|name| !name.is_empty()),
            domainname: name(spec.domainname(), ".domainname")?.filter(|name| !name.is_empty()),
            sysctl,
            personality: personality(linux),
            memory_policy: linux
                .memory_policy()
                .as_ref()
                .map(memory_policy)
                .transpose()?,
        })
    }
}

/// `linux.personality` as personality(2) takes it.
pub fn personality(linux: &oci::Linux) -> Option<u32> {
    let personality = linux.personality().as_ref()?;
    Some(match personality.domain() {
        oci::LinuxPersonalityDomain::PerLinux => 0,
        oci::LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    })
}

/// The file of a sysctl below `/proc/sys`.
///
/// Man page: sysctl.d(5): if the first separator is a slash, dots belong to the names; else dots and
/// slashes trade places.
pub fn sysctl_path(key: &str) -> String {
    let dots_separate = key
        .find(['.', '/'])
        .is_some_and(|at| key.as_bytes()[at] == b'.');
    if !dots_separate {
        return key.to_owned();
    }
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    key.chars().map(swap).collect()
}

/// `linux.memoryPolicy` as `set_mempolicy(2)` takes it: the mode with its flags, and the nodes.
pub fn memory_policy(policy: &oci::LinuxMemoryPolicy) -> Result<(u32, Vec<u64>)> {
    use oci::MemoryPolicyFlagType as F;
    use oci::MemoryPolicyModeType as M;
    let mode = match policy.mode() {
        M::MpolDefault => 0,
        M::MpolPreferred => 1,
        M::MpolBind => 2,
        M::MpolInterleave => 3,
        M::MpolLocal => 4,
        M::MpolPreferredMany => 5,
        M::MpolWeightedInterleave => 6,
    };
    let bit = |flag: &F| match flag {
        F::MpolFStaticNodes => 1 << 15,
        F::MpolFRelativeNodes => 1 << 14,
        F::MpolFNumaBalancing => 1 << 13,
    };
    let flags = policy
        .flags()
        .iter()
        .flatten()
        .fold(0, |bits, flag| bits | bit(flag));
    let at = ".linux.memoryPolicy.nodes";
    let nodes = bit_mask(policy.nodes().as_deref().unwrap_or_default(), at);
    let nodes = nodes.map_err(|error| match error {
        Error::Spec { why, .. } => Error::spec(at, format!("invalid memory policy node: {why}")),
        other => other,
    })?;
    let wants_none = matches!(policy.mode(), M::MpolDefault | M::MpolLocal);
    let wants_some = !wants_none && !matches!(policy.mode(), M::MpolPreferred);
    match nodes.is_empty() {
        false if wants_none => {
            let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
            let why = format!("this mode requires 0 nodes but got {count}");
            Err(Error::spec(at, why))
        }
        true if wants_some => Err(Error::spec(
            at,
            "this mode requires at least 1 node but got 0",
        )),
        _ => Ok((mode | flags, nodes)),
    }
}

/// A list such as `0-3,7` as a bit mask in words of 64. Man page: cpuset(7), "List format".
///
/// # Errors
/// [`Error::Spec`] at `at` for what is no list, and for numbers that no kernel has.
pub fn bit_mask(list: &str, at: &str) -> Result<Vec<u64>> {
    /// The kernel's `MAX_NUMNODES`; processors are at most 8192 (`NR_CPUS`).
    const MAX: u32 = 8192;
    let mut mask = Vec::new();
    let wrong = |part: &str| {
        Error::spec(
            at,
            format!("{part:?} is not a number or a range of numbers below {MAX}"),
        )
    };
    for part in list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let node = |text: &str| text.parse::<u32>().ok().filter(|node| *node < MAX);
        let (Some(first), Some(last)) = (node(first), node(last)) else {
            return Err(wrong(part));
        };
        if first > last {
            return Err(wrong(part));
        }
        for node in first..=last {
            let word = (node / 64) as usize;
            if mask.len() <= word {
                mask.resize(word + 1, 0);
            }
            mask[word] |= 1u64 << (node % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names_may_use_dots_or_slashes() {
        let cases = [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            (
                "net/ipv4/conf/eth0.1/forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
            (
                "net.ipv4.conf.eth0/1.forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
        ];
        for (key, path) in cases {
            assert_eq!(sysctl_path(key), path);
        }
    }

    #[test]
    fn node_lists_become_masks() {
        assert_eq!(bit_mask("0-2,5", ".n").unwrap(), [0b10_0111]);
        assert_eq!(bit_mask("64", ".n").unwrap(), [0, 1]);
        assert_eq!(bit_mask("", ".n").unwrap(), [0u64; 0]);
        for wrong in ["a", "3-1", "8192", "-1", "1-"] {
            assert!(bit_mask(wrong, ".n").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_policy_has_the_nodes_that_its_mode_needs() {
        let cases = [
            (r#"{"mode":"MPOL_BIND","nodes":"0"}"#, Some((2, vec![1]))),
            (r#"{"mode":"MPOL_BIND"}"#, None),
            (r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#, None),
            (
                r#"{"mode":"MPOL_PREFERRED","flags":["MPOL_F_STATIC_NODES"]}"#,
                Some((1 | 1 << 15, vec![])),
            ),
        ];
        for (json, wanted) in cases {
            assert_eq!(
                memory_policy(&serde_json::from_str(json).unwrap()).ok(),
                wanted,
                "{json}"
            );
        }
    }
}
