//! HTTP over real sockets: persistent connections, split and pipelined requests, and clients that leave.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, stage::Stage, wait_until};
use serde_json::{Value, json};

/// The bytes of a push request of one number.
fn push_bytes(queue: &str, payload: &Value) -> Vec<u8> {
    let body = json!({"items": [{"queue": queue, "payload": payload}], "bufferMs": 10}).to_string();
    let length = body.len();
    let head = format!("POST /api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n");
    [head.into_bytes(), body.into_bytes()].concat()
}

/// A body in two chunks, with an extension and a trailer.
fn chunked_push(queue: &str, payload: &str) -> Vec<u8> {
    let head = format!("POST /push/{queue} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    let (first, second) = payload.split_at(payload.len() / 2);
    let chunk = |data: &str, extension: &str| format!("{:X}{extension}\r\n{data}\r\n", data.len());
    let body = format!("{}{}0\r\nX-Trailer: 1\r\n\r\n", chunk(first, ""), chunk(second, ";name=\"value\""));
    [head.into_bytes(), body.into_bytes()].concat()
}

fn expect_201(client: &mut Client) -> Value {
    let response = client.receive(false).unwrap();
    assert_eq!(response.status, 201, "{}", String::from_utf8_lossy(&response.body));
    response.json()
}

#[test]
fn a_connection_is_kept_for_a_hundred_requests_of_all_kinds() {
    let stage = Stage::shared();
    let mut client = stage.daemon.connect();
    for n in 0..100 {
        let (status, response) = match n % 4 {
            0 => (200, client.get("/health")),
            1 => (201, client.push(&json!({"items": [{"queue": "kept", "payload": n}]}))),
            2 => (400, client.post("/push/kept", b"not JSON")),
            _ => (404, client.request("HEAD", "/nothing", &[], None)),
        };
        let response = response.unwrap();
        assert_eq!(response.status, status, "request {n}");
        assert_eq!(response.header("Connection"), None, "request {n}");
    }
    stage.payloads("kept", 25);
}

#[test]
fn fifty_pipelined_pushes_in_one_write_are_answered_in_their_order() {
    let stage = Stage::shared();
    let mut client = stage.daemon.connect();
    let mut bytes = Vec::new();
    for n in 0..50 {
        let item = json!({"queue": "pipelined", "payload": n, "transactionId": format!("tx{n}")});
        // Plain pushes between buffered ones, so the replies wait for each other.
        let body = if n % 5 == 0 { json!({"items": [item]}) } else { json!({"items": [item], "qos0": true}) };
        let body = body.to_string();
        let head = format!("POST /api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(body.as_bytes());
    }
    client.send(&bytes).unwrap();
    for n in 0..50 {
        let answer = expect_201(&mut client);
        let message = if n % 5 == 0 { &answer[0] } else { &answer["messages"][0] };
        assert_eq!(message["transaction_id"], format!("tx{n}"));
    }
    let expected: Vec<Value> = (0..50).map(|n| json!(n)).collect();
    assert_eq!(stage.payloads("pipelined", 50), expected);
}

#[test]
fn case_72_a_request_in_single_bytes_is_a_request() {
    let stage = Stage::shared();
    let mut client = stage.daemon.connect();
    for bytes in [push_bytes("bytes", &json!({"a": [1]})), chunked_push("bytes", "{\"a\": [2]}")] {
        for byte in bytes {
            client.send(&[byte]).unwrap();
        }
        expect_201(&mut client);
    }
    assert_eq!(stage.payloads("bytes", 2), [json!({"a": [1]}), json!({"a": [2]})]);
}

#[test]
fn case_67_a_chunked_body_cut_anywhere_is_followed_by_the_pipelined_request_behind_it() {
    let stage = Stage::shared();
    let chunked = chunked_push("chunks", "[\"0123456789\", \"abcdefghij\"]");
    let bytes = [&chunked[..], &push_bytes("chunks", &json!(1)), &chunked, b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n"];
    let bytes = bytes.concat();
    let mut client = stage.daemon.connect();
    let cuts: Vec<usize> = (1..bytes.len()).step_by(3).collect();
    for cut in &cuts {
        client.send(&bytes[..*cut]).unwrap();
        // Gives the daemon a chance to see the first part before the rest arrives.
        std::thread::yield_now();
        client.send(&bytes[*cut..]).unwrap();
        for _ in 0..3 {
            expect_201(&mut client);
        }
        assert_eq!(client.receive(false).unwrap().json()["status"], "healthy", "cut at {cut}");
    }
    let payloads = stage.payloads("chunks", 3 * cuts.len());
    let one = json!(["0123456789", "abcdefghij"]);
    assert!(payloads.chunks(3).all(|three| three == [one.clone(), json!(1), one.clone()]));
}

#[test]
fn a_client_that_expects_100_continue_is_told_to_go_on_before_it_sends_its_body() {
    let stage = Stage::shared();
    let mut client = stage.daemon.connect();
    let body = json!("z".repeat(1_200_000)).to_string();
    for framing in [format!("Content-Length: {}", body.len()), "Transfer-Encoding: chunked".to_owned()] {
        let head = format!("POST /push/expect HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n{framing}\r\n\r\n");
        client.send(head.as_bytes()).unwrap();
        // No body is sent before this reply. A daemon that waited for the body would wait for ever.
        assert_eq!(client.receive_one(false).unwrap().status, 100);
        let chunked = framing.starts_with("Transfer");
        let sent = if chunked { format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()) } else { body.clone() };
        client.send(sent.as_bytes()).unwrap();
        assert_eq!(client.receive_one(false).unwrap().status, 201);
    }
    // A client that sends the body at once needs no 100, and a refused client gets none.
    let head = "POST /push/expect HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n1";
    client.send(head.as_bytes()).unwrap();
    assert_eq!(client.receive(false).unwrap().status, 201);
    let too_large =
        "POST /push/expect HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n";
    client.send(too_large.as_bytes()).unwrap();
    assert_eq!(client.receive_one(false).unwrap().status, 413);
    assert!(client.is_closed());
    assert_eq!(stage.payloads("expect", 3)[2], 1);
}

#[test]
fn http_1_0_is_closed_unless_it_asks_otherwise_and_http_1_1_is_kept_unless_it_does() {
    let stage = Stage::shared();
    let push = |version: &str, header: &str| {
        let head = format!("POST /push/versions {version}\r\nHost: t\r\n{header}Content-Length: 1\r\n\r\n7");
        let mut client = stage.daemon.connect();
        client.send(head.as_bytes()).unwrap();
        let response = client.receive(false).unwrap();
        assert_eq!(response.status, 201, "{version} {header}");
        (client, response.header("Connection").map(str::to_ascii_lowercase))
    };
    for (version, header) in
        [("HTTP/1.0", ""), ("HTTP/1.1", "Connection: close\r\n"), ("HTTP/1.0", "Connection: x\r\n")]
    {
        let (mut client, connection) = push(version, header);
        assert_eq!(connection.as_deref(), Some("close"), "{version} {header}");
        assert!(client.is_closed(), "{version} {header}");
    }
    for (version, header, word) in
        [("HTTP/1.0", "Connection: keep-alive\r\n", Some("keep-alive")), ("HTTP/1.1", "", None)]
    {
        let (mut client, connection) = push(version, header);
        assert_eq!(connection.as_deref(), word, "{version} {header}");
        client
            .send(format!("POST /push/versions {version}\r\nHost: t\r\nContent-Length: 1\r\n\r\n8").as_bytes())
            .unwrap();
        assert_eq!(client.receive(false).unwrap().status, 201, "{version} {header}");
    }
    // A request of HTTP/1.0 needs no Host.
    let mut client = stage.daemon.connect();
    client.send(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(client.receive(false).unwrap().status, 200);
    stage.payloads("versions", 7);
}

#[test]
fn case_68_what_two_parsers_may_read_differently_is_refused_and_the_connection_closed() {
    let stage = Stage::shared();
    let fields = [
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 1",
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: +1",
        "Content-Length: 1, 1",
        "Content-Length : 1",
        "Content-Length:\r\n 1",
        "X: 1\nContent-Length: 1",
        "Content-Length: 0x1",
        "Host: twice\r\nContent-Length: 1",
    ];
    // A recipient that interprets the length differently would take the rest for the next request.
    let smuggled = String::from_utf8(push_bytes("smuggled", &json!(1))).unwrap();
    for fields in fields {
        let mut client = stage.daemon.connect();
        let request = format!("POST /push/smuggled HTTP/1.1\r\nHost: t\r\n{fields}\r\n\r\n0\r\n\r\n{smuggled}");
        client.send(request.as_bytes()).unwrap();
        let response = client.receive(false).unwrap();
        assert_eq!((response.status, response.header("Connection")), (400, Some("close")), "{fields}");
        assert!(client.is_closed(), "{fields}");
    }
    for chunks in ["x\r\n", "-1\r\n", "1 \r\n", "1\n2\r\n", "2\r\n123\r\n", "11111111111111111\r\n", "\r\n"] {
        let mut client = stage.daemon.connect();
        let head = "POST /push/smuggled HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}{chunks}{smuggled}").as_bytes()).unwrap();
        let response = client.receive(false).unwrap();
        assert_eq!((response.status, response.header("Connection")), (400, Some("close")), "{chunks:?}");
        assert!(client.is_closed(), "{chunks:?}");
    }
    let many = "X: 1\r\n".repeat(1000);
    let mut client = stage.daemon.connect();
    client.send(format!("GET /health HTTP/1.1\r\nHost: t\r\n{many}\r\n").as_bytes()).unwrap();
    assert_eq!(client.receive(false).unwrap().status, 431);
    assert!(client.is_closed());
    let mut client = stage.daemon.connect();
    client.send(format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "x".repeat(9000)).as_bytes()).unwrap();
    assert_eq!(client.receive(false).unwrap().status, 414);
    assert!(client.is_closed());
    stage.payloads("smuggled", 0);
}

