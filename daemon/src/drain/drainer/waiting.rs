//! How the drain waits: for what is due, for PostgreSQL, for a person.

use super::{Drainer, IDLE_CHECK};
use crate::limits::BACKOFF_MAX;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

impl Drainer {
    /// Sleeps until a round is due, or it is time to see whether PostgreSQL is still there.
    pub(super) async fn wait_until_due(&mut self) {
        loop {
            self.shared.drain.signal.arm();
            let now = Instant::now();
            let due = self.crew.due(self.index);
            if due.is_some_and(|due| due <= now) || self.crew.finish_by().is_some() {
                return;
            }
            let check_at = self.last_used + IDLE_CHECK;
            if check_at <= now {
                return;
            }
            self.notify.notified_until(Some(due.map_or(check_at, |due| due.min(check_at)))).await;
        }
    }

    pub(super) async fn sleep(&mut self, duration: Duration) {
        self.note_oldest();
        let until = Instant::now() + duration;
        let armed = self.shared.drain.signal.is_armed_for_any();
        while Instant::now() < until && self.crew.finish_by().is_none() {
            self.notify.notified_until(Some(until)).await;
            if armed && !self.shared.drain.signal.is_armed_for_any() {
                return;
            }
        }
    }

    pub(super) async fn back_off(&mut self) {
        // Between half of it and all of it, so that daemons which lost the same server do not return as one.
        let jitter = u64::from(crate::ids::unix_now().subsec_nanos()) % 512;
        let pause = self.backoff.mul_f64(0.5 + jitter as f64 / 1024.0);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        // A push after quiet is worth an attempt of its own: its client waits, and the server may be back since long.
        let pushed = self.shared.drain.counters.pushed_messages.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.pushed_before, pushed) == pushed {
            self.shared.drain.signal.arm_for_any();
        }
        self.sleep(pause).await;
    }
}
