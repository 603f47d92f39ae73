//! When a group of the log closes: what the disk is given in one write.
//!
//! A write costs the same whether it makes one push durable or a hundred. The clients whose pushes the last write made
//! durable are being answered, and most ask again at once; a group that closed as soon as the write returned would hold
//! only those who were in turn with it, and the two halves would take turns for ever. So it waits for them, while the loop
//! has something to do and the group is small, and rests once: their requests come one by one, and a loop that turns for each
//! of them spends more on its turns than on them. Several are waited for before any of them is read: a read that finds
//! nothing has to be begun again. When as many have come as can be expected, or nobody comes any more, the group closes.

use crate::limits::{
    GATHER_REST_EARLY, GATHER_REST_EXPECTED, GATHER_REST_MAX, GATHER_REST_MIN, GATHER_TURNS_BEFORE_REST,
    GATHER_TURNS_MAX, GATHER_TURNS_MIN,
};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Who has something in the log that is not durable, counted by passes over a connection's requests.
#[derive(Default)]
pub(crate) struct Gathering {
    /// In the group that collects.
    asked: Cell<usize>,
    /// Those of them whom its write answers; the others wait for their commit.
    to_answer: Cell<usize>,
    /// In the group that is being written.
    written: Cell<usize>,
    /// Whom the group's write answers, that is being written or was last.
    answered: Cell<usize>,
    /// Those in the group that collects, when it has all who were in it or in the one before when that became durable.
    expected: Cell<usize>,
    /// When the last write was begun.
    write_started_at: Cell<Option<Instant>>,
    /// How long the loop may rest before the next.
    rest: Cell<Duration>,
}

impl Gathering {
    /// Somebody has appended something, and is answered as soon as it is durable, or not.
    pub(crate) fn asked(&self, is_answered_then: bool) {
        self.asked.set(self.asked.get() + 1);
        self.to_answer.set(self.to_answer.get() + usize::from(is_answered_then));
    }

    /// The group that collected is being written.
    pub(crate) fn write_started(&self) {
        self.written.set(self.asked.take());
        self.answered.set(self.to_answer.take());
        self.write_started_at.set(Some(Instant::now()));
    }

    /// It is durable, and who asked for it is being answered.
    pub(crate) fn write_ended(&self) {
        self.expected.set(self.asked.get() + self.written.take());
        let took = self.write_started_at.take().map_or(Duration::ZERO, |at| at.elapsed());
        let are_few = (2..GATHER_REST_EXPECTED).contains(&self.expected.get());
        self.rest.set(if are_few { rest_after(took) } else { Duration::ZERO });
    }

    /// After a write that answers several: lets the answers leave, then rests, and takes in together what came meanwhile.
    /// With each `turn` the loop takes in what has arrived, without waiting for anything; while it does `rest`, nothing is
    /// taken in.
    pub(crate) async fn rest(&self, turn: &mut impl AsyncFnMut(), rest: impl Fn(Duration)) {
        let is_writing = self.written.get() > 0;
        if is_writing || self.rest.get().is_zero() || self.answered.get() < GATHER_REST_EARLY {
            return;
        }
        turn().await;
        rest(self.rest.get());
        turn().await;
        // For those who are further away it rests once more, when the first of them has come.
        if self.asked.get() > 0 {
            self.rest.take();
        }
    }

    /// Waits until the group should close, and no longer than until it `is_large`, with turns and one rest unless there was one.
    pub(crate) async fn wait(&self, is_large: impl Fn() -> bool, mut turn: impl AsyncFnMut(), rest: impl Fn(Duration)) {
        for turns in 1..=GATHER_TURNS_MAX {
            let before = self.asked.get();
            if before >= self.expected.get() || is_large() {
                return;
            }
            if turns == GATHER_TURNS_BEFORE_REST + 1 {
                rest(self.rest.take());
            }
            turn().await;
            if turns >= GATHER_TURNS_MIN && self.asked.get() == before {
                return;
            }
        }
    }
}

