//! HTTP/1.1 for a server, without I/O: bytes in, typed results out.
//!
//! * [`request::parse`] reads a request's head, which says how the body is framed.
//! * [`incoming::Incoming`] decodes a body as it arrives: [`chunked::Decoder`] its chunks, [`coding::Decoder`] its coding. It
//!   appends to memory that was granted, and to no other. [`incoming::Unwanted`] passes over a body that nobody uses.
//! * [`path`] splits and decodes paths and queries. [`host::Host`] is the host of a request or of an origin.
//! * [`response::Response`] and [`Refusal::write_to`] write answers. [`ErrorCode`] lists all codes of refusals.
//!
//! Promised: it never guesses where one request ends and the next begins.
//!
//! Refused, with the connection closed: everything that two parsers may read differently (RFC 9112 section 11.2). That is two
//! lengths, a length beside chunks, a transfer coding other than `chunked`, folded header lines, lines that end without CR,
//! white space before a colon, and no `Host` or two.
//!
//! ```text
//!                              incoming
//!                              /      \
//! request ── head      path  chunked  coding ── gzip      response
//!       \      |         |       |       |               /
//!        `---------- refusal, error_code -----------'   an error, as an answer
//! ```

pub mod chunked;
pub mod coding;
pub mod cors;
pub mod date;
mod error_code;
mod gzip;
pub mod host;
pub mod incoming;
pub mod path;
mod refusal;
pub mod request;
pub mod response;
mod response_options;
pub mod sink;

#[cfg(test)]
mod tests;

pub use error_code::{ErrorCode, Retry};
pub use refusal::Refusal;
pub use request::{Body, FetchSite, Head, Method, Methods, OwnedHead, Parsed, Version};
pub use response_options::ResponseOptions;

use crate::limits::CONNECTION_FREE_BYTES;

/// Most header lines of a request.
pub const MAX_HEADERS: usize = 100;
/// Most bytes of a head, with the empty lines before and after it.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most bytes of a request's target.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;
/// Most bytes of all chunk extensions of one body. Clients do not send any. Without the limit a body of one-byte chunks could
/// make the daemon read without end.
pub const MAX_CHUNK_EXTENSION_BYTES: usize = 4 * 1024;
/// Most bytes of the trailer after the last chunk.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;

const _: () = assert!(MAX_TARGET_BYTES < MAX_HEAD_BYTES);
// A head never needs leave to grow.
const _: () = assert!(MAX_HEAD_BYTES <= CONNECTION_FREE_BYTES);

/// The limits of a request's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the head; [`MAX_HEAD_BYTES`].
    pub max_head_bytes: usize,
    /// Bytes of the target; [`MAX_TARGET_BYTES`].
    pub max_target_bytes: usize,
    /// Bytes of the body as sent, before decoding. Chunk sizes do not count.
    pub max_body_bytes: u64,
}

impl Limits {
    /// The usual limits for heads, and this one for bodies.
    #[must_use]
    pub const fn new(max_body_bytes: u64) -> Self {
        Self { max_head_bytes: MAX_HEAD_BYTES, max_target_bytes: MAX_TARGET_BYTES, max_body_bytes }
    }
}
