//! What can go wrong with a private cluster. The variants differ by what the operator has to do next.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits::{MAX_MAJOR, MIN_MAJOR};

/// Why a private cluster could not be found, created, started, reached or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No directory that was searched holds PostgreSQL server binaries. Install them, or set `FOREBAY_PG_BINDIR`.
    #[error(
        "no PostgreSQL server binaries found (searched {}); install PostgreSQL {MIN_MAJOR} to {MAX_MAJOR} or set \
         FOREBAY_PG_BINDIR",
        joined(.searched)
    )]
    BinariesNotFound {
        /// The directories, in the order of the search.
        searched: Vec<PathBuf>,
    },
    /// Only binaries of versions outside [`MIN_MAJOR`]–[`MAX_MAJOR`] were found. Install another version.
    #[error("{} is {found:?}; PostgreSQL {MIN_MAJOR} to {MAX_MAJOR} is needed", .binary.display())]
    UnsupportedVersion {
        /// One of the binaries.
        binary: PathBuf,
        /// What it prints for `--version`.
        found: String,
    },
    /// The data directory belongs to a major version that is not installed. Install it, or dump and reload.
    #[error(
        "the data directory was made by PostgreSQL {data_major}, but only {found_majors:?} is installed; install \
         PostgreSQL {data_major}, or dump and reload"
    )]
    VersionMismatch {
        /// Major version in the data directory's `PG_VERSION`.
        data_major: u32,
        /// The installed major versions.
        found_majors: Vec<u32>,
    },
    /// This process is root, PostgreSQL refuses to run as root, and neither account `postgres` nor `nobody` exists.
    #[error("PostgreSQL refuses to run as root, and neither the account postgres nor nobody exists to run it as")]
    NoAccount,
    /// This process cannot run PostgreSQL as the owner of the data directory. Start the daemon as that account, or
    /// change the owner with `chown -R`.
    #[error("{} belongs to uid {owner_uid}; this process cannot run PostgreSQL as that account", .dir.display())]
    WrongOwner {
        /// The directory.
        dir: PathBuf,
        /// Its owner.
        owner_uid: u32,
    },
    /// The server's account may not enter the directory, and cannot be lent a capability. Choose another data
    /// directory.
    #[error(
        "the account {account} cannot reach {}, and no capability can be lent to it: {reason}; choose another data \
         directory",
        .dir.display()
    )]
    NotTraversable {
        /// The cluster's directory.
        dir: PathBuf,
        /// The unprivileged account.
        account: String,
        /// Why no capability could be lent.
        reason: &'static str,
    },
    /// The socket directory exists, but is not a private directory of the server's account. Remove it.
    #[error("{} is not a private directory of the server's account; remove it", .dir.display())]
    UnsafeSocketDir {
        /// The directory.
        dir: PathBuf,
    },
    /// The data directory exists, but holds no cluster. Move it away.
    #[error("{} holds no PostgreSQL cluster; move it away", .dir.display())]
    NotACluster {
        /// The directory.
        dir: PathBuf,
    },
    /// `initdb` failed.
    #[error("initdb failed ({status}): {output}")]
    InitFailed {
        /// Its exit status.
        status: String,
        /// The last lines of its output.
        output: String,
    },
    /// The server ended during its start.
    #[error("PostgreSQL ended while starting ({status}); its log ends: {log_tail}")]
    StartFailed {
        /// Its exit status, as far as known.
        status: String,
        /// The last lines of its log.
        log_tail: String,
    },
    /// The server runs, but did not accept connections in time. It is left running; another start waits for it again.
    #[error("PostgreSQL does not accept connections after {waited:?}; its log ends: {log_tail}")]
    StartTimeout {
        /// How long the start waited.
        waited: Duration,
        /// The last lines of its log.
        log_tail: String,
    },
    /// The server got the signal to stop, but did not end in time.
    #[error("PostgreSQL (pid {pid}) has not stopped after {waited:?}")]
    StopTimeout {
        /// The postmaster's process id.
        pid: i32,
        /// How long the stop waited.
        waited: Duration,
    },
    /// [`Cluster::stop`](crate::Cluster::stop) was called before or during the start.
    #[error("the start of PostgreSQL was cancelled, because PostgreSQL is to be stopped")]
    Cancelled,
    /// The server refused a log-in or a statement.
    #[error("PostgreSQL refused: {message} ({sqlstate})")]
    Refused {
        /// SQLSTATE, five characters.
        sqlstate: String,
        /// The server's message.
        message: String,
    },
    /// The connection to the server failed.
    #[error(transparent)]
    Client(Box<forebay_pgwire::Error>),
    /// A command of the operating system or of PostgreSQL failed.
    #[error("{command} failed: {output}")]
    Command {
        /// The command's name.
        command: &'static str,
        /// What it wrote to standard error.
        output: String,
    },
    /// An operation on a file, socket or process failed.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// The operation, such as `opening`.
        doing: &'static str,
        /// The file, socket or process.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl ClusterError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }

    pub(crate) fn client(error: forebay_pgwire::Error) -> Self {
        match error {
            forebay_pgwire::Error::Server(error) => {
                Self::Refused { sqlstate: error.sqlstate.as_str().to_owned(), message: error.message.clone() }
            }
            error => Self::Client(Box::new(error)),
        }
    }
}

/// Adds the operation and its object to an [`io::Error`].
pub(crate) trait IoContext<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, ClusterError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, ClusterError> {
        self.map_err(|source| ClusterError::io(doing, path, source))
    }
}

fn joined(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
}
