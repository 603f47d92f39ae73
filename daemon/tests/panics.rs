//! A panic while a connection is served is that connection's end, and nobody else's.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, data_dir, own_core::start_core};
use forebay::{limits::BODY_BYTES_DEFAULT, state::database_health::DatabaseHealth};
use std::time::Duration;

#[test]
fn a_panic_ends_its_connection_and_the_core_serves_on_with_all_that_it_had() {
    let dir = data_dir();
    // A time to wait for a commit that no clock can tell: the flag cannot say it, and whoever waits for one runs into a panic.
    let address = start_core(dir.path(), DatabaseHealth::Connected, |config| config.commit_wait = Duration::MAX, || {});
    let connect = || Client::connect(address).unwrap();
    let mut other = connect();
    assert_eq!(other.post("/push/q", b"1").unwrap().status, 201);
    let large = format!("\"{}\"", "x".repeat(BODY_BYTES_DEFAULT as usize * 3 / 4));
    for _ in 0..3 {
        // It holds half of what large bodies may have by then, which comes back.
        let mut panics = connect();
        assert!(panics.post("/push/q?wait=postgres", large.as_bytes()).is_err(), "there is no answer");
        assert!(panics.is_closed());
        assert_eq!(other.post("/push/q", large.as_bytes()).unwrap().status, 201);
    }
    let buffers = other.get("/api/v1/status/buffers").unwrap().json();
    assert_eq!(buffers["lanes"][0]["appendedOrdinal"], 1 + 2 * 3, "what was in the log is not lost by it");
    assert_eq!(connect().get("/health").unwrap().status, 200);
}
