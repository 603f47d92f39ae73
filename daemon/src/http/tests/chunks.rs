use proptest::prelude::*;

use crate::http::{ErrorCode, Refusal, chunked::Decoder};

/// What comes of a body fed in parts of this size: the content and how many bytes were consumed when it ended.
fn feed(body: &[u8], part_bytes: usize) -> Result<(Vec<u8>, Option<usize>), Refusal> {
    let mut decoder = Decoder::new(1_000);
    let (mut out, mut consumed) = (Vec::new(), 0);
    for part in body.chunks(part_bytes) {
        let progress = decoder.feed(part, &mut out)?;
        consumed += progress.consumed;
        if progress.is_done {
            assert_eq!(decoder.body_bytes(), out.len() as u64);
            return Ok((out, Some(consumed)));
        }
        assert_eq!(progress.consumed, part.len());
    }
    Ok((out, None))
}

const BODY: &str = "5\r\nhello\r\n00A;name=\"v a l\";x\r\n, chunked \r\n1\r\n!\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n";

#[test]
fn a_chunked_body_fed_whole_and_in_parts_of_any_size_is_the_same() {
    let followed = format!("{BODY}GET / HTTP/1.1\r\n");
    for part_bytes in 1..=followed.len() {
        let (out, consumed) = feed(followed.as_bytes(), part_bytes).unwrap();
        assert_eq!((out.as_slice(), consumed), (&b"hello, chunked !"[..], Some(BODY.len())), "{part_bytes}");
    }
}

#[test]
fn every_prefix_of_a_chunked_body_waits_for_more() {
    for length in 0..BODY.len() {
        let (out, consumed) = feed(&BODY.as_bytes()[..length], 7).unwrap();
        assert_eq!(consumed, None);
        assert!(b"hello, chunked !".starts_with(&out));
    }
}

#[test]
fn a_body_may_be_as_large_as_the_limit_and_not_a_byte_larger() {
    let body = |chunks: &[usize]| {
        let chunks: String = chunks.iter().map(|bytes| format!("{bytes:x}\r\n{}\r\n", "a".repeat(*bytes))).collect();
        chunks + "0\r\n\r\n"
    };
    assert_eq!(feed(body(&[1_000]).as_bytes(), 100).unwrap().0.len(), 1_000);
    assert_eq!(feed(body(&[400, 600]).as_bytes(), 100).unwrap().0.len(), 1_000);
    for chunks in [&[1_001][..], &[400, 601], &[1_000, 1]] {
        let refusal = feed(body(chunks).as_bytes(), 100).unwrap_err();
        assert_eq!((refusal.status, refusal.code, refusal.close), (413, ErrorCode::BodyTooLarge, true));
    }
    assert_eq!(feed(b"0\r\n\r\n", 1), Ok((Vec::new(), Some(5))));
}

proptest! {
    #[test]
    fn what_is_chunked_comes_out_as_it_was(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..10),
        part_bytes in 1..60_usize,
    ) {
        let mut body = Vec::new();
        for chunk in &chunks {
            body.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        let (out, consumed) = feed(&body, part_bytes).unwrap();
        prop_assert_eq!(out, chunks.concat());
        prop_assert_eq!(consumed, Some(body.len()));
    }

    #[test]
    fn bytes_that_look_like_chunks_are_judged_alike_whole_and_one_by_one(body in "[0-3aF;: \r\n]{0,40}") {
        prop_assert_eq!(feed(body.as_bytes(), 1), feed(body.as_bytes(), 1_000));
    }

    #[test]
    fn a_changed_chunked_body_is_judged_alike_whole_and_one_by_one(at in 0..BODY.len(), byte in any::<u8>()) {
        let mut body = BODY.as_bytes().to_vec();
        body[at] = byte;
        prop_assert_eq!(feed(&body, 1), feed(&body, 1_000));
    }
}
