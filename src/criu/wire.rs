//! Protocol buffers as far as CRIU's messages need them: varints and strings of bytes.
//!
//! Source: protobuf.dev, "Encoding". A library would be larger than all of keel's use of it.

/// A message under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

const VARINT: u64 = 0;
const BYTES: u64 = 2;

impl Message {
    /// Adds an integer, or an enum's number. Negative ones take ten bytes, as `int32` does.
    pub fn number(&mut self, field: u32, value: i64) -> &mut Self {
        self.varint(u64::from(field) << 3 | VARINT);
        self.varint(value.cast_unsigned());
        self
    }

    /// Adds a boolean; `false`, the default of all of CRIU's, is left out.
    pub fn flag(&mut self, field: u32, value: bool) -> &mut Self {
        if value {
            self.number(field, 1);
        }
        self
    }

    /// Adds a string.
    pub fn text(&mut self, field: u32, value: &str) -> &mut Self {
        self.bytes(field, value.as_bytes())
    }

    /// Adds a message inside this one.
    pub fn message(&mut self, field: u32, value: &Self) -> &mut Self {
        self.bytes(field, &value.0)
    }

    /// The message as it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// One field of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer, boolean or enum.
    Number(u64),
    /// A string or message.
    Bytes(&'a [u8]),
}

/// The fields of a received message, in order; a message that is damaged has none.
pub fn fields(bytes: &[u8]) -> Vec<(u32, Value<'_>)> {
    let (mut rest, mut fields) = (bytes, Vec::new());
    while !rest.is_empty() {
        let Some(field) = field(&mut rest) else {
            return Vec::new();
        };
        fields.extend(field);
    }
    fields
}

/// One field; `Some(None)` for a kind that none of CRIU's has.
fn field<'a>(rest: &mut &'a [u8]) -> Option<Option<(u32, Value<'a>)>> {
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).ok()?;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        *rest = left;
        Some(taken)
    };
    match key & 7 {
        VARINT => Some(Some((number, Value::Number(varint(rest)?)))),
        1 => take(8).map(|_| None),
        BYTES => {
            let count = usize::try_from(varint(rest)?).ok()?;
            let (taken, left) = rest.split_at_checked(count)?;
            *rest = left;
            Some(Some((number, Value::Bytes(taken))))
        }
        5 => take(4).map(|_| None),
        _ => None,
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_protoc_makes_of_them() {
        let mut inner = Message::default();
        inner
            .number(1, 150)
            .text(2, "testing")
            .flag(3, false)
            .flag(4, true);
        // From protobuf.dev, "Encoding": 08 96 01 and 12 07 74 65 73 74 69 6e 67.
        let bytes = b"\x08\x96\x01\x12\x07testing\x20\x01";
        assert_eq!(inner.as_bytes(), bytes);
        let mut outer = Message::default();
        outer.message(20, &inner).number(5, -1);
        let minus_one = b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        let whole = [b"\xa2\x01\x0e".as_slice(), bytes, minus_one].concat();
        assert_eq!(outer.as_bytes(), whole);
    }

    #[test]
    fn what_is_sent_can_be_read() {
        let mut message = Message::default();
        message
            .number(1, 3)
            .text(200, "pipe:[7]")
            .number(7, i64::from(i32::MAX));
        let wanted = [
            (1, Value::Number(3)),
            (200, Value::Bytes(b"pipe:[7]")),
            (7, Value::Number(0x7fff_ffff)),
        ];
        assert_eq!(fields(message.as_bytes()), wanted);
        // Fixed 64 and 32 bits are passed over.
        let fixed = b"\x09\0\0\0\0\0\0\0\0\x15\0\0\0\0\x08\x01";
        assert_eq!(fields(fixed), [(1, Value::Number(1))]);
    }

    #[test]
    fn a_damaged_message_has_no_fields() {
        for bytes in [
            b"\x08".as_slice(),
            b"\x12\x07test",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0b",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(fields(bytes), [], "{bytes:?}");
        }
    }
}
