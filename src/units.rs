//! Values as people and callers write them on the command line: sizes, durations, formats.

use std::time::Duration;

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
}
