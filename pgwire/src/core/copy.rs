//! COPY FROM STDIN over the simple query protocol.
//!
//! The simple protocol is used because it recovers on its own. After an error the server sends ReadyForQuery at once
//! and ignores the COPY data that is still to come, so the client has nothing to send.

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

/// A COPY FROM STDIN in progress.
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
    /// A COPY whose Query was sent.
    pub fn new() -> Self {
        Self { state: State::AwaitResponse, rows: 0, error: None }
    }

    /// Whether the server is waiting for CopyData.
    pub fn is_streaming(&self) -> bool {
        self.state == State::Streaming
    }

    /// Notes that the data ends here: CopyDone or CopyFail is sent next.
    ///
    /// # Panics
    /// If the server is not waiting for CopyData.
    pub fn data_ended(&mut self) {
        assert!(self.is_streaming(), "the data of a COPY ends once, after the server has asked for it");
        self.state = State::AwaitComplete;
    }

    /// The number of rows that the server has taken.
    ///
    /// # Errors
    /// The error that ended the COPY.
    pub fn into_rows(self) -> Result<u64, Box<DbError>> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.rows),
        }
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
            // The implicit commit may fail after the COPY is complete, for example by a deferred constraint.
            (State::AwaitReady, Backend::Error(error)) if self.error.is_none() => {
                self.error = Some(error);
                Ok(Progress::More)
            }
            (_, other) => Err(ProtocolError::unexpected(&other, DURING)),
        }
    }
}
