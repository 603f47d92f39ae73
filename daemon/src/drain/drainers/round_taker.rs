//! Takes rounds from the log: how large they are, and when there is one.

use super::drainer_board::DrainerBoard;
use crate::{
    drain::{
        round::batch::Batch,
        source::{lane_source::TakeError, log_source::LogSource, partition_share::PartitionShare},
    },
    limits::{
        LANE_PATIENCE, LANE_PATIENCE_AT_END, ROUND_ROWS_FEW_PARTITIONS, ROUND_ROWS_MAX, ROUND_ROWS_PER_PARTITION,
    },
    state::{drain_view::DrainView, log_view::LogView, mark::Mark},
};
use forebay_wal::layout::Layout;
use std::{rc::Rc, sync::Arc};

/// Takes the rounds of one drainer.
pub(super) struct RoundTaker {
    log: Arc<LogView>,
    board: Rc<DrainerBoard>,
    source: LogSource,
    drainer: usize,
    /// Whether a limit of the last round left records in the log.
    is_more_left: bool,
    /// Partitions of the last round.
    last_partitions: usize,
}

/// Whether a round without a record is worth a transaction that only moves the checkpoint.
#[derive(Clone, Copy)]
pub(super) struct MarkPolicy<'a> {
    /// Where the checkpoint is known to be; `None`: such a round is not wanted.
    pub(super) checkpoint: Option<&'a [Mark]>,
    /// Whether the drainer has been idle for a while.
    pub(super) is_quiet: bool,
}

impl RoundTaker {
    /// Takes the records in `share`, behind what is known to be drained.
    pub(super) fn new(
        log: Arc<LogView>,
        drain: Arc<DrainView>,
        layout: Layout,
        board: Rc<DrainerBoard>,
        share: PartitionShare,
    ) -> Self {
        let source = LogSource::new(Arc::clone(&log), drain, layout, share);
        Self { log, board, source, drainer: share.drainer, is_more_left: false, last_partitions: 0 }
    }

    /// Whether the log is known to have another round.
    pub(super) fn is_more_left(&self) -> bool {
        self.is_more_left
    }

    /// Takes what is due, up to `rows_max` rows; `None`: there is nothing.
    pub(super) fn take(&mut self, rows_max: usize, policy: MarkPolicy<'_>) -> Result<Option<Batch>, TakeError> {
        // Before the log is looked at: a message that is signalled later may not be in this round.
        self.board.reset_due(self.drainer);
        let before = self.source.marks();
        let patience = if self.board.finish_by().is_some() { LANE_PATIENCE_AT_END } else { LANE_PATIENCE };
        let worth_taking = self.last_partitions.saturating_mul(ROUND_ROWS_PER_PARTITION);
        let rows_max = worth_taking.clamp(ROUND_ROWS_FEW_PARTITIONS, ROUND_ROWS_MAX).min(rows_max);
        let taken = self.source.take(rows_max, patience)?;
        self.is_more_left = taken.is_more_left;
        let after = self.source.marks();
        if taken.records.is_empty() && !self.is_mark_due(policy, &after) {
            return Ok(None);
        }
        let batch = Batch::new(taken.records, before, after);
        self.last_partitions = batch.groups().partitions().len();
        Ok(Some(batch))
    }

    /// Whether the checkpoint is to pass records of other drainers. It keeps segments from being released, the next start
    /// reads from there, and the number of drainers can change only while all are equally far.
    fn is_mark_due(&self, policy: MarkPolicy<'_>, marks: &[Mark]) -> bool {
        let Some(checkpoint) = policy.checkpoint.filter(|_| !self.board.is_alone()) else { return false };
        let is_quiet = policy.is_quiet || self.board.finish_by().is_some();
        checkpoint.iter().zip(marks).any(|(done, passed)| {
            passed.position.segment > done.position.segment || (is_quiet && passed.ordinal > done.ordinal)
        })
    }

    /// Takes back rounds, which are the last ones taken, in order. Their records are in the next rounds.
    pub(super) fn give_back(&mut self, batches: Vec<Batch>) {
        for batch in batches.into_iter().rev() {
            let (records, before) = batch.into_records();
            self.source.put_back(records, &before);
            self.is_more_left = true;
        }
    }

    /// Continues behind `marks`, one for each lane.
    pub(super) fn go_to(&mut self, marks: &[Mark]) {
        self.source.go_to(marks);
    }

    /// From the next [`go_to`](Self::go_to) on only records in `share` are taken.
    pub(super) fn set_share(&mut self, share: PartitionShare) {
        self.source.set_share(share);
    }

    /// There is nothing to take: lost records and those of other drainers are no longer pending. The checkpoint passes them
    /// with the next round.
    pub(super) fn pass_over(&self) {
        for (progress, mark) in self.log.lanes.iter().zip(self.source.marks()) {
            let done = progress.drained_by(self.drainer);
            if mark.ordinal > done.ordinal {
                progress.set_drained(self.drainer, Mark { ordinal: mark.ordinal, ..done });
            }
        }
    }

    /// When the oldest message that no round has taken was accepted; see [`LogSource::oldest_accepted_us`].
    pub(super) fn oldest_accepted_us(&mut self) -> u64 {
        self.source.oldest_accepted_us()
    }
}
