//! How long a lone request takes: through a channel, and on a connection without one.

use crate::{
    Settings, median,
    server::{Ids, Server, deadline, select},
};
use forebay::postgres::channel::{Channel, Unit};
use forebay_pgwire::{Connection, Param, Statement, oid};
use std::{fmt::Write, time::Instant};

/// Requests of a block. Both sides have their blocks in turn, so that a moment in which the machine is busy with other things
/// hits both; the figures are medians over the blocks.
const BLOCK: usize = 1000;

/// Blocks of each side for each second of the settings.
const BLOCKS_PER_S: u64 = 20;

/// Runs the blocks; a Markdown table.
pub(crate) fn run(server: &Server, settings: &Settings) -> String {
    let blocks = settings.rounds as u64 * settings.seconds * BLOCKS_PER_S;
    let (through, direct) = server.with_both(async |channel, mut connection| {
        let statement = connection.prepare(&select(), &[oid::INT8]).await.unwrap();
        let (mut through, mut direct) = (Vec::new(), Vec::new());
        for seed in 0..blocks {
            through.push(on_channel(&channel, seed).await);
            direct.push(on_connection(&mut connection, &statement, seed).await);
        }
        (through, direct)
    });
    let figure = |of: &[Latency], which: fn(&Latency) -> f64| median(&of.iter().map(which).collect::<Vec<_>>());
    let mut table = format!("| a lone request, µs, {blocks} blocks of {BLOCK} each | p50 | p99 |\n|---|---|---|\n");
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

async fn on_channel(channel: &Channel, seed: u64) -> Latency {
    let (sql, mut ids, mut times_us) = (select(), Ids::new(seed), Vec::with_capacity(BLOCK));
    for _ in 0..BLOCK {
        let begun = Instant::now();
        let unit = Unit::read(&sql, &[Param::I64(ids.next())]);
        let outcome = channel.submit(unit, deadline(), None).await.unwrap();
        assert_eq!(outcome.into_results().unwrap()[0].rows.len(), 1);
        times_us.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Latency::of(times_us)
}

async fn on_connection(connection: &mut Connection, statement: &Statement, seed: u64) -> Latency {
    let (mut ids, mut times_us) = (Ids::new(seed), Vec::with_capacity(BLOCK));
    for _ in 0..BLOCK {
        let begun = Instant::now();
        let rows = connection.query(statement, &[Param::I64(ids.next())]).await.unwrap();
        assert_eq!(rows.len(), 1);
        times_us.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Latency::of(times_us)
}
