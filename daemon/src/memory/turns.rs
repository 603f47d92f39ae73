//! Turns of bodies whose length is not known. As long as they are read one after the other, few of them hold a part of what they
//! need while they wait for the rest, and whoever is next finds room for all of it.
//!
//! A turn is no leave: what is held still comes out of the budget. Where turns do not go round, since those who have one are slow,
//! there is one more after a while.

use crate::limits::{BODY_TURN_PATIENCE, BODY_TURNS};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    task::{Poll, Waker},
};

/// The turns of one core.
pub struct Turns {
    taken: Cell<usize>,
    /// How many there are: more than [`BODY_TURNS`] while those did not go round for the ones who wait.
    most: Cell<usize>,
    now_ms: Cell<u64>,
    /// When somebody got one last.
    taken_ms: Cell<u64>,
    /// By tickets, which rise.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next_ticket: Cell<u64>,
}

/// A turn; given to the next when dropped.
#[must_use]
pub struct Turn<'t>(&'t Turns);

impl Default for Turns {
    fn default() -> Self {
        Self {
            taken: Cell::new(0),
            most: Cell::new(BODY_TURNS),
            now_ms: Cell::new(0),
            taken_ms: Cell::new(0),
            waiting: RefCell::default(),
            next_ticket: Cell::new(0),
        }
    }
}

impl Turns {
    /// Moves the clock: those who wait see whether their time is over.
    pub fn tick(&self, now_ms: u64) {
        self.now_ms.set(now_ms);
        let wakers: Vec<Waker> = self.waiting.borrow().values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits for a turn, in the order of those who do.
    pub async fn take(&self) -> Turn<'_> {
        let since_ms = self.now_ms.get();
        let place = Place::take(self);
        poll_fn(|cx| {
            let is_first = self.waiting.borrow().range(..place.ticket).next().is_none();
            let idle_ms = self.now_ms.get().saturating_sub(since_ms.max(self.taken_ms.get()));
            if is_first && u128::from(idle_ms) >= BODY_TURN_PATIENCE.as_millis() {
                self.most.set(self.taken.get() + 1);
            }
            if is_first && self.taken.get() < self.most.get() {
                self.taken.update(|taken| taken + 1);
                self.taken_ms.set(self.now_ms.get());
                return Poll::Ready(Turn(self));
            }
            self.waiting.borrow_mut().insert(place.ticket, cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Wakes whoever is next. Once nobody waits there are as many turns as before.
    fn next(&self) {
        let first = self.waiting.borrow().first_key_value().map(|(_, waker)| waker.clone());
        match first {
            Some(waker) => waker.wake(),
            None => self.most.set(BODY_TURNS),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.taken.update(|taken| taken - 1);
        self.0.next();
    }
}

/// A place among those who wait.
struct Place<'t> {
    turns: &'t Turns,
    ticket: u64,
}

impl<'t> Place<'t> {
    fn take(turns: &'t Turns) -> Self {
        let ticket = turns.next_ticket.get();
        turns.next_ticket.set(ticket + 1);
        Self { turns, ticket }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let was_there = self.turns.waiting.borrow_mut().remove(&self.ticket).is_some();
        if was_there {
            self.turns.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::Future,
        pin::{Pin, pin},
        task::Context,
    };

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn take_now(turns: &Turns) -> Turn<'_> {
        match poll(pin!(turns.take())) {
            Poll::Ready(turn) => turn,
            Poll::Pending => panic!("there is one"),
        }
    }

    #[test]
    fn turns_go_round_in_the_order_of_those_who_wait_and_one_that_leaves_makes_way() {
        let turns = Turns::default();
        let mut taken: Vec<Turn<'_>> = (0..BODY_TURNS).map(|_| take_now(&turns)).collect();
        let mut waits: Vec<_> = (0..3).map(|_| Box::pin(turns.take())).collect();
        waits.iter_mut().for_each(|wait| assert!(poll(wait.as_mut()).is_pending()));
        drop(taken.pop());
        assert!(poll(pin!(turns.take())).is_pending(), "others came before");
        assert!(poll(waits[1].as_mut()).is_pending());
        drop(waits.remove(0));
        let turn = poll(waits[0].as_mut());
        assert!(turn.is_ready() && poll(waits[1].as_mut()).is_pending());
        drop((turn, waits, taken));
        assert_eq!((turns.taken.get(), turns.waiting.borrow().len()), (0, 0));
    }

    #[test]
    fn where_turns_do_not_go_round_there_is_one_more_which_goes_round_until_nobody_waits() {
        let turns = Turns::default();
        let silent: Vec<Turn<'_>> = (0..BODY_TURNS).map(|_| take_now(&turns)).collect();
        let patience_ms = BODY_TURN_PATIENCE.as_millis() as u64;
        let mut waits: Vec<_> = (0..3).map(|_| Box::pin(turns.take())).collect();
        waits.iter_mut().for_each(|wait| assert!(poll(wait.as_mut()).is_pending()));
        turns.tick(patience_ms - 1);
        assert!(poll(waits[0].as_mut()).is_pending());
        turns.tick(patience_ms);
        assert!(poll(waits[1].as_mut()).is_pending(), "another one came before");
        let first = poll(waits[0].as_mut());
        assert!(first.is_ready() && poll(waits[1].as_mut()).is_pending(), "one more, and no others");
        drop(first);
        let second = poll(waits[1].as_mut());
        assert!(second.is_ready() && poll(waits[2].as_mut()).is_pending());
        drop((second, waits));
        assert!(poll(pin!(turns.take())).is_pending(), "nobody waited");
        drop(silent);
        assert_eq!((turns.taken.get(), turns.most.get()), (0, BODY_TURNS));
    }
}
