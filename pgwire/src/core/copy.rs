//! COPY FROM STDIN over the simple query protocol.
//!
//! The simple protocol is used because it recovers by itself: after an error the server says ReadyForQuery at once and
//! ignores what of the COPY is still on its way, so nothing has to be sent to get back in step.

use super::message::Backend;
use super::{Exchange, Progress};
use crate::db_error::DbError;
use crate::error::ProtocolError;

const DURING: &str = "COPY";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitResponse,
    Streaming,
    AwaitComplete,
    AwaitReady,
}

/// A COPY FROM STDIN under way.
#[derive(Debug)]
pub struct CopyInExchange {
    state: State,
    rows: u64,
    error: Option<Box<DbError>>,
}

impl Default for CopyInExchange {
    fn default() -> Self {
        Self::new()
    }
}

impl CopyInExchange {
    /// A COPY whose Query message was sent.
    pub fn new() -> Self {
        Self { state: State::AwaitResponse, rows: 0, error: None }
    }

    /// Whether the server waits for CopyData.
    pub fn is_streaming(&self) -> bool {
        self.state == State::Streaming
    }

    /// To be called when CopyDone or CopyFail was sent.
    pub fn ended(&mut self) {
        self.state = State::AwaitComplete;
    }

    /// Rows the server counted.
    ///
    /// # Errors
    /// The error that ended the COPY.
    pub fn into_rows(self) -> Result<u64, Box<DbError>> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.rows),
        }
    }

    /// Takes the error that ended the COPY.
    pub fn take_error(&mut self) -> Option<Box<DbError>> {
        self.error.take()
    }
}

impl Exchange for CopyInExchange {
    fn on_message(&mut self, message: Backend) -> Result<Progress, ProtocolError> {
        match (self.state, message) {
            (State::AwaitResponse, Backend::CopyInResponse) => {
                self.state = State::Streaming;
                Ok(Progress::CopyIn)
            }
            (State::AwaitReady, Backend::ReadyForQuery(status)) => Ok(Progress::Ready(status)),
            (State::AwaitResponse | State::Streaming | State::AwaitComplete, Backend::Error(error)) => {
                self.error = Some(error);
                self.state = State::AwaitReady;
                Ok(Progress::More)
            }
            (State::AwaitComplete, Backend::CommandComplete(tag)) => {
                self.rows = tag.rows();
                self.state = State::AwaitReady;
                Ok(Progress::More)
            }
            // A COPY's count is worth nothing if an error follows, at the implicit commit (a deferred constraint).
            (State::AwaitReady, Backend::Error(error)) if self.error.is_none() => {
                self.error = Some(error);
                Ok(Progress::More)
            }
            (_, other) => Err(ProtocolError::unexpected(&other, DURING)),
        }
    }
}
