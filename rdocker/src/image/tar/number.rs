//! Numeric fields of a header: octal text, or base 256 where it does not fit.

use super::{Error, Result};

/// Reads a field that cannot be negative.
///
/// Octal digits may follow spaces and end with a space, a NUL or the field. With the highest bit
/// of the first byte set the rest is a big-endian two's complement number (GNU).
pub fn unsigned(field: &[u8], what: &'static str) -> Result<u64> {
    let number = signed(field, what)?;
    u64::try_from(number).map_err(|_| Error::invalid(format!("{what} is negative")))
}

/// Reads a field that may be negative: a time.
pub fn signed(field: &[u8], what: &'static str) -> Result<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field, what),
        _ => octal(field, what),
    }
}

fn base_256(field: &[u8], what: &'static str) -> Result<i64> {
    // Bit 7 of the first byte is the mark, bit 6 the sign.
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = i128::from(field[0] & 0x3f) - if negative { 0x40 } else { 0 };
    for byte in &field[1..] {
        value = value
            .checked_mul(256)
            .and_then(|value| value.checked_add(i128::from(*byte)))
            .ok_or_else(|| Error::invalid(format!("{what} overflows")))?;
    }
    i64::try_from(value).map_err(|_| Error::invalid(format!("{what} overflows")))
}

fn octal(field: &[u8], what: &'static str) -> Result<i64> {
    let digits = field.trim_ascii_start();
    let end = digits
        .iter()
        .position(|b| matches!(b, 0 | b' '))
        .unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    let malformed = || Error::invalid(format!("{what} is not an octal number"));
    if !rest.iter().all(|b| matches!(b, 0 | b' ')) {
        return Err(malformed());
    }
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
            .ok_or_else(|| Error::invalid(format!("{what} overflows"))),
        _ => Err(malformed()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256_and_nothing_else() {
        let cases: &[(&[u8], Option<i64>)] = &[
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"00000000001", Some(1)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"0x00644\0", None),
            (b"644\x001\0\0\0", None),
            (&[0x80, 0, 0, 0, 0, 0, 1, 0], Some(256)),
            (&[0xff; 12], Some(-1)),
            (&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], None),
            (
                &[
                    0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                ],
                Some(i64::MAX),
            ),
        ];
        for (field, want) in cases {
            assert_eq!(signed(field, "size").ok(), *want, "{field:?}");
        }
        assert!(
            unsigned(&[0xff; 12], "size").is_err(),
            "a size is not negative"
        );
    }
}
