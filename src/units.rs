//! Values as people and callers write them: sizes, durations, points in time, formats.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a verb that lists something prints it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One line of JSON.
    Json,
}

/// Parses `table` or `json`.
///
/// # Errors
/// In runc's words, with the values that exist.
pub fn format(text: &str) -> Result<Format, &'static str> {
    match text {
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        _ => Err("invalid format option: table and json exist"),
    }
}

/// Parses a number of bytes: `512`, `64k`, `1.5GiB` (all suffixes count in 1024), or `-1` for
/// unlimited.
///
/// # Errors
/// Anything else, and what does not fit 63 bits.
///
/// Source: runc's `update` (docker/go-units, `RAMInBytes`).
pub fn bytes(text: &str) -> Result<i64, &'static str> {
    const WRONG: &str = "a size is wanted, such as 67108864, 64M or 1.5g, or -1 for unlimited";
    if text == "-1" {
        return Ok(-1);
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_lowercase();
    let unit = suffix.strip_suffix('b').unwrap_or(&suffix);
    let shift = match unit.strip_suffix('i').filter(|unit| !unit.is_empty()) {
        Some(unit) => power(unit),
        None => power(unit),
    }
    .ok_or(WRONG)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i64 = whole.parse().map_err(|_| WRONG)?;
    let bytes = whole.checked_mul(1 << shift).ok_or(WRONG)?;
    if fraction.is_empty() {
        // A bare point ("1.") is a typing error, not a number.
        return if number.ends_with('.') {
            Err(WRONG)
        } else {
            Ok(bytes)
        };
    }
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(WRONG);
    }
    let part: i128 = fraction.parse().map_err(|_| WRONG)?;
    let scale = fraction.bytes().fold(1_i128, |scale, _| scale * 10);
    let part = i64::try_from((part << shift) / scale).map_err(|_| WRONG)?;
    bytes.checked_add(part).ok_or(WRONG)
}

/// The power of two behind a suffix, lower case: `k` is 10.
fn power(unit: &str) -> Option<u32> {
    let units = ["", "k", "m", "g", "t", "p"];
    let at = units.iter().position(|known| *known == unit)?;
    u32::try_from(at * 10).ok()
}

/// Parses a Go duration: `5s`, `1m30s`, `1.5h`, `300ms`, `0`.
///
/// # Errors
/// A number without its unit, an unknown unit, a negative or an endless duration.
///
/// Source: Go, `time.ParseDuration`; go-runc passes `events --interval` in this form.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "a duration is wanted, such as 5s, 300ms or 1m30s";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut sum) = (text, 0_f64);
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or(WRONG)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(WRONG),
        };
        sum += number.parse::<f64>().map_err(|_| WRONG)? * seconds;
        rest = tail;
    }
    if text.is_empty() {
        return Err(WRONG);
    }
    Duration::try_from_secs_f64(sum).map_err(|_| WRONG)
}

/// How exactly a point in time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// `2026-11-22T05:45:00Z`, as in a log.
    Seconds,
    /// `2026-11-22T05:45:00.5Z`: nanoseconds without the zeros at the end, as in a state's `created`.
    Nanos,
}

/// Writes a point in time by RFC 3339, in UTC. Times before 1970 count as 1970.
pub fn rfc3339(time: SystemTime, precision: Precision) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / DAY, since.as_secs() % DAY);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if precision == Precision::Nanos && since.subsec_nanos() > 0 {
        let nanos = format!(".{:09}", since.subsec_nanos());
        text.push_str(nanos.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Year, month and day (both from 1) of a day counted from 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    /// Days before each month of a year that begins in March, so that the leap day is its last.
    const BEFORE: [u64; 12] = [0, 31, 61, 92, 122, 153, 184, 214, 245, 275, 306, 337];
    const YEARS_400: u64 = 146_097;
    const YEARS_100: u64 = 36_524;
    const YEARS_4: u64 = 1_461;
    // 1970-01-01 is day 719468 from 0000-03-01.
    let days = days + 719_468;
    let (cycles, days) = (days / YEARS_400, days % YEARS_400);
    // The last day of 400 years would be the first of a fifth century, and of 4 years a fifth year.
    let centuries = (days / YEARS_100).min(3);
    let days = days - centuries * YEARS_100;
    let (fours, days) = (days / YEARS_4, days % YEARS_4);
    let years = (days / 365).min(3);
    let day_of_year = days - years * 365;
    let month = BEFORE.partition_point(|before| *before <= day_of_year) as u64 - 1;
    let day = day_of_year - BEFORE[month as usize] + 1;
    let year = cycles * 400 + centuries * 100 + fours * 4 + years;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_in_1024() {
        let cases: &[(&str, Option<i64>)] = &[
            ("-1", Some(-1)),
            ("0", Some(0)),
            ("32", Some(32)),
            ("32b", Some(32)),
            ("32B", Some(32)),
            ("32k", Some(32 << 10)),
            ("32Kb", Some(32 << 10)),
            ("32KiB", Some(32 << 10)),
            ("32 kb", Some(32 << 10)),
            ("1.5g", Some(3 << 29)),
            ("0.1k", Some(102)),
            ("2T", Some(2 << 40)),
            ("1p", Some(1 << 50)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("9000p", None),
            ("", None),
            ("k", None),
            ("-2", None),
            ("+1", None),
            ("1.", None),
            (".5", None),
            ("1.2.3", None),
            ("32i", None),
            ("32kk", None),
            ("32  k", None),
            ("0x10", None),
        ];
        for (text, want) in cases {
            assert_eq!(bytes(text).ok(), *want, "{text:?}");
        }
    }

    #[test]
    fn durations_are_go_durations() {
        let cases: &[(&str, Option<u64>)] = &[
            ("5s", Some(5000)),
            ("0", Some(0)),
            ("300ms", Some(300)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("2000us", Some(2)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5x", None),
            ("-5s", None),
            ("1..5s", None),
        ];
        for (text, want) in cases {
            let want = want.map(Duration::from_millis);
            assert_eq!(duration(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn times_are_written_as_date_does() {
        let cases: &[(u64, u32, &str)] = &[
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_399, 0, "2000-02-28T23:59:59Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (951_868_800, 0, "2000-03-01T00:00:00Z"),
            (1_709_164_800, 0, "2024-02-29T00:00:00Z"),
            (1_735_689_599, 0, "2024-12-31T23:59:59Z"),
            (1_735_689_600, 0, "2025-01-01T00:00:00Z"),
            (1_795_326_300, 500_000_000, "2026-11-22T05:45:00.5Z"),
            (1_795_326_300, 1, "2026-11-22T05:45:00.000000001Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59Z"),
        ];
        for (secs, nanos, want) in cases {
            let time = UNIX_EPOCH + Duration::new(*secs, *nanos);
            assert_eq!(rfc3339(time, Precision::Nanos), *want, "{secs}");
        }
        let time = UNIX_EPOCH + Duration::new(1_795_326_300, 7);
        assert_eq!(rfc3339(time, Precision::Seconds), "2026-11-22T05:45:00Z");
    }

    #[test]
    fn every_day_of_eight_centuries_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..292_194 {
            assert_eq!(date(days), (year, month, day), "day {days}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
