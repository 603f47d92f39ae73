//! What the drain is started with.

use super::{decisions::Decisions, settings::DrainSettings};
use crate::{
    postgres::connect::TargetSource,
    state::{
        commits::Commits, database_health::HealthMonitor, drain_view::DrainView, log_identity::LogIdentity,
        log_view::LogView, mailbox::Mailboxes,
    },
};
use forebay_wal::layout::Layout;
use std::sync::Arc;

/// What the drain is started with. Each of its parts keeps only what it uses.
pub struct DrainStart {
    /// The log.
    pub log: Arc<LogView>,
    /// What the cores and the drain tell each other.
    pub drain: Arc<DrainView>,
    /// Where the drain hears that a person has decided where it continues.
    pub decisions: Arc<Decisions>,
    /// Who the log is to PostgreSQL.
    pub identity: Arc<LogIdentity>,
    /// Whether PostgreSQL answers.
    pub health: Arc<HealthMonitor>,
    /// Where the queue hears which partitions have new messages.
    pub commits: Arc<Commits>,
    /// Where clients' cores hear what is delivered.
    pub mailboxes: Arc<Mailboxes>,
    /// The settings.
    pub settings: Arc<DrainSettings>,
    /// The log's files.
    pub layout: Layout,
    /// The server.
    pub target: TargetSource,
}
