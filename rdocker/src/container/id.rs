//! Container ids and the names nobody chose.

use std::fmt::Write;

/// 32 random bytes as 64 hexadecimal digits.
///
/// An id of digits only is drawn again: its short form would be a valid number, which tools that
/// use it as a host name trip over (moby `stringid.GenerateRandomID`).
pub fn random() -> String {
    loop {
        let mut bytes = [0_u8; 32];
        fill(&mut bytes);
        let mut id = String::with_capacity(64);
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(id, "{byte:02x}");
        }
        if !id[..12].bytes().all(|byte| byte.is_ascii_digit()) {
            return id;
        }
    }
}

fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        // getrandom(2) of few bytes fails only when a signal interrupts it.
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags).unwrap_or(0);
    }
}

/// A name such as `brave_lovelace`; `attempt` above 0 appends a digit, as Docker does.
pub fn random_name(attempt: u32) -> String {
    let mut bytes = [0_u8; 3];
    fill(&mut bytes);
    let adjective = ADJECTIVES[usize::from(bytes[0]) % ADJECTIVES.len()];
    let surname = SURNAMES[usize::from(bytes[1]) % SURNAMES.len()];
    let digit = if attempt == 0 {
        String::new()
    } else {
        (bytes[2] % 10).to_string()
    };
    format!("{adjective}_{surname}{digit}")
}

const ADJECTIVES: &[&str] = &[
    "able", "amber", "bold", "brave", "bright", "brisk", "calm", "candid", "careful", "cheerful",
    "clever", "cosy", "curious", "dapper", "daring", "eager", "earnest", "easy", "fair", "fancy",
    "fearless", "frank", "fresh", "gentle", "gifted", "glad", "golden", "graceful", "handy",
    "happy", "hardy", "honest", "hopeful", "humble", "jolly", "keen", "kind", "lively", "loyal",
    "lucid", "mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid",
    "plucky", "polite", "proud", "quick", "quiet", "ready", "serene", "sharp", "sincere", "smart",
    "steady", "sunny", "tidy", "upbeat", "vivid", "warm", "wise", "witty", "zesty",
];

const SURNAMES: &[&str] = &[
    "agnesi",
    "archimedes",
    "babbage",
    "banach",
    "bell",
    "bohr",
    "boole",
    "cantor",
    "carson",
    "cerf",
    "curie",
    "darwin",
    "dijkstra",
    "dirac",
    "edison",
    "einstein",
    "elion",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goodall",
    "hamilton",
    "hawking",
    "heisenberg",
    "hertz",
    "hopper",
    "hypatia",
    "joliot",
    "kepler",
    "knuth",
    "lamarr",
    "lamport",
    "leavitt",
    "lovelace",
    "mayer",
    "maxwell",
    "mccarthy",
    "meitner",
    "mendel",
    "mirzakhani",
    "newton",
    "nobel",
    "noether",
    "pascal",
    "pasteur",
    "payne",
    "perlman",
    "ritchie",
    "rubin",
    "shannon",
    "somerville",
    "swartz",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "wiles",
    "wing",
    "wozniak",
    "wu",
    "yalow",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::parse::value::container_name;

    #[test]
    fn ids_are_64_hexadecimal_digits_and_differ() {
        let (one, two) = (random(), random());
        assert!(one.len() == 64 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, two);
    }

    #[test]
    fn a_random_name_is_a_valid_name() {
        for attempt in 0..50 {
            let name = random_name(attempt % 2);
            assert_eq!(container_name(&name).unwrap(), name);
        }
    }
}
