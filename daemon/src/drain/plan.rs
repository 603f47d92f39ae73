//! How many drainers there are: as many as are asked for, unless their checkpoints say otherwise.
//!
//! A checkpoint says how far one drainer is with the partitions that are its own, and which those are depends on how many
//! drainers there are. So their number changes at a start at which all of them are equally far, as they are after every end
//! in order, and shortly after the last message; at another start it stays what it was, and that is told.

use super::{
    checkpoint::{Checkpoint, insert, mismatch, views},
    judgement::judge,
    session::{Session, SessionError},
};
use crate::state::mark::Mark;
use crate::state::shared::Shared;
use forebay_pgwire::{Error, Param};
use std::sync::Arc;

impl Session {
    /// Finds out how many drainers there are, and how far each is, and takes back what a database that went back in time
    /// lost. Nobody else is at work yet.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(crate) async fn plan(&mut self) -> Result<usize, SessionError> {
        let shared = Arc::clone(&self.shared);
        let wanted = usize::from(shared.config.drain_connections);
        let rows = self.lock_all().await?;
        if rows.is_empty() {
            shared.log.lanes.iter().for_each(|progress| progress.set_drainers(wanted));
            return Ok(wanted);
        }
        if let Some(gone) = (0..rows.len()).find(|drainer| rows[*drainer].0 != *drainer as i32) {
            return Err(mismatch(format!(
                "the checkpoint's row of drainer {gone} is gone, and that of another one is not"
            )));
        }
        shared.log.lanes.iter().for_each(|progress| progress.set_drainers(rows.len()));
        for (drainer, (_, row)) in rows.iter().enumerate() {
            let judgement = judge(Some(row), &views(&shared, drainer), true).map_err(mismatch)?;
            let goes_back = !judgement.back.is_empty();
            self.go_back(drainer, &judgement)?;
            self.settle_letters(drainer, row, goes_back);
            set_drained(&shared, drainer, &judgement.marks);
        }
        if rows.len() == wanted {
            return Ok(wanted);
        }
        let (_, first) = &rows[0];
        if rows.iter().any(|(_, row)| row.lanes != first.lanes || row.ordinals != first.ordinals) {
            let drainers = rows.len();
            tracing::warn!(
                drainers,
                wanted,
                "the number of drain connections stays what it was: they are not equally far; an end in order while \
                 PostgreSQL is there makes them so"
            );
            return Ok(drainers);
        }
        match self.replan(rows.len(), wanted, first).await {
            Err(error) if error.db_error().is_some() => {
                let drainers = rows.len();
                tracing::warn!(drainers, wanted, %error, "the number of drain connections stays what it was");
                return Ok(drainers);
            }
            outcome => outcome?,
        }
        tracing::info!(before = rows.len(), drainers = wanted, "the number of drain connections is another one now");
        shared.log.lanes.iter().for_each(|progress| progress.set_drainers(wanted));
        Ok(wanted)
    }

    /// All checkpoints of the log, once no transaction that moves one is still being decided.
    async fn lock_all(&mut self) -> Result<Vec<(i32, Checkpoint)>, Error> {
        let sql = format!(
            "SELECT lanes, positions, ordinals, drainer FROM {}.drain_checkpoints WHERE log_id = $1 ORDER BY drainer \
             FOR NO KEY UPDATE",
            self.schema
        );
        let rows = self.conn.query_once(&sql, &[Param::Uuid(self.shared.log.id)]).await?;
        rows.iter().map(|row| Ok((row.get_i32(3)?, Checkpoint::read(row)?))).collect()
    }

    /// Makes the checkpoints of `before` drainers, all at `row`, those of `wanted`.
    async fn replan(&mut self, before: usize, wanted: usize, row: &Checkpoint) -> Result<(), Error> {
        if before < wanted {
            return insert(&mut self.conn, &self.schema, self.shared.log.id, wanted, row).await.map(drop);
        }
        let sql = format!("DELETE FROM {}.drain_checkpoints WHERE log_id = $1 AND drainer >= $2", self.schema);
        let params = [Param::Uuid(self.shared.log.id), Param::I32(wanted as i32)];
        self.conn.execute_once(&sql, &params).await.map(drop)
    }

    /// How many checkpoints of the log there are.
    pub(crate) async fn count_checkpoints(&mut self) -> Result<usize, Error> {
        let sql = format!("SELECT count(*) FROM {}.drain_checkpoints WHERE log_id = $1", self.schema);
        let rows = self.conn.query_once(&sql, &[Param::Uuid(self.shared.log.id)]).await?;
        rows.first().map_or(Ok(0), |row| row.get_i64(0).map(|count| count as usize))
    }
}

/// Notes how far a drainer is.
pub(crate) fn set_drained(shared: &Shared, drainer: usize, marks: &[Mark]) {
    shared.log.lanes.iter().zip(marks).for_each(|(progress, mark)| progress.set_drained(drainer, *mark));
}
