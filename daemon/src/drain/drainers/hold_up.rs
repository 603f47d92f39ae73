//! Why the drain stands still, and how that is logged.

use crate::{
    postgres::remedy::{Remedy, remedy},
    state::delivery_state::Pause,
};
use forebay_pgwire::{Error, SqlState};

/// What a drainer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// PostgreSQL: it is tried again after a back-off.
    Postgres,
    /// A person: the same is tried again after a while.
    Person,
}

/// Why a drainer has no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HoldUp {
    /// The code of its log line, which has an entry in `docs/runbook.md`.
    pub(super) code: &'static str,
    /// The SQLSTATE, if PostgreSQL refused.
    pub(super) sqlstate: Option<SqlState>,
    /// What happened.
    pub(super) reason: String,
    /// What follows.
    pub(super) wait_for: WaitFor,
}

impl HoldUp {
    /// A hold-up without a SQLSTATE.
    pub(super) fn new(code: &'static str, reason: &dyn std::fmt::Display, wait_for: WaitFor) -> Self {
        Self { code, sqlstate: None, reason: reason.to_string(), wait_for }
    }

    /// What an error of PostgreSQL or of the connection means if it is about no row.
    pub(super) fn by_postgres(error: &Error) -> Self {
        let hold_up = match remedy(error) {
            // A refusal that is about no row, such as that of a trigger on another table, is as good as a missing privilege.
            Remedy::Pause | Remedy::SetAside | Remedy::Probe => HoldUp::new("postgres_refuses", error, WaitFor::Person),
            Remedy::Again | Remedy::BackOff => HoldUp::new("postgres_away", error, WaitFor::Postgres),
        };
        Self { sqlstate: error.sqlstate(), ..hold_up }
    }

    /// Why delivery is paused, if a person has to act.
    pub(super) fn pause(&self) -> Option<Pause> {
        (self.wait_for == WaitFor::Person).then(|| Pause { code: self.code, reason: self.reason.clone() })
    }
}

/// Logs hold-ups: a new reason as an error, the same reason at each further attempt only at level DEBUG.
#[derive(Default)]
pub(super) struct HoldUpLog {
    /// Code and SQLSTATE of the last one.
    last: Option<(&'static str, Option<SqlState>)>,
}

impl HoldUpLog {
    /// Logs that `drainer` stands still. Returns whether the reason is another one than before.
    pub(super) fn report(&mut self, drainer: usize, hold_up: &HoldUp) -> bool {
        let HoldUp { code, sqlstate, reason, .. } = hold_up;
        let is_new = self.last.replace((code, *sqlstate)) != Some((code, *sqlstate));
        if is_new {
            tracing::error!(code, drainer, error = reason, "the drain is held up; pushes are kept in the log");
        } else {
            tracing::debug!(code, drainer, error = reason, "the drain is still held up");
        }
        is_new
    }

    /// The drainer goes on. Returns whether it stood still.
    pub(super) fn clear(&mut self) -> bool {
        self.last.take().is_some()
    }
}
