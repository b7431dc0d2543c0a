//! Device rules: what the specification's list means, and how v1 is told.
//!
//! The list is read in order and the last rule that speaks of a device and an access decides; what
//! no rule allows is denied. The runtime's own rules come last and cannot be removed, because every
//! container needs `/dev/null` and its terminal.
//! Sources: runtime-spec, config-linux.md "Allowed Device List"; kernel, cgroup-v1/devices.rst.

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};

/// Bits of an access, with the values of `BPF_DEVCG_ACC_*`: bpf(2), linux/bpf.h.
pub const MKNOD: u8 = 1;
/// See [`MKNOD`].
pub const READ: u8 = 2;
/// See [`MKNOD`].
pub const WRITE: u8 = 4;
/// All of them.
pub const ALL: u8 = MKNOD | READ | WRITE;

/// Block or character device, with the values of `BPF_DEVCG_DEV_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Block = 1,
    Char = 2,
}

/// The devices that a rule speaks of; `None` is every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

/// One rule for one kind of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    pub device: Device,
    /// Any of [`MKNOD`], [`READ`], [`WRITE`].
    pub access: u8,
}

/// What every container may do: make any node, use the harmless devices and its terminals.
/// Kind, major, minor, access; `None` is every number.
const ALWAYS: &[(Kind, Option<u32>, Option<u32>, u8)] = &[
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), ALL),    // null
    (Kind::Char, Some(1), Some(5), ALL),    // zero
    (Kind::Char, Some(1), Some(7), ALL),    // full
    (Kind::Char, Some(1), Some(8), ALL),    // random
    (Kind::Char, Some(1), Some(9), ALL),    // urandom
    (Kind::Char, Some(5), Some(0), ALL),    // tty
    (Kind::Char, Some(5), Some(2), ALL),    // ptmx
    (Kind::Char, Some(136), None, ALL),     // pts/*
    (Kind::Char, Some(10), Some(200), ALL), // net/tun
];

/// The container's rules in their order, one or two for each of config.json, and then our own.
///
/// # Errors
/// [`Error::Spec`] for a type, number or access that no device has.
pub fn rules(list: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for (at, entry) in list.iter().enumerate() {
        let refused = |field: &str, why: String| {
            Error::spec(format!(".linux.resources.devices[{at}].{field}"), why)
        };
        let kinds: &[Kind] = match entry.typ() {
            None | Some(LinuxDeviceType::A) => &[Kind::Block, Kind::Char],
            Some(LinuxDeviceType::B) => &[Kind::Block],
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => &[Kind::Char],
            Some(LinuxDeviceType::P) => {
                return Err(refused("type", "a FIFO is no device; use a, b or c".into()));
            }
        };
        let number = |field: &str, number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            // The kernel's numbers end long before.
            Some(number) => i32::try_from(number)
                .and_then(u32::try_from)
                .map(Some)
                .map_err(|_| {
                    refused(
                        field,
                        format!("{number} is no device number, nor -1 for all"),
                    )
                }),
        };
        let (major, minor) = (
            number("major", entry.major())?,
            number("minor", entry.minor())?,
        );
        let access = access(entry.access().as_deref().unwrap_or_default())
            .map_err(|why| refused("access", why))?;
        let rule = |kind: &Kind| Rule {
            allow: entry.allow(),
            device: Device {
                kind: *kind,
                major,
                minor,
            },
            access,
        };
        rules.extend(kinds.iter().map(rule));
    }
    rules.extend(ALWAYS.iter().map(|(kind, major, minor, access)| Rule {
        allow: true,
        device: Device {
            kind: *kind,
            major: *major,
            minor: *minor,
        },
        access: *access,
    }));
    Ok(rules)
}

