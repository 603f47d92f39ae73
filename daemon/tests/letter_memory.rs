//! Answers about dead letters are as large as the letters: what the daemon holds of them is bounded, however many clients ask and
//! however slowly they read.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, stage::Stage, wait_until};
use rustix::net::sockopt;
use std::{
    io::Write,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

/// Clients that ask and read nothing.
const CROWD: usize = 60;

/// More than two cores with their budgets of 32 MiB, and what the thread `postgres` works on, ever have. The answers would be four
/// times as large, and more.
const GROWTH_BYTES_MAX: u64 = 256 << 20;

/// What the thread `postgres` has of one letter of the largest, and the drain beside it.
const PUT_BACK_BYTES_MAX: u64 = 160 << 20;

/// Adds dead letters as PostgreSQL would have refused them: SQL for the payload and the reason of each, by its number `i`.
fn add_letters(stage: &Stage, queue: &str, count: u32, payload: &str, error: &str) {
    let sql = format!(
        "INSERT INTO forebay.dead_letters (queue, partition, message_id, transaction_id, payload_text, sqlstate, error, source, \
         created_at, number) SELECT '{queue}', 'p', gen_random_uuid(), 't' || i, {payload}, 'P0001', {error}, 'x', now(), i \
         FROM generate_series(1, {count}) i"
    );
    stage.cluster.psql(&sql).unwrap();
}

fn id_in(stage: &Stage, queue: &str) -> String {
    stage.rows(&format!("SELECT min(id) FROM forebay.dead_letters WHERE queue = '{queue}'")).remove(0).remove(0)
}

/// A connection whose client takes next to nothing of an answer.
fn ask_and_read_nothing(stage: &Stage, path: &str) -> TcpStream {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    rustix::net::connect(&socket, &stage.daemon.address).unwrap();
    let mut stream = TcpStream::from(socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    stream
}

/// Lets a crowd ask for `path` and read nothing. Meanwhile the daemon's memory stays within bounds, and `others` are served.
fn crowd(stage: &Stage, path: &str, others: impl Fn()) {
    let before = stage.daemon.memory_bytes();
    let crowd: Vec<TcpStream> = (0..CROWD).map(|_| ask_and_read_nothing(stage, path)).collect();
    let end = Instant::now() + Duration::from_secs(8);
    let mut most = 0;
    while Instant::now() < end {
        most = most.max(stage.daemon.memory_bytes());
        others();
        thread::sleep(Duration::from_millis(20));
    }
    println!("{path}: {} MiB before, {} MiB at most", before >> 20, most >> 20);
    assert!(most < before + GROWTH_BYTES_MAX, "{} MiB", most >> 20);
    assert_eq!(stage.daemon.connect().get("/ready").unwrap().status, 200, "pushes have room");
    drop(crowd);
}

#[test]
fn a_crowd_that_asks_for_a_large_letter_and_reads_nothing_takes_bounded_memory_and_small_answers_do_not_wait() {
    let stage = Stage::start(&[]);
    let payload = r#"'["' || repeat('x', 8000000) || repeat('\"', 4000000) || '"]'"#;
    add_letters(&stage, "large", 1, payload, "'no'");
    add_letters(&stage, "small", 3, "'1'", "'no'");
    let (large, small) = (id_in(&stage, "large"), id_in(&stage, "small"));
    let path = format!("/api/v1/dead-letters/{large}");
    crowd(&stage, &path, || {
        let begun = Instant::now();
        let mut client = stage.daemon.connect();
        assert_eq!(client.get(&format!("/api/v1/dead-letters/{small}")).unwrap().json()["payloadText"], "1");
        let listed = client.get("/api/v1/dead-letters?queue=small").unwrap();
        assert_eq!((listed.status, listed.json()["deadLetters"].as_array().unwrap().len()), (200, 3));
        assert!(begun.elapsed() < Duration::from_secs(4), "small answers wait for nobody: {:?}", begun.elapsed());
    });
    // Those who hung up hold nothing up: one reader has all of it at once.
    let begun = Instant::now();
    let shown = stage.daemon.connect().get(&path).unwrap();
    assert_eq!(shown.status, 200, "{}", String::from_utf8_lossy(&shown.body[..shown.body.len().min(500)]));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let text = shown.json()["payloadText"].as_str().unwrap().to_owned();
    assert_eq!(text, format!("[\"{}{}\"]", "x".repeat(8_000_000), "\\\"".repeat(4_000_000)));
    // The same letter, asked for several times on one connection, comes as often.
    let mut client = stage.daemon.connect();
    let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").repeat(3);
    client.send(request.as_bytes()).unwrap();
    for _ in 0..3 {
        let again = client.receive(false).unwrap();
        assert_eq!((again.status, again.body.len()), (200, shown.body.len()));
    }
}

#[test]
fn a_crowd_that_asks_for_long_pages_and_reads_nothing_takes_bounded_memory_and_pages_are_whole() {
    let stage = Stage::start(&[]);
    // A line end is two bytes as JSON.
    add_letters(&stage, "long", 1000, "'1'", r"repeat(E'\n', 16000)");
    add_letters(&stage, "short", 1000, "'1'", "'no'");
    crowd(&stage, "/api/v1/dead-letters?queue=long&limit=1000", || {
        let listed = stage.daemon.connect().get("/api/v1/dead-letters?queue=short&limit=30").unwrap();
        assert_eq!(listed.json()["deadLetters"].as_array().unwrap().len(), 30);
    });
    let pages_of = |client: &mut Client, queue: &str| -> Vec<(usize, usize)> {
        let (mut pages, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/dead-letters?queue={queue}&limit=1000{after}");
            let mut page = client.get(&path).unwrap();
            // The crowd's last members may hold some.
            wait_until("there is room for the page", || {
                page.status == 200 || {
                    page = stage.daemon.connect().get(&path).unwrap();
                    false
                }
            });
            let json = page.json();
            pages.push((json["deadLetters"].as_array().unwrap().len(), page.body.len()));
            match json["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return pages,
            }
        }
    };
    let mut client = stage.daemon.connect();
    let pages = pages_of(&mut client, "long");
    assert_eq!(pages.iter().map(|(letters, _)| letters).sum::<usize>(), 1000);
    assert!(pages.len() > 3 && pages.iter().all(|(_, bytes)| *bytes <= (8 << 20) + 1000), "{pages:?}");
    let pages = pages_of(&mut client, "short");
    assert_eq!((pages[0].0, pages.len()), (1000, 2), "a page of short letters is as long as was asked for: {pages:?}");
    let lines = client.request("GET", "/api/v1/dead-letters", &[("Accept", "application/x-ndjson")], None).unwrap();
    assert_eq!(lines.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), 2000);
}

/// Puts letters back, all at the same time, in bounded memory.
fn put_back_at_once(stage: &Stage, ids: &[String]) {
    let before = stage.daemon.memory_bytes();
    thread::scope(|scope| {
        let retry = |id: &String| {
            let path = format!("/api/v1/dead-letters/{id}/retry");
            let daemon = &stage.daemon;
            scope.spawn(move || daemon.connect().post(&path, b"").unwrap())
        };
        let retries: Vec<_> = ids.iter().map(retry).collect();
        let mut most = 0;
        while retries.iter().any(|retry| !retry.is_finished()) {
            most = most.max(stage.daemon.memory_bytes());
            thread::sleep(Duration::from_millis(5));
        }
        println!("{} MiB before, {} MiB at most", before >> 20, most >> 20);
        for retry in retries {
            let retried = retry.join().unwrap();
            assert_eq!(
                (retried.status, retried.json()["status"].as_str()),
                (200, Some("queued")),
                "{}",
                retried.json()
            );
        }
        assert!(most < before + PUT_BACK_BYTES_MAX, "{} MiB", most >> 20);
    });
}

#[test]
fn a_crowd_that_puts_large_letters_back_takes_bounded_memory() {
    let stage = Stage::start(&[]);
    add_letters(&stage, "large", 12, r#"'["' || repeat('x', 15000000) || '"]'"#, "'no'");
    let ids: Vec<String> = stage.rows("SELECT id FROM forebay.dead_letters").into_iter().flatten().collect();
    put_back_at_once(&stage, &ids);
}

#[test]
fn a_crowd_that_puts_large_letters_of_files_back_takes_bounded_memory() {
    let stage = Stage::start(&[]);
    let psql = |sql: &str| stage.cluster.psql(sql).unwrap();
    psql("ALTER TABLE forebay.messages ADD CONSTRAINT short CHECK (octet_length(payload::text) < 1000)");
    psql("ALTER TABLE forebay.dead_letters ADD CONSTRAINT none CHECK (false) NOT VALID");
    let payload = format!("\"{}\"", "x".repeat(12_000_000));
    for _ in 0..8 {
        assert_eq!(stage.daemon.connect().post("/push/large", payload.as_bytes()).unwrap().status, 201);
    }
    stage.daemon.wait_until_drained();
    psql("ALTER TABLE forebay.messages DROP CONSTRAINT short");
    let listed = stage.daemon.connect().get("/api/v1/dead-letters").unwrap().json();
    let ids: Vec<String> = listed["deadLetters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| letter["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(ids.len() == 8 && ids.iter().all(|id| id.starts_with('f')), "{ids:?}");
    // What the drain held is given back.
    thread::sleep(Duration::from_secs(1));
    put_back_at_once(&stage, &ids);
}
