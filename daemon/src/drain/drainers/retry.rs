//! What follows from a round that failed: decided without I/O.

use super::hold_up::{HoldUp, WaitFor};
use crate::{
    drain::round::{
        batch::{Batch, RowRefusal},
        round_error::RoundError,
    },
    limits::{PROBE_ROUNDS, REPEATS_AT_ONCE, ROUND_ROWS_MAX},
    postgres::remedy::{Remedy, remedy},
};
use forebay_pgwire::{Error, SqlState};

/// What a drainer does about a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// Send the rounds again: at once, or after a back-off.
    Repeat {
        /// Without a back-off.
        is_at_once: bool,
    },
    /// Take the records again, in smaller rounds.
    TakeFewer {
        /// Without a back-off.
        is_at_once: bool,
    },
    /// Make this message of the first round a dead letter, and send the rounds again.
    SetAside {
        /// Index of its record.
        record: usize,
        /// Why PostgreSQL does not store it.
        refusal: RowRefusal,
    },
    /// Open another session after a back-off, to read the checkpoint.
    Reconnect,
    /// Give the session up, and wait.
    GiveUp(HoldUp),
}

/// What a drainer remembers of failures.
pub(super) struct RetryPolicy {
    /// Rows of the next rounds at most: fewer while a refused row is searched for.
    rows_max: usize,
    /// Rounds that look for known transaction ids first.
    probes_left: u32,
    /// Failures in a row for which a round was repeated at once.
    repeats: u32,
}

impl RetryPolicy {
    /// Nothing has failed.
    pub(super) fn new() -> Self {
        Self { rows_max: ROUND_ROWS_MAX, probes_left: 0, repeats: 0 }
    }

    /// Rows of the next round at most.
    pub(super) fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Whether the next round looks for known transaction ids first.
    pub(super) fn is_probing(&self) -> bool {
        self.probes_left > 0
    }

    /// A round is committed.
    pub(super) fn committed(&mut self) {
        self.probes_left = self.probes_left.saturating_sub(1);
        self.repeats = 0;
        self.rows_max = (self.rows_max * 2).min(ROUND_ROWS_MAX);
    }

    /// What follows from the failure of `batch`. `is_open` says whether the session can be used, with nothing under way.
    pub(super) fn respond(&mut self, error: RoundError, batch: &Batch, is_open: bool) -> Response {
        match error {
            RoundError::Row { record, error } => self.row_refused(record, &error, batch),
            RoundError::Postgres(error) if error.sqlstate() == Some(SqlState::QUERY_CANCELED) => {
                // Most likely the statement's timeout: the same rows would take as long again.
                let rows = batch.records().len();
                tracing::warn!(%error, rows, "a drain transaction is repeated with fewer rows");
                self.take_fewer(batch, false)
            }
            RoundError::Postgres(error) => self.postgres_failed(&error, is_open),
            // Not deleted by somebody meanwhile: PostgreSQL does not create it.
            error @ RoundError::PartitionGone if self.repeats >= REPEATS_AT_ONCE => {
                Response::GiveUp(HoldUp::new("postgres_refuses", &error, WaitFor::Person))
            }
            error @ (RoundError::PartitionGone | RoundError::NumberingChanged) => {
                tracing::debug!(%error, "a drain transaction is repeated");
                self.repeat()
            }
            RoundError::CheckpointMoved => {
                tracing::warn!("the checkpoint is not where it was left; reading it again");
                Response::Reconnect
            }
            error @ RoundError::CountDiffers { .. } => {
                Response::GiveUp(HoldUp::new("copy_count_differs", &error, WaitFor::Person))
            }
            error @ RoundError::UnknownRow { .. } => {
                Response::GiveUp(HoldUp::new("postgres_refuses", &error, WaitFor::Person))
            }
            error @ RoundError::LettersNotKept(_) => {
                Response::GiveUp(HoldUp::new("dead_letters_not_kept", &error, WaitFor::Person))
            }
        }
    }

    fn postgres_failed(&mut self, error: &Error, is_open: bool) -> Response {
        match remedy(error) {
            Remedy::Probe => {
                self.probes_left = PROBE_ROUNDS;
                Response::Repeat { is_at_once: true }
            }
            Remedy::Again if is_open => {
                tracing::warn!(%error, "a drain transaction is repeated");
                self.repeat()
            }
            _ => Response::GiveUp(HoldUp::by_postgres(error)),
        }
    }

    fn repeat(&mut self) -> Response {
        self.repeats += 1;
        Response::Repeat { is_at_once: self.repeats <= REPEATS_AT_ONCE }
    }

