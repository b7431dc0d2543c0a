//! Id mappings: the text that `uid_map` and `gid_map` take, and whose ids a mount's files have.

use std::fmt::Write as _;

use oci_spec::runtime::LinuxIdMapping;

use crate::error::{Error, Result};
use crate::sys::mount::Reach;

/// The kernel's limit on extents of one map. Man page: `user_namespaces(7)`, Linux 4.15.
const MAX_EXTENTS: usize = 340;

/// Whose ids the files of an id-mapped mount have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Those of a user namespace made for the mount.
    Mapped {
        /// The text for its `uid_map`.
        uids: String,
        /// The text for its `gid_map`.
        gids: String,
    },
    /// Those of the user namespace that the container joins.
    Joined,
}

/// An id-mapped mount.
#[derive(Debug, PartialEq, Eq)]
pub struct IdMap {
    /// Whose ids its files have.
    pub owners: Owners,
    /// `ridmap`: the mounts below too.
    pub reach: Reach,
}

/// `mappings` in the format of `/proc/PID/uid_map`: inside, outside, length on each line.
///
/// # Errors
/// [`Error::Spec`] if there is none or too many, one is empty or leaves 32 bits, or two overlap.
pub fn text(mappings: &[LinuxIdMapping], at: &str) -> Result<String> {
    if mappings.is_empty() {
        return Err(Error::spec(at, "the list of mappings is empty"));
    }
    if mappings.len() > MAX_EXTENTS {
        let why = format!(
            "{} mappings; the kernel takes at most {MAX_EXTENTS}",
            mappings.len()
        );
        return Err(Error::spec(at, why));
    }
    let mut text = String::new();
    for (index, map) in mappings.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let (inside, outside, size) = (map.container_id(), map.host_id(), map.size());
        if size == 0 {
            return Err(Error::spec(format!("{at}.size"), "a mapping of no ids"));
        }
        if inside.checked_add(size).is_none() || outside.checked_add(size).is_none() {
            return Err(Error::spec(at, "the mapped ids go beyond 4294967295"));
        }
        for (earlier, other) in mappings[..index].iter().enumerate() {
            let overlap = |a: u32, b: u32| a < b + other.size() && b < a + size;
            if overlap(inside, other.container_id()) || overlap(outside, other.host_id()) {
                let why = format!("the mapping overlaps with the one at index {earlier}");
                return Err(Error::spec(at, why));
            }
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{inside} {outside} {size}");
    }
    Ok(text)
}

/// The id mapping of a mount: its own, or with the option the container's.
///
/// # Errors
/// [`Error::Spec`] if one of the two lists is missing, or both are with nothing in their place.
pub fn of_mount(
    mount: &oci_spec::runtime::Mount,
    option: Option<Reach>,
    container: Option<&Owners>,
    at: &str,
) -> Result<Option<IdMap>> {
    let maps = (
        mount.uid_mappings().as_deref(),
        mount.gid_mappings().as_deref(),
    );
    let owners = match maps {
        (Some(uids), Some(gids)) => Owners::Mapped {
            uids: text(uids, &format!("{at}.uidMappings"))?,
            gids: text(gids, &format!("{at}.gidMappings"))?,
        },
        (None, None) if option.is_none() => return Ok(None),
        (None, None) => container.cloned().ok_or_else(|| {
            let why = "idmap needs uidMappings and gidMappings here or in .linux, \
                       or a user namespace that is joined";
            Error::spec(format!("{at}.options"), why)
        })?,
        (Some(_), None) => {
            return Err(Error::spec(
                format!("{at}.gidMappings"),
                "uidMappings without gidMappings",
            ));
        }
        (None, Some(_)) => {
            return Err(Error::spec(
                format!("{at}.uidMappings"),
                "gidMappings without uidMappings",
            ));
        }
    };
    Ok(Some(IdMap {
        owners,
        reach: option.unwrap_or(Reach::One),
    }))
}

/// The id outside that a map, as the kernel reads or writes it, gives to `inside`.
pub fn outside(map: &str, inside: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        let extent = numbers.collect::<Result<Vec<_>, _>>().ok()?;
        let [first, outside, length] = extent[..] else {
            return None;
        };
        let offset = inside
            .checked_sub(first)
            .filter(|offset| *offset < length)?;
        outside.checked_add(offset)
    })
}

/// Whether two maps, as the kernel reads or writes them, map the same ids.
pub fn are_equal(one: &str, other: &str) -> bool {
    let extents = |text: &str| {
        let words = text.lines().map(|line| {
            let numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
            numbers.collect::<Result<Vec<_>, _>>()
        });
        let mut extents = words.collect::<Result<Vec<_>, _>>().ok()?;
        extents.sort_unstable();
        Some(extents)
    };
    extents(one).is_some_and(|one| Some(one) == extents(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_outside_is_that_of_its_extent() {
        let map = "0 100000 1000\n         1000       7          1\n1001 4294967295 2\n";
        let table = [
            (0, Some(100_000)),
            (999, Some(100_999)),
            (1000, Some(7)),
            (1001, Some(u32::MAX)),
            (1002, None),
            (1003, None),
        ];
        for (inside, want) in table {
            assert_eq!(outside(map, inside), want, "{inside}");
        }
    }

    fn maps(triples: &[(u32, u32, u32)]) -> Vec<LinuxIdMapping> {
        let map = |(inside, outside, size): &(u32, u32, u32)| {
            let json = format!(r#"{{"containerID":{inside},"hostID":{outside},"size":{size}}}"#);
            serde_json::from_str(&json).unwrap()
        };
        triples.iter().map(map).collect()
    }

    #[test]
    fn a_map_is_written_as_the_kernel_reads_it() {
        let text = text(&maps(&[(0, 1000, 1), (1, 100_000, 65_535)]), ".m").unwrap();
        assert_eq!(text, "0 1000 1\n1 100000 65535\n");
    }

    #[test]
    fn maps_are_equal_whatever_their_order_and_spaces() {
        let kernel = "         1     100000      65536\n         0       1000          1\n";
        assert!(are_equal("0 1000 1\n1 100000 65536\n", kernel));
        assert!(!are_equal("0 1000 1\n", kernel));
        assert!(!are_equal("0 1000 1\n1 100000 65535\n", kernel));
        assert!(!are_equal("", kernel) && !are_equal("a b c", "a b c"));
    }

    #[test]
    fn impossible_maps_are_refused() {
        type Case = (&'static str, &'static [(u32, u32, u32)]);
        let cases: &[Case] = &[
            ("none", &[]),
            ("empty extent", &[(0, 0, 0)]),
            ("beyond 32 bits", &[(0, u32::MAX, 1), (1, 5, u32::MAX)]),
            ("overlap inside", &[(0, 1000, 10), (9, 5000, 1)]),
            ("overlap outside", &[(0, 1000, 10), (20, 1009, 1)]),
        ];
        for (name, triples) in cases {
            assert!(text(&maps(triples), ".m").is_err(), "{name}");
        }
        let many: Vec<_> = (0..341).map(|i| (i * 2, i * 2, 1)).collect();
        assert!(text(&maps(&many), ".m").is_err());
    }
}
