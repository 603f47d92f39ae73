//! What the drain and the cores tell each other: what waits, how the drain fares, and its figures.

use super::{delivery_state::DeliveryState, drain_signal::DrainSignal, local_drain_state::LocalDrainState};
use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

/// Counters since the start.
#[derive(Default)]
pub struct Counters {
    /// Messages accepted.
    pub pushed_messages: AtomicU64,
    /// Drain transactions committed.
    pub drain_transactions: AtomicU64,
    /// Messages that PostgreSQL has taken.
    pub drained_messages: AtomicU64,
    /// Messages whose transaction id was there already.
    pub duplicate_messages: AtomicU64,
    /// Records of the log that were durable and are gone.
    pub lost_records: AtomicU64,
}

/// The drain as all threads see it.
pub struct DrainView {
    /// Tells the drain what waits.
    pub signal: DrainSignal,
    /// Whether delivery is paused.
    pub delivery: DeliveryState,
    /// Figures.
    pub counters: Counters,
    /// Messages in dead letters that wait for a person.
    pub dead_letters: AtomicU64,
    /// Attempts in a row to keep dead letters that met what may be PostgreSQL's own trouble. They go on when the session is new.
    pub letter_failures: AtomicU32,
    /// When the oldest message not yet in PostgreSQL was accepted, in microseconds since 1970; 0: not known.
    pub oldest_pending_us: AtomicU64,
    /// Bytes a second that the drain takes out of the log, over the last rounds; 0: not known.
    pub bytes_per_s: AtomicU64,
    /// Whether this process has found its checkpoint once.
    pub has_checkpoint: AtomicBool,
    known_queues: RwLock<Option<HashSet<String>>>,
    local_state: Mutex<Option<LocalDrainState>>,
    is_local_state_written: AtomicBool,
}

impl DrainView {
    /// A drain that has not begun. `local_state` is what the data directory knows of it.
    #[must_use]
    pub fn new(signal: DrainSignal, local_state: Option<LocalDrainState>) -> Self {
        Self {
            signal,
            delivery: DeliveryState::default(),
            counters: Counters::default(),
            dead_letters: AtomicU64::new(0),
            letter_failures: AtomicU32::new(0),
            oldest_pending_us: AtomicU64::new(0),
            bytes_per_s: AtomicU64::new(0),
            has_checkpoint: AtomicBool::new(false),
            known_queues: RwLock::new(None),
            local_state: Mutex::new(local_state),
            is_local_state_written: AtomicBool::new(true),
        }
    }

    /// Whether the log is known to have had a checkpoint: this process found it, or the data directory remembers it.
    pub fn is_checkpoint_known(&self) -> bool {
        self.has_checkpoint.load(Ordering::Relaxed) || self.local_state().is_some()
    }

    /// What the data directory knows of the drain, or would know if it could be written.
    pub fn local_state(&self) -> Option<LocalDrainState> {
        self.local_state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what the data directory knows of the drain; `is_written`: whether its file could be written.
    pub fn set_local_state(&self, state: LocalDrainState, is_written: bool) {
        *self.local_state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        self.is_local_state_written.store(is_written, Ordering::Relaxed);
    }

    /// Whether [`local_state`](Self::local_state) is in its file, so that a restart knows it too.
    pub fn is_local_state_written(&self) -> bool {
        self.is_local_state_written.load(Ordering::Relaxed)
    }

    /// Whether PostgreSQL had a queue of this name at the last look; `None`: there was no look yet.
    pub fn has_queue(&self, name: &str) -> Option<bool> {
        let known = self.known_queues.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|known| known.contains(name))
    }

    /// Replaces the names of the queues in PostgreSQL.
    pub fn set_known_queues(&self, names: HashSet<String>) {
        *self.known_queues.write().unwrap_or_else(PoisonError::into_inner) = Some(names);
    }

    /// Seconds after which a push that was refused for want of room may succeed: the time in which the drain empties a
    /// segment of `segment_bytes` at its measured rate.
    pub fn retry_after_s(&self, segment_bytes: u64) -> u64 {
        const UNKNOWN_S: u64 = 5;
        const MAX_S: u64 = 60;
        match self.bytes_per_s.load(Ordering::Relaxed) {
            0 => UNKNOWN_S,
            rate => segment_bytes.div_ceil(rate).clamp(1, MAX_S),
        }
    }
}
