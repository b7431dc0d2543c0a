//! Sizes, ages, durations and times in Docker's spelling.

use std::time::Duration;

use jiff::{Timestamp, Zoned, tz::TimeZone};

/// `1.5kB`: decimal units, `digits` significant digits (`docker ps -s` and `images` use 3).
pub fn size(bytes: u64, digits: usize) -> String {
    const UNITS: &[&str] = &["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    scaled(bytes, 1000.0, UNITS, digits)
}

/// `1.5KiB`: binary units with 4 significant digits, as `docker stats` and `info` print memory.
pub fn binary_size(bytes: u64) -> String {
    const UNITS: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    scaled(bytes, 1024.0, UNITS, 4)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "only a few significant digits are shown"
)]
fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// C's `%.Ng` for values that are not negative.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent >= digits || exponent < -4 {
        return format!("{}e{exponent:+03}", strip_zeros(mantissa));
    }
    let decimals = usize::try_from(digits - 1 - exponent).unwrap_or(0);
    strip_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn strip_zeros(number: &str) -> &str {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}

/// `About an hour`, `3 minutes`: the wording of docker's go-units `HumanDuration`.
pub fn age(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (s, ..) if s < 60 => format!("{s} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, m, _) if m < 60 => format!("{m} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., h) if h < 48 => format!("{h} hours"),
        (.., h) if h < 24 * 7 * 2 => format!("{} days", h / 24),
        (.., h) if h < 24 * 30 * 2 => format!("{} weeks", h / 24 / 7),
        (.., h) if h < 24 * 365 * 2 => format!("{} months", h / 24 / 30),
        (.., h) => format!("{} years", h / 24 / 365),
    }
}

/// How long ago `then` was, zero if it is in the future.
pub fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

/// `2006-01-02 15:04:05 -0700 MST` in local time: the `CreatedAt` columns.
pub fn local_time(at: Timestamp) -> String {
    let local: Zoned = at.to_zoned(TimeZone::system());
    local.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// At most `width` characters, the last one `…` if anything was cut.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// `text` with control characters escaped, so that nothing a container or image chose reaches the
/// terminal as a command (K8: escape sequences in names, labels, tags and errors).
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\t' | '\n') {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// The first 12 characters of an id, without `sha256:`.
pub fn short_id(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_go_significant_digits() {
        let cases = [
            (0, 3, "0B"),
            (999, 3, "999B"),
            (1000, 3, "1kB"),
            (1_234_567, 3, "1.23MB"),
            (72_800_000, 3, "72.8MB"),
            (999_900, 3, "1e+03kB"),
            (1_500_000_000, 4, "1.5GB"),
        ];
        for (bytes, digits, want) in cases {
            assert_eq!(size(bytes, digits), want, "{bytes}");
        }
        assert_eq!(binary_size(1536), "1.5KiB");
        assert_eq!(binary_size(512 << 20), "512MiB");
    }

    #[test]
    fn ages_read_as_docker_ps_prints_them() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (21 * 86400, "3 weeks"),
            (90 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ];
        for (seconds, want) in cases {
            assert_eq!(age(Duration::from_secs(seconds)), want, "{seconds}");
        }
    }

    #[test]
    fn escape_sequences_never_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\r"), "a\\u{1b}[31mb\\r");
    }

    #[test]
    fn long_text_ends_in_an_ellipsis() {
        assert_eq!(ellipsis("123456", 5), "1234…");
        assert_eq!(ellipsis("12345", 5), "12345");
    }
}
