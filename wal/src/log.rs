//! Opens a log: recovers every lane, opens the lanes to write to, and starts the keeper of segments.

use crate::{
    error::LogError,
    finding::Finding,
    group::SyncMethod,
    keeper::{Keeper, KeeperHandle},
    lane::{LaneShared, UnstartedLane},
    layout::Layout,
    limits::{LANES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, TAIL_CACHE_BYTES},
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
    /// The log's directory, for [`open`]. It is created if it is missing.
    pub dir: PathBuf,
    /// The number of lanes to write to: 1 to [`LANES_MAX`].
    pub lanes: u16,
    /// How writes are made durable.
    pub sync: SyncMethod,
    /// The size of new segments in bytes: a multiple of [`SEGMENT_BYTES_MIN`], at most [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// Bytes that all segments together may take.
    pub quota_bytes: u64,
}

/// The counter of log sequence numbers. All lanes share it.
///
/// To find what may be delivered, read [`next`](Self::next) first and the
/// [`durable_end`](crate::lane::LaneShared::durable_end) of each lane after it, then take the records with a number below
/// the one read. A record that was appended after the answer to another is then never taken without that other one.
#[derive(Clone)]
pub struct SequenceCounter(Arc<AtomicU64>);

impl SequenceCounter {
    /// The number of the next record.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What a reader must know of a lane. The log may have lanes that nobody writes to any more.
#[derive(Clone)]
pub struct LaneInfo {
    /// The lane.
    pub lane: u16,
    /// The oldest segment.
    pub first_segment: u64,
    /// Ordinal of the oldest record.
    pub first_ordinal: u64,
    /// The number of records that verify.
    pub records: u64,
    /// The header of the tail's segment, if there was no room to make that segment. Pass it to
    /// [`LaneReader::with_pending_tail`](crate::reader::LaneReader::with_pending_tail).
    pub pending_tail: Option<SegmentHeader>,
    /// The durable end of the lane.
    pub shared: Arc<LaneShared>,
}

/// An open log.
pub struct Log {
    /// The log's id.
    pub id: [u8; 16],
    /// The log's directory.
    pub disk: Disk,
    /// The log's paths.
    pub layout: Layout,
    /// Every lane of the log, to read from.
    pub all_lanes: Vec<LaneInfo>,
    /// The lanes to write to. Start each of them on its thread.
    pub lanes: Vec<UnstartedLane>,
    /// The counter of log sequence numbers.
    pub sequence_counter: SequenceCounter,
    /// The keeper of segments.
    pub keeper: Keeper,
    /// What recovery reports, by lane.
    pub findings: Vec<(u16, Finding)>,
}

/// A recovered log.
pub struct Recovered<S> {
    /// The log's id.
    pub id: [u8; 16],
    /// Every lane of the log.
    pub lanes: Vec<RecoveredLane>,
    /// Which segments exist.
    pub segments: Segments<S>,
    /// The number of the next record.
    pub next_number: u64,
}

/// Recovers every lane of the log in `layout`, and makes a segment for each lane that needs one to continue in.
///
/// If there is no room for that segment, the lane keeps its [`tail_header`](RecoveredLane::tail_header). The log opens all
/// the same: only the drain makes room. [`LogOptions::dir`] and [`LogOptions::sync`] are ignored.
///
/// # Errors
/// See [`LogError`].
pub fn recover<S: Storage>(storage: S, layout: &Layout, options: &LogOptions) -> Result<Recovered<S>, LogError> {
    storage.create_dir(layout.root()).map_err(LogError::io("create", layout.root()))?;
    let id = layout.read_or_create_log_id(&storage)?;
    for lane in 0..options.lanes {
        let dir = layout.lane(lane);
        storage.create_dir(&dir).map_err(LogError::io("create", &dir))?;
    }
    // Records that are answered from now on must not depend on names that are only in memory.
    let lane_numbers = layout.lanes(&storage)?;
    for dir in lane_numbers.iter().map(|lane| layout.lane(*lane)).chain([layout.root().to_path_buf()]) {
        storage.sync_dir(&dir).map_err(LogError::io("sync", &dir))?;
    }
    let recover = RecoverOptions { log_id: id, segment_bytes: options.segment_bytes, sync: true };
    let mut lanes = Vec::new();
    for lane in lane_numbers {
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
            // The keeper makes it once there is room.
            Err(PrepareError::Quota | PrepareError::Failed(_)) => {}
        }
    }
    Ok(Recovered { id, lanes, segments, next_number })
}

/// Opens the log in [`LogOptions::dir`], as [`open_on`].
///
/// # Errors
/// See [`LogError`].
pub fn open(options: &LogOptions) -> Result<Log, LogError> {
    let disk = Disk::at(&options.dir).map_err(LogError::io("open", &options.dir))?;
    open_on(disk, options)
}

/// Opens the log on `disk`, whatever [`LogOptions::dir`] says. The caller holds a lock: nobody else may have the log open.
///
/// # Errors
/// See [`LogError`]. Damage is no error: it is reported in [`Log::findings`].
pub fn open_on(disk: Disk, options: &LogOptions) -> Result<Log, LogError> {
    if options.lanes == 0 || options.lanes > LANES_MAX {
        return Err(LogError::LaneCount { lanes: options.lanes });
    }
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&options.segment_bytes)
        || !options.segment_bytes.is_multiple_of(SEGMENT_BYTES_MIN)
    {
        return Err(LogError::SegmentSize { segment_bytes: options.segment_bytes });
    }
    let layout = Layout::new(disk.dir().path());
    let Recovered { id, lanes, segments, next_number } = recover(disk.clone(), &layout, options)?;
    let keeper = Keeper::start(segments).map_err(LogError::io("start a thread for", layout.root()))?;
    let mut log = Log {
        id,
        disk,
        layout,
        all_lanes: Vec::new(),
        lanes: Vec::new(),
        sequence_counter: SequenceCounter(Arc::new(AtomicU64::new(next_number))),
        keeper,
        findings: Vec::new(),
    };
    for lane in lanes {
        log.add_lane(lane, options)?;
    }
    Ok(log)
}

impl Log {
    fn add_lane(&mut self, recovered: RecoveredLane, options: &LogOptions) -> Result<(), LogError> {
        let lane = recovered.lane;
        let start = recovered.start(self.id, options.segment_bytes);
        let shared = UnstartedLane::shared(&start, options.sync, TAIL_CACHE_BYTES / usize::from(options.lanes))?;
        self.all_lanes.push(LaneInfo {
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
                    files.push_back((segment, Arc::new(shared.open_segment(&self.disk, &self.layout, segment)?)));
                }
            }
            let (next_number, keeper) = (Arc::clone(&self.sequence_counter.0), self.keeper.handle());
            self.lanes.push(UnstartedLane { shared, start, files, next_number, keeper });
        }
        Ok(())
    }

    /// A handle to the keeper of segments.
    #[must_use]
    pub fn keeper(&self) -> KeeperHandle {
        self.keeper.handle()
    }
}
