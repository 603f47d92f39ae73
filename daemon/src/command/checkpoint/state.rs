//! What there is to judge: the log as it stands on the disk, and what its directory remembers.

use crate::{
    command::Exit,
    datadir::wal_dir,
    drain::checkpoint::{
        checkpoint_match::{CheckpointMismatch, LaneView, same_database},
        database_state::DatabaseState,
        log_places::LogPlaces,
    },
    state::{drain_point::DrainPoint, local_drain_state::LocalDrainState, mark::Mark},
};
use forebay_wal::{
    error::LogError,
    layout::Layout,
    limits::SEGMENT_BYTES_DEFAULT,
    position::segment_start,
    recovery::{RecoverOptions, RecoveredLane, recover_lane},
    storage::Disk,
};
use std::path::Path;

/// The log.
pub(super) struct LogState {
    /// What its directory remembers of the drain.
    pub(super) remembered: Option<LocalDrainState>,
    /// What a decision needs of it.
    pub(super) places: LogPlaces,
}

impl LogState {
    /// Reads the log below `data_dir`, all of it, and changes nothing.
    pub(super) fn read(data_dir: &Path) -> Result<Self, Exit> {
        let storage = |error: LogError| Exit::storage(error.to_string());
        let layout = Layout::new(wal_dir(data_dir));
        if !layout.root().is_dir() {
            return Err(Exit::usage(format!("there is no log at {}", layout.root().display())));
        }
        let id = layout.read_log_id(&Disk).map_err(storage)?;
        let remembered = LocalDrainState::read(layout.root(), id);
        let (mut lanes, mut ends) = (Vec::new(), Vec::new());
        for lane in layout.lanes(&Disk).map_err(storage)? {
            let found = recover(&layout, id, lane).map_err(storage)?;
            let first = found.segments.first().map_or(found.tail.segment, |found| found.segment);
            let oldest = Mark { position: segment_start(first), ordinal: found.first_ordinal };
            let drained = remembered.as_ref().and_then(|remembered| remembered.lane(lane)).unwrap_or(oldest);
            lanes.push(LaneView { lane, oldest, drained, reachable: found.tail });
            ends.push(Mark { position: found.tail, ordinal: found.next_ordinal });
        }
        let drained = || DrainPoint::new(vec![lanes.iter().map(|view: &LaneView| view.drained).collect()]);
        let mismatch_point = remembered.as_ref().map(|_| drained());
        let is_known = remembered.is_some();
        Ok(Self { remembered, places: LogPlaces { id, lanes, ends, mismatch_point, is_known } })
    }

    /// Whether the daemon would go on with this database, and where not, why.
    pub(super) fn judge(&self, database: &DatabaseState) -> Result<(), CheckpointMismatch> {
        self.judge_identity(database)?;
        self.places.judge(database)
    }

    fn judge_identity(&self, database: &DatabaseState) -> Result<(), CheckpointMismatch> {
        let remembered = self.remembered.as_ref().and_then(|remembered| remembered.database);
        same_database(remembered.or(database.row_database), database.id)
    }
}

/// A lane as a daemon finds it whose segments have the size of the last ones: of another size it goes on behind the last
/// segment, so what comes out here is a place that every daemon reaches.
fn recover(layout: &Layout, log_id: [u8; 16], lane: u16) -> Result<RecoveredLane, LogError> {
    let options = RecoverOptions { log_id, segment_bytes: SEGMENT_BYTES_DEFAULT, sync: false };
    let found = recover_lane(&Disk, layout, lane, options)?;
    let last = found.segments.iter().rfind(|found| found.records > 0).map(|found| found.length_bytes);
    match last {
        Some(segment_bytes) if segment_bytes != SEGMENT_BYTES_DEFAULT => {
            recover_lane(&Disk, layout, lane, RecoverOptions { segment_bytes, ..options })
        }
        _ => Ok(found),
    }
}
