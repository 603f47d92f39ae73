//! What the drain tells the queue: which partitions have new messages.

use super::inbox::Inbox;
use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

/// A partition that has new messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The queue's name.
    pub queue: Box<str>,
    /// The partition's name.
    pub partition: Box<str>,
    /// The partition's id.
    pub partition_id: i64,
    /// The number of its last message.
    pub last: i64,
    /// Bytes of the largest payload among the new ones.
    pub largest_bytes: u64,
}

/// The way from the drain to the queue.
pub struct Commits {
    /// A round each.
    inbox: Inbox<Vec<Commit>>,
    is_wanted: AtomicBool,
}

impl Commits {
    /// Nobody wants to know.
    ///
    /// # Errors
    /// Those of `eventfd`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { inbox: Inbox::new()?, is_wanted: AtomicBool::new(false) })
    }

    /// From now on each commit is told. Whoever reads PostgreSQL after this call misses none.
    pub fn want(&self) {
        self.is_wanted.store(true, Ordering::SeqCst);
    }

    /// Whether anybody wants to know.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::SeqCst)
    }

    /// A round was committed.
    pub fn tell(&self, round: Vec<Commit>) {
        if self.inbox.push(round).is_err() {
            tracing::debug!("nobody hears of commits any more");
        }
    }

    /// What was told.
    #[must_use]
    pub fn inbox(&self) -> &Inbox<Vec<Commit>> {
        &self.inbox
    }
}
