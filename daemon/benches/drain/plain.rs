//! Plain pushes, one message each, answered after their commit: PostgreSQL, the daemon and the load on the same cores.

use crate::{Settings, backlog::scratch, bare::Server, drain::Daemon, spread};
use std::process::Command;

/// Length of a round.
const SECONDS: &str = "5";

/// Connections, and what is asked of them: commits a second at least, or a median in microseconds at most.
const LOADS: [(u32, Bar); 2] = [(128, Bar::CommitsPerS(30_000.0)), (1, Bar::MedianUs(1_500.0))];

enum Bar {
    CommitsPerS(f64),
    MedianUs(f64),
}

pub(crate) const NAME: &str = "plain";

const HEAD: &str = "\
| connections | answered commits/s | p50, µs | p99, µs | bar | |\n\
|---|---|---|---|---|---|";

/// Carries out all rounds, and gives a table.
pub(crate) fn run(settings: &Settings) -> String {
    eprintln!("plain pushes");
    let server = Server::start();
    let url = server.fresh_database("plain");
    let dir = scratch();
    let daemon = Daemon::start(&dir.path().join("data"), &url, &[]);
    let mut lines = vec![HEAD.to_owned()];
    for (connections, bar) in LOADS {
        let (mut rates, mut p50s, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=settings.rounds {
            let (rate, p50, p99) = push(settings, &daemon, connections);
            eprintln!(
                "  {connections} connections, round {round}: {rate:.0} commits/s, p50 {p50:.0} µs, p99 {p99:.0} µs"
            );
            // The first one warms up.
            if round > 0 {
                rates.push(rate);
                p50s.push(p50);
                p99s.push(p99);
            }
        }
        let (bar, is_met) = match bar {
            Bar::CommitsPerS(least) => (format!("at least {least} commits/s"), spread(&rates).0 >= least),
            Bar::MedianUs(most) => (format!("p50 at most {most} µs"), spread(&p50s).0 <= most),
        };
        let range = |values: &[f64]| {
            let (median, least, greatest) = spread(values);
            format!("{median:.0} ({least:.0}–{greatest:.0})")
        };
        lines.push(format!(
            "| {connections} | {} | {} | {} | {bar} | {} |",
            range(&rates),
            range(&p50s),
            range(&p99s),
            if is_met { "met" } else { "missed" }
        ));
    }
    daemon.terminate();
    lines.join("\n")
}

/// Commits a second, and the median and the 99th percentile in microseconds.
fn push(settings: &Settings, daemon: &Daemon, connections: u32) -> (f64, f64, f64) {
    let output = Command::new(&settings.load)
        .args(["push", "--plain", "--json", "--threads", "1", "--partitions", "16", "--duration", SECONDS])
        .args(["--connections", &connections.to_string(), "--url", &format!("http://{}", daemon.address)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figure = |value: &serde_json::Value| value.as_f64().unwrap();
    (figure(&report["messages_per_s"]), figure(&report["latency_us"]["p50"]), figure(&report["latency_us"]["p99"]))
}
