//! Violations of the protocol by the server.

use crate::core::Backend;

/// A violation of the protocol by the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A message's length is impossible, or above the limit.
    #[error(
        "a message '{}' of {length_bytes} bytes (at most {max_bytes}); is this a PostgreSQL server?",
        .tag.escape_ascii()
    )]
    MessageLength {
        /// The message's tag.
        tag: u8,
        /// The length in the message's header, header included.
        length_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// A message's content does not have the form that its tag requires.
    #[error("malformed message '{}': {reason}", .tag.escape_ascii())]
    Malformed {
        /// The message's tag.
        tag: u8,
        /// What is wrong with the content.
        reason: String,
    },
    /// A well-formed message that is not allowed at this point.
    #[error("unexpected {message} during {during}")]
    Unexpected {
        /// The message's name.
        message: &'static str,
        /// The operation that was in progress.
        during: &'static str,
    },
    /// A row whose number of values differs from the number of columns.
    #[error("a row of {values} values under {columns} columns")]
    RowWidth {
        /// The number of values.
        values: usize,
        /// The number of columns.
        columns: usize,
    },
    /// A statement started a COPY outside of `copy_in`. There is no way back to a known state, so the connection is
    /// closed.
    #[error("a statement began a COPY outside of copy_in")]
    CopyNotExpected,
}

impl ProtocolError {
    pub(crate) fn unexpected(message: &Backend, during: &'static str) -> Self {
        Self::Unexpected { message: message.name(), during }
    }
}
