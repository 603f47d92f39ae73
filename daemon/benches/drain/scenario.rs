//! What is compared with what.

use crate::{
    Settings,
    backlog::Backlog,
    bare::{self, Batches, Server},
    drain::{Daemon, Usage},
    spread,
};

pub(crate) const HEAD: &str = "\
| backlog | drain, rows/s | beside it | rows/s | ratio | bar | | batches | daemon, µs CPU a message | daemon, peak MiB |\n\
|---|---|---|---|---|---|---|---|---|---|";

/// What the drain is compared with.
pub(crate) enum Rival {
    /// A client that only COPYs.
    BareCopy,
    /// The drain with other settings.
    Drain(&'static [&'static str]),
    /// The drain of another backlog.
    Backlog(&'static Scenario),
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) payload_bytes: u32,
    pub(crate) partitions: u32,
    pub(crate) uuids: bool,
    pub(crate) duplicate_every: Option<u64>,
    /// Settings of the drain.
    pub(crate) args: &'static [&'static str],
    pub(crate) rival: Rival,
    pub(crate) rival_name: &'static str,
    /// The least ratio; 0: there is no bar.
    pub(crate) bar: f64,
}

const SMALL: Scenario = Scenario {
    name: "small",
    what: "50-byte payloads, client UUIDs, 16 partitions",
    payload_bytes: 50,
    partitions: 16,
    uuids: true,
    duplicate_every: None,
    args: &[],
    rival: Rival::BareCopy,
    rival_name: "bare COPY",
    bar: 0.9,
};

pub(crate) const SCENARIOS: [Scenario; 8] = [
    SMALL,
    Scenario { name: "wide", what: "the same, 10,000 partitions", partitions: 10_000, bar: 0.7, ..SMALL },
    Scenario { name: "kib", what: "1 KiB payloads, 16 partitions", payload_bytes: 1024, ..SMALL },
    Scenario {
        name: "few-duplicates",
        what: "1 duplicate in 10,000",
        duplicate_every: Some(10_000),
        rival: Rival::Backlog(&SMALL),
        rival_name: "without duplicates",
        bar: 0.6,
        ..SMALL
    },
    Scenario {
        name: "half-duplicates",
        what: "1 duplicate in 2",
        duplicate_every: Some(2),
        rival: Rival::Drain(&["--probe-duplicates", "always"]),
        rival_name: "probing always",
        bar: 1.0,
        ..SMALL
    },
    Scenario {
        name: "no-ids",
        what: "without client ids",
        uuids: false,
        rival: Rival::Backlog(&SMALL),
        rival_name: "with client UUIDs",
        bar: 1.5,
        ..SMALL
    },
    Scenario {
        name: "two",
        what: "two drain connections",
        args: &["--drain-connections", "2"],
        rival: Rival::Drain(&[]),
        rival_name: "one",
        bar: 0.0,
        ..SMALL
    },
    Scenario {
        name: "four",
        what: "four drain connections",
        args: &["--drain-connections", "4"],
        rival: Rival::Drain(&[]),
        rival_name: "one",
        bar: 0.0,
        ..SMALL
    },
];

/// The result of one run of the drain.
struct Run {
    rows_per_s: f64,
    usage: Usage,
}

impl Scenario {
    /// Carries out all rounds. Returns a line of the table.
    pub(crate) fn run(&self, settings: &Settings) -> String {
        eprintln!("{}: {}", self.name, self.what);
        let server = Server::start();
        let backlog = Backlog::new(settings, self);
        let rival_backlog = match &self.rival {
            Rival::Backlog(scenario) => Some(Backlog::new(settings, scenario)),
            _ => None,
        };
        let mut batches = None;
        let (mut rates, mut rival_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let (mut cpu, mut peak) = (Vec::new(), Vec::new());
        for round in 0..settings.rounds {
            let run = drain(&server, &backlog, self.args, settings);
            let batches = batches.get_or_insert_with(|| Batches::of(&url_of(&server)));
            let rival = match &self.rival {
                Rival::BareCopy => {
                    let took = batches.copy_into(&server.fresh_database("bare"));
                    batches.rows as f64 / took.as_secs_f64()
                }
                Rival::Drain(args) => drain(&server, &backlog, args, settings).rows_per_s,
                Rival::Backlog(_) => drain(&server, rival_backlog.as_ref().unwrap(), &[], settings).rows_per_s,
            };
            eprintln!("  round {round}: {:.0} rows/s, {} {rival:.0}", run.rows_per_s, self.rival_name);
            ratios.push(run.rows_per_s / rival);
            rates.push(run.rows_per_s);
            rival_rates.push(rival);
            cpu.push(run.usage.cpu_us / settings.messages as f64);
            peak.push(run.usage.memory_peak_kib as f64 / 1024.0);
        }
        let range = |values: &[f64], digits: usize| {
            let (median, least, greatest) = spread(values);
            format!("{median:.digits$} ({least:.digits$}–{greatest:.digits$})")
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.0} |",
            self.what,
            range(&rates, 0),
            self.rival_name,
            range(&rival_rates, 0),
            range(&ratios, 2),
            if self.bar == 0.0 { "–".to_owned() } else { format!("at least {}", self.bar) },
            match self.bar {
                0.0 => "",
                bar if spread(&ratios).0 >= bar => "met",
                _ => "missed",
            },
            batches.map_or(0, |batches| batches.count()),
            range(&cpu, 2),
            spread(&peak).2,
        )
    }
}

fn url_of(server: &Server) -> String {
    server.url("drained")
}

/// Drains a copy of `backlog` into a fresh database.
fn drain(server: &Server, backlog: &Backlog, args: &[&str], settings: &Settings) -> Run {
    let url = server.fresh_database("drained");
    let (_dir, data) = backlog.copy();
    let daemon = Daemon::start(&data, &url, args);
    let ended = daemon.wait_until_drained();
    let usage = daemon.usage();
    let took = ended.duration_since(bare::drain_began(&url)).unwrap();
    daemon.terminate();
    Run { rows_per_s: settings.messages as f64 / took.as_secs_f64(), usage }
}
