//! What the drain makes of a round that failed.

use super::{Drainer, Next};
use crate::{
    drain::{
        batch::{Refusal, Verdict},
        round::RoundError,
    },
    limits::{PROBE_ROUNDS, REPEATS_AT_ONCE},
    postgres::remedy::{Remedy, remedy},
};
use forebay_pgwire::{Error, SqlState};

impl Drainer {
    /// What follows from a round that failed.
    pub(super) fn failed(&mut self, error: RoundError) -> Next {
        let is_open = self.session.as_ref().is_some_and(|session| !session.is_broken());
        if is_open {
            // Rolled back for sure; otherwise the checkpoint tells whether it was.
            self.commit_again();
        }
        match error {
            RoundError::Row { record, error } => self.refused(record, &error),
            RoundError::Postgres(error) if error.sqlstate() == Some(SqlState::QUERY_CANCELED) => {
                // Most likely the statement's timeout: the same again would take as long.
                let rows = self.taken.front().map_or(0, |batch| batch.records.len());
                tracing::warn!(%error, rows, "a drain transaction is repeated with fewer rows");
                self.take_fewer();
                Next::Reconnect
            }
            RoundError::Postgres(error) => self.trouble(&error),
            RoundError::PartitionGone | RoundError::Misjudged => Next::Now,
            RoundError::CheckpointMoved => {
                tracing::warn!("the checkpoint is not where it was left; reading it again");
                self.session = None;
                Next::Reconnect
            }
            RoundError::CountDiffers { sent, taken } => {
                let error = format!("PostgreSQL took {taken} of {sent} rows without an error");
                self.away("copy_count_differs", None, &error);
                Next::Pause
            }
            RoundError::LettersNotKept(error) => {
                self.away("dead_letters_not_kept", None, &error.to_string());
                Next::Pause
            }
        }
    }

    pub(super) fn trouble(&mut self, error: &Error) -> Next {
        match remedy(error) {
            Remedy::Probe => {
                self.probes_left = PROBE_ROUNDS;
                Next::Now
            }
            Remedy::Again if self.session.as_ref().is_some_and(|session| !session.is_broken()) => {
                tracing::warn!(%error, "a drain transaction is repeated");
                self.repeats += 1;
                if self.repeats > REPEATS_AT_ONCE { Next::Reconnect } else { Next::Now }
            }
            _ => self.unreachable(error),
        }
    }

    /// Sets a refused row aside, or makes the round smaller until it is known which one it is.
    pub(super) fn refused(&mut self, record: Option<usize>, error: &Error) -> Next {
        let Some(batch) = self.taken.front_mut() else { return Next::Now };
        let rows: Vec<usize> = batch.copy_order().collect();
        if rows.is_empty() {
            // It is no message's.
            return self.unreachable(error);
        }
        let record = record.or_else(|| (rows.len() == 1).then(|| rows[0]));
        let Some(index) = record else {
            self.take_fewer();
            return Next::Now;
        };
        let (sqlstate, text) = match error.db_error() {
            Some(db) => (db.sqlstate.as_str().to_owned(), db.message.clone()),
            None => ("XX000".to_owned(), error.to_string()),
        };
        let number = batch.records[index].number;
        tracing::warn!(number, sqlstate, "PostgreSQL refuses a message; it is set aside");
        batch.verdicts[index] = Verdict::Refused(Box::new(Refusal { sqlstate, error: text }));
        Next::Now
    }

    /// Gives the records of the rounds back, to be taken half as many at a time.
    pub(super) fn take_fewer(&mut self) {
        self.rows_max = self.taken.front().map_or(1, |batch| (batch.records.len() / 2).max(1));
        self.left_some = true;
        while let Some(batch) = self.taken.pop_back() {
            self.sources.give_back(batch.records, &batch.before);
        }
    }
}
