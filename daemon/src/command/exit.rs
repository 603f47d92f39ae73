//! Exit codes.

/// An end with a reason. The codes are the contract's.
#[derive(Debug)]
pub struct Exit {
    /// Exit code.
    pub code: u8,
    /// For standard error; empty: all is said already.
    pub message: String,
}

impl Exit {
    /// 1: what was looked at is not as it should be.
    #[must_use]
    pub fn findings() -> Self {
        Self { code: 1, message: String::new() }
    }

    /// 2: usage or configuration.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// 3: storage failed, or cannot be trusted.
    #[must_use]
    pub fn storage(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// 4: the data directory is in use.
    #[must_use]
    pub fn in_use(message: impl Into<String>) -> Self {
        Self { code: 4, message: message.into() }
    }

    /// 5: PostgreSQL refused for good.
    #[must_use]
    pub fn postgres(message: impl Into<String>) -> Self {
        Self { code: 5, message: message.into() }
    }
}
