//! How a drainer comes to a session, and what it means if there is none.

use super::{
    hold_up::{HoldUp, WaitFor},
    mismatch::Mismatch,
};
use crate::{
    drain::{
        checkpoint::checkpoint_match::CheckpointMismatch,
        session::{Begun, Session, SessionContext, remarks::Remarks, session_error::SessionError},
    },
    postgres::connect::TargetSource,
    state::place::Place,
};
use forebay_pgwire::PassFileWarning;

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
    context: SessionContext,
    /// What differs in the schema, as it was logged last.
    remarks: Remarks,
    /// The warning about the password file that was logged last.
    pass_file_warning: Option<PassFileWarning>,
}

impl Connector {
    /// For the drainer of `context`, to the server that `target` names.
    pub(super) fn new(target: TargetSource, context: SessionContext) -> Self {
        Self { target, context, remarks: Remarks::default(), pass_file_warning: None }
    }

    /// Opens a session and takes its checkpoint. `drainers` are at work; `None`: the session finds out.
    pub(super) async fn open(&mut self, drainers: Option<usize>) -> Result<(Session, Begun), NoSession> {
        // Without a target the private server is still being created.
        let Some(target) = (self.target)() else { return Err(NoSession::NotYet) };
        let opened = Session::open(&target, &self.context).await;
        let mut session = opened.map_err(no_session)?;
        let wanted = usize::from(self.context.settings.connections);
        let begun = session.begin(drainers, wanted).await.map_err(no_session)?;
        self.report_pass_file(&session);
        self.report_remarks(&session);
        Ok((session, begun))
    }

    /// Logs, once, what differs in the schema. The first drainer speaks for all.
    pub(super) fn report_remarks(&mut self, session: &Session) {
        let remarks = session.remarks();
        if self.context.drainer == 0 && self.remarks != *remarks {
            remarks.log();
            self.remarks = remarks.clone();
        }
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

/// What it means that a session cannot be opened, or not be used.
pub(super) fn no_session(error: SessionError) -> NoSession {
    match error {
        // The first drainer reports why it has not created it.
        SessionError::NoCheckpoint => NoSession::NotYet,
        SessionError::ClaimLost => {
            tracing::warn!("somebody else changed the checkpoint while it was taken; it is read again");
            NoSession::NotYet
        }
        error @ SessionError::NotNamed(_) => {
            NoSession::HeldUp(HoldUp::new("incarnation_not_written", &error, WaitFor::Person))
        }
        SessionError::Checkpoint { mismatch, choice } => NoSession::Mismatch(match &mismatch {
            CheckpointMismatch::Copied { .. } => Mismatch::new("log_copied", &mismatch, choice),
            _ => Mismatch::new("checkpoint_mismatch", &mismatch, choice),
        }),
        error @ SessionError::SchemaGone { .. } => {
            NoSession::Mismatch(Mismatch::new("schema_mismatch", &error, Some(Place::Mismatch)))
        }
        error @ (SessionError::Encoding { .. } | SessionError::Untrusted(_)) => {
            NoSession::HeldUp(HoldUp::new("postgres_refuses", &error, WaitFor::Person))
        }
        SessionError::Skipped(obstacle) => NoSession::HeldUp(HoldUp::by_schema(&obstacle)),
        error @ SessionError::Schema(_) => NoSession::HeldUp(HoldUp::new("schema_mismatch", &error, WaitFor::Person)),
        SessionError::Postgres(error) => NoSession::HeldUp(HoldUp::by_postgres(&error)),
    }
}
