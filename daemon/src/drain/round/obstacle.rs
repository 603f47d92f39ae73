//! What stands in the way of a row or of a name: an error that may be its own, or PostgreSQL's.

use super::batch::RowRefusal;
use crate::postgres::remedy::{Remedy, remedy};
use forebay_pgwire::{Error, SqlState};

/// SQLSTATE of a dead letter where the connection was lost each time and PostgreSQL gave no reason.
const CONNECTION_LOST: &str = "08006";

/// SQLSTATE of a dead letter whose queue or partition PostgreSQL does not create, without an error.
const NOT_CREATED: &str = "XXFB3";

/// An error as far as a decision and a dead letter need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// What the error asks for if it is about no row.
    pub(crate) remedy: Remedy,
    /// The SQLSTATE, if PostgreSQL gave one.
    pub(crate) sqlstate: Option<SqlState>,
    /// SQLSTATE and reason for a dead letter.
    refusal: RowRefusal,
    /// The whole error, for the log.
    text: String,
}

impl Obstacle {
    /// The obstacle that `error` reports.
    pub(crate) fn of(error: &Error) -> Self {
        let refusal = match error.db_error() {
            Some(db) => RowRefusal { sqlstate: db.sqlstate.as_str().to_owned(), error: db.message.clone() },
            None => RowRefusal { sqlstate: CONNECTION_LOST.to_owned(), error: error.to_string() },
        };
        Self { remedy: remedy(error), sqlstate: error.sqlstate(), refusal, text: error.to_string() }
    }

    /// A queue or partition is missing although PostgreSQL reported no error when it was to create it.
    pub(crate) fn not_created() -> Self {
        let text = "a queue or partition is missing that the drain has created; look for a trigger or a policy on queues \
                    and partitions";
        let refusal = RowRefusal { sqlstate: NOT_CREATED.to_owned(), error: text.to_owned() };
        Self { remedy: Remedy::Pause, sqlstate: None, refusal, text: text.to_owned() }
    }

    /// Whether its code alone says that the row or name is at fault. Any other obstacle may be PostgreSQL's trouble.
    pub(crate) fn is_own(&self) -> bool {
        self.remedy == Remedy::SetAside
    }

    /// Why the message becomes a dead letter.
    pub(crate) fn refusal(&self) -> RowRefusal {
        self.refusal.clone()
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
