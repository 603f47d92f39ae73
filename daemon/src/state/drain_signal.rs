//! When to drain: the cores say what became durable and how long it may wait; the drain sleeps until something is due.
//!
//! A message is signalled only once it is durable, for the round that follows takes what is durable. The drain resets the
//! signal *before* it looks at the log, so whatever was signalled before the reset is in that round.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Nothing is due.
const NEVER: u64 = u64::MAX;

/// How long messages may wait for company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// At most so long, from when they are durable.
    pub time: Duration,
    /// At most until so many wait.
    pub count: u64,
}

impl Patience {
    /// For a push whose client waits for the commit.
    pub const NONE: Self = Self { time: Duration::ZERO, count: 0 };

    /// Both patiences at once.
    #[must_use]
    pub fn shorter(self, other: Self) -> Self {
        Self { time: self.time.min(other.time), count: self.count.min(other.count) }
    }
}

/// The signal.
pub struct DrainSignal {
    epoch: Instant,
    waiting: AtomicU64,
    due_count: AtomicU64,
    due_us: AtomicU64,
    /// Whether the drain sleeps and wants to be woken.
    armed: AtomicBool,
    /// Whether it sleeps and any message should wake it.
    armed_for_any: AtomicBool,
    event: OwnedFd,
}

impl DrainSignal {
    /// A signal with nothing due.
    ///
    /// # Errors
    /// Those of `eventfd`.
    pub fn new() -> io::Result<Self> {
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        Ok(Self {
            epoch: Instant::now(),
            waiting: AtomicU64::new(0),
            due_count: AtomicU64::new(NEVER),
            due_us: AtomicU64::new(NEVER),
            armed: AtomicBool::new(false),
            armed_for_any: AtomicBool::new(false),
            event,
        })
    }

    /// `count` more messages are durable, which may wait as `patience` says.
    pub fn add(&self, count: u64, patience: Patience) {
        let due_us = match patience.time {
            Duration::ZERO => 0,
            time => (self.epoch.elapsed() + time).as_micros() as u64,
        };
        let due_us_before = self.due_us.fetch_min(due_us, Ordering::SeqCst);
        let due_count = self.due_count.fetch_min(patience.count, Ordering::SeqCst).min(patience.count);
        let waiting = self.waiting.fetch_add(count, Ordering::SeqCst) + count;
        if due_us < due_us_before || waiting >= due_count {
            self.wake();
        }
        if self.armed_for_any.load(Ordering::Relaxed) && self.armed_for_any.swap(false, Ordering::SeqCst) {
            self.wake_anyway();
        }
    }

    /// Asks to be woken by the next message, whatever it brings: for a drain that could not do anything with one.
    pub fn arm_for_any(&self) {
        self.armed_for_any.store(true, Ordering::SeqCst);
    }

    /// Whether no message came since.
    pub fn is_armed_for_any(&self) -> bool {
        self.armed_for_any.load(Ordering::SeqCst)
    }

    /// Wakes the drain, if it sleeps, to look again what is due.
    fn wake(&self) {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.wake_anyway();
        }
    }

    /// Wakes the drain also from a sleep that pushes do not end.
    pub fn wake_anyway(&self) {
        if let Err(error) = rustix::io::write(&self.event, &1_u64.to_ne_bytes()) {
            tracing::error!(code = "eventfd_failed", %error, "the drain cannot be woken");
        }
    }

    /// Asks to be woken by the next message that brings the due time forward. Call before [`due`](Self::due).
    pub fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// When the next round is due; `None`: nothing waits.
    pub fn due(&self) -> Option<Instant> {
        let is_due = self.waiting.load(Ordering::SeqCst) >= self.due_count.load(Ordering::SeqCst);
        self.due_of(self.due_us.load(Ordering::SeqCst), is_due)
    }

    /// Forgets what is due, and gives when it was: the round that begins now takes all of it.
    pub fn reset(&self) -> Option<Instant> {
        let due_us = self.due_us.swap(NEVER, Ordering::SeqCst);
        let due_count = self.due_count.swap(NEVER, Ordering::SeqCst);
        let waiting = self.waiting.swap(0, Ordering::SeqCst);
        self.due_of(due_us, waiting >= due_count)
    }

    fn due_of(&self, due_us: u64, is_due: bool) -> Option<Instant> {
        match due_us {
            _ if is_due => Some(self.epoch),
            NEVER => None,
            due_us => Some(self.epoch + Duration::from_micros(due_us)),
        }
    }

    /// The eventfd that wakes the drain.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(ms: u64, count: u64) -> Patience {
        Patience { time: Duration::from_millis(ms), count }
    }

    #[test]
    fn the_sooner_of_time_and_count_is_due() {
        let signal = DrainSignal::new().unwrap();
        assert_eq!(signal.due(), None);
        signal.add(99, patience(60_000, 100));
        assert!(signal.due().unwrap() > Instant::now());
        signal.add(1, patience(60_000, 100));
        assert!(signal.due().unwrap() <= Instant::now(), "the hundredth ends the wait");
        signal.reset();
        assert_eq!(signal.due(), None);
        signal.add(1, patience(0, 100));
        assert!(signal.due().unwrap() <= Instant::now(), "time ends the wait");
    }

    #[test]
    fn one_awaited_push_takes_all_that_wait_along() {
        let signal = DrainSignal::new().unwrap();
        signal.add(1, patience(60_000, 100));
        signal.add(1, Patience::NONE);
        assert!(signal.due().unwrap() <= Instant::now());
    }

    #[test]
    fn a_sleeping_drain_is_woken_once_and_only_for_what_is_sooner() {
        let signal = DrainSignal::new().unwrap();
        signal.add(1, patience(1_000, 100));
        signal.arm();
        signal.add(1, patience(60_000, 100));
        assert!(signal.armed.load(Ordering::SeqCst), "a later message does not wake");
        signal.add(1, patience(10, 100));
        assert!(!signal.armed.load(Ordering::SeqCst));
        let mut counter = [0; 8];
        rustix::io::read(signal.event(), &mut counter).unwrap();
        assert_eq!(u64::from_ne_bytes(counter), 1);
    }

    #[test]
    fn a_drain_that_waits_for_postgresql_is_woken_by_any_message_once() {
        let signal = DrainSignal::new().unwrap();
        signal.add(1, patience(10, 100));
        signal.arm_for_any();
        signal.add(1, patience(60_000, 100));
        assert!(!signal.is_armed_for_any());
        signal.add(1, patience(60_000, 100));
        let mut counter = [0; 8];
        rustix::io::read(signal.event(), &mut counter).unwrap();
        assert_eq!(u64::from_ne_bytes(counter), 1);
    }

    #[test]
    fn the_shorter_patience_wins_in_each_respect() {
        let (soon, late) = (patience(1, 100), patience(1_000, 10));
        assert_eq!(soon.shorter(late), Patience { time: soon.time, count: 10 });
        assert_eq!(soon.shorter(Patience::NONE), Patience::NONE);
    }
}
