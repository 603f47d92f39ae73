//! Answers, written into a connection's buffer.

pub use crate::json::json_string;

/// The content type of JSON documents of which each is a line.
pub const NDJSON: &str = "application/x-ndjson";

/// The content type of nearly every answer.
pub const JSON: &str = "application/json";

/// The interim answer to `Expect: 100-continue`, after which the client sends its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Header lines of answers that a browser could load or a cache could keep. A browser must believe the content type, and a cache
/// must not store the answer.
pub const GUARDS: &[u8] = b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n";

/// More bytes than most heads have.
const HEAD_BYTES_LIKELY: usize = 320;

/// An answer that is being written: its start, then header lines, then its end.
///
/// `Content-Length` is always written, except for 204 and 304, which have neither length, type nor body. An empty
/// `content_type` is left out. The caller adds `Date`, since it knows the time.
pub struct Response<'o, 'b> {
    out: &'o mut Vec<u8>,
    body: Option<&'b [u8]>,
}

impl<'o, 'b> Response<'o, 'b> {
    /// Appends the start to `out`.
    pub fn start(out: &'o mut Vec<u8>, status: u16, content_type: &'static str, body: &'b [u8]) -> Self {
        let body = (!matches!(status, 204 | 304)).then_some(body);
        out.reserve(HEAD_BYTES_LIKELY + body.map_or(0, <[u8]>::len));
        let Some(body) = body else {
            push_status_line(out, status);
            return Self { out, body: None };
        };
        Self { body: Some(body), ..Self::start_sized(out, status, content_type, body.len()) }
    }

    /// Appends the start of a response whose body has `length` bytes and follows.
    pub fn start_sized(out: &'o mut Vec<u8>, status: u16, content_type: &'static str, length: usize) -> Self {
        push_status_line(out, status);
        let mut response = Self { out, body: None };
        if !content_type.is_empty() {
            response.lines(b"Content-Type: ");
            response.lines(content_type.as_bytes());
            response.lines(b"\r\n");
        }
        response.lines(b"Content-Length: ");
        push_number(response.out, length as u64);
        response.lines(b"\r\n");
        response
    }

    /// Appends the start of a response whose body follows in pieces. With `is_chunked` each piece is to be sent by [`push_chunk`],
    /// and [`LAST_CHUNK`] behind the last one; otherwise the body ends with the connection, which must not be kept alive.
    pub fn start_stream(out: &'o mut Vec<u8>, status: u16, content_type: &'static str, is_chunked: bool) -> Self {
        out.reserve(HEAD_BYTES_LIKELY);
        push_status_line(out, status);
        let mut response = Self { out, body: None };
        response.lines(b"Content-Type: ");
        response.lines(content_type.as_bytes());
        response.lines(if is_chunked { b"\r\nTransfer-Encoding: chunked\r\n" } else { b"\r\n" });
        response
    }

    /// Appends a header. Control characters in its value become spaces, so no value can start another line.
    pub fn header(&mut self, name: &str, value: &str) {
        self.lines(name.as_bytes());
        self.lines(b": ");
        let start = self.out.len();
        self.lines(value.as_bytes());
        // One pass without a branch first: values hardly ever have any.
        if value.bytes().fold(false, |found, byte| found | byte.is_ascii_control()) {
            self.out[start..].iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b' ');
        }
        self.lines(b"\r\n");
    }

    /// Appends whole header lines as they are.
    #[inline]
    pub fn lines(&mut self, lines: &[u8]) {
        self.out.extend_from_slice(lines);
    }

    /// The end. `head_only` (the answer to HEAD) leaves out the body but not its length. `Connection: close` is written unless
    /// `keep_alive`; a client of HTTP/1.0 that is kept needs a header of its own, see [`ResponseOptions`](super::ResponseOptions).
    pub fn end(mut self, keep_alive: bool, head_only: bool) {
        self.lines(if keep_alive { b"\r\n" } else { b"Connection: close\r\n\r\n" });
        if !head_only {
            self.lines(self.body.unwrap_or_default());
        }
    }
}

/// What ends a body that is sent in chunks; there is no trailer.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends a chunk (RFC 9112 section 7.1); nothing where the piece is empty, which would end the body.
pub fn push_chunk(out: &mut Vec<u8>, piece: &[u8]) {
    if piece.is_empty() {
        return;
    }
    const CHUNK_OVERHEAD_BYTES: usize = 20;
    out.reserve(piece.len() + CHUNK_OVERHEAD_BYTES);
    out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_status_line(out: &mut Vec<u8>, status: u16) {
    let line: &[u8] = match status {
        200 => b"HTTP/1.1 200 OK\r\n",
        201 => b"HTTP/1.1 201 Created\r\n",
        204 => b"HTTP/1.1 204 No Content\r\n",
        400 => b"HTTP/1.1 400 Bad Request\r\n",
        404 => b"HTTP/1.1 404 Not Found\r\n",
        503 => b"HTTP/1.1 503 Service Unavailable\r\n",
        _ => {
            out.extend_from_slice(b"HTTP/1.1 ");
            push_number(out, u64::from(status));
            out.push(b' ');
            out.extend_from_slice(reason(status).as_bytes());
            out.extend_from_slice(b"\r\n");
            return;
        }
    };
    out.extend_from_slice(line);
}

/// The reason phrase of RFC 9110 section 15. It may be empty, and is for statuses that the daemon does not use.
fn reason(status: u16) -> &'static str {
    match status {
        202 => "Accepted",
        304 => "Not Modified",
        401 => "Unauthorized",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
