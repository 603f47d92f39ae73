use super::{LIMITS, assert_closes, head, post, refusal};
use crate::http::{Body, ErrorCode, MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES, Method, Parsed, Version, request};

#[test]
fn a_head_is_read_with_what_the_daemon_asks_of_it() {
    let text = "POST /api/v1/push?wait=postgres HTTP/1.1\r\nHost: localhost:6632\r\nContent-Type: application/json; charset=utf-8\r\n\
                content-length:  42 \r\nPREFER: respond-async, return=minimal\r\nIdempotency-Key: schlüssel\r\n\
                Authorization: Bearer abc\r\nContent-Encoding: gzip\r\nAccept: */*\r\nOrigin: null\r\nX-Other: \r\n\r\n{\"items\"";
    let head = head(text);
    assert_eq!((head.method, head.version), (Method::Post, Version::Http11));
    assert_eq!((head.path, head.query), ("/api/v1/push", "wait=postgres"));
    assert_eq!(&text[head.head_len..], "{\"items\"");
    assert_eq!((head.framing, head.keep_alive, head.expect_continue), (Body::Length(42), true, false));
    assert!(head.prefer_minimal);
    assert_eq!(head.content_type, Some("application/json; charset=utf-8"));
    assert_eq!(head.media_type(), Some("application/json"));
    assert_eq!((head.content_encoding, head.idempotency_key), (Some("gzip"), Some("schlüssel")));
    assert_eq!((head.authorization, head.accept, head.origin), (Some("Bearer abc"), Some("*/*"), Some("null")));
}

#[test]
fn methods_are_told_apart_by_case() {
    for (name, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("PATCH", Method::Patch),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("TRACE", Method::Trace),
        ("CONNECT", Method::Connect),
        ("QUERY", Method::Query),
        ("PROPFIND", Method::Other),
        ("get", Method::Other),
    ] {
        assert_eq!(head(&format!("{name} / HTTP/1.1\r\nHost:\r\n\r\n")).method, method);
    }
}

#[test]
fn empty_lines_before_a_head_are_skipped_and_count_as_its_bytes() {
    let text = "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET";
    assert_eq!(head(text).head_len, text.len() - 3);
    assert_eq!(request::parse(b"\r\n", &LIMITS), Ok(Parsed::Partial));
    assert_closes("\r\n".repeat(MAX_HEAD_BYTES), 431);
}

#[test]
fn pipelined_heads_are_read_one_by_one() {
    let text = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nDELETE /b HTTP/1.1\r\nHost: a\r\n\r\nGET /c";
    let first = head(text);
    let second = head(&text[first.head_len..]);
    assert_eq!((first.path, second.path, second.method), ("/a", "/b", Method::Delete));
    let rest = &text[first.head_len + second.head_len..];
    assert_eq!(request::parse(rest.as_bytes(), &LIMITS), Ok(Parsed::Partial));
}

#[test]
fn the_connection_is_kept_as_version_and_header_say() {
    for (version, line, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: TE, Close\r\n", false),
        ("1.1", "Connection: TE\r\nConnection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{line}\r\n");
        assert_eq!(head(&text).keep_alive, kept, "{text:?}");
    }
}

#[test]
fn a_body_is_framed_by_length_or_chunks_or_is_none() {
    assert_eq!(head(&post("")).framing, Body::None);
    assert_eq!(head(&post("Content-Length: 0\r\n")).framing, Body::Length(0));
    assert_eq!(head(&post("Content-Length: 007\r\n")).framing, Body::Length(7));
    assert_eq!(head(&post("Transfer-Encoding:\tChunked \r\n")).framing, Body::Chunked);
}

#[test]
fn a_client_that_waits_to_be_told_to_go_on_is_recognised() {
    assert!(head(&post("Expect: 100-Continue\r\nContent-Length: 5\r\n")).expect_continue);
    assert!(head(&post("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n")).expect_continue);
    assert!(!head(&post("Expect: 100-continue\r\n")).expect_continue);
    let old = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    assert!(!head(old).expect_continue);
    for expectation in ["", "200-ok", "100-continue, 100-continue"] {
        assert_closes(post(&format!("Expect: {expectation}\r\nContent-Length: 5\r\n")), 417);
    }
}

