//! The log as all threads see it: its lanes, how far they are drained, and how much room is left.

use super::{lane_progress::LaneProgress, local_drain_state::LocalDrainState};
use forebay_wal::{
    keeper::KeeperHandle,
    log::{Log, SequenceCounter},
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// The log of this daemon.
pub struct LogView {
    /// The log's id.
    pub id: [u8; 16],
    /// The counter of record numbers.
    pub numbers: SequenceCounter,
    /// Every lane found in the log, in order of their numbers.
    pub lanes: Vec<LaneProgress>,
    /// Asks for segments to be released.
    pub keeper: KeeperHandle,
    /// Size of new segments in bytes.
    pub segment_bytes: u64,
    /// The log's quota in bytes; not 0.
    pub quota_bytes: u64,
    has_failed: AtomicBool,
}

impl LogView {
    /// A log that was opened. `drained` says how far the last run of the daemon had drained it.
    #[must_use]
    pub fn new(log: &Log, drained: Option<&LocalDrainState>, segment_bytes: u64, quota_bytes: u64) -> Self {
        let progress = |found| LaneProgress::new(found, drained.and_then(|state| state.lane(found.lane)));
        Self {
            id: log.id,
            numbers: log.sequence_counter.clone(),
            lanes: log.all_lanes.iter().map(progress).collect(),
            keeper: log.keeper(),
            segment_bytes,
            quota_bytes,
            has_failed: AtomicBool::new(false),
        }
    }

    /// Whether a lane took a failed write. No core takes pushes any more, and the daemon ends once the drain had its time.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Notes that a lane took a failed write: no core takes pushes from here on.
    pub fn set_failed(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
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
        self.keeper.set_retention(retention);
        if !retention.is_zero() {
            self.lanes.iter().for_each(|progress| self.release(progress));
        }
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
