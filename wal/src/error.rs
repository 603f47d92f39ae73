//! What can go wrong with the log, told apart by the operator's next step.

use std::{io, path::PathBuf};

/// Why the log cannot be opened, read or written.
#[derive(Debug)]
pub enum LogError {
    /// The operating system refused an operation on a file: see to the disk, the rights or the limits.
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer release wrote this log: use that release.
    FormatTooNew {
        /// The segment.
        path: PathBuf,
        /// Its format version.
        version: u32,
    },
    /// The file that names the log is missing or damaged while there are segments: restore it from a copy of the
    /// directory, or from a segment's header.
    LogIdLost {
        /// Where it should be.
        path: PathBuf,
    },
    /// io_uring cannot be set up: see to the kernel, `kernel.io_uring_disabled`, seccomp or `ulimit -l`.
    Ring(io::Error),
    /// More lanes than [`LANES_MAX`](crate::limits::LANES_MAX), or a segment size out of its range.
    Options(String),
}

impl LogError {
    /// Whether it [says that there is no room](is_no_room): waiting, or the drain, may mend it.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_no_room(source))
    }

    /// Whether it says that a file is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

/// Whether an error says that the disk, the account's share of it, or what a file may take is used up.
#[must_use]
pub fn is_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { what, path, source } => write!(f, "cannot {what} {}: {source}", path.display()),
            Self::FormatTooNew { path, version } => {
                write!(f, "{} has format version {version}, written by a newer release", path.display())
            }
            Self::LogIdLost { path } => write!(f, "{} is missing or damaged, but there are segments", path.display()),
            Self::Ring(source) => write!(f, "cannot set up io_uring: {source}"),
            Self::Options(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Ring(source) => Some(source),
            _ => None,
        }
    }
}
