//! The commit window: when the log's next group closes and goes to the disk in one write.
//!
//! A write costs the same whether it makes one push durable or a hundred. So pushes are collected in a group while the group
//! before them is written.
//!
//! When a write ends, its clients are answered, and most of them push again at once. A group that closed at that moment would
//! hold only the pushes that came during the write. The clients would fall into two halves that take turns, with a group of
//! half the size each. The window therefore stays open for a few turns of the event loop. It closes when as many pushes have
//! come as are expected, when a turn brings none, or when the group is large.
//!
//! The thread pauses once while the window is open. Requests come one by one, and a loop that turns for each of them spends
//! more time on its turns than on the requests. When the write answers many clients, the pause comes before any of them is
//! read: a read that finds nothing costs a second one.

use crate::limits::{
    WINDOW_BEFORE_PAUSE_TURNS, WINDOW_EARLY_PAUSE_PUSHES, WINDOW_PAUSE_MAX, WINDOW_PAUSE_MIN, WINDOW_PAUSE_PUSHES_MAX,
    WINDOW_TURNS_MAX, WINDOW_TURNS_MIN,
};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Counts the pushes whose records are not durable, and decides by them when the group closes.
///
/// A push is here what one pass over a connection's requests appended, whether that is one request or several. It is *acked
/// on write* if its client is answered as soon as it is durable; other clients wait for their commit in PostgreSQL.
///
/// `collecting_acked_on_write <= collecting_pushes`, and `in_flight_acked_on_write <= in_flight_pushes` during a write.
#[derive(Default)]
pub(crate) struct CommitWindow {
    /// Pushes in the group that collects.
    collecting_pushes: Cell<usize>,
    /// Those of them that are acked on write.
    collecting_acked_on_write: Cell<usize>,
    /// Pushes in the group that is being written; 0 when none is.
    in_flight_pushes: Cell<usize>,
    /// Those of them that are acked on write; kept after the write until the next one starts.
    in_flight_acked_on_write: Cell<usize>,
    /// Pushes at which the collecting group is complete: as many as were in it and in flight when the last write ended.
    expected_pushes: Cell<usize>,
    /// When the write that is in flight started.
    write_started_at: Cell<Option<Instant>>,
    /// How long the thread may pause before the next write; zero: not at all, or it has paused already.
    pause: Cell<Duration>,
}

impl CommitWindow {
    /// A push was appended to the collecting group.
    pub(crate) fn push_appended(&self, is_acked_on_write: bool) {
        self.collecting_pushes.set(self.collecting_pushes.get() + 1);
        self.collecting_acked_on_write.set(self.collecting_acked_on_write.get() + usize::from(is_acked_on_write));
    }

    /// The collecting group is being written.
    pub(crate) fn write_started(&self) {
        self.in_flight_pushes.set(self.collecting_pushes.take());
        self.in_flight_acked_on_write.set(self.collecting_acked_on_write.take());
        self.write_started_at.set(Some(Instant::now()));
    }

    /// The group in flight is durable, and its clients are being answered.
    pub(crate) fn write_ended(&self) {
        self.expected_pushes.set(self.collecting_pushes.get() + self.in_flight_pushes.take());
        let write_time = self.write_started_at.take().map_or(Duration::ZERO, |at| at.elapsed());
        let are_few = (2..WINDOW_PAUSE_PUSHES_MAX).contains(&self.expected_pushes.get());
        self.pause.set(if are_few { pause_after(write_time) } else { Duration::ZERO });
    }

    /// Nothing is collected or in flight any more: there was no room for it.
    pub(crate) fn clear(&self) {
        self.write_started_at.take();
        self.pause.take();
        for pushes in [
            &self.collecting_pushes,
            &self.collecting_acked_on_write,
            &self.in_flight_pushes,
            &self.in_flight_acked_on_write,
            &self.expected_pushes,
        ] {
            pushes.set(0);
        }
    }

