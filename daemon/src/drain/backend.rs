//! Which backend serves the drain's session, so that the next session can end it.

use super::session::Session;
use crate::postgres::{
    predecessor::end_sessions,
    remedy::{Remedy, remedy},
};
use forebay_pgwire::Error;

impl Session {
    /// Ends the backend of the session before this one, if it is still there and the role may; with `all` those of all
    /// drainers, when none is at work yet.
    ///
    /// # Errors
    /// Only those that end the connection.
    pub(crate) async fn end_predecessors(&mut self, all: bool) -> Result<(), Error> {
        let drainer = (!all).then_some(self.drainer as i32);
        end_sessions(&mut self.conn, &self.schema, self.shared.log.id, drainer).await
    }

    /// Writes down which backend serves this session.
    ///
    /// Also waits, as every commit does, for the standbys that PostgreSQL waits for. A session that was ended while it waited
    /// for them has committed all the same, and only now is that as safe as it was to be.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub(crate) async fn name_backend(&mut self) -> Result<(), Error> {
        const OWN: &str = "pg_backend_pid(), (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())";
        match self.set_backend(OWN).await {
            Err(error) if error.db_error().is_some() && remedy(&error) == Remedy::Pause => {
                tracing::debug!(%error, "it is not shown which backend serves the drain's session");
                self.set_backend("NULL, NULL").await
            }
            outcome => outcome,
        }
    }

    async fn set_backend(&mut self, backend: &str) -> Result<(), Error> {
        let sql = format!(
            "UPDATE {}.drain_checkpoints SET (backend_pid, backend_start) = ROW({backend}) WHERE log_id = $1 AND drainer = $2",
            self.schema
        );
        self.conn.execute_once(&sql, &self.checkpoint_key()).await.map(drop)
    }
}
