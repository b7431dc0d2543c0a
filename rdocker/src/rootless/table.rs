//! subuid(5) and subgid(5): which ids of the machine belong to a user, and what newuidmap(1) is told.

/// Ids: 32 bits, of which the last is none. Man page: user_namespaces(7).
const IDS: u64 = u32::MAX as u64;
/// How many extents a map may have, the user's own id among them. Linux 4.15.
const EXTENTS: usize = 340;

/// The ranges that a table gives to a user, by name or number: first id and count.
pub fn ranges(table: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let ranges = table.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let start = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let is_own = owner == number || name == Some(owner);
        (is_own && count > 0 && fields.next().is_none()).then_some((start, count))
    });
    ranges.collect()
}

/// The user as 0 and the ranges from 1 on, as far as there are numbers: inside, outside, count.
pub fn map(own: u32, ranges: &[(u32, u32)]) -> Vec<[u64; 3]> {
    let mut map = vec![[0, own.into(), 1]];
    let mut inside = 1;
    for (start, count) in ranges.iter().take(EXTENTS - 1) {
        let start = u64::from(*start);
        let count = u64::from(*count)
            .min(IDS - inside)
            .min(IDS.saturating_sub(start));
        if count > 0 {
            map.push([inside, start, count]);
            inside += count;
        }
    }
    map
}

/// That the map from any table is one which the kernel takes: for the fuzz target.
///
/// # Panics
/// If it is not.
#[cfg(any(test, fuzzing))]
pub fn check(text: &str) {
    let ranges = ranges(text, 1001, Some("joe"));
    let map = map(1001, &ranges);
    assert!(map.len() <= EXTENTS && map.len() <= ranges.len() + 1);
    let mut inside = 0;
    for [start, outside, count] in map {
        assert_eq!(start, inside);
        assert!(count > 0 && start + count <= IDS && outside + count <= IDS);
        inside += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_found_by_name_and_by_number() {
        let table = "other:1:2\njoe:100000:65536\n1001:300000:10\njoe:x:1\njoe:5:0\n# joe\n";
        let found = ranges(table, 1001, Some("joe"));
        assert_eq!(found, [(100_000, 65536), (300_000, 10)]);
        assert_eq!(ranges(table, 1001, None), [(300_000, 10)]);
        assert_eq!(ranges(table, 7, Some("none")), []);
        check(table);
    }

    #[test]
    fn a_map_ends_where_the_numbers_do() {
        let most = u32::MAX;
        assert_eq!(map(7, &[]), [[0, 7, 1]]);
        let two = map(7, &[(100, 10), (500, 5)]);
        assert_eq!(two, [[0, 7, 1], [1, 100, 10], [11, 500, 5]]);
        let all = map(7, &[(0, most), (1, most)]);
        assert_eq!(all, [[0, 7, 1], [1, 0, IDS - 1]]);
        assert_eq!(map(7, &[(most, 1)]), [[0, 7, 1]]);
        check("joe:4294967295:4294967295\njoe:1:4294967295\njoe:2:9\n");
        check(&"joe:1:1\n".repeat(1000));
    }
}
