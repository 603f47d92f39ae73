//! How many connections are open.

use std::sync::atomic::{AtomicU64, Ordering};

/// The open connections of all cores.
#[derive(Debug, Default)]
pub struct ConnectionCount(AtomicU64);

impl ConnectionCount {
    /// Counts one that was accepted.
    pub fn opened(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one no longer.
    pub fn closed(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a connection is closed once");
    }

    /// How many there are.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
