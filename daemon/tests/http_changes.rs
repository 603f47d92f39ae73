//! Case 72 against a running daemon: every prefix and every one-byte change of valid requests, each on a connection of
//! its own. There is an answer or a close, never a hang and never a panic, and the log holds what was answered 2xx and
//! nothing else.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, PATIENCE, stage::Stage};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Connections that are open at once: half of the answers wait for the log.
const WORKERS: usize = 8;

/// `[1]`, in one member and in one frame.
const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x8b\x36\x8c\x05\x00\xb8\x32\x2f\x4c\x03\x00\x00\x00";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd\x20\x03\x19\x00\x00\x5b\x31\x5d";

/// Valid requests of all kinds. None of them has a transaction id, so no two messages are one.
fn requests() -> Vec<Vec<u8>> {
    let with_body = |head: &str, body: &str| format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let push = r#"{"items":[{"queue":"q","payload":[1,"\u00e9"]}],"qos0":true}"#;
    let requests = [
        "GET /health HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
        with_body("POST /api/v1/push HTTP/1.1\r\nHost: t", push),
        "POST /push/q/p?bufferMs=1 HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n\
         4;a=b\r\n[1,2\r\n1\r\n]\r\n0\r\nX: y\r\n\r\n"
            .to_owned(),
        with_body("POST /push/q HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-ndjson", "1\n\r\n{}\n"),
        with_body("POST /push/%71 HTTP/1.0\r\nConnection: keep-alive", "null"),
        "\r\nDELETE http://t/nothing?a=b HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer t\r\n\r\n".to_owned(),
        "OPTIONS /health HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n".to_owned(),
        with_body("POST /push/q HTTP/1.1\r\nHost: t", "1") + "GET /ready HTTP/1.1\r\nHost: t\r\n\r\n",
    ];
    let encoded = |coding: &str, body: &[u8]| {
        let head = "POST /push/q HTTP/1.1\r\nHost: t\r\nContent-Encoding";
        let head = format!("{head}: {coding}\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    requests.into_iter().map(String::into_bytes).chain([encoded("gzip", GZIP), encoded("zstd", ZSTD)]).collect()
}

/// A request, made worse.
fn changed(request: &[u8], change: usize) -> Option<Vec<u8>> {
    // First all prefixes, then every other value of every byte.
    if change < request.len() {
        return Some(request[..change].to_vec());
    }
    let (at, difference) = ((change - request.len()) / 255, (change - request.len()) % 255 + 1);
    let mut bytes = request.to_vec();
    *bytes.get_mut(at)? ^= difference as u8;
    Some(bytes)
}

/// Sends the bytes and no more, and gives all that comes back until the other side closes.
fn exchange(daemon: &Daemon, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(daemon.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut received = Vec::new();
    // Whoever was refused may find the connection closed before everything was sent.
    let sent = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    match sent.and_then(|()| stream.read_to_end(&mut received)) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("{:?} hangs", String::from_utf8_lossy(bytes))
        }
        Err(_) => {}
    }
    received
}

/// The answers in what came back; nothing may be left over.
fn answers(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let head_end = memchr::memmem::find(bytes, b"\r\n\r\n").expect("a whole head") + 4;
        let head = std::str::from_utf8(&bytes[..head_end]).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        answers.push((status, bytes[head_end..head_end + length].to_vec()));
        bytes = &bytes[head_end + length..];
    }
    answers
}

fn is_of_lines(request: &[u8]) -> bool {
    memchr::memmem::find(request, b"ndjson").is_some()
}

/// What was answered, over all requests.
#[derive(Default)]
struct Tally {
    statuses: BTreeMap<u16, usize>,
    /// Ids of the messages that a 2xx answer named.
    ids: Vec<String>,
    /// Messages that a refusal says were kept before it.
    accepted: u64,
}

impl Tally {
    fn add(&mut self, sent: &[u8], status: u16, body: &[u8]) {
        *self.statuses.entry(status).or_default() += 1;
        let told = || format!("{status} for {:?}", String::from_utf8_lossy(sent));
        if matches!(status, 100 | 204) {
            return assert!(body.is_empty(), "{}", told());
        }
        let json: Value = serde_json::from_slice(body).unwrap_or_else(|_| panic!("JSON: {}", told()));
        if status >= 400 {
            assert!(status < 500 || matches!(status, 501 | 505), "{}", told());
            assert!(json["code"].is_string() && json["error"].is_string(), "{}", told());
            self.accepted += json["accepted"].as_u64().unwrap_or(0);
        } else if status == 201 {
            let messages = json.as_array().or_else(|| json["messages"].as_array()).unwrap();
            self.ids.extend(messages.iter().map(|message| message["message_id"].as_str().unwrap().to_owned()));
        }
    }

    fn merge(&mut self, other: Self) {
        other.statuses.into_iter().for_each(|(status, count)| *self.statuses.entry(status).or_default() += count);
        self.ids.extend(other.ids);
        self.accepted += other.accepted;
    }
}

/// Sends every change of a request.
fn send_all(daemon: &Daemon, request: &[u8]) -> Tally {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut tally = Tally::default();
        while let Some(bytes) = changed(request, next.fetch_add(1, Ordering::Relaxed)) {
            for (status, body) in answers(&exchange(daemon, &bytes)) {
                tally.add(&bytes, status, &body);
            }
        }
        tally
    };
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| all.merge(worker.join().unwrap()));
    });
    all
}

#[test]
fn case_72_every_prefix_and_every_one_byte_change_is_answered_or_closed_and_what_was_refused_is_not_in_the_log() {
    // What is tested is what is kept, not what survives the machine.
    let stage = Stage::start(&["--sync", "none"]);
    let mut tally = Tally::default();
    // Whole lines of an NDJSON body that ends early are kept, though nobody is left to hear of it; so that one comes last.
    let mut unheard = 0;
    let mut requests = requests();
    requests.sort_by_key(|request| is_of_lines(request));
    for request in requests {
        let before = stage.daemon.figure("pushedMessages");
        let shown = String::from_utf8_lossy(&request).into_owned();
        let begun = std::time::Instant::now();
        let of_one = send_all(&stage.daemon, &request);
        println!("{:?} in {:?}: {shown:?}", of_one.statuses, begun.elapsed());
        let told = of_one.ids.len() as u64 + of_one.accepted;
        tally.merge(of_one);
        if is_of_lines(&request) {
            stage.daemon.wait_until_drained();
            unheard = stage.daemon.figure("pushedMessages") - before - told;
        } else {
            assert_eq!(stage.daemon.figure("pushedMessages") - before, told, "{shown}");
        }
        let health = stage.daemon.connect().get("/health").unwrap();
        assert_eq!(health.status, 200, "after {shown}");
    }
    // Of each sort there were some, so the tally cannot be empty by mistake.
    for status in [200, 201, 204, 400, 404, 411, 501, 505] {
        assert!(tally.statuses.contains_key(&status), "none was answered {status}: {:?}", tally.statuses);
    }
    assert!(!stage.daemon.log().contains("panic"), "{}", stage.daemon.log());
    stage.daemon.wait_until_drained();
    let rows = stage.rows("SELECT id FROM forebay.message_log");
    let mut kept: Vec<String> = rows.into_iter().map(|row| row.into_iter().next().unwrap()).collect();
    assert_eq!(kept.len() as u64, tally.ids.len() as u64 + tally.accepted + unheard);
    kept.sort_unstable();
    for id in &tally.ids {
        assert!(kept.binary_search(id).is_ok(), "{id} was answered 201");
    }
}
