//! Log lines: to standard error, as text on a terminal, else as JSON.
//!
//! A line never waits, and never fails. A thread of its own writes the lines; where it does not keep up, or standard error
//! takes nothing, lines are dropped and counted. Otherwise a reader that left, or one that reads nothing, would stop the daemon.

use crate::config::LogFormat;
use std::{
    error::Error,
    io,
    io::{IsTerminal, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Lines that may wait for the thread that writes them.
const QUEUED_LINES_MAX: usize = 16_384;

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

/// Lines that standard error did not take.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);

/// Counts the lines for which there was no room in the queue.
static OVERFLOW: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines of the log that were dropped since the process started.
#[must_use]
pub fn dropped_lines() -> u64 {
    let overflow = OVERFLOW.get().map_or(0, ErrorCounter::dropped_lines) as u64;
    overflow + UNWRITTEN.load(Ordering::Relaxed)
}

/// Standard error. A write never fails.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if io::stderr().write_all(line).is_err() {
            UNWRITTEN.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Standard error has no buffer.
        Ok(())
    }
}

/// Starts logging for the process. The lines that wait are written when the guard is dropped, if that takes no longer than a
/// second.
///
/// # Errors
/// [`LoggingError`].
pub fn start(filter: &str, format: Option<LogFormat>) -> Result<WorkerGuard, LoggingError> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| LoggingError::Filter { filter: filter.to_owned(), error })?;
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUED_LINES_MAX);
    let (writer, guard) = builder.thread_name("log").finish(StandardError);
    let counter = writer.error_counter();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(terminal)
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(LoggingError::Started)?;
    if OVERFLOW.set(counter).is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(guard)
}
