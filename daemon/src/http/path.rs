//! What a target holds: path segments and query parameters.

use std::borrow::Cow;

use super::{ErrorCode, Refusal};

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
    let Some(first) = memchr::memchr(b'%', text.as_bytes()) else {
        return Ok(Cow::Borrowed(text));
    };
    let (plain, mut rest) = text.as_bytes().split_at(first);
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(plain);
    while let [_percent, tail @ ..] = rest {
        let Some(byte) = tail.first_chunk().and_then(hex_byte) else {
            return Err(refused("a percent sign must be followed by two hexadecimal digits", text));
        };
        decoded.push(byte);
        let tail = &tail[2..];
        let end = memchr::memchr(b'%', tail).unwrap_or(tail.len());
        let (plain, next) = tail.split_at(end);
        decoded.extend_from_slice(plain);
        rest = next;
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| refused("not UTF-8 when decoded", text))
}

fn decode_query(text: &str) -> Result<Cow<'_, str>, Refusal> {
    if !text.contains('+') {
        return decode(text);
    }
    decode(&text.replace('+', " ")).map(|decoded| Cow::Owned(decoded.into_owned()))
}

fn hex_byte(digits: &[u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? << 4 | low?).ok()
}

/// How much of a client's text goes into a message.
const MAX_QUOTED_CHARS: usize = 64;

fn refused(what: &str, text: &str) -> Refusal {
    let quoted: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    Refusal::new(ErrorCode::MalformedRequest, format!("the target has '{quoted}': {what}"))
}
