//! What there is to judge: the log as it stands on the disk, what its directory remembers, and what the database says.

use crate::{
    command::{Exit, database::postgres},
    datadir::wal_dir,
    drain::{
        checkpoint::checkpoint_match::{CheckpointMatch, CheckpointMismatch, LaneView, same_database},
        checkpoint::row::Checkpoint,
    },
    postgres::{database, schema, schema::quoted},
    state::{database_id::DatabaseId, local_drain_state::LocalDrainState, mark::Mark},
};
use forebay_pgwire::{Connection, Param};
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
    pub(super) id: [u8; 16],
    pub(super) remembered: Option<LocalDrainState>,
    pub(super) lanes: Vec<LaneView>,
    /// Behind the newest record of each lane.
    pub(super) ends: Vec<Mark>,
}

/// The database.
pub(super) struct DatabaseState {
    pub(super) id: Option<DatabaseId>,
    /// Version of its schema; 0 for none.
    pub(super) schema_version: i32,
    /// The log's checkpoints, by drainer.
    pub(super) rows: Vec<(i32, Checkpoint)>,
    /// The database that they name.
    pub(super) row_database: Option<DatabaseId>,
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
        Ok(Self { id, remembered, lanes, ends })
    }

    /// Whether the daemon would go on with this database, and where not, why.
    pub(super) fn judge(&self, database: &DatabaseState) -> Result<(), CheckpointMismatch> {
        self.judge_identity(database)?;
        self.judge_places(database)
    }

    fn judge_identity(&self, database: &DatabaseState) -> Result<(), CheckpointMismatch> {
        let remembered = self.remembered.as_ref().and_then(|remembered| remembered.database);
        same_database(remembered.or(database.row_database), database.id)
    }

    /// The same for the places of the checkpoint alone.
    pub(super) fn judge_places(&self, database: &DatabaseState) -> Result<(), CheckpointMismatch> {
        if database.rows.is_empty() {
            return CheckpointMatch::find(None, &self.lanes, self.remembered.is_some()).map(drop);
        }
        database.rows.iter().try_for_each(|(_, row)| CheckpointMatch::find(Some(row), &self.lanes, true).map(drop))
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

impl DatabaseState {
    /// Asks the database.
    pub(super) async fn read(conn: &mut Connection, schema_name: &str, log_id: [u8; 16]) -> Result<Self, Exit> {
        let id = database::identify(conn).await.map_err(postgres)?;
        let schema_version = schema::version(conn, schema_name).await.map_err(postgres)?;
        let mut state = Self { id, schema_version, rows: Vec::new(), row_database: None };
        if schema_version != schema::VERSION {
            return Ok(state);
        }
        let sql = format!(
            "SELECT lanes, positions, ordinals, drainer, system_identifier, database_oid \
             FROM {}.drain_checkpoints WHERE log_id = $1 ORDER BY drainer",
            quoted(schema_name)
        );
        let read = |row: &forebay_pgwire::Row| {
            let named = row.get_opt_i64(4)?.zip(row.get_opt_i64(5)?);
            Ok((row.get_i32(3)?, Checkpoint::read(row)?, named))
        };
        for row in conn.query_once(&sql, &[Param::Uuid(log_id)]).await.map_err(postgres)? {
            let (drainer, row, named) = read(&row).map_err(postgres)?;
            state.rows.push((drainer, row));
            state.row_database = named.map(|(system_identifier, oid)| DatabaseId { system_identifier, oid });
        }
        Ok(state)
    }
}
