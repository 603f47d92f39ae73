//! What follows from a round that failed: decided without I/O.

use super::hold_up::{HoldUp, WaitFor};
use crate::{
    drain::round::{
        batch::{Batch, RowRefusal},
        obstacle::Obstacle,
        round_error::RoundError,
    },
    limits::{
        PROBE_ROUNDS, REPEATS_AT_ONCE, ROUND_ROWS_MAX, SEARCH_LOSSES_MAX, SIFT_ROWS_MAX, SIFT_SAMPLES_MAX,
        SIFTS_AFTER_TIMEOUT, SUSPICIOUS_LOSSES,
    },
    postgres::remedy::{Remedy, remedy},
};
use forebay_pgwire::{Error, SqlState};

/// How long a drainer waits before it sends a round again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Not at all.
    No,
    /// For a moment: a row is suspected, and others wait for what becomes of it.
    Short,
    /// Each time longer.
    BackOff,
}

/// What a drainer does about a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// Send the rounds again.
    Repeat(Wait),
    /// Take the records again, in smaller rounds.
    TakeFewer(Wait),
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
    /// The same, and take the records again later, with those that have come until then.
    GiveBack(HoldUp),
}

/// What a drainer remembers of failures.
pub(super) struct RetryPolicy {
    /// Rows of the next rounds at most: fewer while refused rows are searched for.
    rows_max: usize,
    /// Rounds that look for known transaction ids first.
    probes_left: u32,
    /// Failures in a row for which a round was repeated at once.
    repeats: u32,
    /// Failures in a row that may have been the fault of a row.
    row_failures: u32,
    /// Sessions in a row that were lost with rows under way.
    losses: u32,
    /// Whether rounds are sifted: they look first for the rows that PostgreSQL does not take.
    is_sifting: bool,
    /// Whether a statement with rows took too long since a round committed.
    is_timed_out: bool,
    /// Rounds that are still sifted although no row was refused.
    sifts_left: u32,
}

impl RetryPolicy {
    /// Nothing has failed.
    pub(super) fn new() -> Self {
        Self {
            rows_max: ROUND_ROWS_MAX,
            probes_left: 0,
            repeats: 0,
            row_failures: 0,
            losses: 0,
            is_sifting: false,
            is_timed_out: false,
            sifts_left: 0,
        }
    }

    /// Rows of the next round at most.
    pub(super) fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Whether the next round looks for known transaction ids first.
    pub(super) fn is_probing(&self) -> bool {
        self.probes_left > 0
    }

    /// Whether the next round looks first for the rows that PostgreSQL does not take.
    pub(super) fn is_sifting(&self) -> bool {
        self.is_sifting
    }

    /// Whether rows are searched for with which sessions are lost. That ends: a server that ends all sessions is backed off from.
    pub(super) fn is_searching(&self) -> bool {
        self.is_sifting && (SUSPICIOUS_LOSSES..SEARCH_LOSSES_MAX).contains(&self.losses)
    }

    /// A round is committed, and so many of its messages are dead letters. As long as there are some, more are expected.
    pub(super) fn committed(&mut self, refused: usize) {
        self.probes_left = self.probes_left.saturating_sub(1);
        (self.repeats, self.row_failures, self.losses) = (0, 0, 0);
        let are_slow = std::mem::take(&mut self.is_timed_out) || self.sifts_left > 0;
        let is_renewed = are_slow && refused > 0;
        self.sifts_left = if is_renewed { SIFTS_AFTER_TIMEOUT } else { self.sifts_left.saturating_sub(1) };
        self.is_sifting &= refused > 0 || self.sifts_left > 0;
        self.rows_max = if self.is_sifting { SIFT_ROWS_MAX } else { (self.rows_max * 2).min(ROUND_ROWS_MAX) };
    }

