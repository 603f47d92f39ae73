//! From bytes to a head, or to the refusal.

use std::mem::MaybeUninit;

use super::fields::Fields;
use super::{Body, Head, Method, Parsed, Version, target};
use crate::http::{ErrorCode, Limits, MAX_HEADERS, Refusal};

/// Reads the head at the start of `buf`. Empty lines before it are skipped (RFC 9112 section 2.2). More may follow it.
///
/// # Errors
/// All of them close the connection:
///
/// | status | when |
/// |---|---|
/// | 400 | the head is not one, or its framing is in doubt; so it is where `chunked` is not the last transfer coding |
/// | 413 | its `Content-Length` is beyond the limit |
/// | 414 | its target is too long |
/// | 417 | it expects what is not known |
/// | 431 | it is too long or has more than [`MAX_HEADERS`] headers |
/// | 501 | it has other transfer codings before `chunked` |
/// | 505 | its version is neither 1.0 nor 1.1 |
pub fn parse<'a>(buf: &'a [u8], limits: &Limits) -> Result<Parsed<'a>, Refusal> {
    let window = &buf[..buf.len().min(limits.max_head_bytes)];
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let status = request.parse_with_uninit_headers(window, &mut headers);
    let target_bytes = request.path.map_or_else(|| target_bytes_so_far(window), str::len);
    if target_bytes > limits.max_target_bytes {
        let message = format!("the target is longer than {} bytes", limits.max_target_bytes);
        return Err(Refusal::new(ErrorCode::TargetTooLong, message).closing());
    }
    let head_len = match status.map_err(|error| refuse(error, window))? {
        httparse::Status::Complete(head_len) => head_len,
        httparse::Status::Partial => {
            check_line_ends(window)?;
            if window.len() == limits.max_head_bytes {
                let message = format!("the head is longer than {} bytes", limits.max_head_bytes);
                return Err(Refusal::new(ErrorCode::HeadTooLarge, message).closing());
            }
            return Ok(Parsed::Partial);
        }
    };
    check_line_ends(&window[..head_len])?;
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refusal::malformed(NOT_A_REQUEST_LINE));
    };
    // httparse lets no minor version pass but these.
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    read_head(method, target, version, request.headers, head_len, limits).map(Parsed::Head)
}

const NOT_A_REQUEST_LINE: &str =
    "the request line must be a method, a target and a version with one space between them";

fn read_head<'a>(
    method: &str,
    target: &'a str,
    version: Version,
    headers: &[httparse::Header<'a>],
    head_len: usize,
    limits: &Limits,
) -> Result<Head<'a>, Refusal> {
    let method = Method::from_token(method);
    let parts = target::split(method, target)?;
    let mut fields = Fields::default();
    for header in headers {
        fields.take(header.name, header.value)?;
    }
    fields.check_version(version)?;
    let framing = fields.framing(version, limits)?;
    let has_body = !matches!(framing, Body::None | Body::Length(0));
    Ok(Head {
        method,
        target,
        path: parts.path,
        query: parts.query,
        version,
        head_len,
        framing,
        keep_alive: fields.keep_alive(version),
        // A client of HTTP/1.0 cannot read a 100 (RFC 9110 section 10.1.1).
        expect_continue: fields.expect_continue && has_body && version == Version::Http11,
        prefer_minimal: fields.prefer_minimal,
        host: parts.authority.or(fields.host),
        content_type: fields.content_type,
        content_encoding: fields.content_encoding,
        idempotency_key: fields.idempotency_key,
        authorization: fields.authorization,
        accept: fields.accept,
        origin: fields.origin,
    })
}

/// httparse takes a bare LF for a line's end; something before us may not, and see other headers than we do.
fn check_line_ends(head: &[u8]) -> Result<(), Refusal> {
    // Without a branch, so that the compiler compares many bytes at once.
    let pairs = head.iter().zip(head.iter().skip(1));
    let any_bare = pairs.fold(false, |any, (before, byte)| any | (*byte == b'\n') & (*before != b'\r'));
    if any_bare || head.first() == Some(&b'\n') {
        return Err(Refusal::malformed("a line of the head does not end with CR LF"));
    }
    Ok(())
}

/// How long the target is that a cut request line has: what follows the method and its space.
fn target_bytes_so_far(window: &[u8]) -> usize {
    let line = request_line(window);
    memchr::memchr(b' ', line).map_or(0, |space| line.len() - space - 1)
}

/// The first line that is not empty, as far as it is there.
fn request_line(window: &[u8]) -> &[u8] {
    let start = window.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(window.len());
    let line = &window[start..];
    let end = memchr::memchr2(b'\r', b'\n', line).unwrap_or(line.len());
    &line[..end]
}

#[cold]
fn refuse(error: httparse::Error, window: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => {
            Refusal::new(ErrorCode::HeadTooLarge, format!("more than {MAX_HEADERS} headers")).closing()
        }
        httparse::Error::Version if names_a_version(request_line(window)) => {
            Refusal::from(ErrorCode::HttpVersionNotSupported).closing()
        }
        httparse::Error::HeaderName => Refusal::malformed(
            "a header's name is empty or has a character that is not allowed, as white space before the colon or a \
             folded line",
        ),
        httparse::Error::HeaderValue => Refusal::malformed("a header's value has a control character"),
        httparse::Error::NewLine => Refusal::malformed("a line of the head does not end with CR LF"),
        httparse::Error::Version | httparse::Error::Token | httparse::Error::Status => {
            Refusal::malformed(NOT_A_REQUEST_LINE)
        }
    }
}

/// Whether the line has `HTTP/` and a version in its third place, as far as it is there.
fn names_a_version(line: &[u8]) -> bool {
    let third = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    matches!(third.strip_prefix(b"HTTP/"), Some([b'0'..=b'9'] | [b'0'..=b'9', b'.'] | [b'0'..=b'9', b'.', b'0'..=b'9']))
}