/// No access named is all of it: Docker's `{"allow": false}` takes everything away.
fn access(text: &str) -> Result<u8, String> {
    if text.is_empty() {
        return Ok(ALL);
    }
    let odd = || format!("{text:?} is no combination of r, w and m");
    let bits = text.chars().try_fold(0, |bits, letter| match letter {
        'r' => Ok(bits | READ),
        'w' => Ok(bits | WRITE),
        'm' => Ok(bits | MKNOD),
        // Beside others it has always been allowed, and has never meant anything, in runc.
        'a' => Ok(bits),
        _ => Err(odd()),
    })?;
    if bits == 0 { Err(odd()) } else { Ok(bits) }
}

impl Device {
    const fn every(kind: Kind) -> Self {
        Self {
            kind,
            major: None,
            minor: None,
        }
    }

    /// Whether every device of `other` is one of these.
    pub fn covers(self, other: Self) -> bool {
        let covers = |mine: Option<u32>, theirs| mine.is_none() || mine == theirs;
        self.kind == other.kind
            && covers(self.major, other.major)
            && covers(self.minor, other.minor)
    }

    /// Whether some device is one of both.
    fn overlaps(self, other: Self) -> bool {
        let meet = |mine: Option<u32>, theirs: Option<u32>| {
            mine.is_none() || theirs.is_none() || mine == theirs
        };
        self.kind == other.kind && meet(self.major, other.major) && meet(self.minor, other.minor)
    }
}

/// `c 1:3`, as `devices.list` and `devices.allow` have it.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".into(), |number| number.to_string());
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// What a v1 cgroup holds: the accesses that are allowed, or on an open cgroup those denied.
#[derive(Debug, Clone, Default)]
pub struct V1List {
    /// Whether everything is allowed but the entries.
    pub open: bool,
    /// The access bits of each device, never 0, as they were asked for and as `devices.list` shows
    /// them.
    pub entries: Vec<(Device, u8)>,
}

/// In whatever order.
impl PartialEq for V1List {
    fn eq(&self, other: &Self) -> bool {
        let all_there = |(device, bits): &(Device, u8)| other.bits(*device) == *bits;
        self.open == other.open
            && self.entries.len() == other.entries.len()
            && self.entries.iter().all(all_there)
    }
}

impl V1List {
    fn bits(&self, device: Device) -> u8 {
        let found = self.entries.iter().find(|(it, _)| *it == device);
        found.map_or(0, |(_, bits)| *bits)
    }

    fn add_bits(&mut self, device: Device, bits: u8) {
        match self.entries.iter_mut().find(|(it, _)| *it == device) {
            Some((_, old)) => *old |= bits,
            None => self.entries.push((device, bits)),
        }
    }

    /// What `rules` come to.
    ///
    /// # Errors
    /// v1 knows exceptions to one default only; a rule that takes single devices out of an earlier
    /// wildcard cannot be told to it and is refused rather than passed over.
    pub fn of(rules: &[Rule]) -> Result<Self> {
        let mut list = Self::default();
        for (at, rule) in rules.iter().enumerate() {
            let is_last_of_all = rule.access == ALL
                && rule.device == Device::every(Kind::Char)
                && at > 0
                && rules[at - 1]
                    == (Rule {
                        device: Device::every(Kind::Block),
                        ..*rule
                    });
            if is_last_of_all {
                list = Self {
                    open: rule.allow,
                    ..Self::default()
                };
                continue;
            }
            list.add(rule)?;
        }
        Ok(list)
    }

    fn add(&mut self, rule: &Rule) -> Result<()> {
        if rule.allow != self.open {
            self.add_bits(rule.device, rule.access);
            return Ok(());
        }
        for (device, bits) in &mut self.entries {
            if rule.device.covers(*device) {
                *bits &= !rule.access;
            } else if rule.device.overlaps(*device) && *bits & rule.access != 0 {
                return Err(Error::Failed(format!(
                    "cgroup v1 cannot make an exception for {} within {device}; list single devices \
                     instead, or use cgroup v2",
                    rule.device
                )));
            }
        }
        self.entries.retain(|(_, bits)| *bits != 0);
        Ok(())
    }

