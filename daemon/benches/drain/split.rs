//! Where the CPU time goes, and what a commit costs PostgreSQL's log: reads `/proc` and `pg_stat_wal` before and after a round.

use crate::bare::Server;
use std::{collections::BTreeMap, fs, io::ErrorKind, time::Instant};

/// Clock ticks a second in `/proc/PID/stat`.
const TICKS_PER_S: f64 = 100.0;

/// What is counted separately, in the order of the table's columns.
pub(crate) const PARTS: [&str; 7] =
    ["core thread", "drain thread", "daemon, rest", "backend", "WAL writer", "PostgreSQL, rest", "load"];

/// The counters at one moment.
pub(crate) struct Moment {
    at: Instant,
    /// By process and thread, so that a thread that ends meanwhile takes nothing from the others.
    ticks: BTreeMap<(&'static str, u32), u64>,
    wal_syncs: f64,
    wal_sync_ms: f64,
}

/// What happened between two moments.
pub(crate) struct Split {
    /// CPU time of each of [`PARTS`], in percent of one core.
    pub(crate) percent: [f64; PARTS.len()],
    /// Syncs of PostgreSQL's log, and the duration of one in microseconds. 0 before PostgreSQL 14 and from 18 on, which do not
    /// tell.
    pub(crate) wal_syncs: f64,
    pub(crate) wal_sync_us: f64,
}

impl Moment {
    /// Now.
    pub(crate) fn now(daemon: u32, server: &Server) -> Self {
        // Reading statistics is work for the server: it happens outside of the measured time, before and after.
        let wal = server.figures(
            "SELECT coalesce(to_jsonb(w)->>'wal_sync', '0') || ' ' || coalesce(to_jsonb(w)->>'wal_sync_time', '0') \
             FROM pg_stat_wal w",
        );
        let mut ticks = BTreeMap::new();
        for thread in ids(&format!("/proc/{daemon}/task")) {
            let directory = format!("/proc/{daemon}/task/{thread}");
            let Some(name) = read_proc(&directory, "comm") else { continue };
            let part = match name.trim() {
                name if name.starts_with("core") => "core thread",
                "drain" => "drain thread",
                _ => "daemon, rest",
            };
            ticks.insert((part, thread), own_ticks(&directory));
        }
        let postmaster = server.postmaster();
        for process in ids("/proc") {
            let directory = format!("/proc/{process}");
            if field(&directory, PARENT) != u64::from(postmaster) {
                continue;
            }
            let Some(title) = read_proc(&directory, "cmdline") else { continue };
            let part = match title.as_str() {
                title if title.contains("walwriter") => "WAL writer",
                title if title.contains(" plain ") => "backend",
                _ => "PostgreSQL, rest",
            };
            ticks.insert((part, process), own_ticks(&directory));
        }
        // The load has ended by now: its time counts as that of a child of this process.
        ticks.insert(("load", 0), field("/proc/self", CHILDREN_USER) + field("/proc/self", CHILDREN_SYSTEM));
        let at = Instant::now();
        Self { at, ticks, wal_syncs: wal[0], wal_sync_ms: wal[1] }
    }

    /// What happened from `self` to `end`.
    pub(crate) fn until(&self, end: &Self) -> Split {
        let seconds = end.at.duration_since(self.at).as_secs_f64();
        let used = |part: &str| -> u64 {
            let of_part = end.ticks.iter().filter(|((of, _), _)| *of == part);
            of_part.map(|(key, ticks)| ticks.saturating_sub(self.ticks.get(key).copied().unwrap_or(0))).sum()
        };
        let wal_syncs = end.wal_syncs - self.wal_syncs;
        Split {
            percent: PARTS.map(|part| used(part) as f64 / TICKS_PER_S / seconds * 100.0),
            wal_syncs,
            wal_sync_us: (end.wal_sync_ms - self.wal_sync_ms) * 1000.0 / wal_syncs.max(1.0),
        }
    }
}

/// Places in `/proc/PID/stat` behind the process' name.
const PARENT: usize = 1;
const USER: usize = 11;
const SYSTEM: usize = 12;
const CHILDREN_USER: usize = 13;
const CHILDREN_SYSTEM: usize = 14;

fn own_ticks(directory: &str) -> u64 {
    field(directory, USER) + field(directory, SYSTEM)
}

/// A field of a process' or thread's `stat`; 0 if it has ended.
fn field(directory: &str, place: usize) -> u64 {
    let Some(stat) = read_proc(directory, "stat") else { return 0 };
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(place).unwrap().parse().unwrap()
}

/// A file in the `/proc` directory of a process or thread; none if it has ended.
fn read_proc(directory: &str, file: &str) -> Option<String> {
    match fs::read(format!("{directory}/{file}")) {
        // The name may contain anything.
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        // The thread ended before the file was opened, or before it was read.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => None,
        Err(error) => panic!("{directory}/{file}: {error}"),
    }
}

/// The numbers that a directory has entries for.
fn ids(directory: &str) -> Vec<u32> {
    fs::read_dir(directory).unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
