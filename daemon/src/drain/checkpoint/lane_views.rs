//! The log's lanes as checkpoints move them.

use super::checkpoint_match::{CheckpointMatch, CheckpointMismatch, LaneView};
use crate::state::{
    lane_progress::LaneProgress,
    log_identity::LogIdentity,
    log_view::LogView,
    mark::{LaneMark, Mark},
};

/// The lanes of `log` as the checkpoint of a drainer is compared with them.
pub(crate) fn views(log: &LogView, identity: &LogIdentity, drainer: usize) -> Vec<LaneView> {
    let forked_at = identity.begins_at();
    let view = |progress: &LaneProgress| LaneView {
        lane: progress.lane.lane(),
        oldest: Mark { position: progress.oldest(), ordinal: progress.oldest_ordinal() },
        drained: progress.drained_by(drainer),
        // Not the present durable end: pushes since the start may have moved a log that is too old past the checkpoint.
        reachable: Mark { position: progress.reachable(), ordinal: progress.lane.durable_ordinal() },
        forked_at: LaneMark::find(&forked_at, progress.lane.lane()),
    };
    log.lanes.iter().map(view).collect()
}

/// How far a drainer is known to be.
pub(crate) fn drained(log: &LogView, drainer: usize) -> Vec<LaneMark> {
    log.lanes.iter().map(|progress| LaneMark::new(progress.lane.lane(), progress.drained_by(drainer))).collect()
}

/// Takes back segments that were released, for the lanes that go back to an earlier mark.
pub(crate) fn rewind(log: &LogView, drainer: usize, found: &CheckpointMatch) -> Result<(), CheckpointMismatch> {
    let rewound = || found.rewound.iter().map(|&index| (&log.lanes[index], found.marks[index]));
    for (progress, mark) in rewound() {
        let (lane, segment) = (progress.lane.lane(), mark.position.segment);
        if segment < progress.released_below() && !log.keeper.revoke_release(lane, segment) {
            let (position, drained) = (mark.position, progress.drained_by(drainer).position);
            return Err(CheckpointMismatch::BehindReleased { lane, position, drained });
        }
        progress.set_released_below(segment);
    }
    // Only once all lanes have what they go back to: a mismatch is told by another line.
    for (progress, mark) in rewound() {
        let lane = progress.lane.lane();
        let messages = progress.drained_by(drainer).ordinal.saturating_sub(mark.ordinal);
        tracing::warn!(lane, messages, "the database went back in time; what it lost is delivered again from the log");
    }
    Ok(())
}

/// Notes that the checkpoint of a drainer is at `marks`, one for each lane.
pub(crate) fn set_drained(log: &LogView, drainer: usize, marks: &[Mark]) {
    log.lanes.iter().zip(marks).for_each(|(progress, mark)| progress.set_drained(drainer, *mark));
}
