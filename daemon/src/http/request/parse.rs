//! Parsing a head.

use std::mem::MaybeUninit;

use super::fields::Fields;
use super::target::{self, Target};
use super::{Body, Head, Method, Parsed, Version};
use crate::http::{ErrorCode, Limits, MAX_HEADERS, Refusal};

/// Parses the head at the start of `buf`. Empty lines before it are skipped (RFC 9112 section 2.2). Other bytes may follow it.
///
/// # Errors
/// All of them close the connection:
///
/// | status | when |
/// |---|---|
/// | 400 | the head is invalid, or the body's framing is ambiguous; it is if `chunked` is not the last transfer coding |
/// | 413 | `Content-Length` exceeds the limit |
/// | 414 | the target is too long |
/// | 417 | `Expect` is not `100-continue` |
/// | 431 | the head is too long or has more than [`MAX_HEADERS`] headers |
/// | 501 | there are other transfer codings before `chunked` |
/// | 505 | the version is neither 1.0 nor 1.1 |
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
    // httparse accepts no other minor version.
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
    let Target { authority, path, query } = target::split(method, target)?;
    let mut fields = Fields::default();
    for header in headers {
        fields.take(header.name, header.value)?;
    }
    fields.check_version(version)?;
    let framing = fields.framing(version, limits)?;
    let has_body = !matches!(framing, Body::None | Body::Length(0));
    Ok(Head {
        method,
        path,
        query,
        version,
        head_len,
        framing,
        keep_alive: fields.keep_alive(version),
        // Clients of HTTP/1.0 do not know 100 (RFC 9110 section 10.1.1).
        expect_continue: fields.expect_continue && has_body && version == Version::Http11,
        prefer_minimal: fields.prefer_minimal,
        content_type: fields.content_type,
        content_encoding: fields.content_encoding,
        idempotency_key: fields.idempotency_key,
        authorization: fields.authorization,
        accept: fields.accept,
        origin: fields.origin,
        host: authority.map(str::as_bytes).or(fields.host),
        fetch_site: fields.fetch_site,
        is_navigation: fields.is_navigation(),
    })
}

/// httparse accepts a bare LF as the end of a line. A proxy before the daemon may not, and see other headers.
fn check_line_ends(head: &[u8]) -> Result<(), Refusal> {
    // There is no branch, so that the compiler compares many bytes at once.
    let pairs = head.iter().zip(head.iter().skip(1));
    let any_bare = pairs.fold(false, |any, (before, byte)| any | (*byte == b'\n') & (*before != b'\r'));
    if any_bare || head.first() == Some(&b'\n') {
        return Err(Refusal::malformed("a line of the head does not end with CR LF"));
    }
    Ok(())
}

/// The length of the target in an incomplete request line: the bytes after the method and its space.
fn target_bytes_so_far(window: &[u8]) -> usize {
    let line = request_line(window);
    memchr::memchr(b' ', line).map_or(0, |space| line.len() - space - 1)
}

/// The first line that is not empty, as far as it has arrived.
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

/// Whether the third word of the line is `HTTP/` and a version, as far as it has arrived.
fn names_a_version(line: &[u8]) -> bool {
    let third = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    matches!(third.strip_prefix(b"HTTP/"), Some([b'0'..=b'9'] | [b'0'..=b'9', b'.'] | [b'0'..=b'9', b'.', b'0'..=b'9']))
}
