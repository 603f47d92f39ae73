//! The audit files: which messages were answered, and when. Tests compare them with the content of the database.
//!
//! Each message has a line with four fields, separated by tabs: transaction id, partition, time sent, time answered. The
//! times are nanoseconds since 1970 on a clock that never goes back within a run. The time sent of a retried message is
//! that of its first attempt. If one message of a partition was answered before another was sent, it must come first in
//! the database.
//!
//! A line is in the page cache before its message is counted. It survives a crash of this process or of the server, but
//! not of the machine.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::run::Failure;

/// A file to which all threads append lines.
#[derive(Debug)]
pub(crate) struct AuditFile {
    path: PathBuf,
    file: File,
}

impl AuditFile {
    /// Opens the file for appending. Creates it if it does not exist.
    ///
    /// # Errors
    /// [`Failure::Audit`]
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let file =
            OpenOptions::new().append(true).create(true).open(path).map_err(|error| Failure::audit(path, error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends whole lines. Writes of several threads to a file in append mode do not interleave.
    ///
    /// # Errors
    /// [`Failure::Audit`]
    pub(crate) fn append(&self, lines: &str) -> Result<(), Failure> {
        (&self.file).write_all(lines.as_bytes()).map_err(|error| Failure::audit(&self.path, error))
    }
}

/// Appends a message's line to `lines`. `answered_unix_ns` is none if the message was never answered.
pub(crate) fn push_line(
    lines: &mut String,
    name: &str,
    partition: &str,
    sent_unix_ns: u64,
    answered_unix_ns: Option<u64>,
) {
    let result = match answered_unix_ns {
        Some(answered_unix_ns) => writeln!(lines, "{name}\t{partition}\t{sent_unix_ns}\t{answered_unix_ns}"),
        None => writeln!(lines, "{name}\t{partition}\t{sent_unix_ns}\t-"),
    };
    assert!(result.is_ok(), "writing to a String cannot fail");
}
