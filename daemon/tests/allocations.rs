//! How often a core asks for memory while it serves pushes, over a real socket and a real log: counted, not guessed.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// An allocator is unsafe by its nature.
#![allow(unsafe_code)]

mod common;

use common::own_core::start_core;
use forebay::state::database_health::DatabaseHealth;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering},
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
    let address = start_core(dir.path(), DatabaseHealth::Disconnected, |_| {}, || IS_COUNTED.set(true));
    let mut stream = TcpStream::connect(address).unwrap();
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
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
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
