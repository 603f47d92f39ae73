//! Why the daemon did not start, or ended.

use crate::{
    connection::{CoreFailed, listener::ListenError},
    datadir::DataDirError,
    preflight::explain,
};
use forebay_os::dir::Unsafe;
use forebay_wal::error::{LogError, is_no_room};

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration, a limit of the system, or a missing program stands in the way. Next step: as the text says.
    #[error("{0}")]
    Setup(String),
    /// The log failed, or cannot be trusted. Next step: check the disk, then `forebay wal verify`.
    #[error("{0}")]
    Storage(String),
    /// A thread panicked. Next step: report it with the log line `thread_panicked`, and start again.
    #[error("a thread of the daemon panicked")]
    Panicked,
    /// Another daemon has the data directory. Next step: stop it, or choose another directory.
    #[error("{0}")]
    InUse(String),
}

impl From<DataDirError> for ServeError {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::InUse { .. } => Self::InUse(error.to_string()),
            // Not a failure of the disk: nothing that was answered is in doubt.
            DataDirError::Io { ref source, .. } if is_no_room(source) => Self::Setup(error.to_string()),
            DataDirError::Io { .. } => Self::Storage(error.to_string()),
            DataDirError::NotOurs { .. }
            | DataDirError::Writable { .. }
            | DataDirError::Unsafe { .. }
            | DataDirError::QuotaTooSmall { .. }
            | DataDirError::SegmentSize { .. }
            | DataDirError::FileSizeLimit { .. } => Self::Setup(error.to_string()),
        }
    }
}

impl From<LogError> for ServeError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Ring(_) | LogError::LaneCount { .. } | LogError::SegmentSize { .. } => {
                Self::Setup(error.to_string())
            }
            _ if error.is_no_room() => Self::Setup(error.to_string()),
            LogError::Io { ref source, .. } if Unsafe::of(source).is_some() => Self::Setup(error.to_string()),
            _ => Self::Storage(error.to_string()),
        }
    }
}

impl From<CoreFailed> for ServeError {
    fn from(failed: CoreFailed) -> Self {
        match failed {
            CoreFailed::Log(_) => Self::Storage(failed.to_string()),
            CoreFailed::Lane(LogError::Ring(error)) | CoreFailed::Setup(error)
                if error.raw_os_error() == Some(libc::ENOMEM) =>
            {
                Self::Setup(explain(error).to_string())
            }
            CoreFailed::Lane(_) | CoreFailed::Setup(_) => Self::Setup(failed.to_string()),
        }
    }
}

impl From<ListenError> for ServeError {
    fn from(error: ListenError) -> Self {
        Self::Setup(error.to_string())
    }
}
