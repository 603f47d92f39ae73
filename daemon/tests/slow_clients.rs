//! Clients that hold what they may, as slowly as they may: in each phase of a request and each coding, with and without a token.
//! Others' pushes are answered meanwhile, and memory stays within its bounds.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, Daemon, NOWHERE, data_dir, forebay, own_core::start_core, wait_until};
use forebay::{
    limits::{CONNECTION_FREE_BYTES, MEMORY_BUDGET_DEFAULT, MEMORY_PATIENCE},
    state::database_health::DatabaseHealth,
};
use rustix::net::sockopt;
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What the allocator and the kernel keep beside what is held.
const SLACK_BYTES: u64 = 4 << 20;

/// How long others push beside the slow ones, at least: in that time paces are measured, and memory is taken back.
const WINDOW: Duration = Duration::from_secs(2);

/// A client that does not wait for anything: what it cannot send or read now it leaves.
struct Slow {
    stream: TcpStream,
    /// What it sends now and then.
    drip: Vec<u8>,
}

impl Slow {
    fn begin(address: SocketAddr, first: &[u8], drip: &[u8]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut slow = Self { stream, drip: drip.to_vec() };
        slow.send(first);
        slow
    }

    fn send(&mut self, mut bytes: &[u8]) {
        let give_up = Instant::now() + Duration::from_millis(200);
        while !bytes.is_empty() && Instant::now() < give_up {
            match self.stream.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
                // It was refused already.
                Err(_) => return,
            }
        }
    }

    fn drip(&mut self) {
        let drip = std::mem::take(&mut self.drip);
        // It may be refused already.
        drop(self.stream.write(&drip));
        self.drip = drip;
    }

    /// Leaves, and throws away what was not sent yet.
    fn abort(self) {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// The status of what it was answered, if it was.
    fn status(&mut self) -> Option<u16> {
        let mut bytes = [0; 4096];
        let length = self.stream.read(&mut bytes).ok()?;
        std::str::from_utf8(bytes[..length].get(9..12)?).ok()?.parse().ok()
    }
}

/// A request with this head, without the last byte of `body`.
fn cut(method: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: t\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), &body[..body.len() - 1]].concat()
}

fn cut_chunk(method: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: t\r\n{fields}Transfer-Encoding: chunked\r\n\r\n");
    [head.as_bytes(), format!("{:x}\r\n", body.len()).as_bytes(), &body[..body.len() - 1]].concat()
}

/// A skippable frame that pays for expansion, and as many blocks of 128 KiB of one byte.
fn zstd_bomb(paid_bytes: u32, byte: u8, blocks: usize) -> Vec<u8> {
    let skipped =
        [&0x184d_2a50_u32.to_le_bytes()[..], &paid_bytes.to_le_bytes(), &vec![0; paid_bytes as usize]].concat();
    // The window is 128 KiB; a block's size is above its type, RLE.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    let size = (128_u32 << 10) << 3 | 1 << 1;
    let block = [&size.to_le_bytes()[..3], &[byte]].concat();
    [&skipped[..], &frame, &block.repeat(blocks), &[0]].concat()
}

fn gzip_bomb(byte: u8, bytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![byte; bytes]).unwrap();
    encoder.finish().unwrap()
}

/// Pushes bodies of all sizes up to a megabyte, several times; all are taken.
fn push_all_sizes(daemon: &Daemon, authorization: &str, rounds: usize) {
    let mut client = daemon.connect();
    let headers = [("Content-Type", "application/json"), ("Authorization", authorization)];
    for round in 0..rounds {
        for bytes in [100, 1000, 6000, 20_000, 64 << 10, 200_000, 1_000_000] {
            let body = format!("\"{}\"", "x".repeat(bytes - 2));
            let response = client.request("POST", "/push/others", &headers, Some(body.as_bytes())).unwrap();
            assert_eq!(response.status, 201, "{bytes} bytes, round {round}");
        }
    }
}

/// The most memory that the daemon uses while nobody is slow. What the log keeps in memory of its end is full by then.
fn memory_without_them(daemon: &Daemon, authorization: &str) -> u64 {
    push_all_sizes(daemon, authorization, 30);
    push_beside(daemon, authorization, Duration::from_secs(1), &mut [])
}

