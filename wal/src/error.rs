//! Errors of the log. Each variant calls for a different step of the operator.

use crate::limits::{LANES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use std::{fmt::Display, io, path::PathBuf};

/// Why the log cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused an operation on a file: check the disk, the permissions and the limits.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Io {
        /// The operation, as a verb that the path follows.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A later release wrote this log: use that release.
    #[error("{path} has format version {version}, written by a newer release", path = .path.display())]
    FormatTooNew {
        /// The segment.
        path: PathBuf,
        /// Its format version.
        version: u32,
    },
    /// The file that names the log is missing or damaged, but segments exist: restore it from a copy of the directory, or
    /// from the header of a segment.
    #[error("{path} is missing or damaged, but there are segments", path = .path.display())]
    LogIdLost {
        /// The file's path.
        path: PathBuf,
    },
    /// Somebody removed, replaced or truncated a directory or a segment while the log was open: stop that, and look for the files.
    #[error("{path} was removed, replaced or truncated while the log was open", path = .path.display())]
    Replaced {
        /// The directory or segment.
        path: PathBuf,
    },
    /// io_uring cannot be set up: check the kernel, `kernel.io_uring_disabled`, seccomp and `ulimit -l`.
    #[error("cannot set up io_uring: {0}")]
    Ring(#[source] io::Error),
    /// The number of lanes is 0 or above [`LANES_MAX`].
    #[error("a log has 1 to {LANES_MAX} lanes, not {lanes}")]
    LaneCount {
        /// The number in the options.
        lanes: u16,
    },
    /// The size of a segment is out of its range, or no multiple of [`SEGMENT_BYTES_MIN`].
    #[error(
        "a segment has {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes, in steps of {SEGMENT_BYTES_MIN}, not \
         {segment_bytes}"
    )]
    SegmentSize {
        /// The size in the options, in bytes.
        segment_bytes: u64,
    },
}

impl LogError {
    /// Whether the error [means that there is no room](is_no_room). Waiting may help, and so may the drain.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_no_room(source))
    }

    /// Whether the error means that a file does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// Whether an error means that the disk is full, that the account's disk quota is used up, or that the file is at its
/// largest size.
#[must_use]
pub fn is_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Ignores a failure that changes nothing, and logs it at debug. `reason` says why nothing changes.
pub(crate) fn ignore<T, E: Display>(result: Result<T, E>, reason: &'static str) {
    if let Err(error) = result {
        tracing::debug!(%error, reason, "a failure is ignored");
    }
}
