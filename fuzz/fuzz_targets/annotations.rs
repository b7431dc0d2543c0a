//! `org.systemd.property.*`: none but harmless properties, and texts that are nothing else, pass.

#![no_main]

use std::collections::HashMap;

use keel::cgroups::Value;
use keel::cgroups::fuzz::annotated;
use libfuzzer_sys::fuzz_target;

/// What no annotation may set: it makes systemd execute, own or reach something.
const FORBIDDEN: [&str; 7] = [
    "Exec",
    "User",
    "Group",
    "Root",
    "Device",
    "Environment",
    "Slice",
];

fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() || matches!(c, '\'' | '"' | '\\'))
}

fuzz_target!(|pairs: Vec<(&str, &str)>| {
    let annotations: HashMap<String, String> = pairs
        .into_iter()
        .map(|(key, value)| (format!("org.systemd.property.{key}"), value.to_owned()))
        .collect();
    for (name, value) in annotated(&annotations).unwrap_or_default() {
        assert!(!FORBIDDEN.iter().any(|it| name.starts_with(it)), "{name}");
        match value {
            Value::Text(text) => assert!(is_plain(&text), "{name}={text:?}"),
            Value::Texts(texts) => assert!(texts.iter().all(|it| is_plain(it)), "{name}={texts:?}"),
            _ => {}
        }
    }
});
