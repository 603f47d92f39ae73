//! Whether there is too little memory for the requests that come.

use crate::limits::{MEMORY_REFUSED_LOGGED, MEMORY_REFUSED_SHOWN};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// What the cores say of their budgets.
#[derive(Debug)]
pub struct MemoryShortage {
    start: Instant,
    /// Until when pushes count as refused, in milliseconds since the start; 0 if none was.
    shown_until_ms: AtomicU64,
    /// Until when nothing further is logged.
    logged_until_ms: AtomicU64,
}

impl Default for MemoryShortage {
    fn default() -> Self {
        Self { start: Instant::now(), shown_until_ms: AtomicU64::new(0), logged_until_ms: AtomicU64::new(0) }
    }
}

impl MemoryShortage {
    /// A request was refused since no memory came free for it in time.
    pub fn refuse_push(&self) {
        self.shown_until_ms.store(self.ms_from_now(MEMORY_REFUSED_SHOWN), Ordering::Relaxed);
        self.take_back();
    }

    /// Memory was taken back from clients who are too slow for what they hold.
    pub fn take_back(&self) {
        let now_ms = self.ms_from_now(Duration::ZERO);
        let quiet_until_ms = self.logged_until_ms.swap(self.ms_from_now(MEMORY_REFUSED_LOGGED), Ordering::Relaxed);
        if quiet_until_ms <= now_ms {
            tracing::warn!(
                "requests hold all memory that --memory-budget allows; the slowest of them are refused, so that others \
                 have room"
            );
        }
    }

    /// Whether pushes are refused.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.ms_from_now(Duration::ZERO) < self.shown_until_ms.load(Ordering::Relaxed)
    }

    fn ms_from_now(&self, duration: Duration) -> u64 {
        (self.start.elapsed() + duration).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_push_is_shown_for_a_while_and_memory_that_was_taken_back_is_not() {
        let shortage = MemoryShortage::default();
        assert!(!shortage.is_refusing());
        shortage.take_back();
        assert!(!shortage.is_refusing());
        shortage.refuse_push();
        assert!(shortage.is_refusing());
    }
}
