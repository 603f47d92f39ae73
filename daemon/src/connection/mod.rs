//! Connections: from a socket to requests, and from replies back to the socket.
//!
//! ```text
//!   run ─────► listener ─► serve ─► conversation ─► requests     a pass over the buffer: bytes in, replies out, no I/O
//!     │                     │            ├───────► body, stream what does not fit in a buffer
//!     │                     └► parked    └───────► exchange     reads, writes, memory ─► rt
//!     └► sweep ─► registry ──────────────────────► watch        phases, timeouts, pace
//!          └────► relief: whose memory is taken back while others wait for some
//! ```
//!
//! All complete requests at hand are taken in one pass and answered with one write, in their order. An idle connection has
//! neither a buffer nor a conversation. A connection whose reply waits for PostgreSQL keeps the reply and little else.

mod body;
mod conversation;
mod exchange;
pub mod listener;
mod parked;
mod registry;
mod relief;
mod requests;
mod run;
mod serve;
mod server;
mod stream;
mod sweep;
mod watch;

pub use run::run;
pub use server::{CoreFailed, ServerStart};