    /// What follows from the failure of `batch`. `is_open` says whether the session can be used, with nothing under way.
    pub(super) fn respond(&mut self, error: RoundError, batch: &Batch, is_open: bool) -> Response {
        match error {
            RoundError::Row { record, error } => self.row_failed(record, &error, batch),
            RoundError::Undecided(obstacle) => {
                tracing::debug!(%obstacle, "a row or a name fails alone; it is tried again");
                Response::Repeat(Wait::Short)
            }
            RoundError::NoneAccepted(obstacle) => {
                // Another row may be accepted, so that it is known whose fault it is.
                self.rows_max = (self.rows_max * 2).min(ROUND_ROWS_MAX);
                Response::GiveBack(HoldUp::by_obstacle(&obstacle))
            }
            RoundError::NoRowFits(obstacle) => {
                // A single one shows whether that is mended.
                self.rows_max = 1;
                Response::GiveBack(HoldUp::by_schema(&obstacle))
            }
            RoundError::Postgres(error) if error.sqlstate() == Some(SqlState::QUERY_CANCELED) => {
                self.cancelled(&error, batch)
            }
            RoundError::Postgres(error) => self.postgres_failed(&error, is_open),
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
                Response::Repeat(Wait::No)
            }
            Remedy::Again if is_open => {
                self.tell_repeat(error);
                self.repeat_after(error)
            }
            _ => {
                if error.ends_connection() {
                    self.losses += 1;
                    if self.losses >= SUSPICIOUS_LOSSES {
                        self.is_sifting = true;
                    }
                }
                Response::GiveUp(HoldUp::by_postgres(error))
            }
        }
    }

    /// Logs that a transaction is repeated, once until a round commits.
    fn tell_repeat(&self, error: &Error) {
        if self.repeats == 0 && self.row_failures <= 1 {
            tracing::warn!(%error, "a drain transaction is repeated");
        } else {
            tracing::debug!(%error, "a drain transaction is repeated");
        }
    }

    /// As long as it passes by itself.
    fn repeat_after(&mut self, error: &Error) -> Response {
        match self.repeat() {
            Response::Repeat(Wait::BackOff) => Response::GiveUp(HoldUp::by_postgres(error)),
            response => response,
        }
    }

    fn repeat(&mut self) -> Response {
        self.repeats += 1;
        Response::Repeat(if self.repeats <= REPEATS_AT_ONCE { Wait::No } else { Wait::BackOff })
    }

    /// Rows met an error. A row is at fault at once if the SQLSTATE says so, and otherwise suspected from the second time on.
    fn row_failed(&mut self, record: Option<usize>, error: &Error, batch: &Batch) -> Response {
        let mut rows = batch.copy_order();
        let Some(first) = rows.next() else {
            // Not a message's row.
            return Response::GiveUp(HoldUp::by_postgres(error));
        };
        let record = record.or(rows.next().is_none().then_some(first));
        let obstacle = Obstacle::of(error);
        self.row_failures += 1;
        if batch.is_sifted() {
            // Each row was accepted, and not all of them together.
            return match record {
                Some(record) if obstacle.is_own() => Response::SetAside { record, refusal: obstacle.refusal() },
                _ if batch.records().len() > 1 => self.take_fewer(batch, obstacle.is_own()),
                _ => Response::GiveBack(HoldUp::by_obstacle(&obstacle)),
            };
        }
        if obstacle.sqlstate == Some(SqlState::QUERY_CANCELED) {
            // Most likely the statement's timeout. Everybody waited for it already, and would again.
            if !std::mem::replace(&mut self.is_timed_out, true) {
                tracing::error!(
                    code = "rows_timed_out",
                    %error,
                    "PostgreSQL cancelled a statement with rows; looking for the row that takes too long"
                );
            }
            return self.sift(batch);
        }
        if obstacle.is_own() || self.row_failures > 1 {
            return self.sift(batch);
        }
        match obstacle.remedy {
            Remedy::Again => {
                self.tell_repeat(error);
                Response::Repeat(Wait::No)
            }
            _ => {
                tracing::debug!(%error, "a drain transaction is repeated");
                Response::Repeat(Wait::No)
            }
        }
    }

    /// Most likely the statement's timeout: the same rows would take as long again, if they are many.
    fn cancelled(&mut self, error: &Error, batch: &Batch) -> Response {
        let rows = batch.records().len();
        if rows <= SIFT_SAMPLES_MAX {
            self.tell_repeat(error);
            return self.repeat_after(error);
        }
        tracing::warn!(%error, rows, "a drain transaction is repeated with fewer rows");
        self.take_fewer(batch, false)
    }

    /// From now on rounds are sifted.
    fn sift(&mut self, batch: &Batch) -> Response {
        self.is_sifting = true;
        self.rows_max = self.rows_max.min(SIFT_ROWS_MAX);
        let is_small = batch.records().len() <= SIFT_ROWS_MAX;
        if is_small { Response::Repeat(Wait::No) } else { Response::TakeFewer(Wait::No) }
    }

    fn take_fewer(&mut self, batch: &Batch, is_at_once: bool) -> Response {
        self.rows_max = (batch.records().len() / 2).max(1);
        Response::TakeFewer(if is_at_once { Wait::No } else { Wait::BackOff })
    }
}

#[cfg(test)]
mod tests;
