//! All errors of the client. Each one tells the operator's next step.

mod auth;
mod column;
mod config;
mod protocol;
mod tls;

use std::io;
use std::time::Duration;

pub use auth::{AuthError, PassFileWarning};
pub use column::{ColumnError, ColumnProblem};
pub use config::ConfigError;
pub use protocol::ProtocolError;
pub use tls::{CertificateProblem, TlsError};

use crate::db_error::DbError;
use crate::options::TargetSession;
use crate::sqlstate::SqlState;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings cannot work. Next step: correct them.
    #[error("PostgreSQL settings: {0}")]
    Config(#[from] ConfigError),
    /// No connection could be opened. Next step: check that the server runs at this address, and check the network.
    #[error("cannot connect to PostgreSQL at {address}: {source}")]
    Connect {
        /// The last address tried.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// The connection cannot be encrypted as required. Next step: correct the certificates or the TLS settings, or find
    /// out who intercepts the connection.
    #[error("TLS to PostgreSQL: {0}")]
    Tls(#[from] TlsError),
    /// The server answers, but its session is not of the required kind. Next step: wait for a failover, or name the
    /// right server.
    #[error("PostgreSQL at {address} is not what target_session_attrs={wanted} asks for")]
    TargetSessionMismatch {
        /// The server's address.
        address: String,
        /// The required kind of session.
        wanted: TargetSession,
    },
    /// An open connection was lost. Next step: connect again. Whether a pending COMMIT took effect is unknown.
    #[error("connection to PostgreSQL lost during {during}: {source}")]
    Io {
        /// The operation that was in progress.
        during: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The deadline passed, and the connection was closed. The server may continue to run the statement for a while.
    /// Next step: connect again, and find out what the server is waiting for.
    #[error("PostgreSQL: {during} took longer than {after:?}")]
    Timeout {
        /// The operation that was in progress.
        during: &'static str,
        /// The time that the operation was allowed to take.
        after: Duration,
    },
    /// The server reported an error. The next step depends on its SQLSTATE.
    #[error("PostgreSQL: {0}")]
    Server(#[source] Box<DbError>),
    /// The client could not log in, or refused to. Next step: correct the password, or the server's `pg_hba.conf`.
    #[error("PostgreSQL log-in: {0}")]
    Auth(#[from] AuthError),
    /// The server violated the protocol. Next step: look for a proxy between the client and PostgreSQL.
    #[error("PostgreSQL protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// The caller misused the client, and nothing was sent. Next step: report the bug.
    #[error("PostgreSQL client misused: {what}")]
    Usage {
        /// The mistake.
        what: String,
    },
    /// A column does not have the type that the caller expects. Next step: report the bug, or look for a changed
    /// schema.
    #[error("PostgreSQL result: {0}")]
    Column(#[from] ColumnError),
    /// An earlier failure closed the connection. Next step: connect again.
    #[error("the connection to PostgreSQL was closed by an earlier failure")]
    Closed,
}

impl Error {
    /// The SQLSTATE, if the server reported the error.
    pub fn sqlstate(&self) -> Option<SqlState> {
        self.db_error().map(|error| error.sqlstate)
    }

    /// The server's report, if the server reported the error.
    pub fn db_error(&self) -> Option<&DbError> {
        match self {
            Self::Server(error) => Some(error),
            _ => None,
        }
    }

    /// Whether this error closes the connection.
    pub fn ends_connection(&self) -> bool {
        match self {
            Self::Config(_) | Self::Usage { .. } | Self::Column(_) => false,
            Self::Server(error) => error.severity.ends_session(),
            Self::Connect { .. }
            | Self::Tls(_)
            | Self::TargetSessionMismatch { .. }
            | Self::Io { .. }
            | Self::Timeout { .. }
            | Self::Auth(_)
            | Self::Protocol(_)
            | Self::Closed => true,
        }
    }

    /// The server closed the connection without reporting an error.
    pub(crate) fn end_of_stream(during: &'static str) -> Self {
        let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection");
        Self::Io { during, source }
    }
}

/// Maps an encoding failure of `postgres-protocol`: a NUL in a string, or a length of more than 31 bits.
pub(crate) fn usage(subject: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::Usage { what: format!("{subject}: {error}") }
}
