//! Errors that change nothing.

use std::fmt::Display;

/// Goes on after an error that changes nothing. `consequence` says in the log, at debug, why nothing else is done about it.
pub fn ignore<E: Display>(result: Result<(), E>, consequence: &'static str) {
    if let Err(error) = result {
        tracing::debug!(%error, "{consequence}");
    }
}
