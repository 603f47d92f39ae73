//! Settings that cannot work.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::options::SslMode;

/// Settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The address does not begin with `postgres://` or `postgresql://`.
    Scheme,
    /// A parameter this client does not know.
    UnknownParameter {
        /// Its name.
        name: String,
    },
    /// A variable of libpq's that this client cannot heed, and which would change where it connects or whom it trusts.
    VariableNotSupported {
        /// Its name.
        name: &'static str,
    },
    /// A value that cannot be read.
    Value {
        /// The parameter or variable it is the value of.
        name: &'static str,
        /// Why it cannot be read.
        reason: &'static str,
    },
    /// A file of certificates or keys that cannot be used.
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The mode asks for a certificate to be verified, and there is none to verify it by.
    RootCertMissing {
        /// The mode.
        mode: SslMode,
    },
    /// No user was named.
    UserMissing,
}

impl ConfigError {
    pub(crate) fn file(path: &Path, reason: impl ToString) -> Self {
        Self::File { path: path.to_owned(), reason: reason.to_string() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("the address must begin with postgres:// or postgresql://"),
            Self::UnknownParameter { name } => write!(f, "unknown parameter '{name}'"),
            Self::VariableNotSupported { name } => {
                write!(f, "{name} is set, which this client does not read; unset it and name the server in full")
            }
            Self::Value { name, reason } => write!(f, "{name}: {reason}"),
            Self::File { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::RootCertMissing { mode } => write!(
                f,
                "sslmode={mode} needs a root certificate: name its file with sslrootcert, or the system's with \
                 sslrootcert=system"
            ),
            Self::UserMissing => f.write_str("no user is named; write postgres://USER@…"),
        }
    }
}

impl std::error::Error for ConfigError {}
