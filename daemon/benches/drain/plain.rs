//! Plain pushes of one message, each answered after its commit. PostgreSQL, the daemon and the load share the cores.

use crate::{
    Settings,
    backlog::scratch,
    bare::Server,
    drain::Daemon,
    split::{Moment, PARTS},
    spread,
};
use std::process::Command;

/// Length of a round, and of the measurement of pushes that are answered from the log.
const SECONDS: u32 = 5;
const BUFFERED_SECONDS: u32 = 1;

/// Connections, and their bar: least commits per second, or highest median in microseconds.
const LOADS: [(u32, Bar); 2] = [(128, Bar::CommitsPerS(30_000.0)), (1, Bar::MedianUs(1_500.0))];

enum Bar {
    CommitsPerS(f64),
    MedianUs(f64),
}

pub(crate) const NAME: &str = "plain";

const HEAD: &str = "\
| connections | answered commits/s | p50, µs | p99, µs | bar | |\n\
|---|---|---|---|---|---|";

/// All rounds with one number of connections.
#[derive(Default)]
struct Measured {
    rates: Vec<f64>,
    p50s: Vec<f64>,
    p99s: Vec<f64>,
    /// Median latency of pushes that are answered from the log.
    buffered_p50s: Vec<f64>,
    rows_per_transaction: Vec<f64>,
    syncs_per_transaction: Vec<f64>,
    wal_sync_us: Vec<f64>,
    percent: [Vec<f64>; PARTS.len()],
}

/// Carries out all rounds. Returns a table of results, and one of the CPU time.
pub(crate) fn run(settings: &Settings) -> String {
    eprintln!("plain pushes");
    let server = Server::start();
    let url = server.fresh_database("plain");
    let dir = scratch();
    let daemon = Daemon::start(&dir.path().join("data"), &url, &[]);
    let mut lines = vec![HEAD.to_owned()];
    let mut taken = vec![
        String::new(),
        format!(
            "| connections | rows a transaction | PostgreSQL's syncs a transaction | one of them, µs | until the log has it: p50, µs \
             | {} |",
            PARTS.map(|part| format!("{part}, % of a core")).join(" | ")
        ),
        format!("|{}", "---|".repeat(5 + PARTS.len())),
    ];
    for (connections, bar) in LOADS {
        let measured = measure(settings, &server, &daemon, connections);
        let (bar, is_met) = match bar {
            Bar::CommitsPerS(least) => (format!("at least {least} commits/s"), spread(&measured.rates).0 >= least),
            Bar::MedianUs(most) => (format!("p50 at most {most} µs"), spread(&measured.p50s).0 <= most),
        };
        lines.push(format!(
            "| {connections} | {} | {} | {} | {bar} | {} |",
            range(&measured.rates, 0),
            range(&measured.p50s, 0),
            range(&measured.p99s, 0),
            if is_met { "met" } else { "missed" }
        ));
        taken.push(format!(
            "| {connections} | {} | {} | {} | {} | {} |",
            range(&measured.rows_per_transaction, 1),
            range(&measured.syncs_per_transaction, 2),
            range(&measured.wal_sync_us, 0),
            range(&measured.buffered_p50s, 0),
            measured.percent.map(|percent| range(&percent, 0)).join(" | ")
        ));
    }
    daemon.terminate();
    lines.extend(taken);
    lines.join("\n")
}

fn range(values: &[f64], digits: usize) -> String {
    let (median, least, greatest) = spread(values);
    format!("{median:.digits$} ({least:.digits$}–{greatest:.digits$})")
}

fn measure(settings: &Settings, server: &Server, daemon: &Daemon, connections: u32) -> Measured {
    let mut measured = Measured::default();
    for round in 0..=settings.rounds {
        let (_, buffered_p50, _) = push(settings, daemon, connections, ("--buffered", BUFFERED_SECONDS));
        daemon.wait_until_drained();
        let (before, transactions) = (Moment::now(daemon.id(), server), daemon.transactions());
        let (rate, p50, p99) = push(settings, daemon, connections, ("--plain", SECONDS));
        let transactions = daemon.transactions() - transactions;
        let split = before.until(&Moment::now(daemon.id(), server));
        eprintln!("  {connections} connections, round {round}: {rate:.0} commits/s, p50 {p50:.0} µs, p99 {p99:.0} µs");
        // The first one warms up.
        if round == 0 {
            continue;
        }
        measured.rates.push(rate);
        measured.p50s.push(p50);
        measured.p99s.push(p99);
        measured.buffered_p50s.push(buffered_p50);
        measured.rows_per_transaction.push(rate * f64::from(SECONDS) / transactions);
        measured.syncs_per_transaction.push(split.wal_syncs / transactions);
        measured.wal_sync_us.push(split.wal_sync_us);
        for (all, percent) in measured.percent.iter_mut().zip(split.percent) {
            all.push(percent);
        }
    }
    measured
}

/// Answers a second, and the median and the 99th percentile in microseconds.
fn push(settings: &Settings, daemon: &Daemon, connections: u32, (kind, seconds): (&str, u32)) -> (f64, f64, f64) {
    let output = Command::new(&settings.load)
        .args(["push", kind, "--json", "--threads", "1", "--partitions", "16", "--duration", &seconds.to_string()])
        .args(["--connections", &connections.to_string(), "--url", &format!("http://{}", daemon.address)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figure = |value: &serde_json::Value| value.as_f64().unwrap();
    (figure(&report["messages_per_s"]), figure(&report["latency_us"]["p50"]), figure(&report["latency_us"]["p99"]))
}