#[test]
fn case_70_a_client_that_leaves_before_the_answer_has_pushed_all_the_same() {
    let stage = Stage::shared();
    for n in 0..20 {
        let mut client = stage.daemon.connect();
        let plain = json!({"items": [{"queue": "left", "payload": n}]}).to_string();
        let head = format!("POST /api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", plain.len());
        client.send(format!("{head}{plain}").as_bytes()).unwrap();
        // Half of the clients only close their sending side and would still read.
        if n % 2 == 0 {
            drop(client);
        } else {
            client.finish_sending();
            expect_201(&mut client);
        }
    }
    let count = "SELECT count(*) FROM forebay.message_log WHERE queue = 'left'";
    wait_until("all of them are there", || stage.rows(count) == [["20"]]);
    let mut numbers: Vec<u64> = stage.payloads("left", 20).iter().map(|n| n.as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..20));
}

#[test]
fn case_67_half_of_a_pipelined_request_is_nothing_and_the_whole_one_before_it_counts() {
    let stage = Stage::shared();
    let (whole, half) = (push_bytes("half", &json!(1)), push_bytes("half", &json!("never")));
    for cut in (1..half.len()).step_by(11) {
        let mut client = stage.daemon.connect();
        client.send(&[&whole[..], &half[..cut]].concat()).unwrap();
        client.finish_sending();
        expect_201(&mut client);
        assert!(client.is_closed(), "cut at {cut}");
    }
    let count = (1..half.len()).step_by(11).count();
    assert!(stage.payloads("half", count).iter().all(|payload| *payload == 1));
}

