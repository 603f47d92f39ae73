//! Keeps the data directory's copy of how far the drain is.

use super::SessionContext;
use crate::{
    drain::checkpoint::remembered,
    postgres::database,
    state::{
        database_id::DatabaseId,
        drain_view::DrainView,
        lane_progress::LaneProgress,
        local_drain_state::LocalDrainState,
        log_identity::LogIdentity,
        log_view::LogView,
        mark::{LaneMark, Mark},
    },
};
use forebay_pgwire::{Connection, Error};
use std::sync::Arc;

/// Writes [`LocalDrainState`] when a lane comes to another segment, and when the drain is idle; not for each round.
pub(super) struct LocalStateKeeper {
    log: Arc<LogView>,
    drain: Arc<DrainView>,
    identity: Arc<LogIdentity>,
    /// The database of the session, if PostgreSQL tells.
    database: Option<DatabaseId>,
}

/// How far a lane is drained now.
fn drained(progress: &LaneProgress) -> LaneMark {
    let mark = Mark { position: progress.drained(), ordinal: progress.drained_ordinal() };
    LaneMark::new(progress.lane.lane(), mark)
}

impl LocalStateKeeper {
    /// For a session with `database`.
    pub(super) fn new(context: &SessionContext, database: Option<DatabaseId>) -> Self {
        let SessionContext { log, drain, identity, .. } = context;
        let (log, drain, identity) = (Arc::clone(log), Arc::clone(drain), Arc::clone(identity));
        Self { log, drain, identity, database }
    }

    /// Whether the file is behind by so much that it is to be written. An idle drain writes every change, and tries again
    /// after a failure.
    pub(super) fn is_due(&self, is_idle: bool) -> bool {
        if is_idle && !self.drain.is_local_state_written() {
            return true;
        }
        let Some(written) = self.drain.local_state() else { return true };
        let is_behind = |now: LaneMark, written: &LaneMark| match is_idle {
            true => now != *written,
            false => now.segment != written.segment,
        };
        written.lanes.len() != self.log.lanes.len()
            || self.database.is_some_and(|database| written.database != Some(database))
            || self.log.lanes.iter().map(drained).zip(&written.lanes).any(|(now, at)| is_behind(now, at))
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
        let lanes = self.log.lanes.iter().map(drained).collect();
        let database = self.database.or(self.drain.local_state().and_then(|before| before.database));
        let server = database::place(conn).await?;
        let state = LocalDrainState { log_id: self.identity.log_id(), database, server, lanes };
        remembered::write(&self.drain, self.log.disk.dir(), state);
        Ok(())
    }
}
