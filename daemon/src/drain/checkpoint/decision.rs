//! What a person decides: where the drain continues. It is carried out while no drainer is at work, by the daemon or by
//! `forebay checkpoint set`.

use super::{
    checkpoint_match::{CheckpointMismatch, LaneView},
    database_state::DatabaseState,
    log_places::LogPlaces,
    owner::Owner,
    resume_point::ResumePoint,
    row::{self, Checkpoint, name_database},
};
use crate::{
    postgres::{
        connect::ConnectError,
        database,
        predecessor::end_sessions,
        schema::{self, SchemaError, owner::UntrustedSchema, quoted},
    },
    state::{
        drain_point::DrainPoint,
        local_drain_state::LocalDrainState,
        mark::{LaneMark, Mark},
        place::Place,
    },
};
use forebay_pgwire::{Connection, Error, Param};
use forebay_wal::error::LogError;
use uuid::Uuid;

/// Why a decision was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// PostgreSQL refused, or the connection was lost. Next step: decide again.
    #[error(transparent)]
    Postgres(#[from] Error),
    /// A stranger has power over the schema. Next step: as the text says.
    #[error(transparent)]
    Untrusted(UntrustedSchema),
    /// The schema is too new, or is not to be made. Next step: as the text says.
    #[error(transparent)]
    Schema(SchemaError),
    /// The private PostgreSQL has not started yet. Next step: decide again.
    #[error("the private PostgreSQL has not started yet")]
    NoServer,
    /// The log's own files could not be read. Next step: check the disk.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The database has nothing to continue at. Next step: another place.
    #[error("the database has no checkpoint of this log: choose mismatch, log-oldest or log-end")]
    NoCheckpoint,
    /// The database's checkpoint is no place of the log. Next step: another place, or bring back what fits.
    #[error("{0}; choose mismatch, log-oldest or log-end, or bring back what fits")]
    NoPlace(CheckpointMismatch),
    /// The checkpoint is another data directory's. Next step: `forebay wal fork`.
    #[error("{0}, which decides about it; `forebay wal fork` gives this log a checkpoint of its own")]
    Copied(CheckpointMismatch),
    /// The log is no copy. Next step: none, or to fork the other directory's log.
    #[error(
        "the checkpoint of this log is not another data directory's, so nothing has changed; of two copies, the one whose daemon \
         connects second is the one to fork"
    )]
    NotCopied,
    /// Nobody would deliver some records. Next step: decide about them.
    #[error(
        "{records} records from before the copy are not in PostgreSQL yet. If the other data directory still has them, let its \
         daemon deliver them first, or say --common leave; if it is gone for good, say --common deliver"
    )]
    CommonLeft {
        /// How many.
        records: u64,
    },
    /// It is not known what another data directory has as well. Next step: decide about it.
    #[error(
        "it is not known which records another data directory has as well: wal/incarnations of one of the two is missing, or older \
         than its segments. {records} records are in doubt. If the other directory has them or they are in PostgreSQL (compare with \
         `forebay wal dump`), say --common leave; to deliver all of them here, also those that PostgreSQL has already, say --common \
         deliver"
    )]
    CommonUnknown {
        /// How many may be in common and not delivered.
        records: u64,
    },
    /// The data directory could not be written. Next step: make room on its disk, then decide again.
    #[error("the data directory cannot be written: {0}")]
    NotWritten(std::io::Error),
    /// Nothing is known of a mismatch. Next step: another place.
    #[error("it is not known how far the drain was: choose database, log-oldest or log-end")]
    NoMismatch,
    /// Somebody else made a checkpoint of the log. Next step: look at it.
    #[error("somebody else made a checkpoint of this log meanwhile: see `forebay checkpoint show`")]
    MadeMeanwhile,
    /// A trigger keeps the checkpoint as it is. Next step: a person removes it.
    #[error(
        "PostgreSQL did not write the checkpoint, without an error: see the triggers of drain_checkpoints and log_owners with \
         `forebay schema check`"
    )]
    NotTaken,
    /// Another decision is being carried out, or the drain is busy. Next step: decide again.
    #[error("the drain is busy and did not get to the decision; nothing has changed: try again")]
    Busy,
    /// The daemon is ending. Next step: decide when it has ended.
    #[error("the daemon is ending; nothing has changed")]
    Ending,
    /// The answer did not come in time. Next step: see what has become of it.
    #[error("the drain did not say in time what became of the decision: see `forebay checkpoint show`")]
    Unknown,
}

impl From<ConnectError> for DecisionError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Postgres(error) => Self::Postgres(error),
            ConnectError::Untrusted(untrusted) => Self::Untrusted(untrusted),
        }
    }
}

impl DecisionError {
    /// The exit code of a command that could not decide.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoCheckpoint
            | Self::NoPlace(_)
            | Self::NoMismatch
            | Self::Copied(_)
            | Self::NotCopied
            | Self::CommonLeft { .. }
            | Self::CommonUnknown { .. } => 2,
            Self::Log(_) | Self::NotWritten(_) => 3,
            Self::Busy | Self::Ending => 4,
            Self::Postgres(_)
            | Self::Untrusted(_)
            | Self::Schema(_)
            | Self::NoServer
            | Self::MadeMeanwhile
            | Self::NotTaken
            | Self::Unknown => 5,
        }
    }
}

/// A decision that the database holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Where each lane continues: of several drainers the least.
    pub marks: Vec<Mark>,
    /// What the data directory is to remember of it.
    pub remembered: LocalDrainState,
    /// Records that are left to another data directory.
    pub left: u64,
    /// Records that are delivered and may be in PostgreSQL already.
    pub doubtful: u64,
}

