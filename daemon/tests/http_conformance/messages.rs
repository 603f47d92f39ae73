//! RFC 9112, sections 2 to 8: where a message starts and ends.

use super::{Stage, all_that_comes_back, ask, ask_kept, assert_refused_and_closed, health, push, push_chunks};
use serde_json::json;

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let stage = Stage::shared();
    assert_eq!(ask_kept(&stage, format!("\r\n{}", health(""))).status, 200);
    // Some clients send an empty line after a body.
    let (mut client, first) = ask(&stage, push("rfc_empty", "") + "\r\n" + &health(""));
    assert_eq!((first.status, client.receive(false).unwrap().status), (201, 200));
}

#[test]
fn what_is_not_http_is_refused_as_such_and_the_connection_closed() {
    let stage = Stage::shared();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"{\"items\":[]}\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /health HTTP/1.1 \r\nHost: t\r\n\r\n",
        b"GET /hea lth HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /health\x7f HTTP/1.1\r\nHost: t\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert_eq!(assert_refused_and_closed(&stage, bytes, 400).code(), "malformed_request");
    }
}

#[test]
fn lines_end_with_cr_lf_and_none_is_folded() {
    let stage = Stage::shared();
    for request in [
        "GET /health HTTP/1.1\nHost: t\n\n",
        "GET /health HTTP/1.1\r\nHost: t\nX: y\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\rX: y\r\n\r\n",
        "GET /health HTTP/1.1\r\n Host: t\r\n\r\n",
        "GET /health HTTP/1.1\r\n\r\n Host: t\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\r\nX: a\r\n\tb\r\n\r\n",
    ] {
        assert_refused_and_closed(&stage, request, 400);
    }
}

#[test]
fn white_space_before_a_colon_is_refused_and_around_a_value_is_no_part_of_it() {
    let stage = Stage::shared();
    for lines in ["X : y\r\n", "X\t: y\r\n", ": y\r\n", "X\r\n", "X Y: z\r\n"] {
        assert_refused_and_closed(&stage, health(lines), 400);
    }
    let request =
        "POST /push/rfc_space HTTP/1.1\r\nHost:t\r\nContent-Length: \t 1\t \r\nIdempotency-Key:  a b \t\r\n\r\n1";
    let response = ask_kept(&stage, request);
    assert_eq!(response.json()["messages"][0]["transaction_id"], "a b");
}

#[test]
fn control_characters_in_a_header_are_refused() {
    let stage = Stage::shared();
    for byte in (0..0x20_u8).chain([0x7f]).filter(|byte| !b"\t\r\n".contains(byte)) {
        let request = [b"GET /health HTTP/1.1\r\nHost: t\r\nX: a", &[byte][..], b"b\r\n\r\n"].concat();
        assert_refused_and_closed(&stage, request, 400);
    }
}

