//! The log as all threads see it: its lanes, how far they are drained, and how much room is left.

use super::{drain_point::DrainPoint, lane_progress::LaneProgress, local_drain_state::LocalDrainState};
use crate::http::ErrorCode;
use forebay_wal::{
    keeper::KeeperHandle,
    log::{Log, SequenceCounter},
    storage::Disk,
};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

/// Why no core takes pushes any more. The daemon ends once the drain had its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LogFailure {
    /// A write to a lane failed, or the log's files are gone.
    Storage = 1,
    /// A thread panicked.
    Panic = 2,
}

/// The log of this daemon.
pub struct LogView {
    /// The log's id.
    pub id: [u8; 16],
    /// The counter of record numbers.
    pub numbers: SequenceCounter,
    /// The log's directory.
    pub disk: Disk,
    /// Every lane found in the log, in order of their numbers.
    pub lanes: Vec<LaneProgress>,
    /// Asks for segments to be released.
    pub keeper: KeeperHandle,
    /// Size of new segments in bytes.
    pub segment_bytes: u64,
    /// The log's quota in bytes; not 0.
    pub quota_bytes: u64,
    /// Whether it is in memory, so that nothing is durable.
    pub is_volatile: bool,
    /// A [`LogFailure`]; 0 for none.
    failure: AtomicU8,
    /// How long drained segments are kept.
    retention: Mutex<Duration>,
}

impl LogView {
    /// A log that was opened. `drained` says how far the last run of the daemon had drained it.
    #[must_use]
    pub fn new(
        log: &Log,
        drained: Option<&LocalDrainState>,
        (segment_bytes, quota_bytes): (u64, u64),
        is_volatile: bool,
    ) -> Self {
        let progress = |found| LaneProgress::new(found, drained.and_then(|state| state.lane(found.lane)));
        Self {
            id: log.id,
            numbers: log.sequence_counter.clone(),
            disk: log.disk.clone(),
            lanes: log.all_lanes.iter().map(progress).collect(),
            keeper: log.keeper(),
            segment_bytes,
            quota_bytes,
            is_volatile,
            failure: AtomicU8::new(0),
            retention: Mutex::new(Duration::ZERO),
        }
    }

    /// Whether no core takes pushes any more; see [`LogFailure`].
    pub fn has_failed(&self) -> bool {
        self.failure.load(Ordering::Relaxed) != 0
    }

    /// Lets no core take pushes from here on. The first reason stands.
    pub fn set_failed(&self, failure: LogFailure) {
        if self.failure.compare_exchange(0, failure as u8, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            tracing::debug!(?failure, "the log takes no pushes already");
        }
    }

    /// What pushes are refused with since [`set_failed`](Self::set_failed).
    pub fn refusal(&self) -> Option<ErrorCode> {
        match self.failure.load(Ordering::Relaxed) {
            0 => None,
            panic if panic == LogFailure::Panic as u8 => Some(ErrorCode::ShuttingDown),
            _ => Some(ErrorCode::StorageFailed),
        }
    }

    /// How far each drainer is.
    pub fn drain_point(&self) -> DrainPoint {
        let drainers = self.lanes.first().map_or(1, LaneProgress::drainers);
        let marks = |drainer| self.lanes.iter().map(|progress| progress.drained_by(drainer)).collect();
        DrainPoint::new((0..drainers).map(marks).collect())
    }

    /// Messages that are durable and not yet in PostgreSQL.
    pub fn pending(&self) -> u64 {
        self.lanes.iter().map(LaneProgress::pending).sum()
    }

    /// Bytes of the log that are not drained.
    pub fn used_bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.pending_bytes(self.segment_bytes)).sum()
    }

    /// Share of the quota that is used once `queued_bytes` are durable as well, in hundredths from 0 to 100.
    pub fn fill_percent(&self, queued_bytes: usize) -> u8 {
        percent(self.used_bytes() + queued_bytes as u64, self.quota_bytes)
    }

    /// Releases the segments of a lane whose records are all in PostgreSQL.
    pub fn release(&self, progress: &LaneProgress) {
        self.keeper.release(progress.lane.lane(), progress.release());
    }

    /// Keeps drained segments for `retention`. Segments that the last run had drained make room from now on, also while
    /// PostgreSQL is away; without retention they are released once the checkpoint was read.
    pub fn retain_drained(&self, retention: Duration) {
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner) = retention;
        self.keeper.set_retention(retention);
        if !retention.is_zero() {
            self.lanes.iter().for_each(|progress| self.release(progress));
        }
    }

    /// While `hold`, drained segments stay as long as nothing else needs their room: the database may need them again.
    pub fn hold_drained(&self, hold: bool) {
        let retention = *self.retention.lock().unwrap_or_else(PoisonError::into_inner);
        self.keeper.set_retention(if hold { Duration::MAX } else { retention });
    }
}

/// `part` of `whole` in hundredths, at most 100. `whole` is not 0.
fn percent(part: u64, whole: u64) -> u8 {
    (part.saturating_mul(100).saturating_add(whole / 2) / whole).min(100) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_and_never_more_than_all() {
        for (part, expected) in [(0, 0), (124, 12), (125, 13), (994, 99), (996, 100), (1000, 100), (u64::MAX, 100)] {
            assert_eq!(percent(part, 1000), expected, "{part}");
        }
    }
}
