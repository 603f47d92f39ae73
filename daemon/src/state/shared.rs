//! The views of the daemon's state, for the rooms that still need several of them.

use super::{
    database_health::HealthMonitor, drain_view::DrainView, log_view::LogView, mailbox::Letter, mailbox::Mailboxes,
    pulse::Pulse,
};
use crate::{access::Gate, config::Config};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Shared by all threads.
pub struct Shared {
    /// The settings.
    pub config: Arc<Config>,
    /// Who may do what.
    pub gate: Arc<Gate>,
    /// The log.
    pub log: Arc<LogView>,
    /// The drain.
    pub drain: Arc<DrainView>,
    /// Whether PostgreSQL answers.
    pub health: Arc<HealthMonitor>,
    /// The cores' mailboxes.
    pub mailboxes: Arc<Mailboxes>,
    /// The cores' signs of life.
    pub pulses: Arc<[Pulse]>,
    /// Whether the daemon is to end.
    pub stopping: AtomicBool,
}

impl Shared {
    /// Whether the daemon is to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Lets the daemon end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.mailboxes.send_to_all(|| Letter::Stop);
    }
}
