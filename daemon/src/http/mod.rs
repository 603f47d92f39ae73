//! HTTP/1.1 as the edge needs it: bytes in, typed results out; no sockets.
//!
//! * [`request::parse`] reads a request's head and says how its body is framed.
//! * [`incoming::Incoming`] takes a body as it comes: [`chunked::Decoder`] its chunks, [`coding::Decoder`] its coding.
//! * [`path`] cuts and decodes what a target holds.
//! * [`response::Response`] and [`Refusal::write_to`] write answers.
//!
//! Promised: where one request ends and the next begins is never guessed. Refused, with the connection closed, is all
//! that two parsers may read differently (RFC 9112 section 11.2): two lengths, a length beside chunks, a transfer coding
//! that is not `chunked`, folded header lines, lines that end without CR, white space before a colon, no `Host` or two.
//!
//! ```text
//!                              incoming
//!                              /      \
//! request ── head      path  chunked  coding ── gzip      response
//!       \      |         |       |       |               /
//!        `---------- refusal -----------------------'   what is wrong, as an answer
//! ```

pub mod chunked;
pub mod coding;
pub mod cors;
pub mod date;
mod error_code;
mod gzip;
pub mod incoming;
mod manner;
pub mod path;
mod refusal;
pub mod request;
pub mod response;

#[cfg(test)]
mod tests;

pub use error_code::{ErrorCode, Retry};
pub use manner::{Manner, Manner as ResponseOptions};
pub use refusal::Refusal;
pub use request::{Body, Head, Method, Methods, OwnedHead, Parsed, Version};

/// How many header lines a request may have.
pub const MAX_HEADERS: usize = 100;
/// How many bytes a head may have, empty lines before it and the one after it included.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How many bytes a request's target may have.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;
/// How many bytes the extensions of one body's chunks may have together. Nobody sends any; they are only bounded so that
/// a body of one-byte chunks cannot make the daemon read without end.
pub const MAX_CHUNK_EXTENSION_BYTES: usize = 4 * 1024;
/// How many bytes the trailer after the last chunk may have.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;

const _: () = assert!(MAX_TARGET_BYTES < MAX_HEAD_BYTES);

/// How large a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the head; [`MAX_HEAD_BYTES`].
    pub max_head_bytes: usize,
    /// Bytes of the target; [`MAX_TARGET_BYTES`].
    pub max_target_bytes: usize,
    /// Bytes of the body as sent, chunk sizes not counted, compressed if it came so.
    pub max_body_bytes: u64,
}

impl Limits {
    /// The usual limits for heads, and this one for bodies.
    #[must_use]
    pub const fn new(max_body_bytes: u64) -> Self {
        Self { max_head_bytes: MAX_HEAD_BYTES, max_target_bytes: MAX_TARGET_BYTES, max_body_bytes }
    }
}
