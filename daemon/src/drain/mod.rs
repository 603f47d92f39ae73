//! The drain: it moves everything that is durable in the log into PostgreSQL, in bulk, exactly once and in order.
//!
//! ```text
//!   thread     the thread that it runs on, and how it ends         start, settings   what it is started with
//!     │
//!   drainers   one loop for each drain connection                  commit_pipeline, retry   what is sent when, without I/O
//!     │
//!   session    a connection, from its checkpoint on                plan   how many drainers there are
//!     │
//!   round      one transaction                                     batch   its records, and what becomes of each
//!     │
//!     ├─ checkpoint   how far PostgreSQL is, whether that fits the log, and what a person decides if not
//!     └─ source       the log, read in the order of its records' numbers
//! ```
//!
//! Where log and database do not fit, delivery pauses: all drainers end, and begin again after a look every few seconds or
//! after a decision, which comes through [`Decisions`].
//!
//! Exactly once: a transaction moves the checkpoint together with its rows, and only from the known value. If the connection is
//! lost while a COMMIT is under way, the next session reads the checkpoint, which tells whether it was carried out.

pub mod checkpoint;
mod decisions;
mod drainers;
mod round;
mod session;
mod settings;
pub mod source;
mod start;
mod thread;

pub use decisions::{Decision, Decisions};
pub use settings::DrainSettings;
pub use start::DrainStart;
pub use thread::DrainThread;
