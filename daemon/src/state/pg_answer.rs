//! What a core hears from the thread that asks PostgreSQL.

use super::unsent_bytes::Unsent;
use crate::http::{ErrorCode, Refusal};

/// The answer to a request.
#[derive(Debug)]
pub enum PgAnswer {
    /// 200 with this JSON.
    Json(Vec<u8>),
    /// 200 with this JSON, which counts as unsent until the core drops it.
    Popped {
        /// The document.
        body: Vec<u8>,
        /// Its count.
        unsent: Unsent,
    },
    /// A piece of a reply that is streamed: whole lines.
    Lines {
        /// The lines, each with its end.
        lines: Vec<u8>,
        /// Where the next piece begins, if there may be one.
        next: Option<String>,
    },
    /// The answer would have so many bytes, which is more than there was room for. It is to be asked for again.
    TooLarge {
        /// About; the next attempt may tell more.
        bytes: usize,
    },
    /// 204.
    Empty,
    /// A refusal.
    Refused(Refusal),
}

impl PgAnswer {
    /// 503 `postgres_away`: PostgreSQL gave no answer.
    #[must_use]
    pub fn away(why: impl std::fmt::Display) -> Self {
        Self::Refused(Refusal::new(
            ErrorCode::PostgresAway,
            format!("no answer over the connection to PostgreSQL: {why}"),
        ))
    }
}
