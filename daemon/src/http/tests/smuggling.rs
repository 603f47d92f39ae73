//! Case 68: what two parsers may read differently is refused, and the connection closed.

use super::{assert_closes, head, post};
use crate::http::chunked::Decoder;
use crate::http::{Body, MAX_CHUNK_EXTENSION_BYTES, MAX_TRAILER_BYTES};

#[test]
fn case_68_a_length_beside_chunks_is_refused() {
    assert_closes(post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400);
    assert_closes(post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400);
    assert_closes(post("Transfer-Encoding: gzip\r\nContent-Length: 0\r\n"), 400);
}

#[test]
fn case_68_two_lengths_are_refused_equal_or_not() {
    assert_closes(post("Content-Length: 5\r\nContent-Length: 6\r\n"), 400);
    assert_closes(post("Content-Length: 5\r\ncontent-length: 5\r\n"), 400);
    assert_closes(post("Content-Length: 5, 5\r\n"), 400);
}

#[test]
fn case_68_a_length_that_is_not_digits_is_refused() {
    for value in ["", "+5", "-5", "0x5", "5 5", "5;a", "\"5\"", "5.0", "٥", "18446744073709551616"] {
        assert_closes(post(&format!("Content-Length: {value}\r\n")), 400);
    }
}

#[test]
fn case_68_a_transfer_coding_that_is_not_exactly_chunked_is_refused() {
    for lines in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    ] {
        assert_closes(post(lines), 501);
    }
    // Where `chunked` is not the last one, the body's end is not known.
    for lines in [
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ] {
        assert_closes(post(lines), 400);
    }
    assert_closes(post("Transfer-Encoding: \x0bchunked\r\n"), 400);
    assert_closes("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
}

