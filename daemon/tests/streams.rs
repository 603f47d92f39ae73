//! Streamed replies: all dead letters as lines, piece by piece.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, PATIENCE, stage::Stage, wait_until};
use forebay_cluster::StopMode;

const PATH: &str = "/api/v1/dead-letters";
const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");

/// Puts so many letters of a queue into the table; each has an error of about `error_bytes`.
fn add_letters(stage: &Stage, queue: &str, count: usize, error_bytes: usize) {
    let sql = format!(
        "INSERT INTO forebay.dead_letters (queue, partition, payload_text, sqlstate, error, source, created_at) \
         SELECT '{queue}', 'p', '1', '22P02', repeat('x', {error_bytes}), 'test', now() FROM generate_series(1, {count})"
    );
    stage.cluster.psql(&sql).unwrap();
}

/// The ids of the letters in a body, whose lines must all be whole.
fn ids(body: &[u8]) -> Vec<u64> {
    assert!(body.is_empty() || body.ends_with(b"\n"));
    let text = std::str::from_utf8(body).unwrap();
    let letters = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    letters.map(|letter| letter["id"].as_str().unwrap().parse().unwrap()).collect()
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: t\r\nAccept: application/x-ndjson\r\n\r\n")
}

#[test]
fn all_letters_come_as_lines_of_one_reply_and_the_request_behind_it_is_answered() {
    let stage = Stage::start(&[]);
    let mut client = stage.daemon.connect();
    let response = client.request("GET", PATH, &[NDJSON], None).unwrap();
    assert_eq!((response.status, response.body), (200, Vec::new()), "there are none yet");
    add_letters(&stage, "many", 1234, 10);
    add_letters(&stage, "few", 3, 10);
    client
        .send(format!("{}{}GET /health HTTP/1.1\r\nHost: t\r\n\r\n", request(PATH), request(PATH)).as_bytes())
        .unwrap();
    for _ in 0..2 {
        let response = client.receive(false).unwrap();
        assert_eq!((response.status, response.header("Content-Type")), (200, Some(NDJSON.1)));
        assert_eq!(response.header("Transfer-Encoding"), Some("chunked"));
        assert!(response.header("Content-Length").is_none() && response.header("Date").is_some());
        assert_eq!(ids(&response.body), (1..=1237).collect::<Vec<_>>());
    }
    assert_eq!(client.receive(false).unwrap().json()["status"], "healthy");
    let of = |query: &str| stage.daemon.connect().request("GET", &format!("{PATH}?{query}"), &[NDJSON], None).unwrap();
    assert_eq!(ids(&of("queue=few").body), [1235, 1236, 1237]);
    assert_eq!(ids(&of("queue=many&after=1230").body), [1231, 1232, 1233, 1234]);
    assert_eq!(ids(&of("queue=none").body), [0_u64; 0]);
    let refused = of("limit=10");
    assert_eq!((refused.status, refused.code()), (400, "invalid_request".to_owned()));
    let page = client.get(&format!("{PATH}?limit=2")).unwrap().json();
    assert_eq!(
        (&page["deadLetters"][1]["id"], &page["next"]),
        (&"2".into(), &"2".into()),
        "without Accept it is a page"
    );
}

#[test]
fn head_has_no_body_and_for_http_1_0_the_body_ends_with_the_connection() {
    let stage = Stage::start(&[]);
    add_letters(&stage, "q", 250, 10);
    let mut client = stage.daemon.connect();
    let response = client.request("HEAD", PATH, &[NDJSON], None).unwrap();
    assert_eq!((response.status, response.header("Transfer-Encoding")), (200, Some("chunked")));
    assert_eq!(client.get("/health").unwrap().status, 200, "the connection goes on behind the head");
    let mut old = stage.daemon.connect();
    let head = format!("GET {PATH} HTTP/1.0\r\nConnection: keep-alive\r\nAccept: application/x-ndjson\r\n\r\n");
    old.send(head.as_bytes()).unwrap();
    let (status, headers) = old.receive_head().unwrap();
    assert_eq!(status, 200);
    assert!(headers.contains(&("Connection".into(), "close".into())), "{headers:?}");
    assert!(!headers.iter().any(|(name, _)| name == "Transfer-Encoding"), "{headers:?}");
    assert_eq!(ids(&old.receive_to_end()), (1..=250).collect::<Vec<_>>());
}

#[test]
fn a_client_that_does_not_read_holds_the_stream_up_and_one_that_leaves_ends_it() {
    let stage = Stage::start(&[]);
    add_letters(&stage, "q", 60_000, 2000);
    let mut figures = stage.daemon.connect();
    let mut buffers = || figures.get("/api/v1/status/buffers").unwrap().json()["connections"].as_u64().unwrap();
    let before = stage.daemon.memory_bytes();
    let mut clients: Vec<Client> = (0..8).map(|_| stage.daemon.connect()).collect();
    for client in &mut clients {
        client.send(request(PATH).as_bytes()).unwrap();
        client.receive_head().unwrap();
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(buffers(), 9);
    let grown = stage.daemon.memory_bytes().saturating_sub(before);
    // 120 MB for each, if it were held.
    assert!(grown < 32 << 20, "it grew by {grown} bytes");
    drop(clients);
    wait_until("the connections are gone", || buffers() == 1);
}

#[test]
fn an_error_before_the_first_piece_is_a_refusal_and_one_behind_it_cuts_the_body_off() {
    let stage = Stage::start(&[]);
    add_letters(&stage, "q", 60_000, 2000);
    let mut client = stage.daemon.connect();
    client.send(request(PATH).as_bytes()).unwrap();
    client.receive_head().unwrap();
    stage.cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    let error = client.receive_chunks().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "there is no last chunk");
    wait_until("it is logged", || stage.daemon.log().contains("a streamed reply was cut off"));
    let refused = stage.daemon.connect().request("GET", PATH, &[NDJSON], None).unwrap();
    assert_eq!((refused.status, refused.code()), (503, "postgres_away".to_owned()));
    stage.cluster.start().unwrap();
    stage.cluster.psql("ALTER TABLE forebay.dead_letters RENAME TO other").unwrap();
    let refused = stage.daemon.connect().request("GET", PATH, &[NDJSON], None).unwrap();
    assert_eq!((refused.status, refused.code()), (500, "postgres_refuses".to_owned()), "{}", refused.error());
    stage.cluster.psql("ALTER TABLE forebay.other RENAME TO dead_letters").unwrap();
    let again = stage.daemon.connect().request("GET", &format!("{PATH}?after=59990"), &[NDJSON], None).unwrap();
    assert_eq!(ids(&again.body), (59_991..=60_000).collect::<Vec<_>>());
}

#[test]
fn a_stream_ends_when_the_daemon_shuts_down() {
    let stage = Stage::start(&["--shutdown-grace", "1s"]);
    add_letters(&stage, "q", 60_000, 2000);
    let mut client = stage.daemon.connect();
    client.send(request(PATH).as_bytes()).unwrap();
    client.receive_head().unwrap();
    let Stage { daemon, cluster: _cluster, dir: _dir } = stage;
    let reader = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        client.receive_chunks()
    });
    assert!(daemon.terminate().success());
    assert!(reader.join().unwrap().is_err(), "there is no last chunk");
}
