//! Every error of the client, each telling what the operator can do next.

mod config;
mod tls;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use config::ConfigError;
pub use tls::{CertificateProblem, TlsError};

use crate::core::Backend;
use crate::db_error::DbError;
use crate::options::TargetSession;
use crate::sqlstate::SqlState;

/// What went wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The settings cannot work. Next step: mend them.
    Config(ConfigError),
    /// No connection could be made. Next step: look whether the server runs there, and the network between.
    Connect {
        /// The address last tried.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection is not encrypted as it has to be. Next step: mend the certificates, or see who is between.
    Tls(TlsError),
    /// The server is there, and not of the kind that was wanted. Next step: wait, or name the one that is.
    NotWanted {
        /// The server's address.
        address: String,
        /// The kind wanted.
        wanted: TargetSession,
    },
    /// An open connection was lost. Next step: connect again; whether a COMMIT under way took effect is unknown.
    Io {
        /// What was under way.
        during: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The deadline passed. The connection is gone; the server may go on with the statement for a while. Next step:
    /// connect again, and look what the server waits for.
    Timeout {
        /// What was under way.
        during: &'static str,
        /// The time it was given.
        after: Duration,
    },
    /// The server refused. Next step: by its SQLSTATE.
    Server(Box<DbError>),
    /// The log-in failed on our side. Next step: mend the password, or the server's `pg_hba.conf`.
    Auth(AuthError),
    /// The server said what the protocol does not allow. Next step: look what is between us and PostgreSQL.
    Protocol(ProtocolError),
    /// This client was called in a way that cannot work; nothing was sent. Next step: report the bug.
    Usage {
        /// What was wrong.
        what: String,
    },
    /// A column is not what the caller took it for. Next step: report the bug, or look for a changed schema.
    Column(ColumnError),
    /// An earlier failure closed the connection. Next step: connect again.
    Closed,
}

impl Error {
    /// The server's SQLSTATE, if the server said one.
    pub fn sqlstate(&self) -> Option<SqlState> {
        self.db_error().map(|error| error.sqlstate)
    }

    /// What the server said, if it was the server.
    pub fn db_error(&self) -> Option<&DbError> {
        match self {
            Self::Server(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the connection is of no more use after this error.
    pub fn ends_connection(&self) -> bool {
        match self {
            Self::Config(_) | Self::Usage { .. } | Self::Column(_) => false,
            Self::Server(error) => error.severity.ends_session(),
            Self::Connect { .. }
            | Self::Tls(_)
            | Self::NotWanted { .. }
            | Self::Io { .. }
            | Self::Timeout { .. }
            | Self::Auth(_)
            | Self::Protocol(_)
            | Self::Closed => true,
        }
    }

    /// The server closed the connection without a word.
    pub(crate) fn end_of_stream(during: &'static str) -> Self {
        let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection");
        Self::Io { during, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "PostgreSQL settings: {error}"),
            Self::Connect { address, source } => write!(f, "cannot connect to PostgreSQL at {address}: {source}"),
            Self::Tls(error) => write!(f, "TLS to PostgreSQL: {error}"),
            Self::NotWanted { address, wanted } => {
                write!(f, "PostgreSQL at {address} is not what target_session_attrs={wanted} asks for")
            }
            Self::Io { during, source } => write!(f, "connection to PostgreSQL lost during {during}: {source}"),
            Self::Timeout { during, after } => write!(f, "PostgreSQL: {during} took longer than {after:?}"),
            Self::Server(error) => write!(f, "PostgreSQL: {error}"),
            Self::Auth(error) => write!(f, "PostgreSQL log-in: {error}"),
            Self::Protocol(error) => write!(f, "PostgreSQL protocol: {error}"),
            Self::Usage { what } => write!(f, "PostgreSQL client misused: {what}"),
            Self::Column(error) => write!(f, "PostgreSQL result: {error}"),
            Self::Closed => f.write_str("the connection to PostgreSQL was closed by an earlier failure"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Connect { source, .. } | Self::Io { source, .. } => Some(source),
            Self::Server(error) => Some(error),
            Self::Tls(error) => Some(error),
            Self::Auth(error) => Some(error),
            Self::Protocol(error) => Some(error),
            Self::Column(error) => Some(error),
            Self::Timeout { .. } | Self::NotWanted { .. } | Self::Usage { .. } | Self::Closed => None,
        }
    }
}

/// A log-in that failed on our side.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthError {
    /// The server wants a password and none is set.
    PasswordMissing,
    /// The same, and there is a file of passwords that could not be used.
    PassFileIgnored(PassFileWarning),
    /// The server wants the password as it is, over a connection that everybody between can read. It was not sent.
    CleartextInTheOpen,
    /// `channel_binding=require`, and the server does not bind, or its certificate cannot be bound to.
    NotBound,
    /// The server wants a method this client does not have.
    UnsupportedMethod {
        /// The method.
        method: String,
    },
    /// The server's side of SCRAM cannot be followed.
    Scram {
        /// Why.
        reason: String,
    },
    /// The server did not prove that it knows the password: it may be an impostor.
    ServerNotProven,
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PasswordMissing => f.write_str("the server wants a password and none is set"),
            Self::PassFileIgnored(warning) => write!(f, "the server wants a password and none is set; {warning}"),
            Self::CleartextInTheOpen => f.write_str(
                "the server wants the password in clear over a connection that is not encrypted; it was not sent. Use \
                 sslmode=verify-full, or scram-sha-256 in pg_hba.conf",
            ),
            Self::NotBound => f.write_str(
                "channel_binding=require, and the server does not log us in by SCRAM bound to its certificate",
            ),
            Self::UnsupportedMethod { method } => {
                write!(f, "the server wants {method}; this client has password, md5 and scram-sha-256")
            }
            Self::Scram { reason } => write!(f, "SCRAM-SHA-256: {reason}"),
            Self::ServerNotProven => {
                f.write_str("the server did not prove that it knows the password; it may be an impostor")
            }
        }
    }
}

impl std::error::Error for AuthError {}

/// What the protocol does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A message's length is impossible, or above the bound.
    MessageLength {
        /// The message's tag.
        tag: u8,
        /// Its length as declared, header included.
        length_bytes: usize,
        /// The bound.
        max_bytes: usize,
    },
    /// A message's content is not what its tag promises.
    Malformed {
        /// The message's tag.
        tag: u8,
        /// What is wrong with it.
        reason: String,
    },
    /// A sound message at the wrong time.
    Unexpected {
        /// Its name.
        message: &'static str,
        /// What was under way.
        during: &'static str,
    },
    /// A row with another number of values than columns.
    RowWidth {
        /// Values.
        values: usize,
        /// Columns.
        columns: usize,
    },
    /// A statement began a COPY outside of `copy_in`. The exchange cannot be mended, so the connection is given up.
    CopyNotAsked,
}