#[test]
fn a_target_in_absolute_form_is_taken_and_host_is_looked_at_no_more() {
    let stage = Stage::shared();
    for target in ["http://t/health", "HTTP://other.example:80/health", "https://t/health?", "http://[::1]:1/health"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: yet.another\r\n\r\n");
        assert_eq!(ask_kept(&stage, request).json()["status"], "healthy", "{target}");
    }
    for target in ["http://", "http:///health", "http://a b/health", "ftp://t/health", "http://u@t/health"] {
        assert_refused_and_closed(&stage, format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"), 400);
    }
}

#[test]
fn other_forms_of_a_target_are_refused() {
    let stage = Stage::shared();
    for line in ["GET *", "POST *", "GET t:80", "GET health", "GET /health#top"] {
        assert_refused_and_closed(&stage, format!("{line} HTTP/1.1\r\nHost: t\r\n\r\n"), 400);
    }
}

#[test]
fn a_host_is_needed_once_in_http_1_1_and_must_be_one() {
    let stage = Stage::shared();
    for lines in
        ["", "Host: t\r\nHost: t\r\n", "Host: t\r\nhOST: u\r\n", "Host: a b\r\n", "Host: t/x\r\n", "Host: u@t\r\n"]
    {
        assert_refused_and_closed(&stage, format!("GET /health HTTP/1.1\r\n{lines}\r\n"), 400);
    }
    assert_refused_and_closed(&stage, "GET http://t/health HTTP/1.1\r\n\r\n", 400);
    for host in ["", "t", "t:6632", "127.0.0.1", "[::1]:6632"] {
        let request = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(ask_kept(&stage, request).status, 200, "{host}");
    }
}

#[test]
fn other_versions_are_told_which_are_understood() {
    let stage = Stage::shared();
    for line in ["GET /health HTTP/2.0", "GET /health HTTP/1.2", "GET /health HTTP/0.9", "PRI * HTTP/2.0"] {
        let response = assert_refused_and_closed(&stage, format!("{line}\r\nHost: t\r\n\r\n"), 505);
        assert_eq!(response.code(), "http_version_not_supported");
        assert!(response.error().contains("HTTP/1.1"), "{}", response.error());
    }
    // A version has exactly one valid spelling.
    for version in ["HTTP/1.10", "http/1.1", "HTTP/1,1", "HTTP/11", "HTTPS/1.1"] {
        assert_refused_and_closed(&stage, format!("GET /health {version}\r\nHost: t\r\n\r\n"), 400);
    }
}

#[test]
fn an_answer_starts_with_the_own_version_a_status_and_a_space_whatever_was_asked() {
    let stage = Stage::shared();
    for request in [
        health("Connection: close\r\n"),
        "GET /health HTTP/1.0\r\n\r\n".to_owned(),
        "GET /health HTTP/3.0\r\n\r\n".to_owned(),
        "nothing\r\n\r\n".to_owned(),
    ] {
        let received = all_that_comes_back(&stage, request.as_bytes());
        let line = received.split(|byte| *byte == b'\r').next().unwrap();
        assert!(line.starts_with(b"HTTP/1.1 ") && line[12] == b' ', "{}", String::from_utf8_lossy(&received));
    }
}

#[test]
fn chunks_are_read_whatever_their_extensions_and_trailers_say() {
    let stage = Stage::shared();
    for (n, chunks) in [
        "2\r\n[0\r\n1\r\n]\r\n0\r\n\r\n",
        "3;a\r\n[1]\r\n0\r\n\r\n",
        "3;a=b;c=\"d e\"\r\n[2]\r\n0;last\r\n\r\n",
        "3 ;a = b\r\n[3]\r\n0\r\n\r\n",
        "03\r\n[4]\r\n000\r\n\r\n",
        "3\r\n[5]\r\n0\r\nX: y\r\nZ:\r\n\r\n",
        // A trailer does not override the head.
        "3\r\n[6]\r\n0\r\nContent-Length: 100\r\nIdempotency-Key: k\r\nConnection: close\r\nHost: u\r\n\r\n",
        "B\r\n        [7]\r\n0\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let response = ask_kept(&stage, push_chunks("rfc_chunks", "", chunks));
        assert_eq!(response.status, 201, "{chunks:?}: {}", response.error());
        let message = &response.json()["messages"][0];
        assert_eq!(message["transaction_id"], message["message_id"], "{n}: no key was in the head");
    }
    let expected: Vec<_> = (0..8).map(|n| json!([n])).collect();
    assert_eq!(stage.payloads("rfc_chunks", 8), expected);
}

#[test]
fn a_chunk_that_is_none_is_refused_and_no_size_overflows() {
    let stage = Stage::shared();
    for chunks in [
        "g\r\n",
        "0x3\r\n[1]\r\n",
        "+3\r\n[1]\r\n",
        "3 \r\n[1]\r\n",
        " 3\r\n[1]\r\n",
        "3\n[1]\r\n",
        "3\r\n[1]0\r\n\r\n",
        "3\r\n[1]\n0\r\n\r\n",
        "2\r\n[1]\r\n",
        "10000000000000003\r\n[1]\r\n",
        "3\r\n[1]\r\n0\r\n no: name\r\n\r\n",
    ] {
        assert_refused_and_closed(&stage, push_chunks("rfc_no_chunks", "", chunks), 400);
    }
    for size in ["ffffffffffffffff", "7fffffffffffffff", "100000000"] {
        assert_refused_and_closed(&stage, push_chunks("rfc_no_chunks", "", &format!("{size}\r\n[1]\r\n")), 413);
    }
    stage.payloads("rfc_no_chunks", 0);
}

#[test]
fn a_body_whose_end_is_in_doubt_is_refused_and_the_connection_closed() {
    let stage = Stage::shared();
    for lines in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 1.0\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 99999999999999999999999\r\n",
        // Chunked is not the last coding, so nothing marks the end of the body.
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        let request = format!("POST /push/rfc_doubt HTTP/1.1\r\nHost: t\r\n{lines}\r\n1");
        assert_refused_and_closed(&stage, request, 400);
    }
    let old = "POST /push/rfc_doubt HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n";
    assert_refused_and_closed(&stage, old, 400);
    stage.payloads("rfc_doubt", 0);
}

