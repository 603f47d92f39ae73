//! How long a lone request takes: through a channel, and on a connection without one.

use crate::{
    Settings, median,
    server::{Ids, Server, deadline, select},
};
use forebay::postgres::channel::Unit;
use forebay_pgwire::{Param, oid};
use std::{fmt::Write, time::Instant};

/// Requests of a turn for each second of the settings: some 50 µs each.
const REQUESTS_PER_S: u64 = 20_000;

/// Runs the rounds; a Markdown table.
pub(crate) fn run(server: &Server, settings: &Settings) -> String {
    let requests = settings.seconds * REQUESTS_PER_S;
    let (mut through, mut direct) = (Vec::new(), Vec::new());
    for round in 1..=settings.rounds {
        through.push(channel(server, requests));
        direct.push(connection(server, requests));
        eprintln!("channel: latency, round {round} of {}", settings.rounds);
    }
    let figure = |of: &[Latency], which: fn(&Latency) -> f64| median(&of.iter().map(which).collect::<Vec<_>>());
    let mut table = "| a lone request, µs | p50 | p99 |\n|---|---|---|\n".to_owned();
    let (through_p50, through_p99) = (figure(&through, |of| of.p50_us), figure(&through, |of| of.p99_us));
    let (direct_p50, direct_p99) = (figure(&direct, |of| of.p50_us), figure(&direct, |of| of.p99_us));
    writeln!(table, "| through a channel | {through_p50:.1} | {through_p99:.1} |").unwrap();
    writeln!(table, "| on its own connection | {direct_p50:.1} | {direct_p99:.1} |").unwrap();
    writeln!(table, "| ratio | {:.2} | {:.2} |", through_p50 / direct_p50, through_p99 / direct_p99).unwrap();
    table
}

struct Latency {
    p50_us: f64,
    p99_us: f64,
}

impl Latency {
    fn of(mut times_us: Vec<f64>) -> Self {
        times_us.sort_by(f64::total_cmp);
        let at = |share: f64| times_us[(times_us.len() as f64 * share) as usize];
        Self { p50_us: at(0.5), p99_us: at(0.99) }
    }
}

fn channel(server: &Server, requests: u64) -> Latency {
    server.with_channel(async |channel| {
        let (sql, mut ids, mut times_us) = (select(), Ids::new(1), Vec::new());
        for _ in 0..requests {
            let begun = Instant::now();
            let unit = Unit::read(&sql, &[Param::I64(ids.next())]);
            let outcome = channel.submit(unit, deadline(), None).await.unwrap();
            assert_eq!(outcome.into_results().unwrap()[0].rows.len(), 1);
            times_us.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Latency::of(times_us)
    })
}

fn connection(server: &Server, requests: u64) -> Latency {
    server.with_connection(async |mut connection| {
        let statement = connection.prepare(&select(), &[oid::INT8]).await.unwrap();
        let (mut ids, mut times_us) = (Ids::new(1), Vec::new());
        for _ in 0..requests {
            let begun = Instant::now();
            let rows = connection.query(&statement, &[Param::I64(ids.next())]).await.unwrap();
            assert_eq!(rows.len(), 1);
            times_us.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Latency::of(times_us)
    })
}
