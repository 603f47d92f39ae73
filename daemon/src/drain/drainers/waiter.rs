//! How a drainer waits: for messages, for PostgreSQL, for a person.

use super::drainer_board::DrainerBoard;
use crate::{
    limits::{BACKOFF_MAX, BACKOFF_MIN},
    rt::Notify,
    state::drain_view::DrainView,
};
use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// The waits of one drainer. All of them end when the drainer is to end.
pub(super) struct Waiter {
    drain: Arc<DrainView>,
    board: Rc<DrainerBoard>,
    drainer: usize,
    /// Notified by messages, by other drainers and at the end.
    notify: Rc<Notify>,
    backoff: Duration,
    /// Messages pushed when the last back-off began.
    pushed_before: u64,
}

impl Waiter {
    /// For a drainer that `notify` wakes.
    pub(super) fn new(drain: Arc<DrainView>, board: Rc<DrainerBoard>, drainer: usize, notify: Rc<Notify>) -> Self {
        Self { drain, board, drainer, notify, backoff: BACKOFF_MIN, pushed_before: 0 }
    }

    /// The next back-off is the shortest.
    pub(super) fn reset_backoff(&mut self) {
        self.backoff = BACKOFF_MIN;
    }

    /// Waits until a round is due, at most until `check_at`.
    pub(super) async fn until_due(&self, check_at: Instant) {
        loop {
            self.drain.signal.arm();
            let now = Instant::now();
            let due = self.board.due(self.drainer);
            let is_due = due.is_some_and(|due| due <= now) || self.board.is_ending();
            if is_due || check_at <= now {
                return;
            }
            self.notify.notified_until(Some(due.map_or(check_at, |due| due.min(check_at)))).await;
        }
    }

    /// Waits before the next attempt to reach PostgreSQL; each time longer.
    pub(super) async fn back_off(&mut self) {
        // Between half of it and all of it, so that daemons which lost the same server do not come back together.
        let jitter = u64::from(crate::ids::unix_now().subsec_nanos()) % 512;
        let pause = self.backoff.mul_f64(0.5 + jitter as f64 / 1024.0);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        self.pause(pause).await;
    }

    /// Waits for `duration`, or until a message comes after a quiet time. It deserves an attempt: its client waits, and what
    /// is in the way may be gone for long, or concern only other messages.
    pub(super) async fn pause(&mut self, duration: Duration) {
        let pushed = self.drain.counters.pushed_messages.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.pushed_before, pushed) == pushed {
            self.drain.signal.arm_for_any();
        }
        let until = Instant::now() + duration;
        let is_armed = self.drain.signal.is_armed_for_any();
        while Instant::now() < until && !self.board.is_ending() {
            self.notify.notified_until(Some(until)).await;
            if is_armed && !self.drain.signal.is_armed_for_any() {
                return;
            }
        }
    }
}
