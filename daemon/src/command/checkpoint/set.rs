//! `checkpoint set`.

use super::state::{DatabaseState, LogState};
use crate::command::print::print;
use crate::{
    command::{
        Exit,
        database::{postgres, with_database},
    },
    config::Config,
    datadir::{DataDir, wal_dir},
    drain::checkpoint::row::{Checkpoint, insert, name_database},
    postgres::{database, predecessor::end_sessions, schema, schema::quoted},
    state::{
        local_drain_state::{DrainedLane, LocalDrainState},
        mark::Mark,
    },
};
use clap::ValueEnum;
use forebay_pgwire::{Connection, Param};
use forebay_wal::position::Position;
use uuid::Uuid;

/// Where the drain continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// with the oldest record of the log: all records of the log are delivered; those that the database has already come twice,
    /// unless they have a transaction id
    LogOldest,
    /// after the newest record of the log: no record that the log has now is delivered
    LogEnd,
    /// at the checkpoint in the database, for example after the database was moved to another server
    Database,
}

pub(super) fn run(config: &Config, to: Place, yes: bool) -> Result<(), Exit> {
    if !yes {
        return Err(Exit::usage(
            "this decides what is delivered and what is not, and cannot be taken back: see `forebay checkpoint show`, \
             then say --yes",
        ));
    }
    if !config.data_dir.is_dir() {
        return Err(Exit::usage(format!("there is no data directory {}", config.data_dir.display())));
    }
    let data_dir = DataDir::open(&config.data_dir)?;
    let log = LogState::read(&config.data_dir)?;
    let marks = with_database(config, Some(&data_dir), async |mut conn| set(&mut conn, config, &log, to).await)?;
    print(|out| {
        let mut lanes = log.lanes.iter().zip(&marks);
        lanes.try_for_each(|(view, mark)| {
            writeln!(out, "lane {}: goes on at {} (record {})", view.lane, mark.position, mark.ordinal)
        })
    })
}

/// Decides in the database, then in the data directory: after a crash between the two the same decision is made again.
async fn set(conn: &mut Connection, config: &Config, log: &LogState, to: Place) -> Result<Vec<Mark>, Exit> {
    let ensured = schema::ensure(conn, &config.schema, config.migrate).await;
    ensured.map_err(|error| Exit::postgres(error.to_string()))?;
    let schema = quoted(&config.schema);
    end_sessions(conn, &schema, log.id, None).await.map_err(postgres)?;
    // What they had sent is decided now: only then is it known what the checkpoints say.
    let lock = format!("SELECT 1 FROM {schema}.drain_checkpoints WHERE log_id = $1 ORDER BY drainer FOR NO KEY UPDATE");
    conn.query_once(&lock, &[Param::Uuid(log.id)]).await.map_err(postgres)?;
    let state = DatabaseState::read(conn, &config.schema, log.id).await?;
    let marks = match to {
        Place::LogOldest => log.lanes.iter().map(|view| view.oldest).collect(),
        Place::LogEnd => log.ends.clone(),
        Place::Database => marks_of_rows(log, &state)?,
    };
    if to != Place::Database {
        conn.simple("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await.map_err(postgres)?;
        replace(conn, &schema, log, &marks).await?;
        conn.simple("COMMIT").await.map_err(postgres)?;
    }
    if let Some(id) = state.id {
        name_database(conn, &schema, log.id, id).await.map_err(postgres)?;
    }
    let lanes = log.lanes.iter().zip(&marks).map(|(view, mark)| {
        let Position { segment, offset } = mark.position;
        DrainedLane { lane: view.lane, segment, offset, ordinal: mark.ordinal }
    });
    let remembered = LocalDrainState {
        log_id: Uuid::from_bytes(log.id),
        database: state.id,
        server: database::place(conn).await.map_err(postgres)?,
        lanes: lanes.collect(),
    };
    let written = remembered.write(&wal_dir(&config.data_dir));
    written.map_err(|error| Exit::storage(format!("the decision cannot be remembered: {error}")))?;
    Ok(marks)
}

/// What the checkpoints in the database say, if that fits the log: of several drainers the least.
fn marks_of_rows(log: &LogState, state: &DatabaseState) -> Result<Vec<Mark>, Exit> {
    if state.rows.is_empty() {
        return Err(Exit::usage("the database has no checkpoint of this log: choose log-oldest or log-end"));
    }
    log.judge_places(state)
        .map_err(|what| Exit::usage(format!("{what}; choose log-oldest or log-end, or bring back what fits")))?;
    let mark_in = |row: &Checkpoint, lane: u16| {
        let at = row.lanes.iter().position(|of| *of == i32::from(lane))?;
        let (position, ordinal) = (row.positions.get(at)?, row.ordinals.get(at)?);
        Some(Mark { position: Position::unpack(*position as u64), ordinal: *ordinal as u64 })
    };
    let least = |lane: u16| {
        let marks = state.rows.iter().filter_map(|(_, row)| mark_in(row, lane));
        marks.min_by_key(|mark| mark.position)
    };
    Ok(log.lanes.iter().map(|view| least(view.lane).unwrap_or(view.oldest)).collect())
}

/// Writes the same marks into the checkpoint of each drainer, or makes the first one's.
async fn replace(conn: &mut Connection, schema: &str, log: &LogState, marks: &[Mark]) -> Result<(), Exit> {
    let row = Checkpoint {
        lanes: log.lanes.iter().map(|view| view.lane.into()).collect(),
        positions: marks.iter().map(|mark| mark.position.pack() as i64).collect(),
        ordinals: marks.iter().map(|mark| mark.ordinal as i64).collect(),
    };
    let sql = format!(
        "UPDATE {schema}.drain_checkpoints SET lanes = $2, positions = $3, ordinals = $4, updated_at = now() \
         WHERE log_id = $1"
    );
    let params = [
        Param::Uuid(log.id),
        Param::I32Array(&row.lanes),
        Param::I64Array(&row.positions),
        Param::I64Array(&row.ordinals),
    ];
    let is_there = conn.execute_once(&sql, &params).await.map_err(postgres)? > 0;
    // Another one's would stay as it is, and the decision would be none.
    if !is_there && insert(conn, schema, log.id, 1, &row).await.map_err(postgres)? == 0 {
        return Err(Exit::postgres(
            "somebody else made a checkpoint of this log meanwhile: see `forebay checkpoint show`",
        ));
    }
    Ok(())
}
