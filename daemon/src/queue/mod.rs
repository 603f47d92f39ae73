//! The queue: messages that are in PostgreSQL go to consumers, each group on its own, each partition in the order of its numbers.
//!
//! ```text
//!   pops, acks ──► Dispatcher ──► Batch, one under way for each connection ──► PostgreSQL
//!   commits, feed ──►   │    ◄── BatchAnswer ◄───────────────────────────────────┘
//!                       └──► Effect: messages, empty answers, outcomes of acks
//! ```
//!
//! It follows the rule of the log: *while a statement is under way, collect; when it has returned, send all that waits as the
//! next one.* The dispatcher is a state machine without I/O. Whoever drives it sends its batches and tells it the time.

mod acks;
mod answers;
mod batch;
mod configure;
mod directory;
mod dispatcher;
mod leases;
mod names;
mod outbox;
mod pair;
mod ranges;
pub mod request;
mod service;
mod sizes;
mod statements;
mod store;
mod stored_message;
pub mod thread;

pub use batch::{AckPair, Batch, BatchAnswer, LookRow, Message, Outcome, PairId, ReadRange, TakePair, TakeRow, Then};
pub use dispatcher::{Ack, AckId, Dispatcher, Effect, Pop, PopId, Settings};
pub use ranges::{advance, covers};
pub use store::CursorStore;
pub use stored_message::StoredMessage;
