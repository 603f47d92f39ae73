//! Compares the drain with a client that only COPYs: the same rows, in the same batches, into an identical table.
//!
//! ```text
//!   backlog   a log of messages that were pushed while PostgreSQL was down
//!   drain     the daemon with a copy of that log: rows/s, CPU and memory
//!   bare      a client that COPYs the rows that the daemon stored, batch by batch
//!   refused   rows that PostgreSQL does not take, beside as many that it takes
//!   plain     pushes that wait for their commit; split   where the CPU time goes meanwhile
//! ```
//!
//! `cargo bench -p forebay --bench drain -- load=PATH [only=NAMES] [rounds=N] [messages=N]`; prints Markdown.
// A measuring tool fails as a test does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod backlog;
mod bare;
mod drain;
mod plain;
mod refused;
mod scenario;
mod split;

use scenario::{SCENARIOS, Scenario};
use std::{collections::HashMap, path::PathBuf};

/// Settings of the run.
pub(crate) struct Settings {
    /// `forebay-bench`.
    load: PathBuf,
    rounds: usize,
    messages: u64,
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
            load: args.get("load").map_or_else(|| panic!("load=PATH of forebay-bench"), PathBuf::from),
            rounds: number("rounds", 3) as usize,
            messages: number("messages", 1_000_000),
            only: args.get("only").map(|names| names.split(',').map(str::to_owned).collect()),
        }
    }
}

fn main() {
    let settings = Settings::read();
    let wanted = |name: &str| settings.only.as_ref().is_none_or(|only| only.iter().any(|wanted| wanted == name));
    let scenarios: Vec<&Scenario> = SCENARIOS.iter().filter(|scenario| wanted(scenario.name)).collect();
    let names = SCENARIOS.map(|scenario| scenario.name);
    let others = [plain::NAME, refused::NAME];
    assert!(
        !scenarios.is_empty() || others.into_iter().any(wanted),
        "no such scenario; there are {names:?} and {others:?}"
    );
    let report: Vec<String> = scenarios.iter().map(|scenario| scenario.run(&settings)).collect();
    if !report.is_empty() {
        println!("{}", scenario::HEAD);
        report.iter().for_each(|line| println!("{line}"));
    }
    if wanted(refused::NAME) {
        println!("\n{}", refused::run(&settings));
    }
    if wanted(plain::NAME) {
        println!("\n{}", plain::run(&settings));
    }
}

/// The median, the least and the greatest.
pub(crate) fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}
