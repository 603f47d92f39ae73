//! What the pushes of one core need.

use super::checks::log_full;
use crate::{
    api::scratch::Scratch,
    config::Config,
    http::{ErrorCode, Refusal},
    ids::IdMaker,
    ingest::{LaneWriter, PendingCommits},
    state::{database_health::HealthMonitor, drain_view::DrainView, log_view::LogView},
};
use forebay_wal::lane::AppendError;
use std::{rc::Rc, sync::Arc};

/// The way of one core's pushes into the log.
pub(in crate::api) struct Pushes {
    pub(super) lane: Rc<LaneWriter>,
    pub(super) log: Arc<LogView>,
    pub(super) drain: Arc<DrainView>,
    pub(super) config: Arc<Config>,
    pub(super) commits: Rc<PendingCommits>,
    pub(super) health: Arc<HealthMonitor>,
    pub(super) ids: IdMaker,
    /// For the heads of messages.
    pub(super) heads: Scratch,
}

impl Pushes {
    pub(in crate::api) fn new(
        config: Arc<Config>,
        lane: Rc<LaneWriter>,
        commits: Rc<PendingCommits>,
        log: Arc<LogView>,
        drain: Arc<DrainView>,
        health: Arc<HealthMonitor>,
    ) -> Self {
        Self { lane, log, drain, config, commits, health, ids: IdMaker::new(), heads: Scratch::default() }
    }

    /// Where a push may not make its queue, refuses one that is not there.
    pub(super) fn check_queue_exists(&self, queue: &str) -> Result<(), Refusal> {
        if self.config.auto_create_queues {
            return Ok(());
        }
        match self.drain.has_queue(queue) {
            Some(true) => Ok(()),
            Some(false) => Err(Refusal::new(ErrorCode::QueueNotFound, format!("queue {queue} does not exist"))),
            None => Err(ErrorCode::QueuesUnknown.into()),
        }
    }

    /// The refusal of a push that was not appended.
    pub(super) fn refusal(&self, error: AppendError) -> Refusal {
        match error {
            AppendError::TooLarge { max_bytes } => {
                Refusal::new(ErrorCode::BodyTooLarge, format!("a push takes at most {max_bytes} bytes in the log"))
            }
            AppendError::Full => log_full(&self.drain, &self.log),
            // Only while the daemon shuts down: otherwise a push waits until the lane is no longer busy.
            AppendError::Busy => ErrorCode::ShuttingDown.into(),
            AppendError::Poisoned => self.log.refusal().unwrap_or(ErrorCode::StorageFailed).into(),
        }
    }
}
