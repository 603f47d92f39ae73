//! What is refused gets its documented error, and nothing of it is in the log.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, Daemon, Response, data_dir, stage::Stage};
use serde_json::{Value, json};

/// A daemon of its own: what its lanes have is compared before and after.
struct Refuser {
    stage: Stage,
}

impl Refuser {
    fn start(args: &[&str]) -> Self {
        let stage = Stage::start(args);
        let kept = stage.daemon.connect().push(&json!({"items": [{"queue": "kept", "payload": 1}]})).unwrap();
        assert_eq!(kept.status, 201);
        Self { stage }
    }

    /// How many records each lane has taken.
    fn appended(&self) -> Vec<u64> {
        let buffers = self.stage.daemon.buffers();
        let lanes = buffers["lanes"].as_array().unwrap();
        lanes.iter().map(|lane| lane["appendedOrdinal"].as_u64().unwrap()).collect()
    }

    /// Checks that `send` is answered with this status and code, in the documented form, and leaves nothing in the log;
    /// returns the answer.
    fn check(&self, what: &str, status: u16, code: &str, send: impl FnOnce(&mut Client) -> Response) -> Response {
        let before = self.appended();
        let mut client = self.stage.daemon.connect();
        let response = send(&mut client);
        let body = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!((response.status, response.code()), (status, code.to_owned()), "{what}: {body}");
        assert!(!response.error().is_empty(), "{what}: {body}");
        assert_eq!(response.header("Content-Type"), Some("application/json"), "{what}");
        assert_eq!(response.header("Forebay-Durability"), None, "{what}");
        assert_eq!(self.appended(), before, "{what} leaves nothing in the log");
        response
    }

    /// The same for the body of a push, which leaves the connection as it was.
    fn check_push(&self, what: &str, code: &str, body: &str) -> Response {
        self.check(what, 400, code, |client| {
            let refused = client.post("/api/v1/push", body.as_bytes()).unwrap();
            assert_eq!(client.get("/health").unwrap().status, 200, "{what}: the connection goes on");
            refused
        })
    }

    /// Nothing of it may ever arrive.
    fn finish(self) {
        assert_eq!(self.stage.payloads("kept", 1), [json!(1)]);
        assert_eq!(self.stage.rows("SELECT count(*) FROM forebay.messages"), [["1"]]);
        assert_eq!(self.stage.rows("SELECT name FROM forebay.queues"), [["kept"]]);
        assert_eq!(self.stage.daemon.figure("failed"), 0);
    }
}

