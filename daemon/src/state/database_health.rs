//! Whether PostgreSQL answers, as the drain's own connection shows it.

use super::mailbox::{Letter, Mailboxes};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What is known of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseHealth {
    /// Not tried yet.
    Unknown = 0,
    /// The last transaction committed.
    Connected = 1,
    /// The connection failed, or the drain is paused.
    Disconnected = 2,
}

/// Holds the [`DatabaseHealth`], and tells the cores when PostgreSQL goes away.
pub struct HealthMonitor {
    health: AtomicU8,
    /// When PostgreSQL answered last, in milliseconds since `started`.
    answered_ms: AtomicU64,
    started: Instant,
    mailboxes: Arc<Mailboxes>,
}

impl HealthMonitor {
    /// Nothing is known yet. The cores behind `mailboxes` are told when PostgreSQL goes away.
    #[must_use]
    pub fn new(mailboxes: Arc<Mailboxes>) -> Self {
        Self {
            health: AtomicU8::new(DatabaseHealth::Unknown as u8),
            answered_ms: AtomicU64::new(0),
            started: Instant::now(),
            mailboxes,
        }
    }

    /// What is known of PostgreSQL.
    pub fn get(&self) -> DatabaseHealth {
        match self.health.load(Ordering::Relaxed) {
            0 => DatabaseHealth::Unknown,
            1 => DatabaseHealth::Connected,
            _ => DatabaseHealth::Disconnected,
        }
    }

    /// Sets what is known of PostgreSQL. When it goes away, pushes that wait for a commit are answered from the log.
    pub fn set(&self, health: DatabaseHealth) {
        let before = self.health.swap(health as u8, Ordering::Relaxed);
        if health == DatabaseHealth::Disconnected && before != health as u8 {
            self.mailboxes.send_to_all(|| Letter::DatabaseAway);
        }
    }

    /// PostgreSQL has answered as it should.
    pub fn answered(&self) {
        self.answered_ms.store(self.elapsed_ms(), Ordering::Relaxed);
        if self.get() != DatabaseHealth::Connected {
            self.set(DatabaseHealth::Connected);
        }
    }

    /// A plain push has waited for its commit in vain. If PostgreSQL has not answered since that push began to wait, it counts
    /// as away until it answers, so that no other push waits.
    pub fn commit_wait_expired(&self, waited: Duration) {
        let silent_ms = self.elapsed_ms().saturating_sub(self.answered_ms.load(Ordering::Relaxed));
        if u128::from(silent_ms) >= waited.as_millis() && self.get() == DatabaseHealth::Connected {
            tracing::warn!(
                silent_ms,
                "PostgreSQL does not answer; plain pushes are answered from the log until it does"
            );
            self.set(DatabaseHealth::Disconnected);
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}
