//! What a target holds: path segments and query parameters.

use super::{ErrorCode, Refusal};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Iterates over the segments of `path`, decoded. The path is cut at its slashes before it is decoded, so `%2F` stays
/// inside its segment; `..` is a segment like any other, since nothing here is a file. `/push/q` has the segments `push`
/// and `q`, `/push/` has `push` and an empty one, and `/` has one that is empty.
///
/// A segment that is not valid (see [`decode`]) comes as the refusal it deserves.
pub fn segments(path: &str) -> impl Iterator<Item = Result<Cow<'_, str>, Refusal>> {
    path.strip_prefix('/').unwrap_or(path).split('/').map(decode)
}

/// Iterates over the parameters of `query` (what follows the question mark), names and values decoded, a plus sign as a
/// space. A parameter without an equals sign has an empty value; empty ones (`a=1&&b=2`) are left out.
pub fn query_pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), Refusal>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode_query(name)?, decode_query(value)?))
    })
}

/// Decodes `%XX`, without allocation when there is none.
///
/// # Errors
/// 400 when a percent sign is not followed by two hexadecimal digits, or the result is not UTF-8. The request's framing
/// is not in doubt, so the connection may stay open.
pub fn decode(text: &str) -> Result<Cow<'_, str>, Refusal> {
    let bytes = text.as_bytes();
    // The library would let other percent signs stand as they are.
    for at in memchr::memchr_iter(b'%', bytes) {
        if !matches!(bytes.get(at + 1..at + 3), Some(digits) if digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(refused("a percent sign must be followed by two hexadecimal digits", text));
        }
    }
    percent_decode_str(text).decode_utf8().map_err(|_| refused("not UTF-8 when decoded", text))
}

/// Whether `segment` is `plain`, some of its characters written as `%XX`.
#[must_use]
pub fn is_encoded(segment: &str, plain: &str) -> bool {
    segment.len() > plain.len() && percent_decode_str(segment).eq(plain.bytes())
}

fn decode_query(text: &str) -> Result<Cow<'_, str>, Refusal> {
    if !text.contains('+') {
        return decode(text);
    }
    decode(&text.replace('+', " ")).map(|decoded| Cow::Owned(decoded.into_owned()))
}

/// How much of a client's text goes into a message.
const MAX_QUOTED_CHARS: usize = 64;

fn refused(what: &str, text: &str) -> Refusal {
    let quoted: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    Refusal::new(ErrorCode::MalformedRequest, format!("the target has '{quoted}': {what}"))
}