/// Pushes for others while the slow ones drip, and returns the most memory that was used meanwhile.
fn push_beside(daemon: &Daemon, authorization: &str, at_least: Duration, slow: &mut [Slow]) -> u64 {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let is_over = &is_over;
        let peak = scope.spawn(move || {
            let mut peak = 0;
            while !is_over.load(Ordering::Relaxed) {
                peak = peak.max(daemon.memory_bytes());
                slow.iter_mut().for_each(Slow::drip);
                thread::sleep(Duration::from_millis(100));
            }
            peak
        });
        let began = Instant::now();
        while began.elapsed() < at_least {
            push_all_sizes(daemon, authorization, 1);
        }
        is_over.store(true, Ordering::Relaxed);
        peak.join().unwrap()
    })
}

#[test]
fn clients_without_a_token_hold_next_to_nothing_in_any_phase_and_coding() {
    const EACH: usize = 100;
    let dir = data_dir();
    let tokens = dir.path().join("tokens.toml");
    let tokens = tokens.to_str().unwrap();
    let made = forebay(&["token", "new", "--tokens-file", tokens, "--scopes", "push"]);
    let authorization = format!("Bearer {}", String::from_utf8(made.stdout).unwrap().trim_end());
    let args = ["--cores", "1", "--tokens-file", tokens];
    let daemon = Daemon::start(&dir.path().join("data"), NOWHERE, &args);
    let before = memory_without_them(&daemon, &authorization);
    let plain = vec![b'x'; 60_000];
    let kinds: [(&str, Vec<u8>, &[u8]); 9] = [
        ("a head", [b"GET /health HTTP/1.1\r\nHost: t\r\nX: ", &plain[..15_000]].concat(), b"x"),
        ("a body", cut("GET", "/health", "", &plain), b""),
        ("a chunk", cut_chunk("GET", "/health", "", &plain), b""),
        ("zstd", cut("GET", "/health", "Content-Encoding: zstd\r\n", &zstd_bomb(4000, b'x', 16)), b""),
        ("zstd in chunks", cut_chunk("OPTIONS", "*", "Content-Encoding: zstd\r\n", &zstd_bomb(9, b'\n', 99)), b""),
        ("gzip", cut("GET", "/health", "Content-Encoding: gzip\r\n", &gzip_bomb(b'x', 16 << 20)), b""),
        ("a refused body", cut("POST", "/push/q", "", &plain.repeat(100)), b"xxxx"),
        ("refused lines", cut_chunk("POST", "/push/q", "Content-Type: application/x-ndjson\r\n", &plain), b"xxxx"),
        ("answers that nobody reads", b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n".repeat(4000), b""),
    ];
    for (what, first, drip) in &kinds {
        let mut slow: Vec<Slow> = (0..EACH).map(|_| Slow::begin(daemon.address, first, drip)).collect();
        let peak = push_beside(&daemon, &authorization, WINDOW, &mut slow);
        let grown = peak.saturating_sub(before);
        println!("{what}: {grown} bytes for {EACH}");
        assert!(grown < (EACH * CONNECTION_FREE_BYTES) as u64 + SLACK_BYTES, "{what}: {grown} bytes for {EACH}");
    }
    // A client whose request has no use for its body is answered all the same, and one that sends too much is told.
    let mut client = daemon.connect();
    assert_eq!(
        client.request("GET", "/health", &[("Content-Encoding", "gzip")], Some(b"no gzip")).unwrap().status,
        200
    );
    assert_eq!(client.request("GET", "/health", &[], Some(&plain)).unwrap().status, 200);
    let refused = client.request("GET", "/health", &[], Some(&vec![b'x'; 66_000])).unwrap();
    assert_eq!((refused.status, refused.code()), (413, "body_too_large".to_owned()));
}

#[test]
fn bodies_of_every_coding_with_and_without_line_ends_stay_within_the_budget() {
    const EACH: usize = 60;
    let (json, lines) = ("Content-Type: application/json\r\n", "Content-Type: application/x-ndjson\r\n");
    let large = vec![b'1'; 2_000_000];
    let listed = b"1\n".repeat(20_000);
    for (coding, bodies) in [
        ("identity", [large.clone(), listed.clone()]),
        ("gzip", [gzip_bomb(b'1', 12 << 20), gzip_bomb(b'\n', 12 << 20)]),
        ("zstd", [zstd_bomb(4000, b'1', 13), zstd_bomb(4000, b'\n', 13)]),
    ] {
        for (index, body) in bodies.iter().enumerate() {
            for (is_lines, content_type) in [(false, json), (true, lines)] {
                let fields = format!("{content_type}Content-Encoding: {coding}\r\n");
                // Each kind of content comes in both framings.
                let frame = if is_lines == (index == 0) { cut } else { cut_chunk };
                let first = frame("POST", "/push/slow", &fields, body);
                let dir = data_dir();
                let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
                let before = memory_without_them(&daemon, "");
                let mut slow: Vec<Slow> = (0..EACH).map(|_| Slow::begin(daemon.address, &first, b"")).collect();
                let peak = push_beside(&daemon, "", WINDOW, &mut slow);
                let grown = peak.saturating_sub(before);
                println!("{coding}, {content_type:?}, {} bytes each: {grown} bytes for {EACH}", first.len());
                let most = (MEMORY_BUDGET_DEFAULT + EACH * CONNECTION_FREE_BYTES) as u64 + SLACK_BYTES;
                assert!(grown < most, "{coding} {content_type}: {grown} bytes for {EACH}");
                // Also those who wait for memory are found to have left. A client that closes with bytes in its kernel's buffers
                // cannot be told from a slow one, so these abort.
                slow.into_iter().for_each(Slow::abort);
                wait_until("they are gone", || daemon.figure("connections") == 1);
            }
        }
    }
}

/// What their answers are made of is held while they are written, and there is not room for two of them as a whole.
#[test]
fn pushes_with_long_answers_are_all_answered_at_once_and_read_whole() {
    const ITEMS: usize = 100_000;
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    let items = r#"{"queue":"q","payload":1},"#.repeat(ITEMS - 1);
    let body = format!(r#"{{"bufferMs":10,"items":[{items}{{"queue":"q","payload":1}}]}}"#);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let response = daemon.connect().post("/api/v1/push", body.as_bytes()).unwrap();
                assert_eq!(response.status, 201);
                assert_eq!(response.json()["messages"].as_array().unwrap().len(), ITEMS);
            });
        }
    });
    // The connection is good for more behind such an answer.
    let mut client = daemon.connect();
    for _ in 0..2 {
        assert_eq!(client.post("/api/v1/push", body.as_bytes()).unwrap().status, 201);
    }
    assert_eq!(daemon.figure("pushedMessages"), 8 * ITEMS as u64);
}

