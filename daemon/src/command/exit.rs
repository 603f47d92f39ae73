//! Exit codes.

use crate::{
    config::ConfigError, datadir::DataDirError, drain::checkpoint::decision::DecisionError, logging::LoggingError,
    panics,
};

/// The end of a command that failed. The codes are part of the contract.
#[derive(Debug)]
pub struct Exit {
    /// Exit code.
    pub code: u8,
    /// Message for standard error; empty if standard output says all.
    pub message: String,
}

impl Exit {
    /// 1: the command found something that is not as it should be.
    #[must_use]
    pub fn findings() -> Self {
        Self { code: 1, message: String::new() }
    }

    /// 2: usage or configuration.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// 3: storage failed, or is damaged.
    #[must_use]
    pub fn storage(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// 4: the data directory is in use.
    #[must_use]
    pub fn in_use(message: impl Into<String>) -> Self {
        Self { code: 4, message: message.into() }
    }

    /// 6: a thread panicked.
    #[must_use]
    pub fn panicked(message: impl Into<String>) -> Self {
        Self { code: panics::EXIT_CODE, message: message.into() }
    }

    /// 5: PostgreSQL refused, or cannot be reached.
    #[must_use]
    pub fn postgres(message: impl Into<String>) -> Self {
        Self { code: 5, message: message.into() }
    }
}

impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<LoggingError> for Exit {
    fn from(error: LoggingError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<DecisionError> for Exit {
    fn from(error: DecisionError) -> Self {
        Self { code: error.exit_code(), message: error.to_string() }
    }
}

impl From<DataDirError> for Exit {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::InUse { .. } => Self::in_use(error.to_string()),
            DataDirError::Io { .. } => Self::storage(error.to_string()),
            _ => Self::usage(error.to_string()),
        }
    }
}