#[test]
fn case_68_folded_lines_are_refused() {
    assert_closes(post("X: a\r\n b\r\n"), 400);
    assert_closes(post("X: a\r\n\tTransfer-Encoding: chunked\r\n"), 400);
    assert_closes(post("X:\r\n b\r\n"), 400);
    assert_closes("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400);
}

#[test]
fn case_68_bare_line_ends_are_refused_anywhere_in_a_head() {
    let valid = post("Content-Length: 5\r\nX: y\r\n");
    for (at, _) in valid.match_indices("\r\n") {
        let mut bare_lf = valid.clone();
        bare_lf.remove(at);
        assert_closes(&bare_lf, 400);
        let mut bare_cr = valid.clone();
        bare_cr.remove(at + 1);
        // At the very end, what is missing may still come.
        if at + 2 < valid.len() {
            assert_closes(&bare_cr, 400);
        }
    }
    assert_closes("GET / HTTP/1.1\nHost: a\n\n", 400);
    assert_closes(format!("\n{valid}"), 400);
    // The refusal does not wait for the end of the head.
    assert_closes("GET / HTTP/1.1\nHost: a", 400);
}

#[test]
fn case_68_white_space_before_a_colon_and_odd_names_are_refused() {
    for line in [
        "Content-Length : 5",
        "Content-Length\t: 5",
        ": 5",
        "Content Length: 5",
        "Content-Length",
        "X\0: y",
        "X: a\0b",
        "X: a\rb",
        "(X): y",
        "X: \u{7f}",
        "Ключ: x",
    ] {
        assert_closes(post(&format!("{line}\r\n")), 400);
    }
}

#[test]
fn case_68_a_host_is_needed_once_and_must_be_one() {
    assert_closes("GET / HTTP/1.1\r\n\r\n", 400);
    assert_closes("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    assert_closes("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", 400);
    for host in ["a b", "a, b", "a/b", "u@a", "a?b", "é"] {
        assert_closes(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400);
    }
    assert_eq!(head("GET / HTTP/1.1\r\nHost: [::1]:6632\r\n\r\n").path, "/");
    assert_eq!(head("GET / HTTP/1.0\r\n\r\n").path, "/");
}

#[test]
fn case_68_other_headers_that_come_once_are_refused_when_they_come_twice() {
    for name in ["Content-Type", "Content-Encoding", "Idempotency-Key", "Authorization", "Origin"] {
        assert_closes(post(&format!("{name}: a\r\n{}: a\r\n", name.to_lowercase())), 400);
    }
    assert_closes(b"GET / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: \xff\r\n\r\n", 400);
}

#[test]
fn case_68_a_thousand_headers_are_refused() {
    assert_closes(post(&"X: y\r\n".repeat(1_000)), 431);
}

#[test]
fn case_68_names_that_only_look_like_framing_do_not_frame() {
    assert_eq!(head(&post("Content_Length: 5\r\nX-Transfer-Encoding: chunked\r\n")).framing, Body::None);
}

/// The status with which a chunked body is refused, or nothing when it is not.
fn chunk_refusal(body: &[u8]) -> Option<u16> {
    let refusal = Decoder::new(1_000).feed(body, &mut Vec::new()).err()?;
    assert!(refusal.close);
    Some(refusal.status)
}

#[test]
fn case_68_bad_chunk_sizes_are_refused() {
    for size in [
        "",
        " 5",
        "5 ",
        "0x5",
        "+5",
        "-5",
        "5,",
        "g",
        "5\t",
        "00000000000000005",
        "fffffffffffffffff",
        "5\n",
        "5\r5",
        "\"5\"",
        "٥",
        "5 a",
        "5 \t",
    ] {
        assert_eq!(chunk_refusal(format!("{size}\r\nabcde\r\n0\r\n\r\n").as_bytes()), Some(400), "{size:?}");
    }
    for size in ["3e9", "ffffffffffffffff", "FFFFFFFFFFFFFFFF", "8000000000000000"] {
        assert_eq!(chunk_refusal(format!("{size}\r\nabcde").as_bytes()), Some(413), "{size}");
    }
    assert_eq!(chunk_refusal(b"1\r\na\r\nffffffffffffffff\r\n"), Some(413));
}

#[test]
fn case_68_chunk_data_that_is_not_as_long_as_its_size_says_is_refused() {
    for body in [
        "4\r\nabcde\r\n0\r\n\r\n",
        "6\r\nabcde\r\n0\r\n\r\n",
        "5\r\nabcde0\r\n\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "5\r\nabcde\r0",
    ] {
        assert_eq!(chunk_refusal(body.as_bytes()), Some(400), "{body:?}");
    }
}

#[test]
fn case_68_bare_line_ends_in_a_chunked_body_are_refused() {
    for body in [
        "5\nabcde\r\n0\r\n\r\n",
        "5;a\nabcde\r\n0\r\n\r\n",
        "5;a\rb\r\nabcde\r\n",
        "5\r\nabcde\r\n0\n\r\n",
        "5\r\nabcde\r\n0\r\n\n",
        "5\r\nabcde\r\n0\r\nX: y\n\r\n",
        "5\r\nabcde\r\n0\r\nX: y\rz\r\n\r\n",
        "5\r\nabcde\r\n0\r\n\rX",
    ] {
        assert_eq!(chunk_refusal(body.as_bytes()), Some(400), "{body:?}");
    }
}

#[test]
fn case_68_extensions_and_trailers_are_checked_and_bounded() {
    let extended = |bytes: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(bytes));
    assert_eq!(chunk_refusal(extended(100).as_bytes()), None);
    assert_eq!(chunk_refusal(extended(MAX_CHUNK_EXTENSION_BYTES).as_bytes()), Some(400));
    let many = "1;xxxxxxxxxxxxxxx\r\na\r\n".repeat(MAX_CHUNK_EXTENSION_BYTES / 16);
    assert_eq!(chunk_refusal(many.as_bytes()), Some(400));
    assert_eq!(chunk_refusal(b"1;a\0\r\na\r\n0\r\n\r\n"), Some(400));

    let trailed = |line: &str| format!("0\r\n{line}\r\n\r\n");
    for line in ["X: y", "X:", "Content-Length: 5\r\nTransfer-Encoding: chunked"] {
        assert_eq!(chunk_refusal(trailed(line).as_bytes()), None, "{line:?}");
    }
    for line in ["X", " X: y", "X : y", ": y", "X: y\r\n z", "X: \0", "GET / HTTP/1.1"] {
        assert_eq!(chunk_refusal(trailed(line).as_bytes()), Some(400), "{line:?}");
    }
    assert_eq!(chunk_refusal(trailed(&format!("X: {}", "y".repeat(MAX_TRAILER_BYTES))).as_bytes()), Some(400));
    assert_eq!(chunk_refusal(trailed(&["X: y"; 3_000].join("\r\n")).as_bytes()), Some(400));
}