    /// Reads `devices.list`; lines that it cannot have are passed over.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for line in text.lines() {
            let mut words = line.split([' ', ':']);
            let kind = match words.next() {
                Some("b") => Kind::Block,
                Some("c") => Kind::Char,
                Some("a") => {
                    list.open = true;
                    continue;
                }
                _ => continue,
            };
            let mut number = || words.next().map(|word| word.parse().ok());
            if let (Some(major), Some(minor)) = (number(), number())
                && let Some(bits) = words.next().and_then(|text| access(text).ok())
            {
                list.add_bits(Device { kind, major, minor }, bits);
            }
        }
        list
    }

    /// The writes that turn `now` into this list, without a moment in which less is allowed than
    /// both allow; `(file, value)`.
    pub fn writes_from(&self, now: &Self) -> Vec<(&'static str, String)> {
        const ALLOW: &str = "devices.allow";
        const DENY: &str = "devices.deny";
        let mut writes = Vec::new();
        if self.open || now.open {
            // What an open cgroup denies is not in its list: begin anew.
            let file = if self.open { ALLOW } else { DENY };
            writes.push((file, "a".to_owned()));
            let exception = if self.open { DENY } else { ALLOW };
            writes.extend(
                self.entries
                    .iter()
                    .map(|(device, bits)| (exception, line(*device, *bits))),
            );
            return writes;
        }
        let without = |mine: &Self, theirs: &Self| -> Vec<String> {
            let missing = |(device, bits): &(Device, u8)| {
                let bits = bits & !theirs.bits(*device);
                (bits != 0).then(|| line(*device, bits))
            };
            mine.entries.iter().filter_map(missing).collect()
        };
        writes.extend(without(self, now).into_iter().map(|value| (ALLOW, value)));
        writes.extend(without(now, self).into_iter().map(|value| (DENY, value)));
        writes
    }
}

fn line(device: Device, bits: u8) -> String {
    format!("{device} {}", letters(bits))
}

