//! What can go wrong with a private cluster, told apart by what the operator does next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits::{MAX_MAJOR, MIN_MAJOR};

/// Why a private cluster could not be found, made, started, reached or stopped.
#[derive(Debug)]
pub enum ClusterError {
    /// No PostgreSQL server binaries in any of the places looked at: install them, or set `FOREBAY_PG_BINDIR`.
    BinariesNotFound {
        /// Where was looked, in order.
        searched: Vec<PathBuf>,
    },
    /// There are binaries, but of a version outside [`MIN_MAJOR`]–[`MAX_MAJOR`]: install another version.
    UnsupportedVersion {
        /// The binary that was asked.
        binary: PathBuf,
        /// What it said.
        found: String,
    },
    /// The data directory was made by another major version than the binaries': install that one, or dump and reload.
    VersionMismatch {
        /// Major version in the data directory's `PG_VERSION`.
        data_major: u32,
        /// The major versions that were found.
        found_majors: Vec<u32>,
    },
    /// We are root, PostgreSQL refuses to run as root, and there is neither an account `postgres` nor `nobody`.
    NoAccount,
    /// The data directory belongs to somebody we cannot run as: start as that account, or give it back with `chown -R`.
    WrongOwner {
        /// The directory.
        dir: PathBuf,
        /// Its owner.
        owner_uid: u32,
    },
    /// The account may not enter the directory and we cannot lend it the capability: choose another data directory.
    NotTraversable {
        /// The directory (or a path to a binary) out of reach.
        dir: PathBuf,
        /// The unprivileged account.
        account: String,
        /// Why no capability could be lent.
        reason: &'static str,
    },
    /// The directory for the socket exists, but is not a private directory of the server's account: remove it.
    UnsafeSocketDir {
        /// The directory.
        dir: PathBuf,
    },
    /// The data directory exists but holds no cluster: move it away.
    NotACluster {
        /// The directory.
        dir: PathBuf,
    },
    /// `initdb` failed.
    InitFailed {
        /// Its exit status.
        status: String,
        /// The last lines it wrote.
        output: String,
    },
    /// The server ended while it was starting.
    StartFailed {
        /// Its exit status, as far as known.
        status: String,
        /// The last lines of its log.
        log_tail: String,
    },
    /// The server lives but does not accept connections yet; it was left running, and starting again waits for it again.
    StartTimeout {
        /// How long was waited.
        waited: Duration,
        /// The last lines of its log.
        log_tail: String,
    },
    /// The server was told to stop and has not.
    StopTimeout {
        /// The postmaster's process id.
        pid: i32,
        /// How long was waited.
        waited: Duration,
    },
    /// The server was told to stop while it was being started, or is not to be started since it was stopped.
    Cancelled,
    /// The server refused a statement of ours.
    Refused {
        /// SQLSTATE, five characters.
        sqlstate: String,
        /// The server's message.
        message: String,
    },
    /// A command of the operating system or of PostgreSQL failed.
    Command {
        /// The command's name.
        command: &'static str,
        /// What it wrote to stderr.
        output: String,
    },
    /// An operation on a file, socket or process failed.
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl ClusterError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }
}

/// Adds to an [`io::Error`] what was being done, and to what.
pub(crate) trait IoContext<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, ClusterError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, ClusterError> {
        self.map_err(|source| ClusterError::io(doing, path, source))
    }
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BinariesNotFound { searched } => {
                write!(f, "no PostgreSQL server binaries found (looked in")?;
                for dir in searched {
                    write!(f, " {}", dir.display())?;
                }
                write!(f, "); install PostgreSQL {MIN_MAJOR} to {MAX_MAJOR} or set FOREBAY_PG_BINDIR")
            }
            Self::UnsupportedVersion { binary, found } => {
                write!(f, "{} is {found:?}; PostgreSQL {MIN_MAJOR} to {MAX_MAJOR} is needed", binary.display())
            }
            Self::VersionMismatch { data_major, found_majors } => write!(
                f,
                "the data directory was made by PostgreSQL {data_major}, but only {found_majors:?} is installed; \
                 install PostgreSQL {data_major}, or dump and reload"
            ),
            Self::NoAccount => write!(
                f,
                "PostgreSQL refuses to run as root, and there is neither an account postgres nor nobody to run it as"
            ),
            Self::WrongOwner { dir, owner_uid } => {
                write!(f, "{} belongs to uid {owner_uid}, which PostgreSQL cannot be run as from here", dir.display())
            }
            Self::NotTraversable { dir, account, reason } => write!(
                f,
                "the account {account} cannot reach {}, and cannot be helped: {reason}; choose another data directory",
                dir.display()
            ),
            Self::UnsafeSocketDir { dir } => {
                write!(f, "{} is not a private directory of the server's account; remove it", dir.display())
            }
            Self::NotACluster { dir } => write!(f, "{} holds no PostgreSQL cluster; move it away", dir.display()),
            Self::InitFailed { status, output } => write!(f, "initdb failed ({status}): {output}"),
            Self::StartFailed { status, log_tail } => {
                write!(f, "PostgreSQL ended while starting ({status}); its log ends: {log_tail}")
            }
            Self::StartTimeout { waited, log_tail } => {
                write!(f, "PostgreSQL does not accept connections after {waited:?}; its log ends: {log_tail}")
            }
            Self::StopTimeout { pid, waited } => {
                write!(f, "PostgreSQL (pid {pid}) has not stopped after {waited:?}")
            }
            Self::Cancelled => write!(f, "PostgreSQL is meant to be stopped"),
            Self::Refused { sqlstate, message } => write!(f, "PostgreSQL refused: {message} ({sqlstate})"),
            Self::Command { command, output } => write!(f, "{command} failed: {output}"),
            Self::Io { doing, path, source } => write!(f, "{doing} {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for ClusterError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
