//! The audit files: which messages were answered, and when, for tests that compare with what the database holds.
//!
//! A line a message, tab-separated: transaction id, partition, sent at, answered at, both in nanoseconds since 1970 on a
//! clock that never goes back within a run. A retried message was sent when it was sent first. So, of two messages of one
//! partition, the first answered before the second was sent, the first must come first in the database.
//!
//! A line is in the page cache before its message is counted: it survives a crash of this process and of the server's,
//! not one of the machine.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::run::Failure;

/// A file that lines are appended to, by all threads.
#[derive(Debug)]
pub(crate) struct AuditFile {
    path: PathBuf,
    file: File,
}

impl AuditFile {
    /// Opens the file for appending and makes it where it is missing.
    ///
    /// # Errors
    /// [`Failure::Audit`]
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let file =
            OpenOptions::new().append(true).create(true).open(path).map_err(|error| Failure::audit(path, error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends whole lines. One write of a file opened for appending is not torn by another thread's.
    ///
    /// # Errors
    /// [`Failure::Audit`]
    pub(crate) fn append(&self, lines: &str) -> Result<(), Failure> {
        (&self.file).write_all(lines.as_bytes()).map_err(|error| Failure::audit(&self.path, error))
    }
}

/// Adds a message's line to `lines`; the message was never answered where `answered_unix_ns` is none.
pub(crate) fn push_line(
    lines: &mut String,
    name: &str,
    partition: &str,
    sent_unix_ns: u64,
    answered_unix_ns: Option<u64>,
) {
    // Writing to a String cannot fail.
    let written = match answered_unix_ns {
        Some(answered_unix_ns) => writeln!(lines, "{name}\t{partition}\t{sent_unix_ns}\t{answered_unix_ns}"),
        None => writeln!(lines, "{name}\t{partition}\t{sent_unix_ns}\t-"),
    };
    debug_assert!(written.is_ok());
}
