//! The log's own io_uring rings: the one module of this crate with unsafe code.
//!
//! Whoever starts an operation gives its buffers to the ring, which keeps them until the completion was taken, also when the
//! ring is dropped meanwhile. So no caller can free or change what the kernel still reads or writes.
//!
//! ```text
//!   write   a lane's ring: one write or sync in flight
//!   read    a segment read in order: pieces ahead of who reads
//! ```
#![allow(unsafe_code)]

mod read;
mod write;

pub(crate) use read::ReadAhead;
pub use write::Ring;