/// The letters of an access, as [`access`] reads them.
pub fn letters(bits: u8) -> String {
    [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
        .into_iter()
        .filter_map(|(bit, letter)| (bits & bit != 0).then_some(letter))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Vec<Rule>> {
        rules(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap())
    }

    fn own_part(json: &str) -> V1List {
        let mut rules = parse(json).unwrap();
        rules.truncate(rules.len() - ALWAYS.len());
        V1List::of(&rules).unwrap()
    }

    fn shown(list: &V1List) -> String {
        let lines: Vec<_> = list
            .entries
            .iter()
            .map(|(device, bits)| line(*device, *bits))
            .collect();
        format!(
            "{}{}",
            if list.open { "all but " } else { "" },
            lines.join(", ")
        )
    }

    #[test]
    fn the_runtimes_own_rules_come_last_and_survive_a_denial_of_all() {
        let rules = parse(r#"[{"allow":false,"access":"rwm"}]"#).unwrap();
        let list = V1List::of(&rules).unwrap();
        let want = "c *:* m, b *:* m, c 1:3 rwm, c 1:5 rwm, c 1:7 rwm, c 1:8 rwm, c 1:9 rwm, \
                    c 5:0 rwm, c 5:2 rwm, c 136:* rwm, c 10:200 rwm";
        assert_eq!(shown(&list), want);
    }

    #[test]
    fn a_list_is_the_same_in_another_order() {
        let list = V1List::parse("c 1:3 rwm\nb 8:0 r\n");
        assert_eq!(list, V1List::parse("b 8:0 r\nc 1:3 rwm\n"));
        assert_eq!(shown(&list), "c 1:3 rwm, b 8:0 r");
        for other in [
            "c 1:3 rwm\n",
            "c 1:3 rwm\nb 8:0 rw\n",
            "c 1:3 rwm\nb 8:1 r\n",
        ] {
            assert_ne!(list, V1List::parse(other), "{other}");
        }
    }

    #[test]
    fn rules_add_up_in_their_order() {
        let cases: &[(&str, &str)] = &[
            ("[]", ""),
            (r#"[{"allow":true}]"#, "all but "),
            (r#"[{"allow":true},{"allow":false}]"#, ""),
            (
                r#"[{"allow":true,"type":"c","major":1,"minor":2}]"#,
                "c 1:2 rwm",
            ),
            (
                r#"[{"allow":true,"type":"u","major":1,"minor":-1,"access":"r"}]"#,
                "c 1:* r",
            ),
            (
                r#"[{"allow":true,"type":"b","major":8,"access":"r"},{"allow":true,"type":"b","major":8,"access":"w"}]"#,
                "b 8:* rw",
            ),
            (
                r#"[{"allow":true,"type":"b","major":8,"minor":1},{"allow":false,"type":"b","major":8,"access":"w"}]"#,
                "b 8:1 rm",
            ),
            (
                r#"[{"allow":true,"type":"a","access":"r"}]"#,
                "b *:* r, c *:* r",
            ),
            (
                r#"[{"allow":true},{"allow":false,"type":"b","major":8,"access":"w"}]"#,
                "all but b 8:* w",
            ),
            (
                r#"[{"allow":true},{"allow":false,"type":"b","major":8},{"allow":true,"type":"b","major":8}]"#,
                "all but ",
            ),
        ];
        for (json, want) in cases {
            assert_eq!(shown(&own_part(json)), *want, "{json}");
        }
    }

    #[test]
    fn an_exception_that_v1_cannot_hold_is_refused() {
        let json = r#"[{"allow":true,"type":"b","major":8},{"allow":false,"type":"b","major":8,"minor":1}]"#;
        let line = V1List::of(&parse(json).unwrap()).unwrap_err().line();
        assert!(
            line.starts_with("cgroup v1 cannot make an exception for b 8:1 within b 8:*"),
            "{line}"
        );
    }

    #[test]
    fn bad_rules_are_refused_with_their_path() {
        let cases = [
            (
                r#"[{"allow":true,"type":"p"}]"#,
                "[0].type: a FIFO is no device",
            ),
            (
                r#"[{"allow":true,"major":-2}]"#,
                "[0].major: -2 is no device number",
            ),
            (
                r#"[{"allow":true},{"allow":true,"minor":4294967296}]"#,
                "[1].minor: 4294967296 is no",
            ),
            (
                r#"[{"allow":true,"access":"rx"}]"#,
                "[0].access: \"rx\" is no combination",
            ),
            (
                r#"[{"allow":true,"access":"a"}]"#,
                "[0].access: \"a\" is no combination",
            ),
        ];
        for (json, want) in cases {
            let line = parse(json).unwrap_err().line();
            assert!(line.contains(want), "{line}");
        }
    }

    #[test]
    fn a_live_list_changes_without_a_gap() {
        let now = V1List::parse("c 1:3 rwm\nb 8:* r\nc 136:* rw\n");
        let rule = |json| own_part(json);
        let wanted = rule(
            r#"[{"allow":true,"type":"c","major":1,"minor":3},{"allow":true,"type":"b","major":8,"access":"w"}]"#,
        );
        let writes = wanted.writes_from(&now);
        let want = [
            ("devices.allow", "b 8:* w"),
            ("devices.deny", "b 8:* r"),
            ("devices.deny", "c 136:* rw"),
        ];
        assert_eq!(writes, want.map(|(file, value)| (file, value.to_owned())));
        assert_eq!(wanted.writes_from(&wanted), []);
    }

    #[test]
    fn a_new_cgroup_allows_all_and_is_closed_first() {
        let writes = own_part(r#"[{"allow":true,"type":"c","major":1,"minor":3,"access":"r"}]"#)
            .writes_from(&V1List::parse("a *:* rwm\n"));
        let want = [("devices.deny", "a"), ("devices.allow", "c 1:3 r")];
        assert_eq!(writes, want.map(|(file, value)| (file, value.to_owned())));
    }
}
