//! Slow clients: they do not finish their bodies or do not read their replies. The memory that a core holds for them is
//! bounded, and other clients are served.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, Daemon, NOWHERE, Response, data_dir, wait_until};
use forebay::limits::{MEMORY_BUDGET_DEFAULT, PACE_PERIOD};
use rustix::net::sockopt;
use std::{
    io::{ErrorKind, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Two bodies of this size have room in a core's budget, and three do not.
const LARGE_BYTES: usize = MEMORY_BUDGET_DEFAULT * 3 / 8;

/// A daemon of one core with long timeouts for bodies.
fn daemon(dir: &std::path::Path) -> Daemon {
    Daemon::start(dir, NOWHERE, &["--cores", "1", "--request-timeout", "60s"])
}

/// A JSON string of `bytes` bytes.
fn text(bytes: usize) -> Vec<u8> {
    let mut text = vec![b'x'; bytes];
    (text[0], text[bytes - 1]) = (b'"', b'"');
    text
}

fn head(framing: &str) -> Vec<u8> {
    format!("POST /push/held HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n").into_bytes()
}

/// A client that withholds the last byte of a large body.
struct HeldBack(Client);

impl HeldBack {
    fn begin(daemon: &Daemon) -> Self {
        let mut client = daemon.connect();
        client.send(&head(&format!("Content-Length: {LARGE_BYTES}"))).unwrap();
        client.send(&text(LARGE_BYTES)[..LARGE_BYTES - 1]).unwrap();
        Self(client)
    }

    fn end(mut self) -> Response {
        self.0.send(b"\"").unwrap();
        self.0.receive(false).unwrap()
    }
}

/// Bytes in transit to the daemon, according to the system: in send queues or in the receive queues of the daemon's
/// sockets.
fn unread_bytes(daemon: &Daemon) -> u64 {
    let port = format!(":{:04X}", daemon.address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queues = table.lines().skip(1).filter_map(|line| {
        let [_, local, remote, _, queues] = line.split_whitespace().take(5).collect::<Vec<_>>()[..] else {
            return None;
        };
        let (to_send, to_read) = queues.split_once(':')?;
        let queue = if local.ends_with(&port) { to_read } else { to_send };
        (local.ends_with(&port) || remote.ends_with(&port)).then(|| u64::from_str_radix(queue, 16).unwrap())
    });
    queues.sum()
}

/// Pushes bodies of all sizes up to a megabyte; all are taken.
fn push_all_sizes(daemon: &Daemon) {
    let mut client = daemon.connect();
    for bytes in [10, 100, 6000, 20_000, 64 << 10, 200_000, 1_000_000] {
        let response = client.post("/push/others", &text(bytes)).unwrap();
        assert_eq!(response.status, 201, "{bytes}");
    }
}

#[test]
fn case_66_beside_large_bodies_that_are_held_back_smaller_ones_have_room_and_nobody_is_refused() {
    let dir = data_dir();
    let daemon = daemon(dir.path());
    let held: Vec<HeldBack> = (0..2).map(|_| HeldBack::begin(&daemon)).collect();
    wait_until("the daemon has read all of it", || unread_bytes(&daemon) == 0);
    // Longer than it takes to find out how slow they are.
    thread::sleep(2 * PACE_PERIOD);
    for _ in 0..10 {
        push_all_sizes(&daemon);
    }
    held.into_iter().for_each(|held| assert_eq!(held.end().status, 201));
    assert_eq!(daemon.connect().get("/ready").unwrap().status, 200);
}

#[test]
fn case_66_when_another_body_waits_for_room_the_slowest_of_those_who_hold_some_is_refused() {
    let dir = data_dir();
    let daemon = daemon(dir.path());
    let silent = HeldBack::begin(&daemon);
    let (head, body) = (head(&format!("Content-Length: {LARGE_BYTES}")), text(LARGE_BYTES));
    let (first, rest) = body.split_at(LARGE_BYTES / 6);
    wait_until("the daemon has read all of it", || unread_bytes(&daemon) == 0);
    thread::sleep(3 * PACE_PERIOD);
    let mut steady = daemon.connect();
    steady.send(&head).unwrap();
    steady.send(first).unwrap();
    thread::scope(|scope| {
        // A third of what it holds each second: more than is asked for.
        let steady = scope.spawn(move || {
            for piece in rest.chunks(LARGE_BYTES / 30) {
                thread::sleep(Duration::from_millis(100));
                steady.send(piece).unwrap();
            }
            steady.receive(false).unwrap()
        });
        thread::sleep(Duration::from_millis(1000));
        // There is room for two of them.
        assert_eq!(daemon.connect().post("/push/newcomer", &body).unwrap().status, 201);
        assert_eq!(steady.join().unwrap().status, 201);
    });
    let mut silent = silent.0;
    let refused = silent.receive(false).unwrap();
    assert_eq!((refused.status, refused.code()), (408, "request_timeout".to_owned()));
    assert!(refused.error().contains("memory"), "{}", refused.error());
    assert!(silent.is_closed());
    assert_eq!(daemon.connect().get("/ready").unwrap().status, 200, "nobody was refused who is not slow");
    assert_eq!(daemon.log().matches("--memory-budget").count(), 1, "{}", daemon.log());
}

#[test]
fn case_66_a_crowd_of_large_bodies_is_taken_one_after_the_other_in_bounded_memory_beside_those_that_are_held_back() {
    const CROWD: usize = 30;
    let dir = data_dir();
    let daemon = daemon(dir.path());
    // What the log keeps of large groups is there already.
    assert_eq!(daemon.connect().post("/push/first", &text(LARGE_BYTES)).unwrap().status, 201);
    let before = daemon.memory_bytes();
    let held: Vec<HeldBack> = (0..3).map(|_| HeldBack::begin(&daemon)).collect();
    let is_over = AtomicBool::new(false);
    let lines = [&text(99), &b"\n"[..]].concat().repeat(LARGE_BYTES / 100);
    let one_chunk = [format!("{LARGE_BYTES:x}\r\n").as_bytes(), &text(LARGE_BYTES), b"\r\n0\r\n\r\n"].concat();
    let kinds = [
        (head(&format!("Content-Length: {LARGE_BYTES}")), text(LARGE_BYTES)),
        (head("Transfer-Encoding: chunked"), one_chunk),
        (head(&format!("Content-Type: application/x-ndjson\r\nContent-Length: {}", lines.len())), lines),
    ];
    let crowd = |n: usize| {
        let (head, body) = &kinds[n % kinds.len()];
        let mut client = daemon.connect();
        client.send(head).unwrap();
        client.send(body).unwrap();
        // What is refused is read to its end all the same, so that this finds the answer.
        client.receive(false).unwrap().status
    };
    let (statuses, peak) = thread::scope(|scope| {
        let crowd = &crowd;
        let threads: Vec<_> = (0..CROWD).map(|n| scope.spawn(move || crowd(n))).collect();
        let peak = scope.spawn(|| {
            let mut peak = 0;
            while !is_over.load(Ordering::Relaxed) {
                peak = peak.max(daemon.memory_bytes());
                thread::sleep(Duration::from_millis(5));
            }
            peak
        });
        let statuses: Vec<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        is_over.store(true, Ordering::Relaxed);
        (statuses, peak.join().unwrap())
    });
    for (n, status) in statuses.into_iter().enumerate() {
        // While silent ones hold most of it, a body without a length may be told to come back.
        assert!(status == 201 || n % kinds.len() == 1 && status == 503, "{n}: {status}");
    }
    let grown = peak.saturating_sub(before);
    println!("{grown} bytes for {CROWD} bodies of {LARGE_BYTES}");
    // The log has groups of its own, and copies each large body once.
    assert!(grown < (MEMORY_BUDGET_DEFAULT + 2 * LARGE_BYTES) as u64, "{grown} bytes");
    for HeldBack(mut client) in held {
        let response = client.receive(false).unwrap();
        assert!([408, 503].contains(&response.status), "{}", response.status);
    }
}

#[test]
fn a_crowd_of_fast_large_bodies_without_a_length_is_taken_one_after_the_other() {
    const CROWD: usize = 16;
    let dir = data_dir();
    let daemon = daemon(dir.path());
    let body = text(15_000_000);
    let chunks = body.chunks(64 << 10).map(|part| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
    let request =
        [&head("Transfer-Encoding: chunked")[..], &chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n"].concat();
    for round in 0..3 {
        let begun = std::time::Instant::now();
        thread::scope(|scope| {
            let push = || {
                let mut client = daemon.connect();
                client.send(&request).unwrap();
                client.receive(false).unwrap().status
            };
            let pushes: Vec<_> = (0..CROWD).map(|_| scope.spawn(push)).collect();
            for push in pushes {
                assert_eq!(push.join().unwrap(), 201, "in round {round}, after {:?}", begun.elapsed());
            }
        });
        println!("{CROWD} bodies in {:?}", begun.elapsed());
    }
}

#[test]
fn what_a_large_body_held_is_others_while_its_client_goes_on_with_small_requests() {
    let dir = data_dir();
    let daemon = daemon(dir.path());
    let body = text(15 << 20);
    let mut busy = daemon.connect();
    busy.send(&head("Transfer-Encoding: chunked")).unwrap();
    let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    busy.send(&chunked).unwrap();
    assert_eq!(busy.receive(false).unwrap().status, 201);
    let is_over = AtomicBool::new(false);
    let status = thread::scope(|scope| {
        let is_over = &is_over;
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(busy.get("/health").unwrap().status, 200);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let other = daemon.connect().post("/push/held", &body).map(|response| response.status);
        is_over.store(true, Ordering::Relaxed);
        other
    });
    assert_eq!(status.unwrap(), 201);
}

/// A connection whose client sends requests without end and reads no reply. Its socket buffers are small.
fn deaf(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(daemon.address).unwrap();
    sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Sends `request` repeatedly until no byte was accepted for a second. Returns the number of accepted bytes.
fn send_until_full(stream: &mut TcpStream, request: &[u8]) -> usize {
    let (mut sent, mut refused) = (0, 0);
    while refused < 20 {
        match stream.write(&request[sent % request.len()..]) {
            Ok(bytes) => (sent, refused) = (sent + bytes, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused += 1;
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
    sent
}

#[test]
fn a_client_that_takes_no_answer_is_cut_takes_no_memory_meanwhile_and_others_are_served() {
    const DEAF: usize = 40;
    // Each connection has a buffer for its requests and the replies to the requests in it.
    const MOST_BYTES: u64 = 24 << 20;
    let dir = data_dir();
    let daemon = daemon(dir.path());
    let mut client = daemon.connect();
    assert_eq!(client.get("/health").unwrap().status, 200);
    let (before, sockets_before) = (daemon.memory_bytes(), daemon.sockets());
    let small = b"GET /api/v1/status/buffers HTTP/1.1\r\nHost: t\r\n\r\n".repeat(100);
    let mut deaf: Vec<TcpStream> = (0..DEAF).map(|_| deaf(&daemon)).collect();
    let sent: usize = thread::scope(|scope| {
        let small = &small;
        let threads: Vec<_> =
            deaf.iter_mut().map(|stream| scope.spawn(move || send_until_full(stream, small))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // A reply is about ten times the size of its request, so requests that were not read cannot have been answered.
    let grown = daemon.memory_bytes().saturating_sub(before);
    println!("{sent} bytes of requests, {grown} bytes of memory");
    assert!(sent as u64 > MOST_BYTES, "{sent} bytes are too few to show anything");
    assert!(grown < MOST_BYTES, "{grown} bytes for {sent} of requests");
    // The drain has a socket at times, and `sockets_before` may have counted it.
    assert!(daemon.sockets() >= sockets_before + DEAF - 1, "none of them is cut at once");
    assert_eq!(client.post("/push/served", b"1").unwrap().status, 201);
    wait_until("all of them are cut", || {
        assert_eq!(client.get("/health").unwrap().status, 200);
        assert!(daemon.memory_bytes().saturating_sub(before) < MOST_BYTES);
        daemon.sockets() <= sockets_before
    });
    for stream in &mut deaf {
        // The client's system learns of the close when it sends after it.
        let failed = (0..100).find_map(|_| {
            thread::sleep(Duration::from_millis(10));
            stream.write(b"G").err().filter(|error| error.kind() != ErrorKind::WouldBlock)
        });
        assert!(failed.is_some());
    }
    assert_eq!(client.post("/push/served", b"2").unwrap().status, 201);
}

#[test]
fn a_client_that_takes_nothing_of_large_answers_is_cut_and_nothing_more_is_read_from_it() {
    const LINES: usize = 10_000;
    let dir = data_dir();
    let daemon = daemon(dir.path());
    let mut client = daemon.connect();
    let body = "1\n".repeat(LINES);
    let head = head(&format!("Content-Type: application/x-ndjson\r\nContent-Length: {}", body.len()));
    let mut deaf = deaf(&daemon);
    let sent = send_until_full(&mut deaf, &[&head[..], body.as_bytes()].concat());
    let answered = daemon.figure("pending");
    let requests = sent / (head.len() + body.len());
    assert!(answered < (requests * LINES) as u64, "{answered} messages of {requests} requests");
    wait_until("it is cut", || {
        assert_eq!(client.get("/health").unwrap().status, 200);
        deaf.write(b"1").is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
    });
    assert_eq!(daemon.figure("pending"), answered, "and nothing was taken of it meanwhile");
    // The memory of its replies is available to others.
    assert_eq!(client.post("/push/held", &text(15 << 20)).unwrap().status, 201);
}
