//! Why the data directory cannot be used.

use forebay_os::dir::Unsafe;
use std::{io, path::PathBuf};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has locked it.
    #[error("{} is in use by another forebay", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else owns it, or a file in it: whoever that is could change what the daemon relies on.
    #[error(
        "{} belongs to user {owner}, and this process is user {user}: run it as that user, or `chown -R {user} {}`, or name \
         another directory with --data-dir",
        path.display(),
        path.display()
    )]
    NotOurs {
        /// The directory or file.
        path: PathBuf,
        /// The user that owns it.
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// Others may write to it.
    #[error("others may write to {} (mode {:04o}): run `chmod go-w {}`", path.display(), mode & 0o7777, path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Something below it is not what the daemon made.
    #[error("cannot use {}: {reason}; remove it", path.display())]
    Unsafe {
        /// The path.
        path: PathBuf,
        /// What it is.
        reason: Unsafe,
    },
    /// The file system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// Segments have 1 MiB to 1 GiB, in steps of 1 MiB.
    #[error("a segment has 1 MiB to 1 GiB, a multiple of 1 MiB; not {segment_bytes} bytes")]
    SegmentSize {
        /// The configured size in bytes.
        segment_bytes: u64,
    },
    /// The process may not write files as large as a segment.
    #[error(
        "the limit of file sizes is {limit_bytes} bytes, a segment of the log has {segment_bytes}: raise the limit (ulimit -f, \
         LimitFSIZE=) or lower --wal-segment-bytes, which can be 1 MiB"
    )]
    FileSizeLimit {
        /// The limit in bytes.
        limit_bytes: u64,
        /// Size of a segment in bytes.
        segment_bytes: u64,
    },
    /// The quota is too small for a log of so many lanes.
    #[error("the log's quota of {quota_bytes} bytes is too small: it needs {needed_bytes} at least")]
    QuotaTooSmall {
        /// The quota in bytes.
        quota_bytes: u64,
        /// The least quota in bytes.
        needed_bytes: u64,
    },
}

impl DataDirError {
    /// Makes an error of the system into one of these.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match Unsafe::of(&source) {
            Some(reason) => Self::Unsafe { path, reason },
            None => Self::Io { what, path, source },
        }
    }
}
