//! JSON as the edge needs it: bytes in, typed results out; no tree is built and no I/O is done.
//!
//! * [`validate`] says whether a body is one JSON document that PostgreSQL's `jsonb` can hold, in one pass, without
//!   recursion and without allocation.
//! * [`push::parse`] cuts a push request into items; each payload is the slice of the body it came as.
//! * [`ndjson::lines`] cuts a body of one document a line.
//! * [`json_string`] writes a string as JSON.
//!
//! Promised: what `validate` accepts, `::jsonb` accepts, and the other way round, save the limits below, which are
//! stricter than jsonb's on purpose (what is cheap to push must stay cheap to read). Refused: everything RFC 8259 does
//! not allow, a byte order mark, and what jsonb cannot hold: `\u0000`, lone surrogates, invalid UTF-8.
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

/// How many arrays and objects may stand inside each other. PostgreSQL's own bound is its stack, near 13,000; 512 is far
/// beyond what people write and keeps the scanner's memory at 64 bytes.
pub const MAX_DEPTH: usize = 512;

/// How many digits a number may need when written out without an exponent: those before the decimal point (the lone 0 of
/// `0.5` is one) and those after it, as `numeric` prints them. `1e131071` is 8 bytes in and 128 KiB whenever it is read,
/// so jsonb's own bound is no bound for a reader.
pub const MAX_NUMBER_DIGITS: u64 = 1_000;

/// The largest exponent, either sign, that is looked at. It only matters for zero (`0e9` is `0`): PostgreSQL refuses
/// exponents beyond this one, whatever stands before them.
pub const MAX_EXPONENT: u64 = i32::MAX as u64 / 2 - 1;

const _: () = assert!(MAX_DEPTH.is_multiple_of(u64::BITS as usize));
const _: () = assert!(MAX_EXPONENT > MAX_NUMBER_DIGITS);