    /// The early pause: after a write that answers many clients, lets the answers leave with one turn, pauses, and takes in
    /// with another turn what has come meanwhile. Does nothing during a write.
    ///
    /// `turn` lets the loop take in what has arrived, and waits for nothing. `pause` puts the thread to sleep.
    pub(crate) async fn pause_early(&self, turn: &mut impl AsyncFnMut(), pause: impl Fn(Duration)) {
        let is_writing = self.in_flight_pushes.get() > 0;
        let answers_few = self.in_flight_acked_on_write.get() < WINDOW_EARLY_PAUSE_PUSHES;
        if is_writing || self.pause.get().is_zero() || answers_few {
            return;
        }
        turn().await;
        pause(self.pause.get());
        turn().await;
        // Clients that are further away get one more pause, once the first of them has pushed.
        if self.collecting_pushes.get() > 0 {
            self.pause.take();
        }
    }

    /// Waits until the group should close, at most until it `is_large`. Pauses once on the way, unless
    /// [`pause_early`](Self::pause_early) did.
    pub(crate) async fn closed(
        &self,
        is_large: impl Fn() -> bool,
        mut turn: impl AsyncFnMut(),
        pause: impl Fn(Duration),
    ) {
        for turns in 1..=WINDOW_TURNS_MAX {
            let before = self.collecting_pushes.get();
            if before >= self.expected_pushes.get() || is_large() {
                return;
            }
            if turns == WINDOW_BEFORE_PAUSE_TURNS + 1 {
                pause(self.pause.take());
            }
            turn().await;
            if turns >= WINDOW_TURNS_MIN && self.collecting_pushes.get() == before {
                return;
            }
        }
    }
}

