//! Memory that requests hold: who may have it, and how much. Nothing here does I/O.
//!
//! ```text
//!   Budget     of a core, with shares by size and by token
//!     ▲
//!   Held       what one connection holds ──► Grow     leave to have more
//!     ▲                                        │
//!   Holding    the same as the sweep sees it   └────► Buffer, a decoder, a large answer: cannot grow without
//! ```
//!
//! [`Turns`] are for bodies of which nobody knows how much of it they will need.
//!
//! Each connection has [`CONNECTION_FREE_BYTES`](crate::limits::CONNECTION_FREE_BYTES) that nobody counts: enough for any head,
//! for a small request, and for everything that a client without a token may ask. What it has beyond them is held. A path that
//! needs memory for a request cannot forget that: the types that grow with a request take a [`Grow`], and only [`Held`] makes one.

mod budget;
mod buffer;
mod turns;
mod waiting;

pub use budget::{Budget, Grow, Held, Holding, Overloaded, Shortage};
pub use buffer::Buffer;
pub use turns::{Turn, Turns};
