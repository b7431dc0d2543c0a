//! Verbs that take several names: each is tried, failures are told one by one.

use crate::error::{Error, Result};
use crate::ui::Ui;

/// Calls `act` for each name and prints the name when it succeeds; goes on after a failure.
///
/// # Errors
/// [`Error::Reported`] if any failed: the lines are printed already.
pub fn each(
    names: &[String],
    ui: &mut Ui,
    mut act: impl FnMut(&str, &mut Ui) -> Result<()>,
) -> Result<()> {
    each_quietly(names, ui, |name, ui| {
        act(name, ui)?;
        ui.line(name)
    })
}

/// The same without printing names.
///
/// # Errors
/// [`Error::Reported`] if any failed.
pub fn each_quietly(
    names: &[String],
    ui: &mut Ui,
    mut act: impl FnMut(&str, &mut Ui) -> Result<()>,
) -> Result<()> {
    let mut failed = false;
    for name in names {
        match act(name, ui) {
            Ok(()) => {}
            Err(error) if error.is_broken_pipe() => return Err(error),
            Err(error) => {
                failed = true;
                ui.tell(&error)?;
            }
        }
    }
    if failed { Err(Error::Reported) } else { Ok(()) }
}
