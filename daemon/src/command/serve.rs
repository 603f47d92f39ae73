//! `forebay serve`

use super::Exit;
use crate::{config::Config, logging, serve, serve::ServeError};

pub(super) fn run(config: Config) -> Result<(), Exit> {
    // The lines that wait are written when it is dropped.
    let _last_lines = logging::start(&config.log, config.log_format)?;
    serve::run(config).map_err(|error| {
        let message = error.to_string();
        match error {
            ServeError::Setup(_) => Exit::usage(message),
            ServeError::Storage(_) => Exit::storage(message),
            ServeError::InUse(_) => Exit::in_use(message),
            ServeError::Panicked => Exit::panicked(message),
        }
    })
}
