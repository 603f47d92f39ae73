//! RFC 9112, section 9, and RFC 9110 on connections: when a connection persists and when it closes.

use super::{Stage, ask, ask_kept, health, push, says_close};
use serde_json::json;
use std::io::ErrorKind;

#[test]
fn behind_a_request_that_closes_nothing_is_done() {
    let stage = Stage::shared();
    for lines in ["Connection: close\r\n", "connection: CLOSE\r\n", "Connection: keep-alive, close\r\n"] {
        let (mut client, first) = ask(&stage, push("rfc_close", lines) + &push("rfc_behind_close", ""));
        assert_eq!(first.status, 201, "{lines:?}");
        assert!(says_close(&first), "{lines:?}");
        assert!(client.is_closed(), "{lines:?}");
    }
    let (mut client, first) = ask(&stage, "nothing\r\n\r\n".to_owned() + &push("rfc_behind_close", ""));
    assert_eq!(first.status, 400);
    assert!(client.is_closed());
    stage.payloads("rfc_close", 3);
    stage.payloads("rfc_behind_close", 0);
}

#[test]
fn options_of_a_connection_come_in_any_case_list_and_number_of_lines() {
    let stage = Stage::shared();
    for lines in
        ["Connection: , Close ,\r\n", "Connection: x\r\nConnection: close\r\n", "Connection: TE,\tclose, y\r\n"]
    {
        let (mut client, response) = ask(&stage, health(lines));
        assert!(response.status == 200 && says_close(&response) && client.is_closed(), "{lines:?}");
    }
    for lines in ["Connection: x-close\r\n", "Connection: ,\r\n", "Connection:\r\n", "X-Connection: close\r\n"] {
        assert_eq!(ask_kept(&stage, health(lines)).header("Connection"), None, "{lines:?}");
    }
}

#[test]
fn an_upgrade_is_not_taken_up() {
    let stage = Stage::shared();
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        "Upgrade: HTTP/3.0\r\n",
    ] {
        let response = ask_kept(&stage, health(lines));
        assert_eq!((response.status, response.header("Upgrade")), (200, None), "{lines:?}");
    }
}

#[test]
fn what_a_refused_body_holds_is_never_taken_for_a_request() {
    let stage = Stage::shared();
    let inner = push("rfc_inner", "");
    let length = inner.len();
    for head in [
        "POST /nothing HTTP/1.1\r\nHost: t",
        "PUT /push/q HTTP/1.1\r\nHost: t",
        "GET /health HTTP/1.1\r\nHost: t",
        "DELETE /health HTTP/1.1\r\nHost: t",
        "POST /push/rfc_inner?x=y HTTP/1.1\r\nHost: t",
        "POST /push/rfc_inner HTTP/1.1\r\nHost: t\r\nContent-Encoding: x-unknown",
        "POST /push/%00 HTTP/1.1\r\nHost: t",
        "POST /push/rfc_inner HTTP/1.1\r\nHost: t\r\nExpect: x",
    ] {
        let chunks = format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n");
        for body in [format!("Content-Length: {length}\r\n\r\n{inner}"), chunks] {
            let (mut client, first) = ask(&stage, format!("{head}\r\n{body}{}", health("")));
            // Either the body is skipped and the next request answered, or the connection is closed.
            match client.receive(false) {
                Ok(second) => assert_eq!(second.json()["status"], "healthy", "{head} {first:?}"),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(_) => assert!(says_close(&first), "{head} {first:?}"),
            }
        }
    }
    stage.payloads("rfc_inner", 0);
}

#[test]
fn whoever_still_sends_can_read_why_he_was_refused() {
    let stage = Stage::shared();
    // More than a connection's buffers hold if the daemon reads nothing.
    let sent = vec![b' '; 24 << 20];
    for head in [
        "POST /push/rfc_refused HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999\r\n\r\n",
        "POST /push/rfc_refused HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    ] {
        let mut client = stage.daemon.connect();
        client.send(head.as_bytes()).unwrap();
        let written = sent.chunks(64 << 10).try_for_each(|part| client.send(part));
        let response = client.receive(false).unwrap_or_else(|error| panic!("{error} ({written:?}) after {head:?}"));
        assert!(matches!(response.status, 400 | 413), "{response:?}");
        assert!(says_close(&response));
    }
}

#[test]
fn requests_of_all_kinds_in_one_write_are_answered_in_their_order() {
    let stage = Stage::shared();
    let mut client = stage.daemon.connect();
    let mut bytes = Vec::new();
    for n in 0..20 {
        let body = json!({"items": [{"queue": "rfc_order", "payload": n}]}).to_string();
        let head = format!("POST /api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
        bytes.extend_from_slice(&[head.as_bytes(), body.as_bytes(), health("").as_bytes()].concat());
        bytes.extend_from_slice(b"GET /nothing HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    client.send(&bytes).unwrap();
    for n in 0..60 {
        let status = client.receive(false).unwrap().status;
        assert_eq!(status, [201, 200, 404][n % 3], "answer {n}");
    }
    let expected: Vec<_> = (0..20).map(|n| json!(n)).collect();
    assert_eq!(stage.payloads("rfc_order", 20), expected);
}
