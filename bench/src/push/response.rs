//! Answers from bytes: as much of HTTP/1.1 as a client of a push needs, and an error for the rest.

use std::fmt;
use std::ops::Range;

use memchr::{memchr, memmem};

/// Longest head, in bytes, that is waited for.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Longest body, in bytes, that is waited for.
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;

/// One whole answer at the start of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status, 200 to 999.
    pub(crate) status: u16,
    /// The body's place in the buffer.
    pub(crate) body: Range<usize>,
    /// Whether the server closes the connection after it.
    pub(crate) closes: bool,
}

impl Answer {
    /// Bytes of the buffer that this answer takes.
    pub(crate) fn len_bytes(&self) -> usize {
        self.body.end
    }

    /// Whether the status is 2xx.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why bytes are no answer that can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseError {
    /// The first line is not `HTTP/1.x NNN …`.
    StatusLine,
    /// A header line has no colon.
    Header,
    /// `Content-Length` is no number, or there are two that differ.
    ContentLength,
    /// Neither the status nor a `Content-Length` says where the answer ends.
    NoLength,
    /// `Transfer-Encoding`: this client does not read it, and no answer to a push needs it.
    TransferEncoding,
    /// The head does not end within 16 KiB.
    HeadTooLong,
    /// The body is longer than 256 MiB.
    BodyTooLong,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StatusLine => "its first line is not an HTTP/1.x status line",
            Self::Header => "a header line has no colon",
            Self::ContentLength => "its Content-Length is not one number",
            Self::NoLength => "it has no Content-Length",
            Self::TransferEncoding => "it has a Transfer-Encoding",
            Self::HeadTooLong => "its head does not end within 16 KiB",
            Self::BodyTooLong => "its body is longer than 256 MiB",
        })
    }
}

/// The answer at the start of `buffer`, or none while some of it is still to come. Interim answers (1xx) before it are
/// stepped over, as part of it.
pub(crate) fn parse(buffer: &[u8]) -> Result<Option<Answer>, ResponseError> {
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
        return Ok(Some(Answer { status: head.status, body: body_start..body_end, closes: head.closes }));
    }
}

/// What the head of an answer says.
#[derive(Debug)]
struct Head {
    status: u16,
    content_length: Option<usize>,
    closes: bool,
}

impl Head {
    /// Reads a head without the empty line that ends it.
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
        // RFC 9112, 6.3: these never have a body, whatever their headers say.
        if matches!(self.status, 204 | 304) {
            return Ok(0);
        }
        self.content_length.ok_or(ResponseError::NoLength)
    }
}

/// Whether the answer is HTTP/1.0, and its status.
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

/// Decimal digits and nothing else: `usize::from_str` would take a plus sign.
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
