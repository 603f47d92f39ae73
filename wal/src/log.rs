//! Opening the log: recovery of every lane found, a lane for every core, the keeper of segments.

use crate::{
    error::LogError,
    group::SyncMethod,
    keeper::{Keeper, KeeperHandle},
    lane::{LaneOpen, LaneShared},
    layout::Layout,
    limits::{LANES_MAX, RECENT_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN},
    recovery::{RecoverOptions, RecoveredLane, recover_lane},
    segment::SegmentHeader,
    segments::{PrepareError, Segments},
    storage::{Disk, Storage},
};
use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// How to open a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Its directory; made if it is missing.
    pub dir: PathBuf,
    /// Lanes to write to.
    pub lanes: u16,
    /// How writes are made durable.
    pub sync: SyncMethod,
    /// Size of new segments in bytes, a multiple of a mebibyte.
    pub segment_bytes: u64,
    /// Bytes that all segments may take.
    pub quota_bytes: u64,
}

/// The counter of log sequence numbers, one for all lanes.
///
/// To find what may be delivered, read [`next`](Self::next) first and each lane's
/// [`durable`](crate::lane::LaneShared::durable) after it, and take the records below what was read: a record that was
/// numbered after another one's answer then never comes without that other one.
#[derive(Clone)]
pub struct Numbers(Arc<AtomicU64>);

impl Numbers {
    /// The number that the next record gets.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A lane as it was found, for whoever reads it: it may be one that nobody writes to any more.
#[derive(Clone)]
pub struct LaneFound {
    /// The lane.
    pub lane: u16,
    /// Its oldest segment.
    pub first_segment: u64,
    /// Ordinal of the oldest record.
    pub first_ordinal: u64,
    /// Records found.
    pub records: u64,
    /// The header of the tail's segment, if there was no room to make it: who reads the lane must know it, see
    /// [`LaneReader::with_pending_tail`](crate::reader::LaneReader::with_pending_tail).
    pub pending_tail: Option<SegmentHeader>,
    /// Where its durable end is told.
    pub shared: Arc<LaneShared>,
}

/// An open log.
pub struct Log {
    /// Its id.
    pub id: [u8; 16],
    /// Its paths.
    pub layout: Layout,
    /// Every lane found or made.
    pub found: Vec<LaneFound>,
    /// The lanes to write to, each to be started on its thread.
    pub lanes: Vec<LaneOpen>,
    /// The counter of numbers.
    pub numbers: Numbers,
    /// The keeper of segments.
    pub keeper: Keeper,
    /// What recovery found, by lane.
    pub findings: Vec<(u16, crate::finding::Finding)>,
}

/// A log as its files say it is, ready to go on.
pub struct Recovered<S> {
    /// Its id.
    pub id: [u8; 16],
    /// Every lane found or made.
    pub lanes: Vec<RecoveredLane>,
    /// Which segments exist.
    pub segments: Segments<S>,
    /// The number of the next record.
    pub next_number: u64,
}

/// Recovers every lane of the log in `layout`, and sees to it that each has a segment to go on with. Where there is no room
/// for one, its [`tail_header`](RecoveredLane::tail_header) stays: the log must open all the same, for only the drain makes
/// room. [`LogOptions::dir`] and [`LogOptions::sync`] are not looked at.
///
/// # Errors
/// See [`LogError`].
pub fn recover<S: Storage>(storage: S, layout: &Layout, options: &LogOptions) -> Result<Recovered<S>, LogError> {
    storage.create_dir(layout.root()).map_err(LogError::io("make", layout.root()))?;
    let id = layout.read_or_make_log_id(&storage)?;
    for lane in 0..options.lanes {
        let dir = layout.lane(lane);
        storage.create_dir(&dir).map_err(LogError::io("make", &dir))?;
    }
    // A name that is only in memory must not be trusted with what is answered from now on.
    let found = layout.lanes(&storage)?;
    for dir in found.iter().map(|lane| layout.lane(*lane)).chain([layout.root().to_path_buf()]) {
        storage.sync_dir(&dir).map_err(LogError::io("sync", &dir))?;
    }
    let recover = RecoverOptions { log_id: id, segment_bytes: options.segment_bytes, sync: true };
    let mut lanes = Vec::new();
    for lane in found {
        lanes.push(recover_lane(&storage, layout, lane, recover)?);
    }
    let mut segments = Segments::new(storage, layout.clone(), options.segment_bytes, options.quota_bytes, &lanes)?;
    let next_number = lanes.iter().map(|lane| lane.next_number).max().unwrap_or(0);
    for lane in &mut lanes {
        let Some(header) = &mut lane.tail_header else { continue };
        header.base_number = next_number;
        match segments.prepare(*header) {
            Ok(()) => lane.tail_header = None,
            Err(PrepareError::Failed(error)) if !error.is_no_room() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(Recovered { id, lanes, segments, next_number })
}

/// Opens the log in a directory that nobody else has open (the caller holds a lock).
///
/// # Errors
/// See [`LogError`]. Damage is no error: it is in [`Log::findings`].
pub fn open(options: &LogOptions) -> Result<Log, LogError> {
    if options.lanes == 0 || options.lanes > LANES_MAX {
        return Err(LogError::Options(format!("a log has 1 to {LANES_MAX} lanes, not {}", options.lanes)));
    }
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&options.segment_bytes)
        || !options.segment_bytes.is_multiple_of(SEGMENT_BYTES_MIN)
    {
        return Err(LogError::Options(format!(
            "a segment has {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes, in steps of {SEGMENT_BYTES_MIN}, not {}",
            options.segment_bytes
        )));
    }
    let layout = Layout::new(&options.dir);
    let Recovered { id, lanes: recovered, segments, next_number } = recover(Disk, &layout, options)?;
    let keeper = Keeper::start(segments).map_err(LogError::io("start a thread for", layout.root()))?;
    let mut log = Log {
        id,
        layout,
        found: Vec::new(),
        lanes: Vec::new(),
        numbers: Numbers(Arc::new(AtomicU64::new(next_number))),
        keeper,
        findings: Vec::new(),
    };
    for lane in recovered {
        log.adopt(lane, options)?;
    }
    Ok(log)
}

impl Log {
    fn adopt(&mut self, recovered: RecoveredLane, options: &LogOptions) -> Result<(), LogError> {
        let lane = recovered.lane;
        let start = recovered.start(self.id, options.segment_bytes);
        let shared = LaneOpen::shared(&start, options.sync, RECENT_BYTES / usize::from(options.lanes))?;
        self.found.push(LaneFound {
            lane,
            first_segment: recovered.segments.first().map_or(recovered.tail.segment, |found| found.segment),
            first_ordinal: recovered.first_ordinal,
            records: recovered.segments.iter().map(|found| found.records).sum(),
            pending_tail: recovered.tail_header,
            shared: Arc::clone(&shared),
        });
        self.findings.extend(recovered.findings.into_iter().map(|finding| (lane, finding)));
        if lane < options.lanes {
            let tail = recovered.tail.segment;
            let mut files = VecDeque::new();
            if recovered.tail_header.is_none() {
                for segment in tail..=tail + recovered.ready_count as u64 {
                    files.push_back((segment, Arc::new(shared.open_segment(&self.layout, segment)?)));
                }
            }
            let (numbers, keeper) = (Arc::clone(&self.numbers.0), self.keeper.handle());
            self.lanes.push(LaneOpen { shared, start, files, numbers, keeper });
        }
        Ok(())
    }

    /// A handle to the keeper of segments.
    #[must_use]
    pub fn keeper(&self) -> KeeperHandle {
        self.keeper.handle()
    }
}
