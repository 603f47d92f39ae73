//! The rules of fields. They are public, since names in a path or a header have the same rules.

use super::{
    MAX_BUFFER_MAX, MAX_BUFFER_MS, MAX_LABEL_BYTES, MAX_PARTITION_BYTES, MAX_QUEUE_BYTES, MAX_TRANSACTION_ID_CHARS,
};
use uuid::Uuid;

const EMPTY: &str = "must not be empty";
const NUL: &str = "must not contain U+0000";
const TOO_LONG_BYTES: &str = "must not be longer than 255 bytes";
const TOO_LONG_CHARS: &str = "must not be longer than 255 characters";
const BAD_BUFFER_MS: &str = "must be an integer from 0 to 3600000";
const BAD_BUFFER_MAX: &str = "must be an integer from 1 to 1000000";

// The texts above contain these numbers.
const _: () = assert!(MAX_QUEUE_BYTES == 255 && MAX_PARTITION_BYTES == 255 && MAX_LABEL_BYTES == 255);
const _: () = assert!(MAX_TRANSACTION_ID_CHARS == 255);
const _: () = assert!(MAX_BUFFER_MS == 3_600_000 && MAX_BUFFER_MAX == 1_000_000);

/// Checks a queue's name.
///
/// # Errors
/// The rule that it breaks, as a text for after the field's name.
pub fn check_queue(name: &str) -> Result<(), &'static str> {
    check_bytes(name, 1, MAX_QUEUE_BYTES)
}

/// Checks a partition's name.
///
/// # Errors
/// The rule that it breaks, as a text for after the field's name.
pub fn check_partition(name: &str) -> Result<(), &'static str> {
    check_bytes(name, 1, MAX_PARTITION_BYTES)
}

/// Checks a namespace.
///
/// # Errors
/// The rule that it breaks, as a text for after the field's name.
pub fn check_namespace(name: &str) -> Result<(), &'static str> {
    check_bytes(name, 0, MAX_LABEL_BYTES)
}

/// Checks a task.
///
/// # Errors
/// The rule that it breaks, as a text for after the field's name.
pub fn check_task(name: &str) -> Result<(), &'static str> {
    check_bytes(name, 0, MAX_LABEL_BYTES)
}

/// Checks a transaction id.
///
/// # Errors
/// The rule that it breaks, as a text for after the field's name.
pub fn check_transaction_id(id: &str) -> Result<(), &'static str> {
    if id.is_empty() {
        return Err(EMPTY);
    }
    // An id never has more characters than bytes, so most ids need no counting.
    if id.len() > MAX_TRANSACTION_ID_CHARS && id.chars().count() > MAX_TRANSACTION_ID_CHARS {
        return Err(TOO_LONG_CHARS);
    }
    check_no_nul(id)
}

fn check_bytes(name: &str, min: usize, max: usize) -> Result<(), &'static str> {
    if name.len() < min {
        return Err(EMPTY);
    }
    if name.len() > max {
        return Err(TOO_LONG_BYTES);
    }
    check_no_nul(name)
}

/// PostgreSQL's text cannot hold U+0000. The scanner refuses it in JSON, but a path may have `%00`.
fn check_no_nul(name: &str) -> Result<(), &'static str> {
    if memchr::memchr(0, name.as_bytes()).is_some() { Err(NUL) } else { Ok(()) }
}

/// Reads `bufferMs`, in milliseconds, from a JSON number or a query parameter.
///
/// # Errors
/// The rule that it breaks, as a text for after the field's name.
pub fn parse_buffer_ms(number: &str) -> Result<u32, &'static str> {
    parse_integer(number).filter(|value| *value <= MAX_BUFFER_MS).ok_or(BAD_BUFFER_MS)
}

/// Reads `bufferMax` from a JSON number or a query parameter. 0 is read as 1: not to wait for other messages.
///
/// # Errors
/// The rule that it breaks, as a text for after the field's name.
pub fn parse_buffer_max(number: &str) -> Result<u32, &'static str> {
    parse_integer(number).filter(|value| *value <= MAX_BUFFER_MAX).map(|value| value.max(1)).ok_or(BAD_BUFFER_MAX)
}

/// Reads digits, and a fraction of zeros only: JSON has no integers, and programs write a float as `100.0`.
fn parse_integer(number: &str) -> Option<u32> {
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = number.split_at(digits);
    let is_whole = match rest.strip_prefix('.') {
        Some(zeros) => !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0'),
        None => rest.is_empty(),
    };
    if is_whole { digits.parse().ok() } else { None }
}

/// Reads a UUID as PostgreSQL's `uuid_in` does: 32 hexadecimal digits in either case, with optional hyphens after groups of four
/// and optional braces around them.
pub(super) fn parse_uuid(text: &str) -> Option<Uuid> {
    if let Ok(uuid) = Uuid::try_parse_ascii(text.as_bytes())
        && text.len() == uuid::fmt::Hyphenated::LENGTH
    {
        return Some(uuid);
    }
    let inner = text.strip_prefix('{').map_or(Some(text), |rest| rest.strip_suffix('}'))?;
    let mut digits = [0; 32];
    let mut count = 0;
    let mut hyphen_allowed = false;
    for byte in inner.bytes() {
        if byte == b'-' && hyphen_allowed {
            hyphen_allowed = false;
            continue;
        }
        *digits.get_mut(count)? = byte;
        count += 1;
        hyphen_allowed = count % 4 == 0 && count < digits.len();
    }
    if count < digits.len() {
        return None;
    }
    Uuid::try_parse_ascii(&digits).ok()
}