impl ProtocolError {
    pub(crate) fn unexpected(message: &Backend, during: &'static str) -> Self {
        Self::Unexpected { message: message.name(), during }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MessageLength { tag, length_bytes, max_bytes } => write!(
                f,
                "a message '{}' of {length_bytes} bytes (at most {max_bytes}); is this a PostgreSQL server?",
                tag.escape_ascii()
            ),
            Self::Malformed { tag, reason } => write!(f, "malformed message '{}': {reason}", tag.escape_ascii()),
            Self::Unexpected { message, during } => write!(f, "unexpected {message} during {during}"),
            Self::RowWidth { values, columns } => write!(f, "a row of {values} values under {columns} columns"),
            Self::CopyNotAsked => f.write_str("a statement began a COPY outside of copy_in"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// A column that is not what the caller took it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnError {
    /// Its place, from 0.
    pub index: usize,
    /// What is wrong.
    pub problem: ColumnProblem,
}

/// What is wrong with a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnProblem {
    /// The row has no such column.
    Absent,
    /// The value, or an element of the array, is NULL and the caller did not allow for it.
    Null,
    /// The type is another one.
    WrongType {
        /// The column's type.
        type_oid: u32,
    },
    /// The value is text, as of a simple query, and was asked for in binary.
    NotBinary,
    /// The bytes are not a value of the type.
    Malformed,
}

impl fmt::Display for ColumnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.index;
        match self.problem {
            ColumnProblem::Absent => write!(f, "column {index}: no such column"),
            ColumnProblem::Null => write!(f, "column {index}: unexpected NULL"),
            ColumnProblem::WrongType { type_oid } => write!(f, "column {index}: unexpected type (oid {type_oid})"),
            ColumnProblem::NotBinary => write!(f, "column {index}: a text value, as of a simple query"),
            ColumnProblem::Malformed => write!(f, "column {index}: malformed value"),
        }
    }
}

impl std::error::Error for ColumnError {}

/// A file of passwords that was not used, as libpq would not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PassFileWarning {
    /// Others than its owner may read it.
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is a directory or something else that is not a file.
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// It is there and cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

impl fmt::Display for PassFileWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permissions { path, mode } => {
                let path = path.display();
                write!(f, "{path} is ignored: others may read it (mode {mode:04o}); chmod 0600 {path}")
            }
            Self::NotAFile { path } => write!(f, "{} is ignored: it is not a plain file", path.display()),
            Self::Unreadable { path, reason } => write!(f, "{} is ignored: {reason}", path.display()),
        }
    }
}

impl From<TlsError> for Error {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<AuthError> for Error {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl From<ColumnError> for Error {
    fn from(error: ColumnError) -> Self {
        Self::Column(error)
    }
}

/// Maps an encoding failure of `postgres-protocol` (a NUL in a string, a length beyond 31 bits).
pub(crate) fn usage(subject: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::Usage { what: format!("{subject}: {error}") }
}
