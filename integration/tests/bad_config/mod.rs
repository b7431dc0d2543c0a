//! The rows of `bad_input.rs`: what to break in a working bundle, and what must be said.

pub mod isolation;
pub mod limits;
pub mod linux;
pub mod process;
pub mod types;

use integration::Bundle;
use serde_json::Value;

/// One way to break a bundle.
pub struct Row {
    pub name: &'static str,
    pub make: Box<dyn Fn(&mut Bundle)>,
    /// All of these are in the one line that keel prints.
    pub says: &'static [&'static str],
    /// 1.1.5 does not know the field, or does not check it.
    pub runc_accepts: bool,
}

impl Row {
    pub fn with(
        name: &'static str,
        make: impl Fn(&mut Bundle) + 'static,
        says: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            make: Box::new(make),
            says,
            runc_accepts: false,
        }
    }

    /// The value at a JSON pointer is set to another.
    pub fn set(
        name: &'static str,
        pointer: &'static str,
        value: Value,
        says: &'static [&'static str],
    ) -> Self {
        let make = move |bundle: &mut Bundle| {
            bundle.set(pointer, value.clone());
        };
        Self::with(name, make, says)
    }

    pub fn unset(name: &'static str, pointer: &'static str, says: &'static [&'static str]) -> Self {
        let make = move |bundle: &mut Bundle| {
            bundle.unset(pointer);
        };
        Self::with(name, make, says)
    }

    pub fn runc_accepts(mut self) -> Self {
        self.runc_accepts = true;
        self
    }
}
