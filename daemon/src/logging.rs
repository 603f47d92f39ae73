//! Log lines: to standard error, as text on a terminal, else as JSON.
//!
//! A line never waits, and never fails. A thread of its own writes the lines; where it does not keep up, or standard error
//! takes nothing, lines are dropped and counted. Otherwise a reader that left, or one that reads nothing, would stop the daemon.

use crate::config::LogFormat;
use forebay_os::rights::without_capabilities;
use std::{
    error::Error,
    io,
    io::{IsTerminal, Write},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Lines that may wait for the thread that writes them.
const QUEUED_LINES_MAX: usize = 16_384;

/// Time that the last lines get to be written before the process ends.
const LAST_LINES_PATIENCE: Duration = Duration::from_secs(1);

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
    /// The system gives no thread for it.
    #[error("logging cannot be started: {0}")]
    Thread(io::Error),
}

/// Lines that were dropped. There is one standard error, so there is one count.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines of the log that were dropped since the process started.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// What goes to the thread that writes.
enum Message {
    Line(Vec<u8>),
    /// All lines before it are written.
    Flush(Sender<()>),
}

/// Where threads leave their lines.
#[derive(Clone)]
struct LineQueue(SyncSender<Message>);

impl Write for LineQueue {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Message::Line(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets the lines that wait be written when it is dropped, if that takes no longer than a second.
pub struct LastLines(LineQueue);

impl Drop for LastLines {
    fn drop(&mut self) {
        let (written, writing) = channel();
        // With a full queue standard error takes nothing, and there is nothing to wait for.
        if self.0.0.try_send(Message::Flush(written)).is_ok()
            && writing.recv_timeout(LAST_LINES_PATIENCE) == Err(RecvTimeoutError::Timeout)
        {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Starts logging for the process.
///
/// # Errors
/// [`LoggingError`].
pub fn start(filter: &str, format: Option<LogFormat>) -> Result<LastLines, LoggingError> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| LoggingError::Filter { filter: filter.to_owned(), error })?;
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let (queue, messages) = sync_channel(QUEUED_LINES_MAX);
    // It writes lines as long as the process runs, and needs no right for that.
    let start = || thread::Builder::new().name("log".into()).spawn(move || write_lines(&messages));
    without_capabilities(start).and_then(|started| started).map_err(LoggingError::Thread)?;
    let (queue, last_lines) = (LineQueue(queue.clone()), LastLines(LineQueue(queue)));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || queue.clone())
        .with_ansi(terminal)
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(LoggingError::Started)?;
    Ok(last_lines)
}

/// Writes lines until the process ends.
fn write_lines(messages: &Receiver<Message>) {
    for message in messages {
        match message {
            Message::Line(line) => {
                if io::stderr().write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Flush(written) => {
                if written.send(()).is_err() {
                    tracing::debug!("the last lines took too long");
                }
            }
        }
    }
}
