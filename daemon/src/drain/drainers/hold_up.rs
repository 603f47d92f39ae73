//! Why the drain stands still, and how that is logged.

use crate::{
    drain::round::obstacle::Obstacle,
    postgres::{remedy::Remedy, schema::obstacle::SchemaObstacle},
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
        Self::by_obstacle(&Obstacle::of(error))
    }

    /// The schema takes no message.
    pub(super) fn by_schema(obstacle: &SchemaObstacle) -> Self {
        HoldUp::new("schema_takes_no_row", obstacle, WaitFor::Person)
    }

    /// What an obstacle means if it is about no row and no name.
    pub(super) fn by_obstacle(obstacle: &Obstacle) -> Self {
        let hold_up = match obstacle.remedy {
            // A refusal that is about no row, such as that of a trigger on another table, is as good as a missing privilege.
            Remedy::Pause | Remedy::SetAside | Remedy::Probe => {
                HoldUp::new("postgres_refuses", obstacle, WaitFor::Person)
            }
            Remedy::Again | Remedy::BackOff => HoldUp::new("postgres_away", obstacle, WaitFor::Postgres),
        };
        Self { sqlstate: obstacle.sqlstate, ..hold_up }
    }

    /// Why delivery is paused, if a person has to act.
    pub(super) fn pause(&self) -> Option<Pause> {
        (self.wait_for == WaitFor::Person).then(|| Pause { code: self.code, reason: self.reason.clone() })
    }
}

/// Logs hold-ups: a new reason as an error, the same reason at each further attempt only at level DEBUG. That there is a
/// session again is no end of a hold-up: the next transaction may meet the same error.
#[derive(Default)]
pub(super) struct HoldUpLog {
    /// Code and SQLSTATE of the last one, until PostgreSQL has carried something out.
    last: Option<(&'static str, Option<SqlState>)>,
    /// Whether it was logged that there is a session again.
    is_connection_logged: bool,
}

impl HoldUpLog {
    /// Logs that `drainer` stands still. Returns whether the reason is another one than before.
    pub(super) fn report(&mut self, drainer: usize, hold_up: &HoldUp) -> bool {
        let HoldUp { code, sqlstate, reason, .. } = hold_up;
        let is_new = self.last.replace((code, *sqlstate)) != Some((code, *sqlstate));
        if is_new {
            self.is_connection_logged = false;
            tracing::error!(code, drainer, error = reason, "the drain is held up; pushes are kept in the log");
        } else {
            tracing::debug!(code, drainer, error = reason, "the drain is still held up");
        }
        is_new
    }

    /// The drainer has a session. Returns whether it stood still, the first time after each report.
    pub(super) fn connected(&mut self) -> bool {
        self.last.is_some() && !std::mem::replace(&mut self.is_connection_logged, true)
    }

    /// PostgreSQL has carried out all that was to be done.
    pub(super) fn clear(&mut self) {
        self.last = None;
    }
}
