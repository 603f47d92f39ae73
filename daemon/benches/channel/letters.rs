//! Lists of dead letters at a steady rate while others are put back: how long the lists wait.

use crate::{
    common::{Client, Daemon, PATIENCE, data_dir},
    median,
};
use forebay_cluster::TestCluster;
use std::{
    fmt::Write,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Letters that one request puts back.
const LETTERS: u64 = 1000;
/// Partitions that they belong to.
const PARTITIONS: u64 = 10;
/// Lists a second, …
const LISTS_PER_S: u32 = 200;
/// … over so many connections.
const CLIENTS: u32 = 20;

/// Runs the rounds; a Markdown table.
pub(crate) fn run(rounds: usize) -> String {
    let cluster = TestCluster::start().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
    daemon.wait_until_drained();
    let mut table = format!(
        "| {LETTERS} letters put back, {LISTS_PER_S} lists a second | retry, s | lists | p50, ms | p99, ms | longest, ms |\n\
         |---|---|---|---|---|---|\n"
    );
    for round in 1..=rounds {
        fill(&cluster, round);
        let (is_over, address) = (AtomicBool::new(false), daemon.address);
        let is_over = &is_over;
        let (retry_s, mut waits_ms) = std::thread::scope(|scope| {
            let lists: Vec<_> =
                (0..CLIENTS).map(|client| scope.spawn(move || list(address, client, is_over))).collect();
            std::thread::sleep(Duration::from_millis(200));
            let begun = Instant::now();
            let retried = daemon.connect().post("/api/v1/dead-letters/retry", b"").unwrap();
            let retry_s = begun.elapsed().as_secs_f64();
            assert_eq!(
                (retried.status, retried.json()["queued"].as_u64()),
                (200, Some(LETTERS)),
                "{:?}",
                retried.json()
            );
            is_over.store(true, Ordering::Relaxed);
            (retry_s, lists.into_iter().flat_map(|list| list.join().unwrap()).collect::<Vec<f64>>())
        });
        waits_ms.sort_by(f64::total_cmp);
        let p99 = waits_ms[waits_ms.len() * 99 / 100];
        let (p50, longest) = (median(&waits_ms), waits_ms[waits_ms.len() - 1]);
        let lists = waits_ms.len();
        writeln!(table, "| round {round} | {retry_s:.2} | {lists} | {p50:.1} | {p99:.1} | {longest:.1} |").unwrap();
    }
    table
}

fn fill(cluster: &TestCluster, round: usize) {
    let rows = format!(
        "INSERT INTO forebay.dead_letters (queue, partition, message_id, transaction_id, payload_text, sqlstate, error, source, created_at) \
         SELECT 'q', 'p' || n % {PARTITIONS}, gen_random_uuid(), 'round {round}, ' || n, jsonb_build_object('n', n)::text, \
         '23514', 'new row violates check constraint', 'drain', now() FROM generate_series(1, {LETTERS}) n"
    );
    cluster.psql(&rows).unwrap();
}

/// Lists at its times until it is over; the time from when each was due to when it was answered, in milliseconds.
fn list(address: SocketAddr, client: u32, is_over: &AtomicBool) -> Vec<f64> {
    let mut connection = Client::connect(address).unwrap();
    let every = Duration::from_secs(1) * CLIENTS / LISTS_PER_S;
    let begun = Instant::now() + every * client / CLIENTS;
    let mut waits_ms = Vec::new();
    for n in 0.. {
        let due = begun + every * n;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let listed = connection.get("/api/v1/dead-letters").unwrap();
        assert_eq!(listed.status, 200);
        let wait = due.elapsed();
        assert!(wait < PATIENCE);
        waits_ms.push(wait.as_secs_f64() * 1000.0);
    }
    waits_ms
}
