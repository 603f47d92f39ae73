//! The protocol without I/O: bytes in, typed messages and effects out.
//!
//! ```text
//!   1 byte ─► ssl_answer (go on under TLS, go on in the open, give up)
//!   bytes ──► ReadBuffer ──► Backend ──► Session (notices, parameters, notifications)
//!                                  └───► Startup | SimpleQuery | Extended | CopyInExchange
//!                                              └──► Progress (go on, send, ready) and a result
//! ```
//!
//! Nothing here touches a socket, a clock or the runtime, so it can be driven by a test or a fuzzer with any bytes.
//!
//! **Invariant:** no input makes it panic, where it is cut changes nothing, and memory stays within [`limits`] plus the
//! result that was asked for. Held by `tests/core_bytes.rs` and the fuzz target `wire`.

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
pub use extended::{Described, Extended, Failure, QueryResult, Step};
pub use message::{Authentication, Backend, CommandTag};
pub use read_buffer::ReadBuffer;
pub use session::{Notification, Session};
pub use simple::{SimpleQuery, StatementResult};
pub use ssl::{SslAnswer, ssl_answer, ssl_request};
pub use startup::{CancelKey, Channel, Credentials, Security, Startup, StartupProgress};

use crate::error::ProtocolError;

/// What a block of statements stands in, as the last ReadyForQuery said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// No transaction is open.
    Idle,
    /// A transaction is open and sound.
    InTransaction,
    /// A transaction is open and has failed: the server refuses everything up to ROLLBACK.
    Failed,
}

/// What the driver has to do after an exchange has taken a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Feed the next message.
    More,
    /// The server waits for CopyData.
    CopyIn,
    /// The exchange is over, and the server waits for the next one.
    Ready(TransactionStatus),
}

/// A request under way: it is fed each message that is not asynchronous, until it is ready.
pub trait Exchange {
    /// Takes the next message of the server.
    ///
    /// # Errors
    /// The message does not belong here: the connection is out of step and of no more use.
    fn on_message(&mut self, message: Backend) -> Result<Progress, ProtocolError>;
}
