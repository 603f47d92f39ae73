//! Slow clients: they do not finish their bodies or do not read their replies. The memory that a core holds for them is
//! bounded, and other clients are served.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, Daemon, NOWHERE, Response, data_dir, wait_until};
use forebay::limits::IN_FLIGHT_BYTES_PER_CORE;
use rustix::net::sockopt;
use std::{
    io::{ErrorKind, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Three bodies of this size exceed the budget, and two do not.
const LARGE_BYTES: usize = IN_FLIGHT_BYTES_PER_CORE * 3 / 8;

/// A body of this size waits when the budget is used up.
const SMALLER_BYTES: usize = 256 << 10;

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

/// As many withheld bodies as exceed the budget.
fn use_budget_up(daemon: &Daemon) -> Vec<HeldBack> {
    let held = (0..3).map(|_| HeldBack::begin(daemon)).collect();
    wait_until("the daemon has read all of it", || unread_bytes(daemon) == 0);
    held
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

#[test]
fn case_66_beyond_the_budget_a_body_waits_and_is_taken_when_another_one_has_come_to_its_end() {
    let dir = data_dir();
    let daemon = daemon(dir.path());
    let mut held = use_budget_up(&daemon);
    let mut waits = daemon.connect();
    waits.send(&head(&format!("Content-Length: {SMALLER_BYTES}"))).unwrap();
    waits.send(&text(SMALLER_BYTES)).unwrap();
    // A request that fits into the initial buffer does not wait.
    let mut small = daemon.connect();
    for n in 0..200_u32 {
        assert_eq!(small.post("/push/small", n.to_string().as_bytes()).unwrap().status, 201);
    }
    assert!(!waits.has_received());
    assert_eq!(daemon.figure("pending"), 200);
    assert_eq!(held.pop().unwrap().end().status, 201);
    assert_eq!(waits.receive(false).unwrap().status, 201);
    held.into_iter().for_each(|held| assert_eq!(held.end().status, 201));
    assert_eq!(daemon.figure("pending"), 204);
}

#[test]
fn case_66_what_waits_too_long_beyond_the_budget_is_503_in_bounded_memory_and_afterwards_there_is_room_again() {
    const CROWD: usize = 30;
    let dir = data_dir();
    let daemon = daemon(dir.path());
    let before = daemon.memory_bytes();
    let mut held = use_budget_up(&daemon);
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
        // The daemon stops reading and closes the connection, so sending may fail. The reply is checked below.
        drop(client.send(body));
        let response = client.receive(false).unwrap();
        assert!(client.is_closed());
        response
    };
    let (responses, peak) = thread::scope(|scope| {
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
        let responses: Vec<Response> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        is_over.store(true, Ordering::Relaxed);
        (responses, peak.join().unwrap())
    });
    for (n, response) in responses.iter().enumerate() {
        assert_eq!((response.status, response.code()), (503, "overloaded".to_owned()), "{n}");
        assert_eq!(response.header("Retry-After"), Some("1"), "{n}");
        assert_eq!(response.header("Connection"), Some("close"), "{n}");
        // Complete lines were kept, and the reply counts them.
        assert_eq!(response.json()["accepted"].is_u64(), n % kinds.len() == 2, "{n}");
    }
    // The clients have more than ten times the budget to send. Buffers that grew are not freed at once.
    let grown = peak.saturating_sub(before);
    println!("{grown} bytes for {CROWD} bodies of {LARGE_BYTES}");
    assert!(grown < (4 * IN_FLIGHT_BYTES_PER_CORE) as u64, "{grown} bytes");
    // The admitted bodies are read to their end, and a client that leaves makes room.
    assert_eq!(held.pop().unwrap().end().status, 201);
    drop(held);
    for _ in 0..CROWD {
        assert_eq!(daemon.connect().post("/push/held", &text(LARGE_BYTES)).unwrap().status, 201);
    }
}

#[test]
fn who_has_gone_beyond_the_budget_keeps_nobody_from_it_by_going_on_with_small_requests() {
    let dir = data_dir();
    let daemon = daemon(dir.path());
    let body = text(IN_FLIGHT_BYTES_PER_CORE + (1 << 20));
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
    assert_eq!(client.post("/push/held", &text(IN_FLIGHT_BYTES_PER_CORE + (1 << 20))).unwrap().status, 201);
}
