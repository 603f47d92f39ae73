//! What there is to judge: the log as it stands on the disk, and what its directory remembers.

use crate::{
    command::Exit,
    datadir::{open_wal, wal_dir},
    drain::checkpoint::{
        checkpoint_match::{CheckpointMismatch, LaneView, same_database},
        database_state::DatabaseState,
        log_places::LogPlaces,
    },
    ids,
    state::{
        drain_point::DrainPoint,
        incarnations::{Incarnations, LogDirectory},
        local_drain_state::LocalDrainState,
        mark::{LaneMark, Mark},
    },
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
use uuid::Uuid;

/// The log.
pub(in crate::command) struct LogState {
    /// What its directory remembers of the drain.
    pub(in crate::command) remembered: Option<LocalDrainState>,
    /// What a decision needs of it.
    pub(in crate::command) places: LogPlaces,
}

impl LogState {
    /// Reads the log below `data_dir`, all of it, and changes nothing.
    pub(in crate::command) fn read(data_dir: &Path) -> Result<Self, Exit> {
        let storage = |error: LogError| Exit::storage(error.to_string());
        let wal = open_wal(data_dir)
            .map_err(|error| Exit::usage(format!("there is no log at {}: {error}", wal_dir(data_dir).display())))?;
        let (layout, disk) = (Layout::new(wal.path()), Disk::new(wal));
        let id = layout.read_log_id(&disk).map_err(storage)?;
        let incarnations = Incarnations::read(disk.dir(), Uuid::from_bytes(id));
        let incarnations =
            incarnations.map_err(|error| Exit::storage(format!("{}: {error}", layout.root().display())))?;
        let remembered = LocalDrainState::read(disk.dir(), incarnations.log_id.into_bytes());
        let (mut lanes, mut ends, mut tail_headers) = (Vec::new(), Vec::new(), Vec::new());
        for lane in layout.lanes(&disk).map_err(storage)? {
            let found = recover(&disk, &layout, id, lane).map_err(storage)?;
            let first = found.segments.first().map_or(found.tail.segment, |found| found.segment);
            let oldest = Mark { position: segment_start(first), ordinal: found.first_ordinal };
            let drained = remembered.as_ref().and_then(|remembered| remembered.lane(lane)).unwrap_or(oldest);
            let end = Mark { position: found.tail, ordinal: found.next_ordinal };
            let forked_at = LaneMark::find(&incarnations.begins_at, lane);
            lanes.push(LaneView { lane, oldest, drained, reachable: end, forked_at });
            ends.push(end);
            tail_headers.push(found.tail_header);
        }
        let drained = || DrainPoint::new(vec![lanes.iter().map(|view: &LaneView| view.drained).collect()]);
        let mismatch_point = remembered.as_ref().map(|_| drained());
        let is_known = remembered.is_some();
        let directory = LogDirectory::on_this_host(data_dir);
        let places = LogPlaces {
            incarnations,
            directory,
            lanes,
            ends,
            mismatch_point,
            is_point_exact: false,
            is_known,
            disk,
            layout,
            tail_headers,
        };
        Ok(Self { remembered, places })
    }

    /// Begins an incarnation that decides, as a start of the daemon does. The data directory, which is locked, knows it before
    /// PostgreSQL names it.
    pub(in crate::command) fn begin_incarnation(&mut self) -> Result<(), Exit> {
        let lanes = self.places.end_marks();
        let (content, wal_dir) = (&mut self.places.incarnations, self.places.disk.dir());
        let begun = content.begin(ids::random(), wal_dir, lanes);
        content.set_named();
        begun
            .and_then(|()| content.write(wal_dir))
            .map_err(|error| Exit::storage(format!("{} cannot be written: {error}", wal_dir.path().display())))
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
fn recover(disk: &Disk, layout: &Layout, log_id: [u8; 16], lane: u16) -> Result<RecoveredLane, LogError> {
    let options = RecoverOptions { log_id, segment_bytes: SEGMENT_BYTES_DEFAULT, sync: false };
    let found = recover_lane(disk, layout, lane, options)?;
    let last = found.segments.iter().rfind(|found| found.records > 0).map(|found| found.length_bytes);
    match last {
        Some(segment_bytes) if segment_bytes != SEGMENT_BYTES_DEFAULT => {
            recover_lane(disk, layout, lane, RecoverOptions { segment_bytes, ..options })
        }
        _ => Ok(found),
    }
}