/// How long the loop may rest after a write that took so long.
fn rest_after(took: Duration) -> Duration {
    let rest = (took / 2).min(GATHER_REST_MAX);
    if rest < GATHER_REST_MIN { Duration::ZERO } else { rest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        cell::RefCell,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    /// How many turns a group waits for to which `came` ask with each turn in turn.
    fn turns(gathering: &Gathering, came: impl Fn(usize) -> usize) -> usize {
        turns_until_large(gathering, usize::MAX, came)
    }

    /// The same, with a group that is large when so many have asked.
    fn turns_until_large(gathering: &Gathering, large: usize, came: impl Fn(usize) -> usize) -> usize {
        turns_and_rests(gathering, large, came).0
    }

    /// The same, and after how many turns the loop rested, how long.
    fn turns_and_rests(
        gathering: &Gathering,
        large: usize,
        came: impl Fn(usize) -> usize,
    ) -> (usize, Vec<(usize, Duration)>) {
        let turns = Cell::new(0);
        let rests = RefCell::new(Vec::new());
        let mut turn = async || {
            (0..came(turns.get())).for_each(|_| gathering.asked(true));
            turns.set(turns.get() + 1);
        };
        let rest = |duration: Duration| {
            if !duration.is_zero() {
                rests.borrow_mut().push((turns.get(), duration));
            }
        };
        now(async {
            gathering.rest(&mut turn, rest).await;
            gathering.wait(|| gathering.asked.get() >= large, turn, rest).await;
        });
        (turns.get(), rests.take())
    }

    /// Comes to the end of what waits for nothing.
    fn now(waiting: impl Future<Output = ()>) {
        assert_eq!(pin!(waiting).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
    }

    /// After a write with `written` in it, while `asked` wait for the next.
    fn after_a_write(written: usize, asked: usize) -> Gathering {
        let gathering = Gathering::default();
        (0..written).for_each(|_| gathering.asked(true));
        gathering.write_started();
        (0..asked).for_each(|_| gathering.asked(true));
        gathering.write_ended();
        gathering
    }

    #[test]
    fn a_group_waits_for_those_who_were_answered_and_no_longer() {
        assert_eq!(turns(&after_a_write(16, 16), |_| 4), 4, "sixteen more, by fours");
        assert_eq!(turns(&after_a_write(1, 0), |turn| usize::from(turn == 2)), 3);
        let alone = after_a_write(1, 0);
        alone.asked(true);
        assert_eq!(turns(&alone, |_| 0), 0, "who is alone waits for nobody");
        let first = Gathering::default();
        first.asked(true);
        assert_eq!(turns(&first, |_| 0), 0, "nor does the first");
    }

    #[test]
    fn a_group_closes_when_nobody_comes_and_also_when_they_come_without_end() {
        assert_eq!(turns(&after_a_write(16, 3), |_| 0), GATHER_TURNS_MIN);
        let late = |turn: usize| usize::from(turn < GATHER_TURNS_MIN + 3);
        assert_eq!(turns(&after_a_write(100, 3), late), GATHER_TURNS_MIN + 4, "while they come, it goes on");
        assert_eq!(turns(&after_a_write(1000, 3), |_| 1), GATHER_TURNS_MAX);
        assert_eq!(turns_until_large(&after_a_write(1000, 3), 10, |_| 1), 7, "nor does it wait when it is large");
    }

    /// When the loop rested, after a write with `written` in it while one more asked.
    fn rests(written: usize, came: fn(usize) -> usize) -> Vec<(usize, Duration)> {
        let gathering = after_a_write(written, 1);
        if gathering.expected.get() < GATHER_REST_EXPECTED {
            gathering.rest.set(GATHER_REST_MAX);
        }
        turns_and_rests(&gathering, usize::MAX, came).1
    }

    #[test]
    fn the_loop_rests_once_when_few_are_expected_and_they_take_long() {
        let few = GATHER_REST_EARLY - 2;
        assert_eq!(rests(few, |_| 1), [(GATHER_TURNS_BEFORE_REST, GATHER_REST_MAX)]);
        assert_eq!(rests(few, |_| 4), [], "they came at once");
        assert_eq!(rests(0, |_| 0), [], "who is alone waits for nobody");
    }

    #[test]
    fn the_loop_rests_before_it_reads_when_several_were_answered() {
        assert_eq!(rests(16, |_| 1), [(1, GATHER_REST_MAX)]);
        assert_eq!(rests(GATHER_REST_EARLY, |_| 8), [(1, GATHER_REST_MAX)], "though they come at once");
        assert_eq!(rests(GATHER_REST_EXPECTED, |_| 1), [], "there is enough to do");
    }

    #[test]
    fn those_who_wait_for_their_commit_are_not_looked_for_at_once() {
        let gathering = Gathering::default();
        (0..16).for_each(|_| gathering.asked(false));
        gathering.write_started();
        gathering.asked(false);
        gathering.write_ended();
        gathering.rest.set(GATHER_REST_MAX);
        let (_, rests) = turns_and_rests(&gathering, usize::MAX, |_| 1);
        assert_eq!(rests, [(GATHER_TURNS_BEFORE_REST, GATHER_REST_MAX)]);
    }

    #[test]
    fn who_is_far_away_is_rested_for_again_when_the_first_has_come() {
        let gathering = after_a_write(16, 0);
        gathering.rest.set(GATHER_REST_MAX);
        let rests = Cell::new(0);
        let look = || now(gathering.rest(&mut async || {}, |_| rests.set(rests.get() + 1)));
        look();
        gathering.asked(true);
        look();
        assert_eq!(rests.get(), 2);
        look();
        assert_eq!(rests.get(), 2, "that was the last");
    }

    #[test]
    fn a_rest_is_half_of_a_write_within_bounds() {
        let micros = Duration::from_micros;
        assert_eq!(rest_after(micros(60)), micros(30));
        assert_eq!(rest_after(micros(5000)), GATHER_REST_MAX);
        assert_eq!(rest_after(GATHER_REST_MIN * 2 - micros(1)), Duration::ZERO);
        assert_eq!(rest_after(Duration::ZERO), Duration::ZERO);
    }
}
