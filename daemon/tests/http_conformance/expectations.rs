//! RFC 9110, section 10.1.1: `Expect: 100-continue`.

use super::{Stage, ask, ask_kept, push, push_chunks};
use std::time::Duration;

/// A head that announces a body and waits for `100 Continue`.
fn waiting(line: &str, lines: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n{lines}\r\n")
}

#[test]
fn whoever_waits_for_it_is_told_once_to_go_on_and_then_answered() {
    let stage = Stage::shared();
    for (n, expect) in ["100-continue", "100-CONTINUE"].iter().enumerate() {
        let mut client = stage.daemon.connect();
        let head = format!("POST /push/rfc_100 HTTP/1.1\r\nHost: t\r\nExpect: {expect}\r\nContent-Length: 3\r\n\r\n");
        client.send(head.as_bytes()).unwrap();
        let interim = client.receive_one(false).unwrap();
        assert_eq!((interim.status, interim.header("Content-Length")), (100, None));
        // The body comes in parts, and none of them causes another `100 Continue`.
        for byte in [b'[', b'0' + n as u8, b']'] {
            client.send(&[byte]).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(client.receive_one(false).unwrap().status, 201);
        assert_eq!(client.get("/health").unwrap().status, 200);
    }
    stage.payloads("rfc_100", 2);
}

#[test]
fn nobody_is_told_to_go_on_who_does_not_wait_has_sent_all_or_has_nothing_to_send() {
    let stage = Stage::shared();
    for request in [
        push("rfc_no_100", "Expect: 100-continue\r\n"),
        push_chunks("rfc_no_100", "Expect: 100-continue\r\n", "1\r\n1\r\n0\r\n\r\n"),
        "POST /push/rfc_no_100 HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n1".to_owned(),
        "GET /health HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ] {
        let mut client = stage.daemon.connect();
        client.send(request.as_bytes()).unwrap();
        let response = client.receive_one(false).unwrap();
        assert!(matches!(response.status, 200 | 201), "{request:?}: {}", response.status);
    }
    // A client of HTTP/1.0 gets no `100 Continue`, even if the body comes late.
    let mut client = stage.daemon.connect();
    client.send(b"POST /push/rfc_no_100 HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    client.send(b"1").unwrap();
    assert_eq!(client.receive_one(false).unwrap().status, 201);
    stage.payloads("rfc_no_100", 4);
}

#[test]
fn whoever_is_refused_for_what_his_head_says_gets_that_answer_at_once() {
    let stage = Stage::shared();
    for (line, lines, status) in [
        ("POST /push/rfc_refused_100", "Content-Length: 99999999999\r\n", 413),
        ("POST /nothing", "Content-Length: 5\r\n", 404),
        ("PUT /push/rfc_refused_100", "Content-Length: 5\r\n", 405),
        ("POST /push/rfc_refused_100", "Content-Length: 5\r\nContent-Encoding: x-unknown\r\n", 415),
        ("POST /push/rfc_refused_100", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
    ] {
        let mut client = stage.daemon.connect();
        client.send(waiting(line, lines).as_bytes()).unwrap();
        assert_eq!(client.receive_one(false).unwrap().status, status, "{line} {lines:?}");
    }
    stage.payloads("rfc_refused_100", 0);
}

#[test]
fn another_expectation_is_not_met() {
    let stage = Stage::shared();
    for expect in ["x", "100-continue, x", "200-ok", "100-continue;a=b"] {
        let (_, response) = ask(&stage, push("rfc_417", &format!("Expect: {expect}\r\n")));
        assert_eq!((response.status, response.code()), (417, "expectation_failed".to_owned()), "{expect}");
    }
    // The daemon ignores `Expect` of an HTTP/1.0 client.
    let old = "POST /push/rfc_old HTTP/1.0\r\nConnection: keep-alive\r\nExpect: x\r\nContent-Length: 1\r\n\r\n1";
    assert_eq!(ask_kept(&stage, old).status, 201);
    stage.payloads("rfc_417", 0);
    stage.payloads("rfc_old", 1);
}
