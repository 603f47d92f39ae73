//! What follows from a commit: figures, released segments, and answers to the clients that wait.

use crate::{
    drain::{checkpoint::lane_views::set_drained, round::batch::Batch, start::DrainStart},
    state::{
        commits::Commits,
        drain_view::DrainView,
        log_view::LogView,
        mailbox::{Letter, Mailboxes},
        mark::Mark,
    },
};
use std::sync::{Arc, atomic::Ordering};

/// Tells the rest of the daemon what one drainer has delivered.
pub(super) struct Deliverer {
    log: Arc<LogView>,
    drain: Arc<DrainView>,
    mailboxes: Arc<Mailboxes>,
    commits: Arc<Commits>,
    drainer: usize,
    /// Where the drainer's checkpoint is known to be, by lane; empty before the first session.
    checkpoint: Vec<Mark>,
}

impl Deliverer {
    /// For the drainer of that number.
    pub(super) fn new(start: &DrainStart, drainer: usize) -> Self {
        let DrainStart { log, drain, mailboxes, commits, .. } = start;
        Self {
            log: Arc::clone(log),
            drain: Arc::clone(drain),
            mailboxes: Arc::clone(mailboxes),
            commits: Arc::clone(commits),
            drainer,
            checkpoint: Vec::new(),
        }
    }

    /// Where the drainer's checkpoint is known to be, by lane.
    pub(super) fn checkpoint(&self) -> &[Mark] {
        &self.checkpoint
    }

    /// The drainer's checkpoint is at `marks`: segments before all checkpoints are released.
    pub(super) fn set_checkpoint(&mut self, marks: &[Mark]) {
        self.checkpoint = marks.to_vec();
        set_drained(&self.log, self.drainer, marks);
        self.log.lanes.iter().for_each(|progress| self.log.release(progress));
    }

    /// `batch` is committed.
    pub(super) fn deliver(&mut self, batch: &Batch) {
        let counters = &self.drain.counters;
        let (refused, duplicates) = (batch.refused().count(), batch.duplicates());
        let rows = batch.records().len() - refused - duplicates;
        counters.drain_transactions.fetch_add(1, Ordering::Relaxed);
        counters.drained_messages.fetch_add(rows as u64, Ordering::Relaxed);
        counters.duplicate_messages.fetch_add(duplicates as u64, Ordering::Relaxed);
        self.drain.dead_letters.fetch_add(refused as u64, Ordering::Relaxed);
        self.set_checkpoint(batch.after());
        // Before the producers hear of it, who may ask for their messages at once.
        if self.commits.is_wanted() {
            self.commits.tell(batch.commits());
        }
        let deliveries = batch.deliveries(self.log.lanes.len());
        for (progress, deliveries) in self.log.lanes.iter().zip(deliveries).filter(|(_, of_lane)| !of_lane.is_empty()) {
            // Nobody waits for the messages of a lane without a core: an earlier run of the daemon wrote it.
            if let Some(mailbox) = self.mailboxes.get(progress.lane.lane()) {
                mailbox.send(Letter::Committed(deliveries));
            }
        }
    }
}