#[test]
fn a_preference_for_short_answers_is_found_in_any_list() {
    for (line, minimal) in [
        ("Prefer: return=minimal", true),
        ("Prefer: Return = \"Minimal\"; foo=bar", true),
        ("Prefer: wait=5\r\nPrefer: a, return=minimal", true),
        ("Prefer: return=representation", false),
        ("Prefer: minimal", false),
        ("Prefer:", false),
    ] {
        assert_eq!(head(&post(&format!("{line}\r\n"))).prefer_minimal, minimal, "{line}");
    }
}

#[test]
fn targets_are_taken_in_every_form_a_server_must_take() {
    let target = |text: &str| format!("GET {text} HTTP/1.1\r\nHost: a\r\n\r\n");
    for (text, path, query) in [
        ("/", "/", ""),
        ("/a/b?", "/a/b", ""),
        ("/a?b?c=%20", "/a", "b?c=%20"),
        ("//a", "//a", ""),
        ("/очередь", "/очередь", ""),
        ("http://b:80/c?d", "/c", "d"),
        ("HTTPS://b", "/", ""),
        ("http://b?d", "/", "d"),
    ] {
        let text = target(text);
        let head = head(&text);
        assert_eq!((head.path, head.query), (path, query));
    }
    assert_eq!(head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path, "*");
    for text in ["*", "a", "a:80", "http://", "http:///a", "http://u@b/", "/a#b", "ftp://b/a"] {
        assert_closes(target(text), 400);
    }
}

#[test]
fn sizes_beyond_the_limits_are_refused_as_soon_as_they_show() {
    let with_target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(bytes - 1));
    assert_eq!(head(&with_target(MAX_TARGET_BYTES)).path.len(), MAX_TARGET_BYTES);
    assert_closes(with_target(MAX_TARGET_BYTES + 1), 414);
    assert_closes(format!("GET /{}", "a".repeat(MAX_TARGET_BYTES)), 414);

    let with_head = |bytes: usize| {
        let short = post("X: \r\n").len();
        post(&format!("X: {}\r\n", "a".repeat(bytes - short)))
    };
    assert_eq!(head(&with_head(MAX_HEAD_BYTES)).head_len, MAX_HEAD_BYTES);
    assert_closes(with_head(MAX_HEAD_BYTES + 1), 431);
    assert_closes("A".repeat(MAX_HEAD_BYTES), 431);

    let with_headers = |count: usize| post(&"X: y\r\n".repeat(count - 1));
    assert_eq!(head(&with_headers(MAX_HEADERS)).path, "/push/q");
    assert_closes(with_headers(MAX_HEADERS + 1), 431);

    assert_eq!(head(&post("Content-Length: 1000000\r\n")).framing, Body::Length(1_000_000));
    let too_large = refusal(post("Content-Length: 1000001\r\n"));
    assert_eq!((too_large.status, too_large.code, too_large.close), (413, ErrorCode::BodyTooLarge, true));
}

#[test]
fn other_versions_are_refused_as_such_and_other_lines_as_malformed() {
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3"] {
        assert_closes(format!("GET / {version}\r\nHost: a\r\n\r\n"), 505);
    }
    assert_closes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    for line in [
        "GET /",
        "GET",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/11",
        "G\"T / HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
    ] {
        assert_closes(format!("{line}\r\nHost: a\r\n\r\n"), 400);
    }
    assert_closes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400);
    assert_closes(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400);
}

#[test]
fn a_media_type_is_accepted_where_it_is_named_with_a_weight() {
    for (accept, is_accepted) in [
        ("application/x-ndjson", true),
        ("text/html, Application/X-NDJSON;q=0.5", true),
        ("application/json, application/x-ndjson ; v=1 ; Q=1", true),
        ("application/x-ndjson;q=0", false),
        ("application/x-ndjson;q=0.000, */*", false),
        ("*/*", false),
        ("application/*", false),
        ("application/x-ndjsons", false),
        ("", false),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n");
        assert_eq!(head(&text).accepts("application/x-ndjson"), is_accepted, "{accept:?}");
    }
    assert!(!head("GET / HTTP/1.1\r\nHost: a\r\n\r\n").accepts("application/x-ndjson"));
}
