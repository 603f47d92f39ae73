//! The checkpoint: how far the log is drained, as the row in PostgreSQL says it, and whether that fits the log.

use super::{
    judgement::{Judgement, LaneView, judge, same_database},
    session::{Session, SessionError},
};
use crate::{
    datadir::wal_dir,
    state::{lane_progress::LaneProgress, shared::Shared},
};
use crate::{
    postgres::database,
    state::{
        database_id::DatabaseId,
        local_drain_state::{DrainedLane, LocalDrainState},
        mark::Mark,
    },
};
use forebay_pgwire::{Connection, Error, Param};
use std::sync::{Arc, atomic::Ordering};
use uuid::Uuid;

/// The checkpoint's arrays as they stand in their row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Numbers of the lanes.
    pub lanes: Vec<i32>,
    /// For each the position behind which nothing is done, packed.
    pub positions: Vec<i64>,
    /// For each the ordinal behind the last record that is done.
    pub ordinals: Vec<i64>,
}

impl Checkpoint {
    /// The row that says `marks`, one for each of `lanes`.
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
    pub fn read(row: &forebay_pgwire::Row) -> Result<Self, Error> {
        Ok(Self { lanes: row.get_i32_array(0)?, positions: row.get_i64_array(1)?, ordinals: row.get_i64_array(2)? })
    }
}

impl Session {
    /// Reads the checkpoint, or makes it if there is none, and tells where to begin. Ends the session before this one, and waits
    /// for a transaction of it that is still being decided: only then is the checkpoint known. Also decides about dead letters
    /// in files whose transaction ended unseen, and counts all dead letters.
    ///
    /// `drainers` are at work; `None` for the first session of the process, which finds out. Returns how many there are as well.
    ///
    /// # Errors
    /// [`SessionError::Checkpoint`] when it does not fit the log, or this is another database; else those of PostgreSQL.
    pub async fn begin(&mut self, drainers: Option<usize>) -> Result<(usize, Vec<Mark>), SessionError> {
        let shared = Arc::clone(&self.shared);
        self.end_predecessors(drainers.is_none()).await?;
        let drainers = match drainers {
            Some(drainers) => drainers,
            None => self.plan().await?,
        };
        let count = self.count_checkpoints().await?;
        if count == 0 && self.drainer > 0 {
            return Err(SessionError::NoCheckpoint);
        }
        let rows = self.conn.query(&self.statements.lock_checkpoint, &self.checkpoint_key()).await?;
        let row = rows.first().map(Checkpoint::read).transpose()?;
        let row_database = if row.is_some() { self.database_of_row().await? } else { None };
        let remembered = shared.drain.local_state();
        if remembered.as_ref().is_none_or(|remembered| remembered.database.is_none()) {
            same_database(row_database, self.database).map_err(mismatch)?;
        }
        let is_known = remembered.is_some() || shared.drain.has_checkpoint.load(Ordering::Relaxed);
        if count != if row.is_some() { drainers } else { 0 } {
            return Err(mismatch(format!(
                "the database has {count} checkpoints of the log, for {drainers} drain connections: it went back in time to \
                 when there were others, and a new start goes on from there, or some of them are gone"
            )));
        }
        let judgement = judge(row.as_ref(), &views(&shared, self.drainer), is_known).map_err(mismatch)?;
        let goes_back = !judgement.back.is_empty();
        self.go_back(self.drainer, &judgement)?;
        match row {
            Some(row) => self.checkpoint = row,
            None => {
                if !is_known && judgement.marks.iter().any(|mark| mark.ordinal > 0) {
                    tracing::warn!(
                        "this database knows nothing of the log, of which a part was drained elsewhere before"
                    );
                }
                let row = Checkpoint::of(&shared.log.lanes, &judgement.marks);
                insert(&mut self.conn, &self.schema, shared.log.id, drainers, &row).await?;
                self.checkpoint = row;
            }
        }
        if let Some(database) = self.database.filter(|database| row_database != Some(*database)) {
            name_database(&mut self.conn, &self.schema, shared.log.id, database).await?;
        }
        self.name_backend().await?;
        shared.drain.has_checkpoint.store(true, Ordering::Relaxed);
        self.settle_letters(self.drainer, &self.checkpoint, goes_back);
        self.count_dead_letters().await?;
        Ok((drainers, judgement.marks))
    }