    /// A row is refused. If PostgreSQL does not tell which, rounds become smaller until one has a single row.
    fn row_refused(&mut self, record: Option<usize>, error: &Error, batch: &Batch) -> Response {
        let mut rows = batch.copy_order();
        let Some(first) = rows.next() else {
            // Not a message's row.
            return Response::GiveUp(HoldUp::by_postgres(error));
        };
        let single = rows.next().is_none().then_some(first);
        let Some(record) = record.or(single) else { return self.take_fewer(batch, true) };
        let (sqlstate, text) = match error.db_error() {
            Some(db) => (db.sqlstate.as_str().to_owned(), db.message.clone()),
            None => ("XX000".to_owned(), error.to_string()),
        };
        let number = batch.records()[record].number();
        tracing::warn!(number, sqlstate, "PostgreSQL refuses a message; it becomes a dead letter");
        Response::SetAside { record, refusal: RowRefusal { sqlstate, error: text } }
    }

    fn take_fewer(&mut self, batch: &Batch, is_at_once: bool) -> Response {
        self.rows_max = (batch.records().len() / 2).max(1);
        Response::TakeFewer { is_at_once }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::round::test_records::record;
    use forebay_pgwire::DbError;

    fn batch(rows: u64) -> Batch {
        Batch::new((0..rows).map(|n| record(n, "p", None, false)).collect(), Vec::new(), Vec::new())
    }

    fn server(code: &str) -> Error {
        let sqlstate = SqlState::from_bytes(code.as_bytes()).unwrap();
        Error::Server(Box::new(DbError { sqlstate, message: "no".to_owned(), ..DbError::default() }))
    }

    fn row(record: Option<usize>) -> RoundError {
        RoundError::Row { record, error: server("22P02") }
    }

    fn code(response: Response) -> (&'static str, WaitFor) {
        let Response::GiveUp(hold_up) = response else { panic!("{response:?}") };
        (hold_up.code, hold_up.wait_for)
    }

    #[test]
    fn a_refused_row_is_set_aside_at_once_where_it_is_named_and_searched_for_where_not() {
        let mut retry = RetryPolicy::new();
        let refusal = RowRefusal { sqlstate: "22P02".to_owned(), error: "no".to_owned() };
        let named = retry.respond(row(Some(5)), &batch(8), true);
        assert_eq!(named, Response::SetAside { record: 5, refusal: refusal.clone() });
        for expected in [4, 2, 1] {
            let response = retry.respond(row(None), &batch(2 * expected), true);
            assert_eq!((response, retry.rows_max()), (Response::TakeFewer { is_at_once: true }, expected as usize));
        }
        assert_eq!(retry.respond(row(None), &batch(1), true), Response::SetAside { record: 0, refusal });
        (0..20).for_each(|_| retry.committed());
        assert_eq!(retry.rows_max(), ROUND_ROWS_MAX, "rounds become large again");
        let no_row = retry.respond(row(None), &batch(0), true);
        assert_eq!(code(no_row), ("postgres_refuses", WaitFor::Person));
    }

    #[test]
    fn what_passes_by_itself_is_repeated_at_once_a_few_times_and_then_after_a_pause() {
        for error in [|| RoundError::NumberingChanged, || RoundError::Postgres(server("40P01"))] {
            let mut retry = RetryPolicy::new();
            for _ in 0..REPEATS_AT_ONCE {
                assert_eq!(retry.respond(error(), &batch(1), true), Response::Repeat { is_at_once: true });
            }
            assert_eq!(retry.respond(error(), &batch(1), true), Response::Repeat { is_at_once: false });
            retry.committed();
            assert_eq!(retry.respond(error(), &batch(1), true), Response::Repeat { is_at_once: true });
        }
        let mut retry = RetryPolicy::new();
        let cancelled = retry.respond(RoundError::Postgres(server("57014")), &batch(10), true);
        assert_eq!((cancelled, retry.rows_max()), (Response::TakeFewer { is_at_once: false }, 5));
        let lost = retry.respond(RoundError::Postgres(server("40P01")), &batch(1), false);
        assert_eq!(code(lost), ("postgres_away", WaitFor::Postgres));
    }

    #[test]
    fn what_a_person_must_see_to_is_told_with_its_code_and_what_the_checkpoint_knows_is_read_again() {
        let mut retry = RetryPolicy::new();
        let mut respond = |error| retry.respond(error, &batch(1), true);
        assert_eq!(respond(RoundError::CheckpointMoved), Response::Reconnect);
        let person = |code| (code, WaitFor::Person);
        assert_eq!(code(respond(RoundError::CountDiffers { sent: 2, taken: 1 })), person("copy_count_differs"));
        let full = std::io::ErrorKind::StorageFull.into();
        assert_eq!(code(respond(RoundError::LettersNotKept(full))), person("dead_letters_not_kept"));
        assert_eq!(code(respond(RoundError::UnknownRow { index: -1 })), person("postgres_refuses"));
        assert_eq!(code(respond(RoundError::Postgres(server("42P01")))), person("postgres_refuses"));
        assert_eq!(code(respond(RoundError::Postgres(Error::Closed))), ("postgres_away", WaitFor::Postgres));
        for _ in 0..REPEATS_AT_ONCE {
            assert_eq!(respond(RoundError::PartitionGone), Response::Repeat { is_at_once: true });
        }
        assert_eq!(code(respond(RoundError::PartitionGone)), person("postgres_refuses"));
    }
}
