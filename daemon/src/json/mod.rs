//! JSON on the way of a push: bytes in, typed results out. It builds no tree and does no I/O.
//!
//! * [`validate`] checks that a body is one JSON document that PostgreSQL's `jsonb` can hold, in one pass, without recursion and
//!   without allocation.
//! * [`push::parse`] splits a push request into items. Each payload is a slice of the body.
//! * [`ndjson::lines`] splits a body of one document a line.
//! * [`json_string`] writes a string as JSON.
//!
//! Promised: `validate` accepts a document exactly if `::jsonb` does, except for the limits below. They are stricter than jsonb's
//! on purpose: a document that is cheap to push must be cheap to read.
//!
//! Refused: everything that RFC 8259 does not allow, a byte order mark, and what jsonb cannot hold: `\u0000`, lone surrogates and
//! invalid UTF-8.
//!
//! ```text
//! validate   push::parse   json_string      what the daemon calls
//!      \         /   \        |
//!       scan::Scanner  \      |             grammar: values, strings, members
//!        /     |    \   \     |
//!   number   error  text: escapes, wide scanning
//! ```

mod error;
pub mod ndjson;
mod number;
pub mod push;
mod scan;
mod text;
mod validate;

#[cfg(test)]
mod tests;

pub use error::{JsonError, JsonErrorKind};
pub use text::json_string;
pub use validate::validate;

/// Most arrays and objects inside each other. PostgreSQL's own limit is its stack, near 13,000. 512 is far more than people write,
/// and the scanner needs only 64 bytes for it.
pub const MAX_DEPTH: usize = 512;

/// Most digits of a number when written out without an exponent: those before the decimal point (the 0 of `0.5` is one) and those
/// after it, as `numeric` prints them. jsonb's own limit does not protect a reader: `1e131071` has 8 bytes when it is pushed and
/// 128 KiB whenever it is read.
pub const MAX_NUMBER_DIGITS: u64 = 1_000;

/// Largest exponent of either sign. It matters for zero only (`0e9` is `0`): PostgreSQL refuses larger exponents even of zero.
pub const MAX_EXPONENT: u64 = i32::MAX as u64 / 2 - 1;

const _: () = assert!(MAX_DEPTH.is_multiple_of(u64::BITS as usize));
const _: () = assert!(MAX_EXPONENT > MAX_NUMBER_DIGITS);
