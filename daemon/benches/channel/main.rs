//! A channel beside one task that waits for each answer, beside pgbench in a pipeline, and beside a connection of its own.
//!
//! ```text
//!   throughput   64 tasks that share one channel, one task alone on it, and pgbench: primary-key SELECTs a second
//!   latency      a lone request through the channel, and one on a connection without a channel: p50 and p99
//!   letters      200 lists of dead letters a second while 1,000 letters are put back: the longest wait
//! ```
//!
//! `cargo bench -p forebay --bench channel -- [only=NAMES] [rounds=N] [seconds=N]`; prints Markdown.
// A measuring tool fails as a test does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod latency;
mod letters;
mod server;
mod throughput;

use std::collections::HashMap;

/// As the daemon has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Settings of the run.
pub(crate) struct Settings {
    /// How often each side has its turn.
    pub(crate) rounds: usize,
    /// How long a turn takes, in seconds.
    pub(crate) seconds: u64,
    only: Option<Vec<String>>,
}

impl Settings {
    fn read() -> Self {
        let args: HashMap<String, String> = std::env::args()
            .skip(1)
            .filter(|arg| arg != "--bench")
            .map(|arg| match arg.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => panic!("'{arg}' is not NAME=VALUE"),
            })
            .collect();
        let number = |name: &str, default| args.get(name).map_or(default, |value| value.parse().expect(name));
        Self {
            rounds: number("rounds", 15) as usize,
            seconds: number("seconds", 1),
            only: args.get("only").map(|names| names.split(',').map(str::to_owned).collect()),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|wanted| wanted == name))
    }
}

/// Rounds of letters at most: each takes some seconds.
const LETTERS_ROUNDS_MAX: usize = 5;

fn main() {
    let settings = Settings::read();
    if settings.wants("throughput") || settings.wants("latency") {
        let server = server::Server::start();
        if settings.wants("throughput") {
            println!("{}", throughput::run(&server, &settings));
        }
        if settings.wants("latency") {
            println!("{}", latency::run(&server, &settings));
        }
    }
    if settings.wants("letters") {
        println!("{}", letters::run(settings.rounds.min(LETTERS_ROUNDS_MAX)));
    }
}

/// The median of some figures.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The median of some figures with the least and the greatest.
pub(crate) fn spread(values: &[f64]) -> String {
    let (least, greatest) =
        values.iter().fold((f64::MAX, f64::MIN), |(least, greatest), value| (least.min(*value), greatest.max(*value)));
    format!("{:.0} ({least:.0}–{greatest:.0})", median(values))
}
