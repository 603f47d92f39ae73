//! Giving a copied log an id of its own: from where this directory and the others with the same log part, and what is left to
//! them.
//!
//! Each other directory that ever took a checkpoint of the log has its incarnations in `log_owners`. What this directory and
//! another one have in common is that one's to deliver; the rest is this one's. So the fork begins behind the most that is in
//! common with any of them, and nobody delivers a record twice. Where the lists do not tell how much that is, a person says what
//! becomes of the records in doubt. The rows of `log_owners` are locked meanwhile: of several forks at once the later one sees the
//! earlier one.

use super::{
    checkpoint_match::{CheckpointMismatch, LaneView},
    database_state::DatabaseState,
    decision::{Decided, DecisionError},
    log_places::LogPlaces,
    owner::Owner,
    row::{self, CheckpointRow, name_database},
};
use crate::{
    ids,
    postgres::{database, schema, schema::quoted},
    state::{
        common_records::CommonRecords,
        incarnations::{Incarnation, Incarnations},
        local_drain_state::LocalDrainState,
        mark::{LaneMark, Mark},
        place::Common,
    },
};
use forebay_pgwire::{Connection, Error, Param};
use forebay_wal::{
    error::LogError,
    position::Position,
    reader::{Event, LaneReader},
    storage::Disk,
};
use std::io;
use uuid::Uuid;

/// Gives the log an id of its own, under which it begins where this directory and the others part. `write` writes the data
/// directory's incarnations, in the midst of the transaction: after a crash behind that, the daemon makes the checkpoint itself, at
/// the place that the directory says. `schema_name`, `migrate` and `round` are those of [`decide`](super::decision::decide).
///
/// # Errors
/// See [`DecisionError`]: [`NotCopied`](DecisionError::NotCopied) unless the checkpoint is another directory's, since nobody would
/// deliver what the log has; [`CommonLeft`](DecisionError::CommonLeft) or [`CommonUnknown`](DecisionError::CommonUnknown) unless
/// `common` says who delivers what both have.
pub async fn fork(
    conn: &mut Connection,
    (schema_name, migrate): (&str, bool),
    log: &LogPlaces,
    common: Option<Common>,
    round: Uuid,
    write: impl FnOnce(&Incarnations) -> io::Result<()>,
) -> Result<Decided, DecisionError> {
    schema::ensure(conn, schema_name, migrate).await?;
    let schema = quoted(schema_name);
    conn.simple("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let relatives = lock_relatives(conn, &schema, log.incarnations.origin).await?;
    let state = DatabaseState::read(conn, schema_name, log.log_id()).await?;
    match log.judge(&state) {
        Err(
            CheckpointMismatch::Copied { .. }
            | CheckpointMismatch::AheadOfLog { .. }
            | CheckpointMismatch::NoBoundary { .. },
        ) => {}
        _ => return Err(DecisionError::NotCopied),
    }
    let Parting { ordinals, left, is_known } = part(log, &relatives, &state, common);
    match common {
        None if !is_known => return Err(DecisionError::CommonUnknown { records: left }),
        None if left > 0 => return Err(DecisionError::CommonLeft { records: left }),
        _ => {}
    }
    let mut marks = Vec::new();
    for (index, ordinal) in ordinals.iter().enumerate() {
        let LaneView { oldest, drained, .. } = log.lanes[index];
        let from = if drained.ordinal <= *ordinal { drained } else { oldest };
        marks.push(mark_of(log.reader_at(index, from.position), *ordinal, log.ends[index].position)?);
    }
    let lanes: Vec<LaneMark> =
        log.lanes.iter().zip(&marks).map(|(view, mark)| LaneMark::new(view.lane, *mark)).collect();
    let own =
        Incarnations { log_id: ids::random(), begins_at: lanes.clone(), copy_of: None, ..log.incarnations.clone() };
    let owner = Owner { log_id: own.log_id, ..log.owner() };
    write(&own).map_err(DecisionError::NotWritten)?;
    row::insert(conn, &schema, &owner, 1, &log.row(&owner, &marks, round)).await?;
    if let Some(id) = state.id {
        name_database(conn, &schema, owner.log_id, id).await?;
    }
    conn.simple("COMMIT").await?;
    let server = database::place(conn).await?;
    let remembered = LocalDrainState { log_id: owner.log_id, database: state.id, server, lanes };
    Ok(Decided { marks, remembered, left, doubtful: 0 })
}

/// Where this directory and others with the same log part.
struct Parting {
    /// The ordinal at which each lane goes on.
    ordinals: Vec<u64>,
    /// Records before that which may not be in PostgreSQL, and are left to others.
    left: u64,
    /// Whether it is known which records both have.
    is_known: bool,
}

fn part(log: &LogPlaces, relatives: &[Vec<Incarnation>], state: &DatabaseState, common: Option<Common>) -> Parting {
    let mut parting = Parting { ordinals: Vec::new(), left: 0, is_known: true };
    for (view, end) in log.lanes.iter().zip(&log.ends) {
        let with =
            |theirs: &Vec<Incarnation>| CommonRecords::find(&log.incarnations.list, theirs, view.lane, end.ordinal);
        let shared = CommonRecords::of_any(relatives.iter().map(with));
        let start = view.start().ordinal;
        let (least, most) = (shared.least.max(start), shared.most.max(start));
        // The checkpoints count what is in common for certain. Behind that they count records of the other directory.
        let delivered = delivered(state, view.lane).clamp(start, least);
        let ordinal = if common == Some(Common::Deliver) { delivered } else { most };
        parting.ordinals.push(ordinal);
        parting.left += ordinal - delivered;
        parting.is_known &= least == most;
    }
    parting
}

/// How many records of a lane the checkpoints of the log say are done.
fn delivered(state: &DatabaseState, lane: u16) -> u64 {
    let of_lane = |(_, row): &(i32, CheckpointRow)| {
        row.checkpoint.marks().find(|(of, _)| *of == i32::from(lane)).map_or(0, |(_, mark)| mark.ordinal)
    };
    state.rows.iter().map(of_lane).min().unwrap_or(0)
}

/// Reads the incarnations of all directories that have checkpoints of the log `origin`, and keeps them as they are until the
/// transaction ends.
///
/// # Errors
/// Those of PostgreSQL.
async fn lock_relatives(conn: &mut Connection, schema: &str, origin: Uuid) -> Result<Vec<Vec<Incarnation>>, Error> {
    let sql =
        format!("SELECT incarnations::text FROM {schema}.log_owners WHERE origin = $1 ORDER BY log_id FOR UPDATE");
    let rows = conn.query_once(&sql, &[Param::Uuid(origin.into_bytes())]).await?;
    let parse = |row: &forebay_pgwire::Row| {
        let unreadable = |error: serde_json::Error| Error::Usage { what: format!("log_owners.incarnations: {error}") };
        serde_json::from_str(row.get_str(0)?).map_err(unreadable)
    };
    rows.iter().map(parse).collect()
}

/// The place in front of the first record with `ordinal` or a higher one, in a lane that `reader` reads from a place before it to `end`.
///
/// # Errors
/// [`LogError::Io`].
fn mark_of(mut reader: LaneReader<Disk>, ordinal: u64, end: Position) -> Result<Mark, LogError> {
    let mut position = reader.position();
    while let Some(event) = reader.next_event(end)? {
        if matches!(event, Event::Record(header) if header.ordinal >= ordinal) {
            return Ok(Mark { position, ordinal });
        }
        position = reader.position();
    }
    Ok(Mark { position: reader.position(), ordinal })
}
