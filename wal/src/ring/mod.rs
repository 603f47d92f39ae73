//! The log's io_uring rings. This is the crate's only module with unsafe code.
//!
//! An operation's buffers belong to the ring from its start until its completion is taken, even if the ring is dropped in
//! between. So no caller can free or change what the kernel still reads or writes.
//!
//! ```text
//!   write   a lane's ring: one write in flight
//!   read    a segment read in order, ahead of its reader
//! ```
#![allow(unsafe_code)]

mod read;
mod write;

pub(crate) use read::ReadAhead;
pub use write::Ring;
