//! Case 72: whatever is cut off or changed, there is an answer.

use proptest::prelude::*;

use super::LIMITS;
use crate::http::chunked::Decoder;
use crate::http::{Body, Parsed, request};

const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /api/v1/pop/queue/q%20a?batch=10&wait=true HTTP/1.1\r\nHost: localhost:6632\r\nAccept: */*\r\nUser-Agent: x/1\r\n\r\n",
    "POST /api/v1/push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 12\r\nPrefer: return=minimal\r\n\r\n{\"items\":[]}",
    "POST /push/q HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
    "POST /push/q/p HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n1",
    "\r\nDELETE http://b/api/v1/messages/1/2 HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer t\r\nConnection: close\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost:\r\nOrigin: null\r\n\r\n",
];

/// Takes a request apart as a connection does; the number of bytes it has, or nothing when more are needed or it is
/// refused.
fn take(bytes: &[u8]) -> Option<usize> {
    let Ok(Parsed::Head(head)) = request::parse(bytes, &LIMITS) else {
        return None;
    };
    let body = &bytes[head.head_len..];
    match head.framing {
        Body::None => Some(head.head_len),
        Body::Length(length) => (length <= body.len() as u64).then_some(head.head_len + length as usize),
        Body::Chunked => {
            let progress = Decoder::new(LIMITS.max_body_bytes).feed(body, &mut Vec::new()).ok()?;
            progress.is_done.then_some(head.head_len + progress.consumed)
        }
    }
}

#[test]
fn case_72_every_prefix_of_a_valid_request_waits_for_more() {
    for request in REQUESTS {
        assert_eq!(take(request.as_bytes()), Some(request.len()), "{request:?}");
        for length in 0..request.len() {
            let prefix = &request.as_bytes()[..length];
            match request::parse(prefix, &LIMITS) {
                Ok(Parsed::Partial) => {}
                Ok(Parsed::Head(head)) => assert!(head.head_len <= length),
                Err(refusal) => panic!("{refusal} for the first {length} bytes of {request:?}"),
            }
            assert_eq!(take(prefix), None, "{length} bytes of {request:?}");
        }
    }
}

/// A head that has its empty line is never waited for.
fn assert_answered(bytes: &[u8]) {
    let start = bytes.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(bytes.len());
    let is_whole = memchr::memmem::find(&bytes[start..], b"\r\n\r\n").is_some();
    match request::parse(bytes, &LIMITS) {
        Ok(Parsed::Partial) => assert!(!is_whole, "{:?} hangs", String::from_utf8_lossy(bytes)),
        Ok(Parsed::Head(head)) => assert!(bytes[..head.head_len].ends_with(b"\r\n\r\n")),
        Err(refusal) => assert!(refusal.close && refusal.status >= 400),
    }
    assert!(take(bytes).is_none_or(|length| length <= bytes.len()));
}

#[test]
fn case_72_every_one_byte_change_of_a_valid_request_is_answered_or_waits_for_a_reason() {
    for request in REQUESTS {
        for at in 0..request.len() {
            for byte in 0..=0xff_u8 {
                let mut changed = request.as_bytes().to_vec();
                changed[at] = byte;
                assert_answered(&changed);
            }
            let mut shorter = request.as_bytes().to_vec();
            shorter.remove(at);
            assert_answered(&shorter);
            for byte in *b"\r\n :,;\0aA0%#?/\xff" {
                let mut longer = request.as_bytes().to_vec();
                longer.insert(at, byte);
                assert_answered(&longer);
            }
        }
    }
}

#[test]
fn case_72_a_head_that_comes_byte_by_byte_is_read_as_the_whole() {
    for request in REQUESTS {
        let whole = request::parse(request.as_bytes(), &LIMITS);
        let first = (1..=request.len())
            .map(|length| request::parse(&request.as_bytes()[..length], &LIMITS))
            .find(|parsed| *parsed != Ok(Parsed::Partial));
        assert_eq!(first, Some(whole));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic_or_hang(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        assert_answered(&bytes);
    }

    #[test]
    fn no_header_lines_make_the_parser_panic_or_hang(
        lines in prop::collection::vec(
            "(Host|Content-Length|Transfer-Encoding|Connection|Expect|Prefer|X)[ ]?:[ ]?(chunked|[0-9]{1,20}|close|[!-~]{0,5})?\r?\n",
            0..8,
        ),
    ) {
        assert_answered(format!("POST / HTTP/1.1\r\n{}\r\n", lines.concat()).as_bytes());
    }
}