impl From<SchemaError> for DecisionError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Postgres(error) => Self::Postgres(error),
            error => Self::Schema(error),
        }
    }
}

/// Writes the decision into the database; the data directory comes after it. After a crash between the two the same decision is
/// made again. `schema_name` is not quoted; with `migrate` a missing or old schema is brought up to date. The data directory knows
/// already that PostgreSQL may name the last incarnation of `log`, and `round` names the decision.
///
/// # Errors
/// See [`DecisionError`].
pub async fn decide(
    conn: &mut Connection,
    schema_name: &str,
    migrate: bool,
    log: &LogPlaces,
    to: Place,
    round: Uuid,
) -> Result<Decided, DecisionError> {
    schema::ensure(conn, schema_name, migrate).await?;
    let schema = quoted(schema_name);
    let log_id = log.log_id();
    // Before a session is ended that may be another directory's.
    let state = DatabaseState::read(conn, schema_name, log_id).await?;
    log.judge_owner(&state).map_err(DecisionError::Copied)?;
    end_sessions(conn, &schema, log_id.into_bytes(), None).await?;
    // What they had sent is decided now: only then is it known what the checkpoints say.
    let lock = format!("SELECT 1 FROM {schema}.drain_checkpoints WHERE log_id = $1 ORDER BY drainer FOR NO KEY UPDATE");
    conn.query_once(&lock, &[Param::Uuid(log_id.into_bytes())]).await?;
    let state = DatabaseState::read(conn, schema_name, log_id).await?;
    log.judge_owner(&state).map_err(DecisionError::Copied)?;
    let certain = |point: DrainPoint| ResumePoint { point, doubtful: 0 };
    let ResumePoint { point, doubtful } = match to {
        // What is before a fork belongs to the other side.
        Place::LogOldest => certain(DrainPoint::new(vec![log.lanes.iter().map(LaneView::start).collect()])),
        Place::LogEnd => certain(DrainPoint::new(vec![log.ends.clone()])),
        Place::Mismatch => ResumePoint::find(log, &state).ok_or(DecisionError::NoMismatch)?,
        Place::Database => certain(point_of_rows(log, &state)?),
    };
    if to != Place::Database {
        conn.simple("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        replace(conn, &schema, (log, &log.owner()), &state, &point, round).await?;
        conn.simple("COMMIT").await?;
    }
    if let Some(id) = state.id {
        name_database(conn, &schema, log_id, id).await?;
    }
    let marks = point.least();
    let lanes = log.lanes.iter().zip(&marks).map(|(view, mark)| LaneMark::new(view.lane, *mark));
    let remembered =
        LocalDrainState { log_id, database: state.id, server: database::place(conn).await?, lanes: lanes.collect() };
    Ok(Decided { marks, remembered, left: 0, doubtful })
}

/// What the checkpoints in the database say, if that fits the log.
fn point_of_rows(log: &LogPlaces, state: &DatabaseState) -> Result<DrainPoint, DecisionError> {
    if state.rows.is_empty() {
        return Err(DecisionError::NoCheckpoint);
    }
    log.judge(state).map_err(DecisionError::NoPlace)?;
    let marks = |row: &Checkpoint| {
        let mark_of = |lane: u16| row.marks().find(|(of, _)| *of == i32::from(lane)).map(|(_, mark)| mark);
        log.lanes.iter().map(|view| mark_of(view.lane).unwrap_or_else(|| view.start())).collect()
    };
    Ok(DrainPoint::new(state.rows.iter().map(|(_, row)| marks(&row.checkpoint)).collect()))
}

/// Puts the checkpoints of the log at `point`, and makes those that are missing. Where there are more drainers than `point`
/// knows, all of them continue at the least of it.
async fn replace(
    conn: &mut Connection,
    schema: &str,
    (log, owner): (&LogPlaces, &Owner),
    state: &DatabaseState,
    point: &DrainPoint,
    round: Uuid,
) -> Result<(), DecisionError> {
    let row = |marks: &[Mark]| log.row(owner, marks, round);
    let drainers = state.rows.last().map_or(0, |(drainer, _)| *drainer as usize + 1).max(point.drainers().len());
    let least = row(&point.least());
    let is_missing = drainers > state.rows.len();
    // Another one's would stay as it is, and the decision would be none.
    if row::insert(conn, schema, owner, drainers, &least).await? != is_missing {
        return Err(DecisionError::MadeMeanwhile);
    }
    let sql = format!(
        "UPDATE {schema}.drain_checkpoints SET lanes = $3, positions = $4, ordinals = $5, incarnation = $6, round_id = $7, \
         updated_at = now() WHERE log_id = $1 AND drainer = $2"
    );
    for drainer in 0..drainers {
        let own = point.drainers().get(drainer).filter(|_| point.drainers().len() == drainers).map(|marks| row(marks));
        let row = own.as_ref().unwrap_or(&least);
        let params = [
            Param::Uuid(owner.log_id.into_bytes()),
            Param::I32(drainer as i32),
            Param::I32Array(&row.checkpoint.lanes),
            Param::I64Array(&row.checkpoint.positions),
            Param::I64Array(&row.checkpoint.ordinals),
            row::uuid(row.incarnation),
            row::uuid(row.round),
        ];
        if !owner.change(conn, schema, &sql, &params).await? {
            return Err(DecisionError::NotTaken);
        }
    }
    Ok(())
}
