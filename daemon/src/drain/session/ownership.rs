//! Whether the checkpoints of the log belong to this data directory, and how a session takes them.
//!
//! PostgreSQL names the incarnation that has a checkpoint. If it is one of this directory's, the session takes the checkpoint for
//! the present incarnation, with one statement that changes nothing unless the row is as it was read. So of two directories with
//! the same log one takes it, and the other one finds a name that it does not know.

use super::{rival, session_error::SessionError};
use crate::{
    drain::checkpoint::{
        boundary::is_boundary,
        checkpoint_match::{CheckpointMatch, CheckpointMismatch},
        checkpoint_store::CheckpointStore,
        lane_views::{drained, views},
        owner::Owner,
        row::CheckpointRow,
    },
    ids,
    postgres::schema::{obstacle::SchemaObstacle, quoted},
    state::{
        incarnations::LogDirectory, lane_progress::LaneProgress, log_identity::LogIdentity, log_view::LogView,
        mark::Mark,
    },
};
use forebay_pgwire::{Connection, Error};
use forebay_wal::{layout::Layout, reader::LaneReader};
use std::sync::Arc;
use uuid::Uuid;

/// The log of this data directory, as its checkpoints are judged.
pub(super) struct Ownership {
    identity: Arc<LogIdentity>,
    log: Arc<LogView>,
    layout: Layout,
    /// Quoted.
    schema: String,
    /// Not quoted.
    schema_name: String,
}

impl Ownership {
    /// Of the log with these parts, whose checkpoints are in the schema of that name, which is not quoted.
    pub(super) fn new(identity: Arc<LogIdentity>, log: Arc<LogView>, layout: Layout, schema_name: &str) -> Self {
        Self { identity, log, layout, schema: quoted(schema_name), schema_name: schema_name.to_owned() }
    }

    /// Whether the checkpoints are this directory's, before anything is changed or ended that another one may use.
    ///
    /// # Errors
    /// [`CheckpointMismatch::Copied`] if they are not; else those of PostgreSQL.
    pub(super) async fn check(&self, conn: &mut Connection, store: &CheckpointStore) -> Result<(), SessionError> {
        if let Some(other) = self.identity.copy_of() {
            return Err(CheckpointMismatch::Copied { other }.into());
        }
        for name in store.names(conn).await? {
            let Some(named) = self.identity.named(name) else { return Err(self.copied(conn).await?) };
            let may_be_alive = !named.is_present && !named.is_in_place;
            if may_be_alive && rival::is_at_work(conn, &self.schema, self.identity.log_id()).await? {
                return Err(self.copied(conn).await?);
            }
        }
        Ok(())
    }

    /// How `row`, the checkpoint of `drainer`, fits the log.
    ///
    /// # Errors
    /// [`SessionError::Checkpoint`] if it does not; else those of PostgreSQL.
    pub(super) async fn judge(
        &self,
        conn: &mut Connection,
        drainer: usize,
        row: &CheckpointRow,
    ) -> Result<CheckpointMatch, SessionError> {
        let Some(named) = self.identity.named(row.incarnation) else { return Err(self.copied(conn).await?) };
        let is_own_round = row.round.is_some_and(|round| self.identity.has_round(round));
        let ends = match named.end {
            // Nobody but this process can have moved it, and it has not.
            None if !is_own_round => Some(drained(&self.log, drainer)),
            end => end,
        };
        let views: Vec<_> = views(&self.log, &self.identity, drainer);
        let views: Vec<_> = views.into_iter().map(|view| view.within(ends.as_deref())).collect();
        let found = CheckpointMatch::find(Some(&row.checkpoint), &views, true)?;
        for (progress, mark) in self.log.lanes.iter().zip(&found.marks) {
            if *mark != progress.drained_by(drainer) && !self.is_boundary(progress, *mark) {
                return Err(CheckpointMismatch::NoBoundary { lane: progress.lane.lane(), mark: *mark }.into());
            }
        }
        Ok(found)
    }

    /// Takes the checkpoint of `drainer`, which was read as `row` and judged. Returns what it holds then.
    ///
    /// # Errors
    /// [`SessionError::ClaimLost`] if somebody else changed it meanwhile; else those of PostgreSQL and of the data directory.
    pub(super) async fn claim(
        &self,
        conn: &mut Connection,
        store: &CheckpointStore,
        drainer: usize,
        row: CheckpointRow,
    ) -> Result<CheckpointRow, SessionError> {
        if row.incarnation == Some(self.identity.incarnation()) {
            return Ok(row);
        }
        let (owner, round) = self.claimer()?;
        match store.claim(conn, &owner, drainer, row.clone(), round).await? {
            Some(row) => Ok(row),
            None => Err(self.why_not_claimed(conn, store, (drainer, Some(&row)), round).await?),
        }
    }

    /// Why the checkpoint of `drainer` was not taken by the round of that id, or not made if there was no `row`: somebody else was
    /// faster, or a trigger keeps it or the owner's row as it is.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub(super) async fn why_not_claimed(
        &self,
        conn: &mut Connection,
        store: &CheckpointStore,
        (drainer, row): (usize, Option<&CheckpointRow>),
        round: Uuid,
    ) -> Result<SessionError, Error> {
        let rows = store.lock_all(conn).await?;
        let found = rows.iter().find(|(of, _)| *of == drainer as i32).map(|(_, row)| row);
        let table = match found {
            Some(found) if found.round == Some(round) => "log_owners",
            found if found == row => "drain_checkpoints",
            _ => return Ok(SessionError::ClaimLost),
        };
        let skipped = SchemaObstacle::skipped(conn, &self.schema_name, table).await?;
        Ok(skipped.map_or(SessionError::ClaimLost, SessionError::Skipped))
    }

    /// Who takes checkpoints, and the id of the first round: the data directory knows the name before PostgreSQL does.
    ///
    /// # Errors
    /// [`SessionError::NotNamed`].
    pub(super) fn claimer(&self) -> Result<(Owner, Uuid), SessionError> {
        self.identity.set_named().map_err(SessionError::NotNamed)?;
        let round = ids::random();
        self.identity.add_round(round);
        Ok((Owner::of(&self.identity), round))
    }

    /// The error for checkpoints that another directory has. This one remembers that.
    async fn copied(&self, conn: &mut Connection) -> Result<SessionError, Error> {
        let found = Owner::find(conn, &self.schema, self.identity.log_id()).await?;
        let other = found.unwrap_or_else(LogDirectory::unknown);
        if let Err(error) = self.identity.set_copy_of(other.clone()) {
            tracing::warn!(%error, "that this data directory is a copy could not be written down");
        }
        Ok(CheckpointMismatch::Copied { other }.into())
    }

    fn is_boundary(&self, progress: &LaneProgress, mark: Mark) -> bool {
        let lane = progress.lane.lane();
        let reader_at = |position| {
            LaneReader::new(self.log.disk.clone(), self.layout.clone(), self.log.id, lane, position)
                .with_pending_tail(progress.pending_tail())
                .with_tail_cache(Arc::clone(progress.lane.tail_cache()))
        };
        // The position first: a record that becomes durable meanwhile is behind it.
        let position = progress.lane.durable_end();
        is_boundary(reader_at, mark, Mark { position, ordinal: progress.lane.durable_ordinal() })
    }
}
