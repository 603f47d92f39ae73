//! Keeps the data directory's copy of how far the drain is.

use crate::{
    drain::checkpoint::remembered,
    postgres::database,
    state::{
        database_id::DatabaseId,
        drain_view::DrainView,
        local_drain_state::{DrainedLane, LocalDrainState},
        log_view::LogView,
    },
};
use forebay_pgwire::{Connection, Error};
use std::{path::PathBuf, sync::Arc};
use uuid::Uuid;

/// Writes [`LocalDrainState`] when a lane comes to another segment, and when the drain is idle; not for each round.
pub(super) struct LocalStateKeeper {
    log: Arc<LogView>,
    drain: Arc<DrainView>,
    wal_dir: PathBuf,
    /// The database of the session, if PostgreSQL tells.
    database: Option<DatabaseId>,
}

impl LocalStateKeeper {
    /// For a session with `database`.
    pub(super) fn new(
        log: Arc<LogView>,
        drain: Arc<DrainView>,
        wal_dir: PathBuf,
        database: Option<DatabaseId>,
    ) -> Self {
        Self { log, drain, wal_dir, database }
    }

    /// Whether the file is behind by so much that it is to be written. An idle drain writes every change, and tries again
    /// after a failure.
    pub(super) fn is_due(&self, is_idle: bool) -> bool {
        if is_idle && !self.drain.is_local_state_written() {
            return true;
        }
        let Some(written) = self.drain.local_state() else { return true };
        let is_behind = |now: DrainedLane, written: &DrainedLane| match is_idle {
            true => now != *written,
            false => now.segment != written.segment,
        };
        written.lanes.len() != self.log.lanes.len()
            || self.database.is_some_and(|database| written.database != Some(database))
            || self.log.lanes.iter().map(DrainedLane::of).zip(&written.lanes).any(|(now, at)| is_behind(now, at))
    }

    /// Writes the file if that is due. A failure to write is logged.
    ///
    /// # Errors
    /// Those that end the connection.
    pub(super) async fn update(&self, conn: &mut Connection, is_idle: bool) -> Result<(), Error> {
        if !self.is_due(is_idle) {
            return Ok(());
        }
        // The lanes first: all that they call drained is then committed before the position that PostgreSQL answers.
        let lanes = self.log.lanes.iter().map(DrainedLane::of).collect();
        let database = self.database.or(self.drain.local_state().and_then(|before| before.database));
        let server = database::place(conn).await?;
        let state = LocalDrainState { log_id: Uuid::from_bytes(self.log.id), database, server, lanes };
        remembered::write(&self.drain, &self.wal_dir, state);
        Ok(())
    }
}
