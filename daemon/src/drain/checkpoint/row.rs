//! The checkpoint: how far the log is drained, as a row in PostgreSQL holds it for each drainer.

use super::owner::Owner;
use crate::state::{database_id::DatabaseId, lane_progress::LaneProgress, mark::Mark};
use forebay_pgwire::{Connection, Error, Param, Row, oid};
use forebay_wal::position::Position;
use uuid::Uuid;

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
    pub fn marks(&self) -> impl Iterator<Item = (i32, Mark)> + '_ {
        self.lanes.iter().zip(&self.positions).zip(&self.ordinals).map(|((lane, position), ordinal)| {
            (*lane, Mark { position: Position::unpack(*position as u64), ordinal: *ordinal as u64 })
        })
    }

    /// Whether the record of `ordinal` in `lane` is drained.
    pub(crate) fn has_passed(&self, lane: u16, ordinal: u64) -> bool {
        self.marks().any(|(of, mark)| of == i32::from(lane) && ordinal < mark.ordinal)
    }
}

/// A row of `drain_checkpoints`, as far as rounds change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointRow {
    /// How far the drainer is.
    pub checkpoint: Checkpoint,
    /// The incarnation that has the checkpoint.
    pub incarnation: Option<Uuid>,
    /// The random id of the round that moved it last, or of the session that took it.
    pub round: Option<Uuid>,
}

impl CheckpointRow {
    /// The columns that [`read`](Self::read) takes.
    pub const COLUMNS: &str = "lanes, positions, ordinals, incarnation, round_id";

    /// Reads a row of [`COLUMNS`](Self::COLUMNS).
    ///
    /// # Errors
    /// [`Error::Column`] for other columns.
    pub fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            checkpoint: Checkpoint::read(row)?,
            incarnation: row.get_opt_uuid(3)?.map(Uuid::from_bytes),
            round: row.get_opt_uuid(4)?.map(Uuid::from_bytes),
        })
    }
}

/// Adds the missing checkpoints of `drainers` drainers at `row`, all in one statement: one checkpoint alone would be taken for
/// that of a single drainer. `owner` has them. Returns whether any was missing.
///
/// # Errors
/// Those of PostgreSQL.
pub async fn insert(
    conn: &mut Connection,
    schema: &str,
    owner: &Owner,
    drainers: usize,
    row: &CheckpointRow,
) -> Result<bool, Error> {
    let insert = format!(
        "INSERT INTO {schema}.drain_checkpoints (log_id, drainer, lanes, positions, ordinals, incarnation, round_id) \
         SELECT $1, d, $3, $4, $5, $6, $7 FROM generate_series(0, $2 - 1) d ON CONFLICT (log_id, drainer) DO NOTHING"
    );
    let CheckpointRow { checkpoint, incarnation, round } = row;
    let params = [
        Param::Uuid(owner.log_id.into_bytes()),
        Param::I32(drainers as i32),
        Param::I32Array(&checkpoint.lanes),
        Param::I64Array(&checkpoint.positions),
        Param::I64Array(&checkpoint.ordinals),
        uuid(*incarnation),
        uuid(*round),
    ];
    owner.change(conn, schema, &insert, &params).await
}

/// A parameter for a column of the type `uuid`.
#[must_use]
pub fn uuid(value: Option<Uuid>) -> Param<'static> {
    value.map_or(Param::Null(oid::UUID), |value| Param::Uuid(value.into_bytes()))
}

/// Writes into all checkpoints of a log which database they are in.
///
/// # Errors
/// Those of PostgreSQL.
pub async fn name_database(
    conn: &mut Connection,
    schema: &str,
    log_id: Uuid,
    database: DatabaseId,
) -> Result<(), Error> {
    let sql =
        format!("UPDATE {schema}.drain_checkpoints SET system_identifier = $2, database_oid = $3 WHERE log_id = $1");
    let params = [Param::Uuid(log_id.into_bytes()), Param::I64(database.system_identifier), Param::I64(database.oid)];
    conn.execute_once(&sql, &params).await.map(drop)
}
