//! Faults that no proxy can simulate: a standby, a restore from a base backup and archived WAL, a full disk of
//! PostgreSQL, a network path that loses packets.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod dead_path;
mod full_disk;
mod namespace;
mod replica;
mod restored;
mod standby;

use common::{Client, rows};
use forebay_cluster::TestCluster;
use serde_json::json;

/// Sends a plain push of number `n` with padding and returns its status.
fn push(client: &mut Client, queue: &str, n: u64, fill_bytes: usize) -> String {
    let item = json!({"queue": queue, "payload": {"n": n, "fill": "x".repeat(fill_bytes)}});
    let response = client.push(&json!({ "items": [item] })).unwrap();
    assert_eq!(response.status, 201, "{}", String::from_utf8_lossy(&response.body));
    response.json()[0]["status"].as_str().unwrap().to_owned()
}

/// The query for the numbers of a queue in the order of delivery.
fn numbers_sql(queue: &str) -> String {
    format!("SELECT payload->>'n' FROM forebay.message_log WHERE queue = '{queue}' ORDER BY seq")
}

fn numbers(cluster: &TestCluster, queue: &str) -> Vec<u64> {
    rows(cluster, &numbers_sql(queue)).iter().map(|row| row[0].parse().unwrap()).collect()
}