/// How long the thread may pause after a write that took `write_time`.
fn pause_after(write_time: Duration) -> Duration {
    let pause = (write_time / 2).min(WINDOW_PAUSE_MAX);
    if pause < WINDOW_PAUSE_MIN { Duration::ZERO } else { pause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        cell::RefCell,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    /// How many turns a window stays open while `came` says how many pushes each turn brings.
    fn turns(window: &CommitWindow, came: impl Fn(usize) -> usize) -> usize {
        turns_until_large(window, usize::MAX, came)
    }

    /// The same, with a group that is large from so many pushes on.
    fn turns_until_large(window: &CommitWindow, large: usize, came: impl Fn(usize) -> usize) -> usize {
        turns_and_pauses(window, large, came).0
    }

    /// The same, and the pauses: after how many turns, and how long.
    fn turns_and_pauses(
        window: &CommitWindow,
        large: usize,
        came: impl Fn(usize) -> usize,
    ) -> (usize, Vec<(usize, Duration)>) {
        let turns = Cell::new(0);
        let pauses = RefCell::new(Vec::new());
        let mut turn = async || {
            (0..came(turns.get())).for_each(|_| window.push_appended(true));
            turns.set(turns.get() + 1);
        };
        let pause = |duration: Duration| {
            if !duration.is_zero() {
                pauses.borrow_mut().push((turns.get(), duration));
            }
        };
        now(async {
            window.pause_early(&mut turn, pause).await;
            window.closed(|| window.collecting_pushes.get() >= large, turn, pause).await;
        });
        (turns.get(), pauses.take())
    }

    /// Runs a future that waits for nothing to its end.
    fn now(waiting: impl Future<Output = ()>) {
        assert_eq!(pin!(waiting).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
    }

    /// A window after a write of `written` pushes during which `collected` came.
    fn after_a_write(written: usize, collected: usize) -> CommitWindow {
        let window = CommitWindow::default();
        (0..written).for_each(|_| window.push_appended(true));
        window.write_started();
        (0..collected).for_each(|_| window.push_appended(true));
        window.write_ended();
        window
    }

    #[test]
    fn a_window_waits_for_clients_that_were_answered_and_no_longer() {
        assert_eq!(turns(&after_a_write(16, 16), |_| 4), 4, "sixteen more, by fours");
        assert_eq!(turns(&after_a_write(1, 0), |turn| usize::from(turn == 2)), 3);
        let alone = after_a_write(1, 0);
        alone.push_appended(true);
        assert_eq!(turns(&alone, |_| 0), 0, "a lone client waits for nobody");
        let first = CommitWindow::default();
        first.push_appended(true);
        assert_eq!(turns(&first, |_| 0), 0, "nor does the first push");
    }

    #[test]
    fn a_window_closes_when_no_push_comes_and_also_when_they_come_without_end() {
        assert_eq!(turns(&after_a_write(16, 3), |_| 0), WINDOW_TURNS_MIN);
        let late = |turn: usize| usize::from(turn < WINDOW_TURNS_MIN + 3);
        assert_eq!(turns(&after_a_write(100, 3), late), WINDOW_TURNS_MIN + 4, "it stays open while pushes come");
        assert_eq!(turns(&after_a_write(1000, 3), |_| 1), WINDOW_TURNS_MAX);
        assert_eq!(turns_until_large(&after_a_write(1000, 3), 10, |_| 1), 7, "a large group does not wait");
    }

    /// The pauses after a write of `written` pushes during which one more came.
    fn pauses(written: usize, came: fn(usize) -> usize) -> Vec<(usize, Duration)> {
        let window = after_a_write(written, 1);
        if window.expected_pushes.get() < WINDOW_PAUSE_PUSHES_MAX {
            window.pause.set(WINDOW_PAUSE_MAX);
        }
        turns_and_pauses(&window, usize::MAX, came).1
    }

    #[test]
    fn the_thread_pauses_once_when_few_pushes_are_expected_and_they_take_long() {
        let few = WINDOW_EARLY_PAUSE_PUSHES - 2;
        assert_eq!(pauses(few, |_| 1), [(WINDOW_BEFORE_PAUSE_TURNS, WINDOW_PAUSE_MAX)]);
        assert_eq!(pauses(few, |_| 4), [], "they come at once");
        assert_eq!(pauses(0, |_| 0), [], "a lone client waits for nobody");
    }

    #[test]
    fn the_thread_pauses_before_it_reads_when_several_clients_were_answered() {
        assert_eq!(pauses(16, |_| 1), [(1, WINDOW_PAUSE_MAX)]);
        assert_eq!(pauses(WINDOW_EARLY_PAUSE_PUSHES, |_| 8), [(1, WINDOW_PAUSE_MAX)], "though they come at once");
        assert_eq!(pauses(WINDOW_PAUSE_PUSHES_MAX, |_| 1), [], "there is enough to do");
    }

    #[test]
    fn clients_that_wait_for_their_commit_cause_no_early_pause() {
        let window = CommitWindow::default();
        (0..16).for_each(|_| window.push_appended(false));
        window.write_started();
        window.push_appended(false);
        window.write_ended();
        window.pause.set(WINDOW_PAUSE_MAX);
        let (_, pauses) = turns_and_pauses(&window, usize::MAX, |_| 1);
        assert_eq!(pauses, [(WINDOW_BEFORE_PAUSE_TURNS, WINDOW_PAUSE_MAX)]);
    }

    #[test]
    fn distant_clients_get_one_more_pause_when_the_first_of_them_has_come() {
        let window = after_a_write(16, 0);
        window.pause.set(WINDOW_PAUSE_MAX);
        let pauses = Cell::new(0);
        let pause_early = || now(window.pause_early(&mut async || {}, |_| pauses.set(pauses.get() + 1)));
        pause_early();
        window.push_appended(true);
        pause_early();
        assert_eq!(pauses.get(), 2);
        pause_early();
        assert_eq!(pauses.get(), 2, "that was the last one");
    }

    #[test]
    fn a_pause_is_half_of_a_write_within_bounds() {
        let micros = Duration::from_micros;
        assert_eq!(pause_after(micros(60)), micros(30));
        assert_eq!(pause_after(micros(5000)), WINDOW_PAUSE_MAX);
        assert_eq!(pause_after(WINDOW_PAUSE_MIN * 2 - micros(1)), Duration::ZERO);
        assert_eq!(pause_after(Duration::ZERO), Duration::ZERO);
    }
}
