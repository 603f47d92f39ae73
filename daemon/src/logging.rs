//! Log lines: to standard error, as text on a terminal, else as JSON.

use crate::config::{ConfigError, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging for the process.
///
/// # Errors
/// [`ConfigError`] for a filter that cannot be read.
pub fn start(filter: &str, format: Option<LogFormat>) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(filter).map_err(|error| ConfigError(format!("--log {filter:?}: {error}")))?;
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    let started = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| ConfigError(format!("logging cannot be started: {error}")))
}
