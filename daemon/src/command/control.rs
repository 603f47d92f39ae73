//! Asks the running daemon on behalf of a command.

use super::Exit;
use crate::control::{self, ControlError, ControlReply, ControlRequest};
use std::path::Path;

/// Asks the daemon that has locked `data_dir`.
///
/// # Errors
/// [`Exit::in_use`] if whoever has locked it does not listen or answer.
pub(super) fn ask(data_dir: &Path, request: &ControlRequest) -> Result<ControlReply, Exit> {
    control::ask(data_dir, request).map_err(|error| match error {
        ControlError::NotThere(_) => {
            Exit::in_use(format!("{} is in use by another forebay, and {error}", data_dir.display()))
        }
        ControlError::Failed(_) => Exit::in_use(error.to_string()),
    })
}
