//! Answers, written straight into the connection's buffer.

pub use crate::json::json_string;

/// The content type of nearly every answer.
pub const JSON: &str = "application/json";

/// The answer that lets a client go on which sent `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What every answer with a content says to browsers and caches: it is what it says it is, and for nobody else.
const GUARDS: &[u8] = b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n";

/// Appends an answer.
///
/// `Content-Length` is always written, except for 204 and 304, which have neither length, type nor body. `head_only`
/// (the answer to HEAD) leaves out the body but not its length. `Connection: close` is written unless `keep_alive`; a
/// client of HTTP/1.0 that is kept needs [`Head::keep_alive_header`](super::Head::keep_alive_header) among `headers`.
/// `Date` is the caller's to add, since it is the caller who knows the time. An empty `content_type` is left out. Line
/// ends and other control characters in a header's value are replaced by spaces, so no value can start a line.
pub fn write_response(
    out: &mut Vec<u8>,
    status: u16,
    headers: &[(&str, &str)],
    content_type: &str,
    body: &[u8],
    keep_alive: bool,
    head_only: bool,
) {
    let has_body = !matches!(status, 204 | 304);
    out.reserve(256 + if head_only || !has_body { 0 } else { body.len() });
    push_status_line(out, status);
    if has_body {
        if !content_type.is_empty() {
            push_header(out, "Content-Type", content_type);
            out.extend_from_slice(GUARDS);
        }
        out.extend_from_slice(b"Content-Length: ");
        push_number(out, body.len() as u64);
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in headers {
        push_header(out, name, value);
    }
    out.extend_from_slice(if keep_alive { b"\r\n" } else { b"Connection: close\r\n\r\n" });
    if has_body && !head_only {
        out.extend_from_slice(body);
    }
}

/// Appends a number in decimal digits.
pub fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_header(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    let start = out.len();
    out.extend_from_slice(value.as_bytes());
    // Looked for first, all at once: there are next to never any.
    if value.bytes().fold(false, |found, byte| found | byte.is_ascii_control()) {
        out[start..].iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b' ');
    }
    out.extend_from_slice(b"\r\n");
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

/// The reason phrase of RFC 9110 section 15; empty, as it may be, for statuses the daemon does not use.
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
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}
