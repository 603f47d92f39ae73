//! Log-ins that fail on the client's side.

use std::path::PathBuf;

/// Why the client could not log in, or refused to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The server asks for a password, and none is set.
    #[error("the server wants a password and none is set")]
    PasswordMissing,
    /// The server asks for a password, none is set, and the password file could not be used.
    #[error("the server wants a password and none is set; {0}")]
    PassFileIgnored(PassFileWarning),
    /// The server asks for the password in clear over a connection that is not encrypted. The password was not sent.
    #[error(
        "the server wants the password in clear over a connection that is not encrypted; it was not sent. Use \
         sslmode=verify-full, or scram-sha-256 in pg_hba.conf"
    )]
    CleartextInTheOpen,
    /// `channel_binding=require` is set, but the server does not offer channel binding, or its certificate does not
    /// allow it.
    #[error("channel_binding=require, and the server does not log us in by SCRAM bound to its certificate")]
    NotBound,
    /// The client does not implement the authentication method that the server asks for.
    #[error("the server wants {method}; this client has password, md5 and scram-sha-256")]
    UnsupportedMethod {
        /// The method.
        method: String,
    },
    /// A SCRAM message of the server is invalid.
    #[error("SCRAM-SHA-256: {reason}")]
    Scram {
        /// Why it is invalid.
        reason: String,
    },
    /// The server did not prove that it knows the password. It may be an impostor.
    #[error("the server did not prove that it knows the password; it may be an impostor")]
    ServerNotProven,
}

/// Why a password file was ignored. libpq ignores it for the same reasons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PassFileWarning {
    /// Users other than its owner may access it.
    #[error("{path} is ignored: others may read it (mode {mode:04o}); chmod 0600 {path}", path = .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The path names a directory or another thing that is not a regular file.
    #[error("{} is ignored: it is not a plain file", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file exists but cannot be read.
    #[error("{} is ignored: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
}