#[test]
fn a_transfer_coding_that_is_not_known_is_501() {
    let stage = Stage::shared();
    for coding in ["gzip, chunked", "x, chunked", "gzip\r\nTransfer-Encoding: chunked"] {
        let request =
            format!("POST /push/rfc_coding HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n");
        let response = assert_refused_and_closed(&stage, request, 501);
        assert_eq!(response.code(), "transfer_encoding_not_supported");
    }
    assert_eq!(ask_kept(&stage, push_chunks("rfc_coding", "TE: trailers\r\n", "1\r\n1\r\n0\r\n\r\n")).status, 201);
    let in_capitals =
        "POST /push/rfc_coding HTTP/1.1\r\nHost: t\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n1\r\n2\r\n0\r\n\r\n";
    assert_eq!(ask_kept(&stage, in_capitals).status, 201);
    stage.payloads("rfc_coding", 2);
}

#[test]
fn a_body_that_ends_early_is_no_request() {
    let stage = Stage::shared();
    for request in [
        "POST /push/rfc_early HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n1".to_owned(),
        push_chunks("rfc_early", "", "1\r\n1\r\n"),
        push_chunks("rfc_early", "", "1\r\n1\r\n0\r\n"),
        push_chunks("rfc_early", "", "5\r\n1"),
    ] {
        let mut client = stage.daemon.connect();
        client.send(request.as_bytes()).unwrap();
        client.finish_sending();
        if let Ok(response) = client.receive(false) {
            assert_eq!(response.status / 100, 4, "{request:?}");
        }
        assert!(client.is_closed(), "{request:?}");
    }
    stage.payloads("rfc_early", 0);
}

#[test]
fn a_push_without_length_or_chunks_is_asked_for_one_and_its_connection_goes_on() {
    let stage = Stage::shared();
    let response = ask_kept(&stage, "POST /push/rfc_length HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!((response.status, response.code()), (411, "length_required".to_owned()));
}

#[test]
fn too_long_targets_and_too_large_heads_are_told_apart_and_8000_bytes_of_a_target_are_taken() {
    let stage = Stage::shared();
    let target = |bytes: usize| format!("GET /health?{} HTTP/1.1\r\nHost: t\r\n\r\n", "a".repeat(bytes - 8));
    assert_eq!(ask_kept(&stage, target(8000)).status, 200);
    assert_refused_and_closed(&stage, target(8193), 414);
    assert_refused_and_closed(&stage, health(&format!("X: {}\r\n", "y".repeat(17_000))), 431);
    assert_refused_and_closed(&stage, health(&"X: y\r\n".repeat(101)), 431);
}
