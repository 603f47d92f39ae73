//! The drain: everything durable in the log goes into PostgreSQL in bulk, exactly once and in order.
//!
//! ```text
//!   thread   runs the crew: one drainer, or several
//!   signal ──> drainer ── source    what a round takes, in order of numbers
//!                │          ├─ snapshot   in which order it looks
//!                │          └─ lane       one lane of it, and what is left out      piece   its memory
//!                │     ── batch     the round's records by partition                 rows    as COPY takes them
//!                └── session ── round        one transaction                         class   what an error asks for
//!                       ├─ connection   also the channels' and the commands'
//!                       ├─ predecessor, statements, partitions, dead_letters
//!                       ├─ plan         how many drainers
//!                       └─ checkpoint ── judgement   does it fit the log?    database, remembered   which one, how far
//! ```
//!
//! Exactly once: the checkpoint is moved in the transaction that holds the rows, and only from the value that is known.
//! When a connection is lost while COMMIT is on its way, the next session reads the checkpoint, and knows.

mod backend;
pub mod batch;
pub mod checkpoint;
pub mod crew;
mod dead_letters;
mod drainer;
pub mod judgement;
pub mod lane;
mod partitions;
pub mod piece;
mod plan;
pub mod round;
mod rows;
pub mod session;
pub mod snapshot;
pub mod source;
mod statements;
mod thread;

pub use thread::{DrainFailed, DrainThread};
