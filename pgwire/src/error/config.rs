//! Settings that cannot work.

use std::path::{Path, PathBuf};

use crate::options::SslMode;

/// Why settings cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The URL does not begin with `postgres://` or `postgresql://`.
    #[error("the address must begin with postgres:// or postgresql://")]
    Scheme,
    /// The URL has a parameter that this client does not know.
    #[error("unknown parameter '{name}'")]
    UnknownParameter {
        /// The parameter.
        name: String,
    },
    /// The environment has a libpq variable that this client does not support, and that changes where libpq connects or
    /// whom it trusts.
    #[error("{name} is set, which this client does not read; unset it and name the server in full")]
    VariableNotSupported {
        /// The variable.
        name: &'static str,
    },
    /// A setting has an invalid value.
    #[error("{name}: {reason}")]
    Value {
        /// The parameter or variable.
        name: &'static str,
        /// Why the value is invalid.
        reason: &'static str,
    },
    /// A file of certificates or keys cannot be used.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// The mode requires the server's certificate to be verified, but no root certificate is set.
    #[error(
        "sslmode={mode} needs a root certificate: name its file with sslrootcert, or the system's with \
         sslrootcert=system"
    )]
    RootCertMissing {
        /// The mode.
        mode: SslMode,
    },
    /// No user is set.
    #[error("no user is named; write postgres://USER@…")]
    UserMissing,
}

impl ConfigError {
    pub(crate) fn file(path: &Path, reason: impl ToString) -> Self {
        Self::File { path: path.to_owned(), reason: reason.to_string() }
    }
}