#[test]
fn readers_that_take_no_answers_are_cut_when_others_need_their_memory() {
    const DEAF: usize = 24;
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &["--cores", "1"]);
    let before = memory_without_them(&daemon, "");
    let body = "1\n".repeat(10_000);
    let head = format!(
        "POST /push/deaf HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let requests = [head.as_bytes(), body.as_bytes()].concat().repeat(6);
    let mut deaf: Vec<Slow> = (0..DEAF).map(|_| Slow::begin(daemon.address, &requests, b"")).collect();
    let mut large: Vec<Slow> = (0..2)
        .map(|_| Slow::begin(daemon.address, &cut("POST", "/push/slow", "", &vec![b'1'; 12 << 20]), b""))
        .collect();
    deaf.append(&mut large);
    let peak = push_beside(&daemon, "", WINDOW, &mut deaf);
    let grown = peak.saturating_sub(before);
    println!("{grown} bytes");
    assert!(grown < MEMORY_BUDGET_DEFAULT as u64 + 2 * SLACK_BYTES, "{grown} bytes");
    assert_eq!(daemon.connect().get("/ready").unwrap().status, 200);
}

#[test]
fn while_others_wait_a_token_that_holds_more_than_its_part_gives_some_back_first() {
    let dir = data_dir();
    let tokens = dir.path().join("tokens.toml");
    let tokens = tokens.to_str().unwrap();
    let token = || {
        let made = forebay(&["token", "new", "--tokens-file", tokens, "--scopes", "push"]);
        format!("Authorization: Bearer {}\r\n", String::from_utf8(made.stdout).unwrap().trim_end())
    };
    let (greedy, other, newcomer) = (token(), token(), token());
    let args = ["--cores", "1", "--tokens-file", tokens];
    let daemon = Daemon::start(&dir.path().join("data"), NOWHERE, &args);
    let body = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2)).into_bytes();
    // Of each the last bytes are missing.
    let hold = |token: &str, bytes: usize, drip: &[u8]| {
        let whole = cut("POST", "/push/held", token, &body(bytes));
        Slow::begin(daemon.address, &whole[..whole.len() - 300_000], drip)
    };
    // 18 of 26 MiB, and faster than the other one.
    let drip = [b' '; 2000];
    let mut greedy = [hold(&greedy, 9 << 20, &drip), hold(&greedy, 9 << 20, &drip)];
    let mut other = hold(&other, 5 << 20, b"");
    thread::sleep(Duration::from_millis(500));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (is_over, greedy) = (&is_over, &mut greedy);
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                greedy.iter_mut().for_each(Slow::drip);
                thread::sleep(Duration::from_millis(100));
            }
        });
        thread::sleep(Duration::from_millis(1500));
        let mut client = daemon.connect();
        let whole = cut("POST", "/push/new", &newcomer, &body(8 << 20));
        client.send(&[&whole[..], b"\""].concat()).unwrap();
        assert_eq!(client.receive(false).unwrap().status, 201);
        is_over.store(true, Ordering::Relaxed);
    });
    let statuses = greedy.each_mut().map(Slow::status);
    assert!(statuses.contains(&Some(408)), "{statuses:?}");
    assert_eq!(other.status(), None, "the other token's is not touched");
}

