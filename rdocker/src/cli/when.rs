//! Times as `--since` and `--until` take them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::container::parse::value;
use crate::error::{Error, Result};

/// RFC 3339, a date or local time without zone, Unix seconds, or a duration before `now`.
///
/// # Errors
/// None of these.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<f64>()
        && let Ok(since) = SignedDuration::try_from_secs_f64(seconds)
        && let Ok(time) = Timestamp::from_duration(since)
    {
        return Ok(time);
    }
    if let Ok(ago) = value::duration(text)
        && let Ok(time) = now.checked_sub(ago)
    {
        return Ok(time);
    }
    let civil = text.parse::<DateTime>().or_else(|_| {
        text.parse::<jiff::civil::Date>()
            .map(|date| date.to_datetime(jiff::civil::Time::midnight()))
    });
    let local = civil
        .ok()
        .and_then(|civil| civil.to_zoned(TimeZone::system()).ok());
    local.map(|zoned| zoned.timestamp()).ok_or_else(|| {
        Error::Usage(format!(
            "failed to parse value as time or duration: {text:?}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_time_is_read() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let cases = [
            ("1970-01-12T13:46:40Z", 1_000_000),
            ("1970-01-12T13:46:40.5+00:00", 1_000_000),
            ("999940", 999_940),
            ("1m", 999_940),
            ("1h0m0s", 996_400),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text, now).unwrap().as_second(), want, "{text}");
        }
        assert!(parse("1970-01-12", now).is_ok());
        assert!(parse("yesterday", now).is_err());
    }
}
