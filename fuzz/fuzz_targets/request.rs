//! A connection's bytes, cut anywhere: heads, bodies by length and in chunks, one request behind the other.
//!
//! What must hold:
//! - no panic; a head says no more bytes than there are; a refusal of a head closes;
//! - where the bytes are cut changes nothing: the same requests, and a refusal in the same place.
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

/// What a client sends.
#[derive(Arbitrary, Debug)]
enum Part<'a> {
    /// Bytes as they come.
    Raw(&'a [u8]),
    /// A start of a head that is one.
    Line(u8, &'a str),
    /// A header that the daemon reads.
    Header(u8, &'a str),
    /// A length, and a body of that length.
    Sized(&'a [u8]),
    /// Chunks.
    Chunks(Vec<(&'a [u8], Option<&'a str>)>),
    /// The end of a head.
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
    let cut = converse(&stream, &input.cuts);
    assert_eq!(whole, cut, "a cut changes the conversation");
    let bytes = converse(&stream, &[1]);
    assert_eq!(whole, bytes, "single bytes change the conversation");
});

/// Takes requests from the bytes as a connection does, and gives all that could be seen of them.
fn converse(stream: &[u8], cuts: &[u8]) -> Vec<String> {
    let (mut seen, mut buffer) = (Vec::new(), Vec::new());
    let mut chunks: Option<Chunks> = None;
    let (mut rest, mut lengths) = (stream, cuts.iter().cycle());
    while !rest.is_empty() {
        let length = lengths.next().map_or(rest.len(), |cut| usize::from(*cut).max(1)).min(rest.len());
        buffer.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
        loop {
            match take(&buffer, &mut chunks) {
                Taken::More => break,
                Taken::Request(length, request) => {
                    drop(buffer.drain(..length));
                    seen.push(request);
                }
                Taken::Refused => {
                    seen.push("refused".to_owned());
                    return seen;
                }
            }
        }
    }
    seen
}

enum Taken {
    More,
    Request(usize, String),
    Refused,
}

/// A chunked body that is still coming.
struct Chunks {
    decoder: Decoder,
    body: Vec<u8>,
    fed: usize,
}

fn take(buffer: &[u8], chunks: &mut Option<Chunks>) -> Taken {
    let head = match request::parse(buffer, &LIMITS) {
        Ok(Parsed::Partial) => {
            assert!(buffer.len() < LIMITS.max_head_bytes, "a head that is waited for without end");
            return Taken::More;
        }
        Ok(Parsed::Head(head)) => head,
        Err(refusal) => {
            assert!(refusal.close && (400..600).contains(&refusal.status));
            return Taken::Refused;
        }
    };
    assert!(head.head_len <= buffer.len() && buffer[..head.head_len].ends_with(b"\r\n\r\n"));
    let wire = &buffer[head.head_len..];
    match head.framing {
        Body::None => Taken::Request(head.head_len, show(&head, b"")),
        Body::Length(length) => {
            assert!(length <= LIMITS.max_body_bytes);
            match wire.get(..length as usize) {
                Some(body) => Taken::Request(head.head_len + body.len(), show(&head, body)),
                None => Taken::More,
            }
        }
        Body::Chunked => {
            let state = chunks.get_or_insert_with(|| Chunks {
                decoder: Decoder::new(LIMITS.max_body_bytes),
                body: Vec::new(),
                fed: 0,
            });
            let Ok(progress) = state.decoder.feed(&wire[state.fed..], &mut state.body) else {
                return Taken::Refused;
            };
            assert!(state.body.len() as u64 <= LIMITS.max_body_bytes, "the body is bounded");
            state.fed += progress.consumed;
            if !progress.is_done {
                return Taken::More;
            }
            let length = head.head_len + state.fed;
            let shown = show(&head, &state.body);
            *chunks = None;
            Taken::Request(length, shown)
        }
    }
}

/// All that the daemon makes of a request.
fn show(head: &Head<'_>, body: &[u8]) -> String {
    let segments: Vec<_> = path::segments(head.path).map(|segment| segment.map_err(|refusal| refusal.status)).collect();
    let pairs: Vec<_> = path::query_pairs(head.query).map(|pair| pair.map_err(|refusal| refusal.status)).collect();
    format!("{head:?} {:?} {segments:?} {pairs:?} {body:?}", head.media_type())
}
