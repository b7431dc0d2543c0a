//! Signal names: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.

use nix::sys::signal::Signal;

use crate::error::{Error, Result};

/// The first real-time signal that glibc leaves to programs, and the last.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The signal's number.
///
/// # Errors
/// Docker's `invalid signal: X`.
pub fn parse(text: &str) -> Result<i32> {
    let wrong = || Error::Invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) {
            Ok(number)
        } else {
            Err(wrong())
        };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text[1..].parse::<i32>().ok()
        }
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        (rest.is_empty() || rest.starts_with('+'))
            .then(|| offset(rest))
            .flatten()
            .map(|n| RTMIN + n)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        (rest.is_empty() || rest.starts_with('-'))
            .then(|| offset(rest))
            .flatten()
            .map(|n| RTMAX - n)
    } else {
        // Other names of the same numbers: signal(7).
        let name = match name {
            "CLD" => "CHLD",
            "IOT" => "ABRT",
            "POLL" => "IO",
            name => name,
        };
        format!("SIG{name}")
            .parse::<Signal>()
            .ok()
            .map(|signal| signal as i32)
    };
    number
        .filter(|number| (1..=RTMAX).contains(number))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_several_spellings() {
        let cases = [
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigkill", Some(9)),
            ("9", Some(9)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("0", None),
            ("65", None),
            ("CLD", Some(17)),
            ("SIGIOT", Some(6)),
            ("POLL", Some(29)),
            ("NOPE", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).ok(), want, "{text}");
        }
    }
}
