//! How often a core asks for memory while it serves pushes, over a real socket and a real log: counted, not guessed.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// An allocator is unsafe by its nature.
#![allow(unsafe_code)]

use forebay::{
    config::{Config, args::ServeArgs},
    core::{self, CoreStart},
    drain::signal::DrainSignal,
    errands,
    mailbox::Mailbox,
    shared::{DatabaseHealth, Shared},
};
use forebay_wal::log::{self, LogOptions};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::channel,
    },
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    // A thread that ends has no cell any more, and is not counted.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is the system allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Starts a core of its own, on a thread that is counted; nothing drains what it takes.
fn start_core(dir: &std::path::Path) -> SocketAddr {
    let args = ServeArgs { postgres: Some("postgres://nobody@127.0.0.1:1/none".into()), ..ServeArgs::default() };
    let config = Config::resolve(args).unwrap();
    let (segment_bytes, quota_bytes) = (4 << 20, 256 << 20);
    let sync = forebay_wal::group::SyncMethod::None;
    let mut log = log::open(&LogOptions { dir: dir.join("wal"), lanes: 1, sync, segment_bytes, quota_bytes }).unwrap();
    let (errands, _) = errands::errands();
    let mailboxes = vec![Mailbox::new().unwrap()];
    let signal = DrainSignal::new().unwrap();
    let gate = forebay::access::Gate::open(&config).unwrap();
    let shared = Arc::new(Shared::new((config, gate), &log, (segment_bytes, quota_bytes), signal, mailboxes, errands));
    shared.set_health(DatabaseHealth::Disconnected);
    let (mut sockets, address) = core::bind_all(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
    let (failed, failures) = channel();
    let lane = log.lanes.remove(0);
    let socket = sockets.remove(0);
    std::thread::spawn(move || {
        IS_COUNTED.set(true);
        // They live as long as the core.
        let (_log, _failures) = (log, failures);
        core::run(CoreStart { shared, lane, socket, cpu: None, connections_max: 100, failed }).unwrap();
    });
    address
}

/// Sends `request` so often, each time waiting for a 201.
fn push(stream: &mut TcpStream, request: &[u8], times: u32) {
    let mut answer = [0; 4096];
    for _ in 0..times {
        stream.write_all(request).unwrap();
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer[..length]));
    }
}

#[test]
fn a_push_asks_for_memory_no_more_often_than_is_written_here() {
    const TIMES: u32 = 4000;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut stream = TcpStream::connect(start_core(dir.path())).unwrap();
    stream.set_nodelay(true).unwrap();
    let item = r#"{"queue":"q","payload":{"n":1},"transactionId":"t"}"#;
    let json = format!(r#"{{"items":[{item}],"qos0":true}}"#);
    let plain = format!(r#"{{"items":[{item}]}}"#);
    let four = format!(r#"{{"items":[{item},{item},{item},{item}],"qos0":true}}"#);
    // The first three: the list of items that the JSON is cut into. With several messages, that of the answer as well.
    for (what, path, body, allowed) in [
        ("JSON", "/api/v1/push", &json, 1),
        ("plain, PostgreSQL away", "/api/v1/push", &plain, 1),
        ("four messages", "/api/v1/push", &four, 2),
        ("by path", "/push/q/p", &"{\"n\":1}".to_owned(), 0),
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        push(&mut stream, request.as_bytes(), TIMES / 4);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        push(&mut stream, request.as_bytes(), TIMES);
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        // Segments that come and go, and tables that grow, ask now and then.
        let limit = u64::from(TIMES) * allowed + u64::from(TIMES) / 10;
        println!("{what}: {allocations} for {TIMES} requests");
        assert!(allocations <= limit, "{what}: {allocations} for {TIMES} requests");
    }
}
