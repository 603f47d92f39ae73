//! The protocol without I/O: bytes in, typed messages and effects out.
//!
//! ```text
//!   1 byte ─► ssl_answer (start TLS, continue without TLS, or fail)
//!   bytes ──► ReadBuffer ──► Backend ──► Session (notices, parameters, notifications)
//!                                  └───► Startup | SimpleQuery | Extended | CopyInExchange
//!                                              └──► Progress (more, send, ready) and a result
//! ```
//!
//! Nothing here uses a socket, a clock or the runtime, so that tests and fuzzers can pass in any bytes.
//!
//! **Invariant:** no input causes a panic, it does not matter where the input is cut, and memory stays within
//! [`limits`] plus the requested result. `tests/core_bytes.rs` and the fuzz target `wire` check this.

mod copy;
mod extended;
pub mod limits;
mod message;
mod read_buffer;
mod session;
mod simple;
mod ssl;
mod startup;

pub use copy::CopyInExchange;
pub use extended::{Extended, Failure, QueryResult, StatementDescription, Step};
pub use message::{Authentication, Backend, CommandTag};
pub use read_buffer::ReadBuffer;
pub use session::{Notification, Session};
pub use simple::{SimpleQuery, StatementResult};
pub use ssl::{SslAnswer, ssl_answer, ssl_request};
pub use startup::{CancelKey, Channel, Credentials, Security, Startup, StartupProgress};

use crate::error::ProtocolError;

/// The state of the transaction, as the last ReadyForQuery reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// No transaction is open.
    Idle,
    /// A transaction is open and has not failed.
    InTransaction,
    /// A transaction is open and has failed. The server refuses all statements until ROLLBACK.
    Failed,
}

/// What the driver must do after an exchange has taken a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Pass the next message to the exchange.
    More,
    /// The server is waiting for CopyData.
    CopyIn,
    /// The exchange is complete, and the server is waiting for the next one.
    Ready(TransactionStatus),
}

/// A request in progress. It takes each message that is not asynchronous, until it is ready.
pub trait Exchange {
    /// Takes the server's next message.
    ///
    /// # Errors
    /// The message is not allowed at this point. The state of the connection is then unknown, so it must be closed.
    fn on_message(&mut self, message: Backend) -> Result<Progress, ProtocolError>;
}
