//! Platforms: operating system, architecture and variant, in Go's spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`…
    #[serde(default)]
    pub os: String,
    /// `amd64`, `arm64`…
    #[serde(default)]
    pub architecture: String,
    /// `v7`, `v8`…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows only.
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Platform {
        let architecture = normal_architecture(std::env::consts::ARCH);
        let variant = match architecture.as_str() {
            "arm" => Some("v7".to_owned()),
            "arm64" => Some("v8".to_owned()),
            _ => None,
        };
        Platform {
            os: "linux".to_owned(),
            architecture,
            variant,
            os_version: None,
        }
    }

    /// How well `other` serves where this platform is wanted: 0 is best, `None` is not at all.
    ///
    /// ARM machines run the code of older variants, and most 64-bit ones that of 32-bit ones.
    pub fn rank(&self, other: &Platform) -> Option<u32> {
        if self.os != other.os {
            return None;
        }
        let level = |platform: &Platform| {
            let digits = platform.variant.as_deref()?.strip_prefix('v')?;
            digits.parse::<u32>().ok()
        };
        let architecture = normal_architecture(&other.architecture);
        match (self.architecture.as_str(), architecture.as_str()) {
            ("arm64", "arm64") | ("arm", "arm") => {
                let newest = if architecture == "arm64" { 8 } else { 7 };
                let want = level(self).unwrap_or(newest);
                want.checked_sub(level(other).unwrap_or(newest))
            }
            ("arm64", "arm") => Some(100 + 8 - level(other).unwrap_or(7).min(8)),
            // A plain amd64 image is `v1`; a machine that asks for no level gets that.
            ("amd64", "amd64") => level(self)
                .unwrap_or(1)
                .checked_sub(level(other).unwrap_or(1)),
            (want, have) if want == have && self.variant == other.variant => Some(0),
            (want, have) if want == have => Some(1),
            _ => None,
        }
    }
}

/// Go's name of an architecture.
fn normal_architecture(name: &str) -> String {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "armhf" | "armv7l" => "arm",
        "i386" | "i686" | "x86" => "386",
        "riscv64gc" => "riscv64",
        "powerpc64le" | "powerpc64" => "ppc64le",
        other => other,
    }
    .to_owned()
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `os/arch`, `os/arch/variant`, or an architecture or system alone.
    fn from_str(text: &str) -> Result<Platform, Error> {
        let invalid = || {
            Error::InvalidArgument(format!(
                "{text:?} is an invalid platform: want os/architecture, such as linux/amd64"
            ))
        };
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        if !parts.iter().all(is_word) {
            return Err(invalid());
        }
        let host = Platform::host();
        let (os, architecture, variant) = match parts[..] {
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => {
                (os, host.architecture.as_str(), None)
            }
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(invalid()),
        };
        Ok(Platform {
            os: os.to_owned(),
            architecture: normal_architecture(architecture),
            variant,
            os_version: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_in_every_spelling() {
        for (text, want) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/x86_64", Some("linux/amd64")),
            ("Linux/AArch64", Some("linux/arm64")),
            ("linux/arm/v6", Some("linux/arm/v6")),
            ("arm64", Some("linux/arm64")),
            ("", None),
            ("linux/", None),
            ("a/b/c/d", None),
            ("linux/am d64", None),
        ] {
            let got = text
                .parse::<Platform>()
                .ok()
                .map(|platform| platform.to_string());
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }
}
