//! The log lines about refused messages: a few, however many messages there are.

use crate::{
    drain::round::batch::Batch,
    limits::{REFUSALS_ERROR_INTERVAL, REFUSALS_WARN_INTERVAL, REFUSED_IN_A_ROW},
};
use std::time::Instant;

/// A refused message as an example.
struct Example {
    number: u64,
    sqlstate: String,
}

/// Counts the refused messages of one drainer, and logs them.
#[derive(Default)]
pub(super) struct RefusalLog {
    /// Refused since the last message that was accepted.
    in_a_row: u64,
    /// Refused and not logged yet, and the first of them.
    unlogged: u64,
    example: Option<Example>,
    warned_at: Option<Instant>,
    reported_at: Option<Instant>,
}

impl RefusalLog {
    /// Messages that were refused since the last one that was accepted.
    pub(super) fn in_a_row(&self) -> u64 {
        self.in_a_row
    }

    /// `batch` is committed.
    pub(super) fn committed(&mut self, batch: &Batch) {
        if batch.copy_order().next().is_some() {
            self.in_a_row = 0;
        }
        for (index, refusal) in batch.refused() {
            self.in_a_row += 1;
            self.unlogged += 1;
            self.example.get_or_insert_with(|| Example {
                number: batch.records()[index].number(),
                sqlstate: refusal.sqlstate.clone(),
            });
        }
        self.log();
    }

    /// Logs what is not logged yet, unless that was done shortly before.
    pub(super) fn log(&mut self) {
        let is_due = |at: Option<Instant>, interval| at.is_none_or(|at| at.elapsed() >= interval);
        let refused = self.unlogged;
        let Some(Example { number, sqlstate }) = &self.example else { return };
        if self.in_a_row >= REFUSED_IN_A_ROW {
            if is_due(self.reported_at, REFUSALS_ERROR_INTERVAL) {
                let in_a_row = self.in_a_row;
                tracing::error!(
                    code = "rows_refused",
                    refused,
                    in_a_row,
                    number,
                    sqlstate,
                    "PostgreSQL refuses one message after the other; they are dead letters"
                );
                self.reported_at = Some(Instant::now());
                self.forget();
            }
        } else if is_due(self.warned_at, REFUSALS_WARN_INTERVAL) {
            tracing::warn!(refused, number, sqlstate, "PostgreSQL refuses messages; they are dead letters");
            self.warned_at = Some(Instant::now());
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.unlogged = 0;
        self.example = None;
    }
}
