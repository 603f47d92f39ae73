//! Commands to a running daemon, over the unix socket `control.sock` in its data directory.
//!
//! ```text
//!   protocol   one line of JSON each way        socket   where it is, whatever the length of the path
//!   server     the daemon's side                client   the command line's side
//! ```
//!
//! Only the daemon's own account and root reach the socket. A connection carries one request. What goes wrong on it concerns
//! nobody else.

mod client;
mod protocol;
mod server;
mod socket;

pub use client::{ControlError, ask};
pub use protocol::{ControlReply, ControlRequest, DecidedLane};
pub use server::{Commands, ControlServer};
