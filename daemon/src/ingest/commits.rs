//! Those who wait for a commit: plain pushes, by the numbers of their messages.

use crate::state::mailbox::Delivery;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::Instant,
};

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitWait {
    /// Every message's fate is known.
    Committed,
    /// It took too long, or PostgreSQL is away: they are delivered later.
    GivenUp,
}

/// The messages of one push that somebody waits for.
pub struct Awaited {
    first_number: u64,
    deadline: Instant,
    fates: RefCell<Vec<Option<Delivery>>>,
    missing: Cell<usize>,
    given_up: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Awaited {
    /// Waits until all are delivered, or nobody should wait any more.
    pub async fn wait(&self) -> CommitWait {
        poll_fn(|cx| {
            if self.missing.get() == 0 {
                return Poll::Ready(CommitWait::Committed);
            }
            if self.given_up.get() {
                return Poll::Ready(CommitWait::GivenUp);
            }
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// How many messages.
    pub fn count(&self) -> usize {
        self.fates.borrow().len()
    }

    /// What became of the message at `index`.
    pub fn delivery(&self, index: usize) -> Option<Delivery> {
        self.fates.borrow().get(index).cloned().flatten()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn give_up(&self) {
        self.given_up.set(true);
        self.wake();
    }
}

#[derive(Default)]
pub(crate) struct Commits {
    /// By first number; their numbers do not overlap.
    awaited: RefCell<BTreeMap<u64, Rc<Awaited>>>,
}

impl Commits {
    pub(crate) fn add(&self, first_number: u64, count: usize, deadline: Instant) -> Rc<Awaited> {
        let awaited = Rc::new(Awaited {
            first_number,
            deadline,
            fates: RefCell::new(vec![None; count]),
            missing: Cell::new(count),
            given_up: Cell::new(false),
            waker: RefCell::new(None),
        });
        self.awaited.borrow_mut().insert(first_number, Rc::clone(&awaited));
        awaited
    }

    pub(crate) fn deliver(&self, deliveries: Vec<Delivery>) {
        let mut all = self.awaited.borrow_mut();
        for delivery in deliveries {
            // One that was given up, or waited for in an earlier life of the process, is not there.
            let Some(awaited) = all.range(..=delivery.number).next_back().map(|(_, awaited)| Rc::clone(awaited)) else {
                continue;
            };
            let index = (delivery.number - awaited.first_number) as usize;
            if let Some(fate) = awaited.fates.borrow_mut().get_mut(index)
                && fate.is_none()
            {
                *fate = Some(delivery);
                awaited.missing.set(awaited.missing.get() - 1);
            }
            if awaited.missing.get() == 0 {
                all.remove(&awaited.first_number);
                awaited.wake();
            }
        }
    }

    pub(crate) fn give_up_all(&self) {
        self.awaited.take().into_values().for_each(|awaited| awaited.give_up());
    }

    /// Tells those whose time is over; whether there were any.
    pub(crate) fn give_up_before(&self, now: Instant) -> bool {
        let mut any = false;
        let mut all = self.awaited.borrow_mut();
        // All wait equally long, so the oldest are the first.
        while let Some(first) = all.first_entry().filter(|first| first.get().deadline <= now) {
            first.remove().give_up();
            any = true;
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::mailbox::Fate;
    use std::time::Duration;

    fn delivery(number: u64) -> Delivery {
        Delivery { number, partition_id: 1, fate: Fate::Queued }
    }

    #[test]
    fn a_push_is_committed_when_its_last_message_is_in_whatever_order_and_rounds() {
        let commits = Commits::default();
        let later = Instant::now() + Duration::from_secs(60);
        let (one, other) = (commits.add(10, 3, later), commits.add(13, 1, later));
        commits.deliver(vec![delivery(12), delivery(13), delivery(99), delivery(9)]);
        assert_eq!((one.missing.get(), other.missing.get()), (2, 0));
        commits.deliver(vec![delivery(10), delivery(11), delivery(11)]);
        assert_eq!(one.missing.get(), 0);
        assert_eq!(one.delivery(2), Some(delivery(12)));
        assert!(commits.awaited.borrow().is_empty());
    }

    #[test]
    fn those_who_waited_too_long_are_told_and_the_others_wait_on() {
        let commits = Commits::default();
        let now = Instant::now();
        let (one, other) = (commits.add(1, 1, now), commits.add(2, 1, now + Duration::from_secs(60)));
        assert!(commits.give_up_before(now));
        assert!(one.given_up.get() && !other.given_up.get());
        commits.deliver(vec![delivery(1)]);
        commits.give_up_all();
        assert!(other.given_up.get());
    }
}
