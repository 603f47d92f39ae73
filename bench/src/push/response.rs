//! Parses responses: as much of HTTP/1.1 as a client that pushes needs. The rest is an error.

use std::ops::Range;

use memchr::{memchr, memmem};

/// Longest head in bytes: far longer than that of any server under test.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Longest body in bytes: longer than the response to the largest request, which lists all its messages.
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;

/// One whole response at the start of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// The status, 200 to 999.
    pub(crate) status: u16,
    /// The position of the body in the buffer.
    pub(crate) body: Range<usize>,
    /// Whether the server closes the connection after it.
    pub(crate) closes: bool,
}

impl Response {
    /// Length of the response in the buffer, in bytes.
    pub(crate) fn len_bytes(&self) -> usize {
        self.body.end
    }

    /// Whether the status is 2xx.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why bytes are not a response that this client can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResponseError {
    /// The first line is not `HTTP/1.x NNN …`.
    #[error("its first line is not an HTTP/1.x status line")]
    StatusLine,
    /// A header line has no colon.
    #[error("a header line has no colon")]
    Header,
    /// `Content-Length` is not a number, or occurs twice with different numbers.
    #[error("its Content-Length is not one number")]
    ContentLength,
    /// Neither the status nor a `Content-Length` determines where the response ends.
    #[error("it has no Content-Length")]
    NoLength,
    /// `Transfer-Encoding`, which this client does not read and no response to a push needs.
    #[error("it has a Transfer-Encoding")]
    TransferEncoding,
    /// The head does not end within [`MAX_HEAD_BYTES`].
    #[error("its head is longer than {MAX_HEAD_BYTES} bytes")]
    HeadTooLong,
    /// The body is longer than [`MAX_BODY_BYTES`].
    #[error("its body is longer than {MAX_BODY_BYTES} bytes")]
    BodyTooLong,
}

/// The response at the start of `buffer`; none while it is incomplete. Skips interim responses (1xx) before it and counts
/// their bytes as its own.
pub(crate) fn parse(buffer: &[u8]) -> Result<Option<Response>, ResponseError> {
    let mut start = 0;
    loop {
        let unread = &buffer[start..];
        let Some(head_end) = memmem::find(unread, b"\r\n\r\n") else {
            return if unread.len() > MAX_HEAD_BYTES { Err(ResponseError::HeadTooLong) } else { Ok(None) };
        };
        let head = Head::parse(&unread[..head_end])?;
        let body_start = start + head_end + 4;
        if head.status < 200 {
            start = body_start;
            continue;
        }
        let body_end = body_start + head.body_bytes()?;
        if buffer.len() < body_end {
            return Ok(None);
        }
        return Ok(Some(Response { status: head.status, body: body_start..body_end, closes: head.closes }));
    }
}

/// The head of a response.
#[derive(Debug)]
struct Head {
    status: u16,
    content_length: Option<usize>,
    closes: bool,
}

impl Head {
    /// Parses a head without the empty line that ends it.
    fn parse(head: &[u8]) -> Result<Self, ResponseError> {
        let line_end = memmem::find(head, b"\r\n").unwrap_or(head.len());
        let (status_line, mut rest) = head.split_at(line_end);
        let (http_1_0, status) = parse_status_line(status_line)?;
        let mut parsed = Self { status, content_length: None, closes: http_1_0 };
        while let Some(lines) = rest.strip_prefix(b"\r\n") {
            let line_end = memmem::find(lines, b"\r\n").unwrap_or(lines.len());
            let (line, next) = lines.split_at(line_end);
            rest = next;
            let colon = memchr(b':', line).ok_or(ResponseError::Header)?;
            parsed.take_header(&line[..colon], line[colon + 1..].trim_ascii())?;
        }
        Ok(parsed)
    }

    fn take_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = parse_length(value)?;
            if self.content_length.is_some_and(|before| before != length) {
                return Err(ResponseError::ContentLength);
            }
            self.content_length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(ResponseError::TransferEncoding);
        } else if name.eq_ignore_ascii_case(b"connection") {
            for option in value.split(|&byte| byte == b',') {
                let option = option.trim_ascii();
                if option.eq_ignore_ascii_case(b"close") {
                    self.closes = true;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    self.closes = false;
                }
            }
        }
        Ok(())
    }

    fn body_bytes(&self) -> Result<usize, ResponseError> {
        // RFC 9112, 6.3: these never have a body, whatever their header fields say.
        if matches!(self.status, 204 | 304) {
            return Ok(0);
        }
        self.content_length.ok_or(ResponseError::NoLength)
    }
}

/// Whether the response is HTTP/1.0, and its status.
fn parse_status_line(line: &[u8]) -> Result<(bool, u16), ResponseError> {
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(ResponseError::StatusLine)?;
    let &[minor, b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', ref reason @ ..] = rest else {
        return Err(ResponseError::StatusLine);
    };
    if !minor.is_ascii_digit() || reason.first().is_some_and(|&byte| byte != b' ') {
        return Err(ResponseError::StatusLine);
    }
    let digit = |byte: u8| u16::from(byte - b'0');
    Ok((minor == b'0', digit(a) * 100 + digit(b) * 10 + digit(c)))
}

/// Parses decimal digits only; `usize::from_str` would also accept a plus sign.
fn parse_length(value: &[u8]) -> Result<usize, ResponseError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(ResponseError::ContentLength);
    }
    let length = value.iter().try_fold(0usize, |sum, digit| {
        let sum = sum * 10 + usize::from(digit - b'0');
        (sum <= MAX_BODY_BYTES).then_some(sum)
    });
    length.ok_or(ResponseError::BodyTooLong)
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
