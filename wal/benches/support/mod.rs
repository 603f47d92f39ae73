//! Helpers of the benchmarks on a real disk: their arguments, and a lane that a closed loop keeps busy.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use forebay_wal::{
    frame::KIND_MESSAGE,
    group::{Record, SyncMethod},
    keeper::KeeperHandle,
    lane::{AppendError, Lane},
    log::{self, Log, LogOptions},
};
use hdrhistogram::Histogram;
use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The daemon's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Arguments of the form `name=value`.
pub(crate) struct Args(HashMap<String, String>);

impl Args {
    /// The arguments of this process. Refuses names that are not `known`, and ignores Cargo's `--bench`.
    pub(crate) fn read(known: &[&str]) -> Outcome<Self> {
        let mut args = HashMap::new();
        for arg in std::env::args().skip(1).filter(|arg| arg != "--bench") {
            match arg.split_once('=') {
                Some((name, value)) if known.contains(&name) => args.insert(name.to_string(), value.to_string()),
                _ => return Err(format!("'{arg}' is not NAME=VALUE with a name of {known:?}").into()),
            };
        }
        Ok(Self(args))
    }

    pub(crate) fn number<T: FromStr<Err: Error + 'static>>(&self, name: &str, default: T) -> Outcome<T> {
        match self.0.get(name) {
            Some(value) => value.parse().map_err(|error| format!("{name}={value}: {error}").into()),
            None => Ok(default),
        }
    }

    pub(crate) fn word<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.get(name).map_or(default, String::as_str)
    }

    pub(crate) fn sync(&self) -> Outcome<SyncMethod> {
        match self.word("sync", "direct") {
            "direct" => Ok(SyncMethod::Direct),
            "fdatasync" => Ok(SyncMethod::Fdatasync),
            "none" => Ok(SyncMethod::None),
            other => Err(format!("sync={other}: direct, fdatasync or none").into()),
        }
    }

    /// The given directory, or a temporary one beside the build, for `/tmp` may be in memory.
    pub(crate) fn dir(&self) -> Outcome<Dir> {
        match self.0.get("dir") {
            Some(path) => Ok(Dir::Given(path.into())),
            None => Ok(Dir::Own(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)),
        }
    }
}

/// Where a benchmark works.
pub(crate) enum Dir {
    /// A given directory. It is created if it is missing, and kept.
    Given(PathBuf),
    /// A temporary directory. It is removed at the end.
    Own(TempDir),
}

impl Dir {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Own(dir) => dir.path(),
        }
    }
}

/// Bytes that differ from each other, for some disks do not store zeros.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// Latencies in µs, from 1 µs to a minute.
pub(crate) fn latencies() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

pub(crate) fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// What became durable in a run.
pub(crate) struct Progress {
    pub(crate) records: u64,
    /// Events with a completion. Each is one group, for one is in flight at a time.
    pub(crate) groups: u64,
    /// Bytes of the groups, padding included.
    pub(crate) written_bytes: u64,
    pub(crate) latency_us: Histogram<u64>,
    /// How often the lane was busy: it had no segment ready.
    pub(crate) busy: u64,
    pub(crate) elapsed: Duration,
}

/// A lane on this thread, alone in its log.
pub(crate) struct Writer {
    pub(crate) log: Log,
    lane: Lane,
    keeper: KeeperHandle,
    /// Whether what is durable counts as drained, so that segments are used again.
    releases: bool,
}

impl Writer {
    pub(crate) fn open(dir: &Path, sync: SyncMethod, segment_bytes: u64, releases: bool) -> Outcome<Self> {
        let options = LogOptions { dir: dir.to_path_buf(), lanes: 1, sync, segment_bytes, quota_bytes: 8 << 30 };
        let mut log = log::open(&options)?;
        let lane = log.lanes.remove(0).start()?;
        let keeper = log.keeper();
        Ok(Self { log, lane, keeper, releases })
    }

    /// Keeps `in_flight` records of `body` in flight until `is_done`, then waits for the last.
    pub(crate) fn run(
        &mut self,
        body: &[u8],
        in_flight: usize,
        mut is_done: impl FnMut(&Progress, Duration) -> bool,
    ) -> Outcome<Progress> {
        let record = Record { kind: KIND_MESSAGE, head: b"", body };
        let mut progress = Progress {
            records: 0,
            groups: 0,
            written_bytes: 0,
            latency_us: latencies()?,
            busy: 0,
            elapsed: Duration::ZERO,
        };
        let mut waiting: VecDeque<(u64, Instant)> = VecDeque::with_capacity(in_flight);
        let start = Instant::now();
        let mut now = start;
        loop {
            let done = is_done(&progress, now - start);
            while !done && waiting.len() < in_flight {
                match self.lane.append(&[record]) {
                    Ok(appended) => waiting.push_back((appended.end_ordinal, now)),
                    Err(AppendError::Busy) => {
                        progress.busy += 1;
                        break;
                    }
                    Err(error) => return Err(format!("append: {error:?}").into()),
                }
            }
            if done && waiting.is_empty() {
                progress.elapsed = now - start;
                return Ok(progress);
            }
            self.lane.submit().map_err(|failed| failed.source)?;
            self.take_event(&mut progress)?;
            now = Instant::now();
            while let Some((_, since)) = waiting.pop_front_if(|(end, _)| *end <= self.lane.durable_ordinal()) {
                progress.records += 1;
                progress.latency_us.saturating_record(micros(now - since));
            }
        }
    }

    fn take_event(&mut self, progress: &mut Progress) -> Outcome<()> {
        rustix::io::read(self.lane.event(), &mut [0; 8])?;
        let before = self.lane.shared().durable_end();
        if self.lane.on_event().map_err(|failed| failed.source)?.more_is_durable {
            let durable = self.lane.shared().durable_end();
            let from = if durable.segment == before.segment {
                before.offset
            } else {
                if self.releases {
                    self.keeper.release(0, durable.segment);
                }
                forebay_wal::limits::SEGMENT_HEADER_BYTES as u32
            };
            progress.groups += 1;
            progress.written_bytes += u64::from(durable.offset - from);
        }
        Ok(())
    }

    /// Fills segments until there are `segments` of them, or so many were filled. From then on files are recycled.
    pub(crate) fn warm_up(&mut self, segments: u64, segment_bytes: u64) -> Outcome<()> {
        /// Records that fill a segment within tens of milliseconds.
        const LARGE_BYTES: usize = 1 << 20;
        let (keeper, shared) = (self.keeper.clone(), self.lane.shared().clone());
        let end = shared.durable_end().segment + segments;
        self.run(&pattern(LARGE_BYTES), 2, |_, _| {
            keeper.total_bytes() >= segments * segment_bytes || shared.durable_end().segment >= end
        })?;
        Ok(())
    }

    pub(crate) fn close(self) {
        drop(self.lane);
        self.log.keeper.stop();
    }
}
