//! Hooks of config.json as programs ready to execute.

use std::ffi::CString;

use oci_spec::runtime as oci;

use super::text::cstring;
use crate::error::{Error, Result};
use crate::sys::proc::CStrings;

/// One hook.
#[derive(Debug)]
pub struct Hook {
    /// The program, absolute.
    pub path: CString,
    /// Its arguments; the first is its own name.
    pub args: CStrings,
    /// Its whole environment, with room for one more entry.
    pub env: CStrings,
    /// config.json names no environment for it.
    pub inherits_env: bool,
    /// How long it may run, in milliseconds; −1 is for ever.
    pub timeout_ms: i32,
}

/// The state that a hook reads on its standard input, with a gap for the pid.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StateText {
    /// JSON up to the number of the pid.
    pub before_pid: Vec<u8>,
    /// JSON after it.
    pub after_pid: Vec<u8>,
}

/// Reads one list of hooks; `default_env` is what a hook without `env` gets.
///
/// # Errors
/// [`Error::Spec`] for a relative path or a timeout that is not positive.
pub fn read(hooks: Option<&Vec<oci::Hook>>, at: &str, default_env: &[String]) -> Result<Vec<Hook>> {
    let one = |(index, hook): (usize, &oci::Hook)| {
        let at = format!(".hooks.{at}[{index}]");
        if !hook.path().is_absolute() {
            return Err(Error::spec(
                format!("{at}.path"),
                "the path of a hook must be absolute",
            ));
        }
        let timeout_ms = match hook.timeout() {
            None => -1,
            Some(secs) if secs > 0 => i32::try_from(secs.saturating_mul(1000)).unwrap_or(i32::MAX),
            Some(secs) => {
                let why = format!("a timeout is greater than 0 seconds, not {secs}");
                return Err(Error::spec(format!("{at}.timeout"), why));
            }
        };
        let list = |texts: &[String], name: &str| -> Result<CStrings> {
            let at = format!("{at}.{name}");
            let texts: Result<Vec<CString>> = texts.iter().map(|text| cstring(text, &at)).collect();
            Ok(CStrings::new(texts?, 1))
        };
        let path = cstring(hook.path().as_os_str(), &format!("{at}.path"))?;
        let args = match hook.args().as_deref() {
            Some(args) if !args.is_empty() => list(args, "args")?,
            _ => CStrings::new(vec![path.clone()], 0),
        };
        let env = hook.env().as_deref().filter(|env| !env.is_empty());
        Ok(Hook {
            path,
            args,
            env: list(env.unwrap_or(default_env), "env")?,
            inherits_env: env.is_none(),
            timeout_ms,
        })
    };
    hooks.into_iter().flatten().enumerate().map(one).collect()
}