#[test]
fn while_pushes_are_refused_for_want_of_memory_the_daemon_is_not_ready() {
    let dir = data_dir();
    // Nothing drains it, so pushes with long answers wait for their commit.
    let wait_long = |config: &mut forebay::config::Config| config.commit_wait = Duration::from_secs(300);
    let address = start_core(dir.path(), DatabaseHealth::Connected, wait_long, || {});
    let items = r#"{"queue":"q","payload":1},"#.repeat(99_999);
    let many = format!(r#"{{"items":[{items}{{"queue":"q","payload":1}}]}}"#);
    let head = format!("POST /api/v1/push HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", many.len());
    let mut waiting: Vec<Client> = (0..2).map(|_| Client::connect(address).unwrap()).collect();
    for client in &mut waiting {
        client.send(&[head.as_bytes(), many.as_bytes()].concat()).unwrap();
    }
    let mut probe = Client::connect(address).unwrap();
    let mut appended = || probe.get("/api/v1/status/buffers").unwrap().json()["pushedMessages"].as_u64().unwrap();
    wait_until("all are in the log", || appended() == 200_000);
    assert_eq!(probe.get("/ready").unwrap().status, 200);
    let began = Instant::now();
    let large = format!("\"{}\"", "x".repeat(15 << 20));
    let mut refused = Client::connect(address).unwrap();
    // The rest is thrown away, so that the answer is found.
    let response = refused.post("/push/q", large.as_bytes()).unwrap();
    assert_eq!((response.status, response.code()), (503, "overloaded".to_owned()));
    assert_eq!(response.header("Retry-After"), Some("1"));
    assert!(began.elapsed() >= MEMORY_PATIENCE / 2, "it has waited for room");
    let ready = probe.get("/ready").unwrap();
    assert_eq!((ready.status, ready.code()), (503, "overloaded".to_owned()));
    // Smaller ones are taken all the same, and it is ready again once nothing was refused for a while.
    for bytes in [10, 1000, 60_000, 1_000_000] {
        let body = format!("\"{}\"", "x".repeat(bytes));
        assert_eq!(probe.post("/push/q", body.as_bytes()).unwrap().status, 201, "{bytes}");
    }
    wait_until("it is ready again", || probe.get("/ready").unwrap().status == 200);
}