    /// Takes back what the log retains of the lanes that go back.
    pub(crate) fn go_back(&self, drainer: usize, judgement: &Judgement) -> Result<(), SessionError> {
        for &index in &judgement.back {
            let (progress, mark) = (&self.shared.log.lanes[index], judgement.marks[index]);
            let (lane, drained) = (progress.lane.lane(), progress.drained_by(drainer));
            let segment = mark.position.segment;
            if segment < progress.released_below() && !self.shared.log.keeper.revoke_release(lane, segment) {
                return Err(mismatch(format!(
                    "lane {lane}: the checkpoint ({}) is behind what was drained and let go ({}): the database went back in time",
                    mark.position, drained.position
                )));
            }
            progress.set_released_below(segment);
            let messages = drained.ordinal.saturating_sub(mark.ordinal);
            tracing::warn!(
                lane,
                messages,
                "the database went back in time; what it lost is delivered again from the log"
            );
        }
        Ok(())
    }

    /// The database that the checkpoint's row names.
    async fn database_of_row(&mut self) -> Result<Option<DatabaseId>, Error> {
        let sql = format!(
            "SELECT system_identifier, database_oid FROM {}.drain_checkpoints WHERE log_id = $1 AND drainer = $2",
            self.schema
        );
        let rows = self.conn.query_once(&sql, &self.checkpoint_key()).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (system_identifier, oid) = (row.get_opt_i64(0)?, row.get_opt_i64(1)?);
        Ok(system_identifier.zip(oid).map(|(system_identifier, oid)| DatabaseId { system_identifier, oid }))
    }

    /// Lets the data directory remember how far the drain is, where that is due: with `quiet`, whatever is not remembered yet.
    ///
    /// # Errors
    /// Those that end the connection.
    pub(crate) async fn remember(&mut self, quiet: bool) -> Result<(), Error> {
        if !self.is_remembering_due(quiet) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let lanes = shared.log.lanes.iter().map(DrainedLane::of).collect();
        let database = self.database.or(shared.drain.local_state().and_then(|before| before.database));
        let server = database::place(&mut self.conn).await?;
        let remembered = LocalDrainState { log_id: Uuid::from_bytes(shared.log.id), database, server, lanes };
        let written = remembered.write(&wal_dir(&shared.config.data_dir));
        if let Err(error) = &written
            && shared.drain.is_local_state_written()
        {
            tracing::warn!(%error, "how far the log is drained could not be written down; it is tried again");
        }
        shared.drain.set_local_state(remembered, written.is_ok());
        Ok(())
    }

    /// Whether the data directory should be told how far the drain is: when a lane came to another segment, or is `quiet`. After
    /// an attempt that failed the same: not with each round.
    pub(crate) fn is_remembering_due(&self, quiet: bool) -> bool {
        let is_owed = quiet && !self.shared.drain.is_local_state_written();
        is_owed
            || self.shared.drain.local_state().is_none_or(|before| {
                let lanes = self.shared.log.lanes.iter().map(DrainedLane::of);
                before.lanes.len() != self.shared.log.lanes.len()
                    || self.database.is_some_and(|database| before.database != Some(database))
                    || lanes
                        .zip(&before.lanes)
                        .any(|(now, before)| if quiet { now != *before } else { now.segment != before.segment })
            })
    }

    /// Whether the checkpoint's row says that everything up to `marks` is done: what a COMMIT without an answer came to.
    #[must_use]
    pub fn has_reached(&self, marks: &[Mark]) -> bool {
        self.checkpoint == Checkpoint::of(&self.shared.log.lanes, marks)
    }

    /// Key of the checkpoint's row.
    pub(crate) fn checkpoint_key(&self) -> [Param<'static>; 2] {
        [Param::Uuid(self.shared.log.id), Param::I32(self.drainer as i32)]
    }
}

/// Asks which database this is, and refuses another one than is remembered.
pub(crate) async fn find_database(conn: &mut Connection, shared: &Shared) -> Result<Option<DatabaseId>, SessionError> {
    let database = database::identify(conn).await?;
    let remembered = shared.drain.local_state().and_then(|remembered| remembered.database);
    same_database(remembered, database).map_err(mismatch)?;
    Ok(database)
}

pub(crate) fn mismatch(what: String) -> SessionError {
    SessionError::Checkpoint(format!("{what} (`forebay checkpoint show` says what there is to decide)"))
}

/// The lanes, for a drainer's checkpoint to be judged by.
pub(crate) fn views(shared: &Shared, drainer: usize) -> Vec<LaneView> {
    let view = |progress: &LaneProgress| LaneView {
        lane: progress.lane.lane(),
        oldest: Mark { position: progress.oldest(), ordinal: progress.oldest_ordinal() },
        drained: progress.drained_by(drainer),
        // Not the durable end of now: pushes since the start may have lifted a log that went back in time past it.
        reachable: progress.reachable(),
    };
    shared.log.lanes.iter().map(view).collect()
}

/// Adds those of the checkpoints of `drainers` that are missing, at `row`, all at once: one that is alone would be taken for
/// the only one. Says how many were missing.
///
/// # Errors
/// Those of PostgreSQL, here and below.
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

/// Writes into all checkpoints of a log which database they stand in.
///
/// # Errors
/// As [`insert`].
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
