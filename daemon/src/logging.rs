//! Log lines: to standard error, as text on a terminal, else as JSON.

use crate::config::LogFormat;
use std::{error::Error, io::IsTerminal};
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Why logging does not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error("--log {filter:?}: {error}")]
    Filter {
        /// As it is configured.
        filter: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// It was started before.
    #[error("logging cannot be started: {0}")]
    Started(Box<dyn Error + Send + Sync>),
}

/// Starts logging for the process.
///
/// # Errors
/// [`LoggingError`].
pub fn start(filter: &str, format: Option<LogFormat>) -> Result<(), LoggingError> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| LoggingError::Filter { filter: filter.to_owned(), error })?;
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    let started = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(LoggingError::Started)
}