#[test]
fn case_72_every_prefix_of_a_request_is_left_without_harm() {
    let stage = Stage::shared();
    for bytes in [push_bytes("prefixes", &json!([1, "two"])), chunked_push("prefixes", "[1]")] {
        for cut in 1..bytes.len() {
            let mut client = stage.daemon.connect();
            client.send(&bytes[..cut]).unwrap();
            client.finish_sending();
            assert!(client.is_closed(), "closed without a word: {cut} bytes");
        }
    }
    assert_eq!(stage.daemon.connect().get("/health").unwrap().status, 200);
    stage.payloads("prefixes", 0);
}

#[test]
fn what_the_head_decides_is_answered_before_the_body_and_without_a_100() {
    let stage = Stage::shared();
    let early = [
        ("POST /nothing", "", 404),
        ("PUT /push/early", "", 405),
        ("POST /health", "", 405),
        ("POST /push/early", "Content-Encoding: br\r\n", 415),
    ];
    for (target, header, status) in early {
        for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
            for expect in ["", "Expect: 100-continue\r\n"] {
                // The body never comes. A daemon that waited for it would wait for ever.
                let mut client = stage.daemon.connect();
                let head = format!("{target} HTTP/1.1\r\nHost: t\r\n{header}{expect}{framing}\r\n\r\n");
                client.send(head.as_bytes()).unwrap();
                let response = client.receive_one(false).unwrap();
                assert_eq!((response.status, response.header("Connection")), (status, Some("close")), "{head}");
                assert!(client.is_closed(), "{head}");
            }
        }
        // The complete body has arrived. It is skipped, and the next request is read correctly.
        for body in ["Content-Length: 3\r\n\r\n[1]", "Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n"] {
            let mut client = stage.daemon.connect();
            let refused = format!("{target} HTTP/1.1\r\nHost: t\r\n{header}{body}");
            client.send(&[refused.as_bytes(), &push_bytes("early", &json!(1))].concat()).unwrap();
            let response = client.receive_one(false).unwrap();
            assert_eq!((response.status, response.header("Connection")), (status, None), "{refused}");
            expect_201(&mut client);
        }
    }
    stage.payloads("early", 2 * early.len());
}
