//! A sign of life of each core, for the watchdog.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One core's pulse: the core counts the passes of its loop, the watchdog notes whether the count stands still.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    is_stalled: AtomicBool,
}

impl Pulse {
    /// Counts one pass of the core's loop.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Passes of the core's loop so far.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Whether the watchdog has found the loop stalled.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.is_stalled.load(Ordering::Relaxed)
    }

    /// Notes whether the loop is stalled; returns what was noted before.
    pub fn set_stalled(&self, is_stalled: bool) -> bool {
        self.is_stalled.swap(is_stalled, Ordering::Relaxed)
    }
}
