//! How far each lane of the log is drained, and let go.

use super::mark::Mark;
use forebay_wal::{lane::LaneShared, log::LaneInfo, position::Position, segment::SegmentHeader};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// One lane's progress through the drain.
pub struct LaneProgress {
    /// The lane.
    pub lane: Arc<LaneShared>,
    oldest: Position,
    oldest_ordinal: u64,
    pending_tail: Option<SegmentHeader>,
    left_out: AtomicBool,
    reachable: AtomicU64,
    released_below: AtomicU64,
    /// How far each drainer is …
    drained_by: Mutex<Vec<Mark>>,
    /// … and the least of it.
    drained: AtomicU64,
    drained_ordinal: AtomicU64,
}

impl LaneProgress {
    /// As it was found; `drained` as far as is remembered.
    pub fn new(found: &LaneInfo, drained: Option<Mark>) -> Self {
        let start = forebay_wal::position::segment_start(found.first_segment);
        let oldest = Mark { position: start, ordinal: found.first_ordinal };
        // What lies outside of the log is none of its places: the checkpoint tells more.
        let fits = |mark: &Mark| {
            (start..=found.shared.durable_end()).contains(&mark.position) && mark.ordinal >= oldest.ordinal
        };
        let drained = drained.filter(fits).unwrap_or(oldest);
        Self {
            lane: Arc::clone(&found.shared),
            oldest: start,
            oldest_ordinal: found.first_ordinal,
            pending_tail: found.pending_tail,
            left_out: AtomicBool::new(false),
            reachable: AtomicU64::new(found.shared.durable_end().pack()),
            released_below: AtomicU64::new(found.first_segment),
            drained_by: Mutex::new(vec![drained]),
            drained: AtomicU64::new(drained.position.pack()),
            drained_ordinal: AtomicU64::new(drained.ordinal),
        }
    }

    /// Start of the oldest segment that was found at start.
    pub fn oldest(&self) -> Position {
        self.oldest
    }

    /// Ordinal of the oldest record that was found at start.
    pub fn oldest_ordinal(&self) -> u64 {
        self.oldest_ordinal
    }

    /// The header of its tail's segment, if that could not be made at the start.
    pub fn pending_tail(&self) -> Option<SegmentHeader> {
        self.pending_tail
    }

    /// Whether the others are drained without it, because it cannot be read.
    pub fn is_left_out(&self) -> bool {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Notes whether it is left out.
    pub fn set_left_out(&self, left_out: bool) {
        self.left_out.store(left_out, Ordering::Relaxed);
    }

    /// How far a checkpoint of this log can be: where the lane ended when it was opened, or where a transaction of this
    /// process was to move it since.
    pub fn reachable(&self) -> Position {
        Position::unpack(self.reachable.load(Ordering::Relaxed))
    }

    /// Segments below this one were let go.
    pub fn released_below(&self) -> u64 {
        self.released_below.load(Ordering::Relaxed)
    }

    /// The segments from `segment` on are not let go of any more.
    pub fn set_released_below(&self, segment: u64) {
        self.released_below.fetch_min(segment, Ordering::Relaxed);
    }

    /// Lets go of the segments all of whose records PostgreSQL confirmed: those below the one that is returned.
    pub fn release(&self) -> u64 {
        let segment = self.drained().segment;
        self.released_below.fetch_max(segment, Ordering::Relaxed);
        segment
    }

    /// A transaction is about to move the checkpoint to `position`.
    pub fn set_reachable(&self, position: Position) {
        self.reachable.fetch_max(position.pack(), Ordering::Relaxed);
    }

    /// Everything before this position is in PostgreSQL, as far as is known.
    pub fn drained(&self) -> Position {
        Position::unpack(self.drained.load(Ordering::SeqCst))
    }

    /// Ordinal behind the last record that is in PostgreSQL.
    pub fn drained_ordinal(&self) -> u64 {
        self.drained_ordinal.load(Ordering::SeqCst)
    }

    /// From now on there are so many drainers; those that are new begin where the first one is.
    pub fn set_drainers(&self, drainers: usize) {
        let mut marks = self.drained_by.lock().unwrap_or_else(PoisonError::into_inner);
        let first = marks[0];
        marks.resize(drainers.max(1), first);
        self.set_least(&marks);
    }

    /// How far a drainer is known to be.
    pub fn drained_by(&self, drainer: usize) -> Mark {
        let marks = self.drained_by.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(drainer).copied().unwrap_or(marks[0])
    }

    /// Number of drainers.
    pub fn drainers(&self) -> usize {
        self.drained_by.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Notes that a transaction of a drainer committed, or what its checkpoint says.
    pub fn set_drained(&self, drainer: usize, mark: Mark) {
        let mut marks = self.drained_by.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_drainer) = marks.get_mut(drainer) {
            *of_drainer = mark;
        }
        self.set_least(&marks);
    }

    fn set_least(&self, marks: &[Mark]) {
        let position = marks.iter().map(|mark| mark.position).min();
        let ordinal = marks.iter().map(|mark| mark.ordinal).min();
        self.drained.store(position.map_or(0, Position::pack), Ordering::SeqCst);
        self.drained_ordinal.store(ordinal.unwrap_or(0), Ordering::SeqCst);
    }

    /// Records that are durable and not yet in PostgreSQL; with several drainers also those that only a slower one has not
    /// passed yet.
    pub fn pending(&self) -> u64 {
        self.lane.durable_ordinal().saturating_sub(self.drained_ordinal())
    }

    /// Bytes of the log from the oldest record not yet in PostgreSQL to the durable end, in segments of `segment_bytes`.
    pub fn pending_bytes(&self, segment_bytes: u64) -> u64 {
        if self.pending() == 0 {
            // What is left between the two is padding.
            return 0;
        }
        let (drained, durable) = (self.drained(), self.lane.durable_end());
        let segments = durable.segment.saturating_sub(drained.segment);
        (segments * segment_bytes + u64::from(durable.offset)).saturating_sub(u64::from(drained.offset))
    }
}
