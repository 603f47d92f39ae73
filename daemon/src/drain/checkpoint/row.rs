//! The checkpoint: how far the log is drained, as a row in PostgreSQL holds it for each drainer.

use crate::state::{database_id::DatabaseId, lane_progress::LaneProgress, mark::Mark};
use forebay_pgwire::{Connection, Error, Param, Row};
use forebay_wal::position::Position;

/// The arrays of a row of `drain_checkpoints`; one entry for each lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Numbers of the lanes.
    pub lanes: Vec<i32>,
    /// The packed position behind the last record that is drained.
    pub positions: Vec<i64>,
    /// The ordinal behind that record.
    pub ordinals: Vec<i64>,
}

impl Checkpoint {
    /// The checkpoint at `marks`, one for each of `lanes`.
    pub(crate) fn of(lanes: &[LaneProgress], marks: &[Mark]) -> Self {
        Self {
            lanes: lanes.iter().map(|lane| lane.lane.lane().into()).collect(),
            positions: marks.iter().map(|mark| mark.position.pack() as i64).collect(),
            ordinals: marks.iter().map(|mark| mark.ordinal as i64).collect(),
        }
    }

    /// Reads a row of `lanes, positions, ordinals`.
    ///
    /// # Errors
    /// [`Error::Column`] for other columns.
    pub fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self { lanes: row.get_i32_array(0)?, positions: row.get_i64_array(1)?, ordinals: row.get_i64_array(2)? })
    }

    /// Each lane's number and its mark.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (i32, Mark)> + '_ {
        self.lanes.iter().zip(&self.positions).zip(&self.ordinals).map(|((lane, position), ordinal)| {
            (*lane, Mark { position: Position::unpack(*position as u64), ordinal: *ordinal as u64 })
        })
    }

    /// Whether the record of `ordinal` in `lane` is drained.
    pub(crate) fn has_passed(&self, lane: u16, ordinal: u64) -> bool {
        self.marks().any(|(of, mark)| of == i32::from(lane) && ordinal < mark.ordinal)
    }
}

/// Adds the missing checkpoints of `drainers` drainers at `row`, all in one statement: one checkpoint alone would be taken for
/// that of a single drainer. Returns how many were missing.
///
/// # Errors
/// Those of PostgreSQL.
pub async fn insert(
    conn: &mut Connection,
    schema: &str,
    log_id: [u8; 16],
    drainers: usize,
    row: &Checkpoint,
) -> Result<u64, Error> {
    let sql = format!(
        "INSERT INTO {schema}.drain_checkpoints (log_id, drainer, lanes, positions, ordinals) \
         SELECT $1, d, $3, $4, $5 FROM generate_series(0, $2 - 1) d ON CONFLICT (log_id, drainer) DO NOTHING"
    );
    let params = [
        Param::Uuid(log_id),
        Param::I32(drainers as i32),
        Param::I32Array(&row.lanes),
        Param::I64Array(&row.positions),
        Param::I64Array(&row.ordinals),
    ];
    conn.execute_once(&sql, &params).await
}

/// Writes into all checkpoints of a log which database they are in.
///
/// # Errors
/// Those of PostgreSQL.
pub async fn name_database(
    conn: &mut Connection,
    schema: &str,
    log_id: [u8; 16],
    database: DatabaseId,
) -> Result<(), Error> {
    let sql =
        format!("UPDATE {schema}.drain_checkpoints SET system_identifier = $2, database_oid = $3 WHERE log_id = $1");
    let params = [Param::Uuid(log_id), Param::I64(database.system_identifier), Param::I64(database.oid)];
    conn.execute_once(&sql, &params).await.map(drop)
}
