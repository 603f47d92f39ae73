use crate::http::response::{CONTINUE, JSON, LAST_CHUNK, Response, push_chunk};
use crate::http::{ErrorCode, Method, Refusal, ResponseOptions, Version};

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"before".to_vec();
    write(&mut out);
    String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
}

fn answer(status: u16, content_type: &'static str, body: &[u8], keep_alive: bool, head_only: bool) -> String {
    written(|out| Response::start(out, status, content_type, body).end(keep_alive, head_only))
}

/// How a client that says nothing special is answered.
const USUAL: ResponseOptions =
    ResponseOptions { keep_alive: true, version: Version::Http11, ..ResponseOptions::CLOSING };

#[test]
fn an_answer_has_status_type_length_headers_and_body() {
    let text = written(|out| {
        let mut response = Response::start(out, 201, JSON, b"[1]");
        response.header("Forebay-Durability", "disk");
        response.lines(b"Date: now\r\n");
        response.end(true, false);
    });
    assert_eq!(
        text,
        "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 3\r\nForebay-Durability: disk\r\n\
         Date: now\r\n\r\n[1]"
    );
}

#[test]
fn an_answer_without_content_has_no_length_and_one_to_head_has_only_its_length() {
    for status in [204, 304] {
        let text = answer(status, JSON, b"left out", true, false);
        assert_eq!(text.split_once("\r\n").unwrap().1, "\r\n", "{text}");
    }
    assert_eq!(
        answer(200, "text/plain", b"12345", true, true),
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
    );
    assert_eq!(answer(200, "", b"", true, false), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn a_connection_that_will_be_closed_is_announced() {
    assert_eq!(answer(200, "", b"", false, false), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

#[test]
fn no_header_value_can_start_another_line() {
    let text = written(|out| {
        let mut response = Response::start(out, 200, "", b"");
        response.header("X", "a\r\nSet-Cookie: b\0");
        response.end(true, false);
    });
    assert!(text.ends_with("Content-Length: 0\r\nX: a  Set-Cookie: b \r\n\r\n"), "{text}");
}

#[test]
fn every_status_has_a_line_that_parses() {
    for status in 200..600 {
        let text = answer(status, JSON, b"{}", true, false);
        let mut headers = [httparse::EMPTY_HEADER; 4];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(text.as_bytes()).unwrap();
        assert!(parsed.is_complete());
        assert_eq!(response.code, Some(status));
    }
    for status in [200, 201, 202, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 429, 431, 500, 501, 503, 505] {
        let text = answer(status, JSON, b"{}", true, false);
        assert!(text.lines().next().unwrap().len() > "HTTP/1.1 200 ".len(), "{status} has no reason");
    }
    assert_eq!(CONTINUE, b"HTTP/1.1 100 Continue\r\n\r\n");
}

fn body_of(text: &str) -> serde_json::Value {
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn a_refusal_says_what_is_wrong_in_json_with_the_headers_it_needs() {
    let refusal = Refusal::new(ErrorCode::LogFull, "the \"log\" is\nfull").retry_after_s(12);
    let text = written(|out| refusal.write_to(out, None, b"Date: now\r\n", USUAL));
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(text.contains("\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"));
    assert!(text.contains("\r\nRetry-After: 12\r\n") && text.contains("\r\nDate: now\r\n"));
    assert!(!text.contains("Connection:"));
    assert_eq!(body_of(&text), serde_json::json!({"error": "the \"log\" is\nfull", "code": "log_full"}));

    let methods = [Method::Get, Method::Head].into_iter().collect();
    let text = written(|out| Refusal::method_not_allowed(methods).write_to(out, None, b"", USUAL));
    assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("\r\nAllow: GET, HEAD\r\n"));
    let text = written(|out| Refusal::new(ErrorCode::Unauthorized, "no token").write_to(out, None, b"", USUAL));
    assert!(text.contains("\r\nWWW-Authenticate: Bearer\r\n"));
}

#[test]
fn a_refusal_of_a_stream_says_how_many_lines_were_taken() {
    let refusal = Refusal::new(ErrorCode::MalformedJson, "line 3: expected a value at byte 0");
    let text = written(|out| refusal.write_to(out, Some(2), b"", USUAL));
    assert_eq!(body_of(&text)["accepted"], 2);
}

#[test]
fn a_refusal_that_closes_does_so_whatever_the_client_asked() {
    let refusal = Refusal::body_too_large(10);
    let text = written(|out| refusal.write_to(out, None, b"", ResponseOptions { head_only: true, ..USUAL }));
    assert!(text.ends_with("Connection: close\r\n\r\n"));
    assert!(!text.contains("Content-Length: 0"));
    assert_eq!(refusal.to_string(), "413 body_too_large: the body is larger than 10 bytes");
}

#[test]
fn a_body_in_pieces_is_chunked_and_no_empty_piece_ends_it_early() {
    let text = written(|out| {
        Response::start_stream(out, 200, "text/plain", true).end(true, false);
        push_chunk(out, b"0123456789abcdef");
        push_chunk(out, b"");
        push_chunk(out, b"x");
        out.extend_from_slice(LAST_CHUNK);
    });
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n\
         10\r\n0123456789abcdef\r\n1\r\nx\r\n0\r\n\r\n"
    );
    let head = written(|out| Response::start_stream(out, 200, "text/plain", false).end(false, false));
    assert_eq!(head, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n");
}

#[test]
fn only_a_client_of_http_1_0_that_is_kept_is_told_so() {
    for (version, keep_alive, told) in
        [(Version::Http10, true, true), (Version::Http10, false, false), (Version::Http11, true, false)]
    {
        let options = ResponseOptions { version, keep_alive, ..USUAL };
        assert_eq!(options.headers().any(|header| header == ("Connection", "keep-alive")), told, "{version:?}");
        assert_eq!(options.closing().headers().count(), 0);
    }
}
