//! How a drainer comes to a session, and what it means if there is none.

use super::{
    hold_up::{HoldUp, WaitFor},
    mismatch::Mismatch,
};
use crate::{
    drain::{
        session::{Begun, Session, session_error::SessionError},
        settings::DrainSettings,
    },
    postgres::connect::TargetSource,
    state::{drain_view::DrainView, log_view::LogView, place::Place},
};
use forebay_pgwire::PassFileWarning;
use std::sync::Arc;

/// Why a drainer has no session.
pub(super) enum NoSession {
    /// Something is being prepared, and somebody else reports if it fails.
    NotYet,
    /// It is tried again.
    HeldUp(HoldUp),
    /// Log and database do not fit: all drainers stop, and look again from the beginning.
    Mismatch(Mismatch),
}

/// Opens the sessions of one drainer.
pub(super) struct Connector {
    target: TargetSource,
    settings: Arc<DrainSettings>,
    log: Arc<LogView>,
    drain: Arc<DrainView>,
    drainer: usize,
    /// The warning about the password file that was logged last.
    pass_file_warning: Option<PassFileWarning>,
}

impl Connector {
    /// For the drainer of that number, to the server that `target` names.
    pub(super) fn new(
        target: TargetSource,
        settings: Arc<DrainSettings>,
        log: Arc<LogView>,
        drain: Arc<DrainView>,
        drainer: usize,
    ) -> Self {
        Self { target, settings, log, drain, drainer, pass_file_warning: None }
    }

    /// Opens a session and reads its checkpoint. `drainers` are at work; `None`: the session finds out.
    pub(super) async fn open(&mut self, drainers: Option<usize>) -> Result<(Session, Begun), NoSession> {
        // Without a target the private server is still being created.
        let Some(target) = (self.target)() else { return Err(NoSession::NotYet) };
        let opened = Session::open(&target, &self.settings, &self.log, &self.drain, self.drainer).await;
        let mut session = opened.map_err(no_session)?;
        let wanted = usize::from(self.settings.connections);
        let begun = session.begin(drainers, wanted).await.map_err(no_session)?;
        self.report_pass_file(&session);
        Ok((session, begun))
    }

    /// Logs, once, that the password file was not used. An attempt that fails for lack of a password says so in its error.
    fn report_pass_file(&mut self, session: &Session) {
        let warning = session.pass_file_warning();
        if let Some(warning) = warning.filter(|warning| self.pass_file_warning.as_ref() != Some(warning)) {
            tracing::warn!(%warning, "the file of passwords is not used");
            self.pass_file_warning = Some(warning.clone());
        }
    }
}

fn no_session(error: SessionError) -> NoSession {
    match error {
        // The first drainer reports why it has not created it.
        SessionError::NoCheckpoint => NoSession::NotYet,
        SessionError::Checkpoint { mismatch, choice } => {
            NoSession::Mismatch(Mismatch::new("checkpoint_mismatch", &mismatch, choice))
        }
        error @ SessionError::SchemaGone { .. } => {
            NoSession::Mismatch(Mismatch::new("schema_mismatch", &error, Place::Mismatch))
        }
        error @ SessionError::Encoding { .. } => {
            NoSession::HeldUp(HoldUp::new("postgres_refuses", &error, WaitFor::Person))
        }
        error @ SessionError::Schema(_) => NoSession::HeldUp(HoldUp::new("schema_mismatch", &error, WaitFor::Person)),
        SessionError::Postgres(error) => NoSession::HeldUp(HoldUp::by_postgres(&error)),
    }
}
