//! How the drain comes to a session, goes on from its checkpoint, and says why there is none.

use super::{Drainer, Next};
use crate::{
    drain::{
        crew::Share,
        session::{Session, SessionError},
        thread::DrainFailed,
    },
    limits::BACKOFF_MIN,
    postgres::{
        remedy::{Remedy, remedy},
        schema::SchemaError,
    },
    state::{database_health::DatabaseHealth, mark::Mark},
};
use forebay_pgwire::{Error, SqlState};
use std::time::Instant;

impl Drainer {
    pub(super) async fn connect(&mut self) -> Result<Next, DrainFailed> {
        let Some(config) = (self.crew.target)() else {
            // The private server is being made.
            return Ok(Next::Reconnect);
        };
        let opened = match Session::open(&config, &self.shared, self.index).await {
            Ok(mut session) => session.begin(self.crew.size()).await.map(|begun| (session, begun)),
            Err(error) => Err(error),
        };
        let (session, (drainers, marks)) = match opened {
            Ok(opened) => opened,
            // The first one tells what is the matter.
            Err(SessionError::NoCheckpoint) => return Ok(Next::Reconnect),
            Err(SessionError::Checkpoint(what)) => {
                tracing::error!(
                    code = "checkpoint_mismatch",
                    what,
                    "the database and the log do not belong together; the daemon ends"
                );
                return Err(DrainFailed(what));
            }
            Err(error @ SessionError::Encoding(_)) => {
                self.away("postgres_refuses", None, &error.to_string());
                return Ok(Next::Pause);
            }
            Err(SessionError::Schema(error @ (SchemaError::TooNew { .. } | SchemaError::NeedsMigration { .. }))) => {
                self.away("schema_mismatch", None, &error.to_string());
                return Ok(Next::Pause);
            }
            Err(SessionError::Schema(SchemaError::Postgres(error)) | SessionError::Postgres(error)) => {
                return Ok(self.unreachable(&error));
            }
        };
        self.warn_of_pass_file(&session);
        if self.crew.size().is_none() {
            self.sources.set_share(Share { drainer: self.index, drainers });
            self.crew.call(drainers);
        }
        self.adopt(session, &marks);
        self.remember(true).await;
        Ok(Next::Now)
    }

    /// Lets the data directory remember how far the drain is.
    pub(super) async fn remember(&mut self, quiet: bool) {
        if let Some(session) = &mut self.session
            && let Err(error) = session.remember(quiet).await
        {
            // The next transaction finds out what that means.
            tracing::debug!(%error, "PostgreSQL could not be asked where it stands");
        }
    }

    /// Tells of a file of passwords that was not used, once, though the log-in needed none. One that fails for want of a
    /// password tells of it by itself.
    pub(super) fn warn_of_pass_file(&mut self, session: &Session) {
        let warning = session.conn.pass_file_warning();
        if let Some(warning) = warning.filter(|warning| self.pass_file_told.as_ref() != Some(warning)) {
            tracing::warn!(%warning, "the file of passwords is not used");
            self.pass_file_told = Some(warning.clone());
        }
    }

    /// Goes on from what the checkpoint says.
    pub(super) fn adopt(&mut self, session: Session, marks: &[Mark]) {
        self.commit_again();
        while let Some(batch) = self.taken.pop_front_if(|batch| session.has_reached(&batch.after)) {
            tracing::info!("the transaction whose answer was lost had committed");
            self.committed(&batch);
        }
        if self.taken.front().is_none_or(|batch| batch.before != marks) {
            self.taken.clear();
            self.sources.go_to(marks);
        }
        self.note_committed(marks);
        if self.held_up_by.take().is_some() || self.shared.health.get() == DatabaseHealth::Unknown {
            tracing::info!(drainer = self.index, pending = self.shared.log.pending(), "connected to PostgreSQL");
        }
        self.backoff = BACKOFF_MIN;
        self.last_used = Instant::now();
        self.session = Some(session);
        self.crew.answered(self.index);
    }

    /// Gives the session up. The reason is told when it is another one than was told last, not at every attempt.
    pub(super) fn away(&mut self, code: &'static str, sqlstate: Option<SqlState>, error: &str) {
        self.session = None;
        let drainer = self.index;
        if self.held_up_by.replace((code, sqlstate)) != Some((code, sqlstate)) {
            tracing::error!(code, drainer, error, "the drain is held up; pushes are kept in the log");
        } else {
            tracing::debug!(code, drainer, error, "the drain is still held up");
        }
        self.crew.held_up(self.index);
        self.shared.health.set(DatabaseHealth::Disconnected);
    }

    pub(super) fn unreachable(&mut self, error: &Error) -> Next {
        match remedy(error) {
            // A refusal that names no row, such as that of a trigger on another table, is as good as a missing right.
            Remedy::Pause | Remedy::SetAside | Remedy::Probe => {
                self.away("postgres_refuses", error.sqlstate(), &error.to_string());
                Next::Pause
            }
            _ => {
                self.away("postgres_away", error.sqlstate(), &error.to_string());
                Next::Reconnect
            }
        }
    }
}