#[test]
fn one_bad_item_refuses_the_whole_request_and_is_named() {
    let refuser = Refuser::start(&[]);
    let items = |bad: &str| {
        let good = |n: usize| json!({"queue": "none", "payload": n}).to_string();
        let items: Vec<String> = (0..5).map(|n| if n == 3 { bad.to_owned() } else { good(n) }).collect();
        format!("{{\"items\":[{}]}}", items.join(","))
    };
    let long = "n".repeat(256);
    let cases = [
        ("items[3].payload", "invalid_item", r#"{"queue":"q"}"#.to_owned()),
        ("items[3].queue", "invalid_item", r#"{"payload":1}"#.to_owned()),
        ("items[3].queue", "invalid_item", r#"{"queue":null,"payload":1}"#.to_owned()),
        ("items[3].queue", "invalid_item", r#"{"queue":"","payload":1}"#.to_owned()),
        ("items[3].queue", "invalid_item", r#"{"queue":7,"payload":1}"#.to_owned()),
        ("items[3].queue", "invalid_item", format!(r#"{{"queue":"{long}","payload":1}}"#)),
        ("items[3].partition", "invalid_item", r#"{"queue":"q","partition":"","payload":1}"#.to_owned()),
        ("items[3].partition", "invalid_item", r#"{"queue":"q","partition":[],"payload":1}"#.to_owned()),
        ("items[3].transactionId", "invalid_item", r#"{"queue":"q","transactionId":"","payload":1}"#.to_owned()),
        ("items[3].transactionId", "invalid_item", format!(r#"{{"queue":"q","transactionId":"{long}","payload":1}}"#)),
        ("items[3].traceId", "invalid_item", r#"{"queue":"q","traceId":"none","payload":1}"#.to_owned()),
        ("items[3].namespace", "invalid_item", r#"{"queue":"q","namespace":1,"payload":1}"#.to_owned()),
        ("items[3].task", "invalid_item", format!(r#"{{"queue":"q","task":"{long}","payload":1}}"#)),
        ("items[3].queue", "invalid_item", r#"{"queue":"\u0000","payload":1}"#.to_owned()),
        ("items[3]", "invalid_item", "[]".to_owned()),
        ("items[3].payload", "payload_not_storable", r#"{"queue":"q","payload":"\u0000"}"#.to_owned()),
    ];
    for (place, code, bad) in cases {
        let refused = refuser.check_push(&bad, code, &items(&bad));
        assert!(refused.error().starts_with(&format!("{place}: ")), "{bad}: {}", refused.error());
    }
    refuser.finish();
}

#[test]
fn a_malformed_request_is_refused_with_400() {
    let refuser = Refuser::start(&[]);
    for body in ["", "{", "no JSON", "{\"items\":[{\"queue\":\"q\",\"payload\":}]}", "{\"items\":[]} 1", "\u{feff}{}"] {
        refuser.check_push(body, "malformed_json", body);
    }
    let cases = [
        "{}",
        "[]",
        "null",
        "{\"items\":{}}",
        "{\"items\":null}",
        "{\"items\":[{\"queue\":\"q\",\"payload\":1}],\"bufferMs\":-1}",
        "{\"items\":[{\"queue\":\"q\",\"payload\":1}],\"bufferMs\":\"5\"}",
        "{\"items\":[{\"queue\":\"q\",\"payload\":1}],\"bufferMax\":1.5}",
        "{\"items\":[{\"queue\":\"q\",\"payload\":1}],\"qos0\":\"true\"}",
    ];
    for body in cases {
        refuser.check_push(body, "invalid_request", body);
    }
    refuser.finish();
}

#[test]
fn what_jsonb_cannot_hold_is_refused_as_not_storable_by_either_way_in() {
    let refuser = Refuser::start(&[]);
    let digits = "9".repeat(1001);
    let deep = format!("{}{}", "[".repeat(513), "]".repeat(513));
    let payloads: [&[u8]; 10] = [
        br#""\u0000""#,
        br#"{"\u0000":1}"#,
        br#""\ud800""#,
        br#"["\udc00\ud800"]"#,
        br#""\ud83c x""#,
        digits.as_bytes(),
        b"1e1001",
        b"[1e-1001]",
        deep.as_bytes(),
        b"\"\xff\xfe\"",
    ];
    for payload in payloads {
        let shown: String = String::from_utf8_lossy(payload).chars().take(40).collect();
        let body = [br#"{"items":[{"queue":"q","payload":"#, payload, b"}]}"].concat();
        let response =
            refuser.check(&shown, 400, "payload_not_storable", |client| client.post("/api/v1/push", &body).unwrap());
        assert!(response.error().starts_with("items[0].payload: "), "{}", response.error());
        refuser.check(&shown, 400, "payload_not_storable", |client| client.post("/push/q", payload).unwrap());
        refuser.check(&shown, 400, "payload_not_storable", |client| client.post_ndjson("/push/q", payload).unwrap());
    }
    refuser.finish();
}

#[test]
fn paths_methods_lengths_and_encodings_that_there_are_not_have_their_own_status() {
    let refuser = Refuser::start(&[]);
    let body: Option<&[u8]> = Some(br#"{"items":[{"queue":"q","payload":1}]}"#);
    let paths = ["/push", "/push/a/b/c", "/api/v1/pushes", "/api/v2/push", "/health/x", "/Health", "//health"];
    for path in paths {
        refuser.check(path, 404, "no_such_route", |client| client.request("POST", path, &[], body).unwrap());
        refuser.check(path, 404, "no_such_route", |client| client.get(path).unwrap());
    }
    let methods = [
        ("GET", "/api/v1/push", "POST, OPTIONS"),
        ("HEAD", "/push/q", "POST, OPTIONS"),
        ("PUT", "/api/v1/push", "POST, OPTIONS"),
        ("DELETE", "/push/q/p", "POST, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("PATCH", "/api/v1/status/buffers", "GET, HEAD, OPTIONS"),
        ("TRACE", "/ready", "GET, HEAD, OPTIONS"),
    ];
    for (method, path, allow) in methods {
        let before = refuser.appended();
        let refused = refuser.stage.daemon.connect().request(method, path, &[], body).unwrap();
        assert_eq!((refused.status, refused.header("Allow")), (405, Some(allow)), "{method} {path}");
        assert_eq!(refuser.appended(), before);
    }
    for path in ["/api/v1/push", "/ready", "/nothing"] {
        let brew = |client: &mut Client| client.request("BREW", path, &[], body).unwrap();
        refuser.check(path, 501, "method_not_implemented", brew);
    }
    for path in ["/api/v1/push", "/push/q"] {
        refuser.check(path, 411, "length_required", |client| client.request("POST", path, &[], None).unwrap());
        for encoding in ["br", "deflate", "nonsense"] {
            let headers = [("Content-Encoding", encoding)];
            refuser.check(encoding, 415, "encoding_not_supported", |client| {
                client.request("POST", path, &headers, body).unwrap()
            });
        }
    }
    refuser.finish();
}

#[test]
fn a_body_beyond_the_limit_is_refused_with_413_by_its_length_or_as_soon_as_its_chunks_say_so() {
    let refuser = Refuser::start(&["--max-body-bytes", "64KiB"]);
    let body_of = |length: usize| format!("{{\"items\":[{{\"queue\":\"q\",\"payload\":\"{}\"}}]}}", "x".repeat(length));
    let large = body_of(64 << 10);
    refuser.check("length", 413, "body_too_large", |client| {
        // Answered by the head alone: the body need not be sent.
        let head = format!("POST /api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", large.len());
        client.send(head.as_bytes()).unwrap();
        let refused = client.receive(false).unwrap();
        assert!(client.is_closed());
        refused
    });
    refuser.check("chunks", 413, "body_too_large", |client| {
        let head = "POST /push/q HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = format!("{:x}\r\n{}\r\n", 40_000, "1".repeat(40_000));
        // The second one is announced and does not come.
        client.send(format!("{head}{chunk}{:x}\r\n", 40_000).as_bytes()).unwrap();
        let refused = client.receive(false).unwrap();
        assert!(client.is_closed());
        refused
    });
    // One that just fits is taken.
    let fits = body_of((64 << 10) - body_of(0).len());
    assert_eq!(fits.len(), 64 << 10);
    let mut client = refuser.stage.daemon.connect();
    assert_eq!(client.post("/api/v1/push", fits.as_bytes()).unwrap().status, 201);
    let chunked = format!("POST /push/q HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", 1 << 16);
    let text = json!("y".repeat((64 << 10) - 2)).to_string();
    client.send(format!("{chunked}{text}\r\n0\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(client.receive(false).unwrap().status, 201);
    assert_eq!(refuser.stage.payloads("q", 2)[1], Value::String("y".repeat((64 << 10) - 2)));
}

#[test]
fn refusals_are_the_same_while_postgresql_is_away_and_nothing_of_them_arrives_later() {
    let cluster = forebay_cluster::TestCluster::start_without_fsync().unwrap();
    cluster.stop(forebay_cluster::StopMode::Fast, common::PATIENCE).unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
    let mut client = daemon.connect();
    for n in 0..20 {
        let bad = json!({"items": [{"queue": "away", "payload": "bad"}, {"queue": "away"}]});
        let refused = client.push(&bad).unwrap();
        assert_eq!((refused.status, refused.code()), (400, "invalid_item".to_owned()));
        assert_eq!(client.push(&json!({"items": [{"queue": "away", "payload": n}]})).unwrap().status, 201);
        assert_eq!(client.post("/push/away", b"\"\\ud800\"").unwrap().code(), "payload_not_storable");
    }
    assert_eq!(daemon.figure("pending"), 20);
    cluster.start().unwrap();
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(common::stage::payload_texts(&daemon, &cluster, "away", 20), expected);
}
