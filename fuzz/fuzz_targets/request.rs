//! Parses the bytes of a connection, divided at arbitrary positions: heads, bodies with a length or in chunks, and several
//! requests in sequence.
//!
//! What must hold:
//! - No input leads to a panic. A head is not longer than the input. A refused head closes the connection.
//! - The requests, and the position of a refusal, do not depend on where the bytes are divided.
#![no_main]

use arbitrary::Arbitrary;
use forebay::http::{Body, Head, Limits, Parsed, chunked::Decoder, path, request};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_head_bytes: 1024, max_target_bytes: 256, max_body_bytes: 4096 };

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    cuts: Vec<u8>,
    parts: Vec<Part<'a>>,
}

/// A part of what a client sends.
#[derive(Arbitrary, Debug)]
enum Part<'a> {
    /// Arbitrary bytes.
    Raw(&'a [u8]),
    /// A valid request line and a `Host` header.
    Line(u8, &'a str),
    /// A header that the daemon reads, with an arbitrary value.
    Header(u8, &'a str),
    /// A `Content-Length`, and a body of that length.
    Sized(&'a [u8]),
    /// A chunked body, each chunk with an optional extension.
    Chunks(Vec<(&'a [u8], Option<&'a str>)>),
    /// The empty line that ends a head.
    End,
}

const LINES: [&str; 6] = ["GET /", "POST /push/", "POST http://h/", "HEAD /", "OPTIONS *", "DELETE /api/v1/"];

const NAMES: [&str; 12] = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Expect",
    "Prefer",
    "Accept",
    "Authorization",
    "Content-Type",
    "Content-Encoding",
    "Idempotency-Key",
    "Origin",
];

fn encode(part: &Part<'_>, out: &mut Vec<u8>) {
    match part {
        Part::Raw(bytes) => out.extend_from_slice(bytes),
        Part::Line(line, target) => {
            let line = LINES[usize::from(*line) % LINES.len()];
            out.extend_from_slice(format!("{line}{target} HTTP/1.1\r\nHost: h\r\n").as_bytes());
        }
        Part::Header(name, value) => {
            let name = NAMES[usize::from(*name) % NAMES.len()];
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        Part::Sized(body) => {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            out.extend_from_slice(body);
        }
        Part::Chunks(chunks) => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for (data, extension) in chunks {
                let extension = extension.map(|extension| format!(";{extension}")).unwrap_or_default();
                out.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
        }
        Part::End => out.extend_from_slice(b"\r\n"),
    }
}

fuzz_target!(|input: Input<'_>| {
    let mut stream = Vec::new();
    input.parts.iter().for_each(|part| encode(part, &mut stream));
    let whole = converse(&stream, &[]);
    let divided = converse(&stream, &input.cuts);
    assert_eq!(whole, divided, "the requests depend on where the bytes are divided");
    let bytes = converse(&stream, &[1]);
    assert_eq!(whole, bytes, "the requests differ if the bytes come one by one");
});

/// Takes requests from the bytes as a connection does. Returns a description of each.
fn converse(stream: &[u8], cuts: &[u8]) -> Vec<String> {
    let (mut requests, mut buffer) = (Vec::new(), Vec::new());
    let mut chunks: Option<Chunks> = None;
    let (mut unread, mut lengths) = (stream, cuts.iter().cycle());
    while !unread.is_empty() {
        let length = lengths.next().map_or(unread.len(), |cut| usize::from(*cut).max(1)).min(unread.len());
        buffer.extend_from_slice(&unread[..length]);
        unread = &unread[length..];
        loop {
            match take(&buffer, &mut chunks) {
                Parse::Incomplete => break,
                Parse::Request(length, request) => {
                    drop(buffer.drain(..length));
                    requests.push(request);
                }
                Parse::Refused => {
                    requests.push("refused".to_owned());
                    return requests;
                }
            }
        }
    }
    requests
}

/// What the beginning of a buffer contains.
enum Parse {
    Incomplete,
    /// A request: its length in bytes, and its description.
    Request(usize, String),
    Refused,
}

/// A chunked body that is still incomplete.
struct Chunks {
    decoder: Decoder,
    body: Vec<u8>,
    fed_bytes: usize,
}

fn take(buffer: &[u8], chunks: &mut Option<Chunks>) -> Parse {
    let head = match request::parse(buffer, &LIMITS) {
        Ok(Parsed::Partial) => {
            assert!(buffer.len() < LIMITS.max_head_bytes, "an incomplete head is not bounded");
            return Parse::Incomplete;
        }
        Ok(Parsed::Head(head)) => head,
        Err(refusal) => {
            assert!(refusal.close && (400..600).contains(&refusal.status));
            return Parse::Refused;
        }
    };
    assert!(head.head_len <= buffer.len() && buffer[..head.head_len].ends_with(b"\r\n\r\n"));
    let wire = &buffer[head.head_len..];
    match head.framing {
        Body::None => Parse::Request(head.head_len, show(&head, b"")),
        Body::Length(length) => {
            assert!(length <= LIMITS.max_body_bytes);
            match wire.get(..length as usize) {
                Some(body) => Parse::Request(head.head_len + body.len(), show(&head, body)),
                None => Parse::Incomplete,
            }
        }
        Body::Chunked => {
            let state = chunks.get_or_insert_with(|| Chunks {
                decoder: Decoder::new(LIMITS.max_body_bytes),
                body: Vec::new(),
                fed_bytes: 0,
            });
            let Ok(progress) = state.decoder.feed(&wire[state.fed_bytes..], &mut state.body) else {
                return Parse::Refused;
            };
            assert!(state.body.len() as u64 <= LIMITS.max_body_bytes, "the body exceeds its limit");
            state.fed_bytes += progress.consumed;
            if !progress.is_done {
                return Parse::Incomplete;
            }
            let length = head.head_len + state.fed_bytes;
            let shown = show(&head, &state.body);
            *chunks = None;
            Parse::Request(length, shown)
        }
    }
}

/// Everything that the daemon derives from a request.
fn show(head: &Head<'_>, body: &[u8]) -> String {
    let segments: Vec<_> = path::segments(head.path).map(|segment| segment.map_err(|refusal| refusal.status)).collect();
    let pairs: Vec<_> = path::query_pairs(head.query).map(|pair| pair.map_err(|refusal| refusal.status)).collect();
    format!("{head:?} {:?} {segments:?} {pairs:?} {body:?}", head.media_type())
}
