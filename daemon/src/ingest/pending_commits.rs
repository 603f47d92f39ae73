//! Pushes that wait for their commit in PostgreSQL, by the numbers of their records.

use crate::state::mailbox::Delivery;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// How a wait for a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Every message's fate is known.
    Committed,
    /// The wait took too long, or PostgreSQL is away: the messages are delivered later.
    GivenUp,
}

/// The records of one push whose commit somebody waits for. Dropping it ends the wait.
pub struct PendingCommit {
    commits: Rc<PendingCommits>,
    push: Rc<WaitingPush>,
}

struct WaitingPush {
    first_number: u64,
    deadline: Instant,
    fates: RefCell<Vec<Option<Delivery>>>,
    missing: Cell<usize>,
    is_given_up: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl PendingCommit {
    /// Waits until all records are delivered, or the wait is given up.
    pub async fn wait(&self) -> CommitOutcome {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// As [`wait`](Self::wait), for a task that waits for something else as well.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<CommitOutcome> {
        match self.outcome() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                self.push.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// How the wait ended; `None` while it goes on.
    pub fn outcome(&self) -> Option<CommitOutcome> {
        if self.push.missing.get() == 0 {
            return Some(CommitOutcome::Committed);
        }
        self.push.is_given_up.get().then_some(CommitOutcome::GivenUp)
    }

    /// Bytes of memory that it has, about.
    pub fn memory_bytes(&self) -> usize {
        size_of::<WaitingPush>() + self.count() * size_of::<Option<Delivery>>()
    }

    /// How many records.
    pub fn count(&self) -> usize {
        self.push.fates.borrow().len()
    }

    /// What became of the record at `index`, if that is known.
    pub fn delivery(&self, index: usize) -> Option<Delivery> {
        self.push.fates.borrow().get(index).cloned().flatten()
    }
}

impl Drop for PendingCommit {
    fn drop(&mut self) {
        if self.outcome().is_none() {
            self.commits.waiting.borrow_mut().remove(&self.push.first_number);
        }
    }
}

impl WaitingPush {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn give_up(&self) {
        self.is_given_up.set(true);
        self.wake();
    }
}

/// The pending commits of one core.
pub struct PendingCommits {
    /// How long a push waits at most.
    commit_wait: Duration,
    /// By first number; the ranges of numbers do not overlap.
    waiting: RefCell<BTreeMap<u64, Rc<WaitingPush>>>,
}

impl PendingCommits {
    /// None yet. Each is given up after `commit_wait`.
    #[must_use]
    pub fn new(commit_wait: Duration) -> Self {
        Self { commit_wait, waiting: RefCell::default() }
    }

    /// Begins to wait for the `count` records from `first_number` on.
    pub fn add(self: &Rc<Self>, first_number: u64, count: usize) -> PendingCommit {
        let push = Rc::new(WaitingPush {
            first_number,
            deadline: Instant::now() + self.commit_wait,
            fates: RefCell::new(vec![None; count]),
            missing: Cell::new(count),
            is_given_up: Cell::new(false),
            waker: RefCell::new(None),
        });
        self.waiting.borrow_mut().insert(first_number, Rc::clone(&push));
        PendingCommit { commits: Rc::clone(self), push }
    }

    /// Notes what the drain has delivered, and wakes the pushes that are complete by it.
    pub fn deliver(&self, deliveries: Vec<Delivery>) {
        let mut waiting = self.waiting.borrow_mut();
        for delivery in deliveries {
            // A push that is not waited for any more is missing, and so is one of an earlier run of the daemon.
            let Some((_, push)) = waiting.range(..=delivery.number).next_back() else { continue };
            let push = Rc::clone(push);
            let index = (delivery.number - push.first_number) as usize;
            if let Some(fate) = push.fates.borrow_mut().get_mut(index)
                && fate.is_none()
            {
                *fate = Some(delivery);
                push.missing.set(push.missing.get() - 1);
            }
            if push.missing.get() == 0 {
                waiting.remove(&push.first_number);
                push.wake();
            }
        }
    }

    /// Ends all waits: PostgreSQL is away, or the daemon shuts down.
    pub fn give_up_all(&self) {
        self.waiting.take().into_values().for_each(|push| push.give_up());
    }

    /// Ends the waits whose time is over; returns whether there were any.
    pub fn give_up_before(&self, now: Instant) -> bool {
        let mut any = false;
        let mut waiting = self.waiting.borrow_mut();
        // All wait equally long, so the oldest are the first.
        while let Some(first) = waiting.first_entry().filter(|first| first.get().deadline <= now) {
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

    const LONG: Duration = Duration::from_secs(60);

    fn delivery(number: u64) -> Delivery {
        Delivery { number, partition_id: 1, fate: Fate::Queued }
    }

    #[test]
    fn a_push_is_committed_when_its_last_message_is_in_whatever_order_and_rounds() {
        let commits = Rc::new(PendingCommits::new(LONG));
        let (one, other) = (commits.add(10, 3), commits.add(13, 1));
        commits.deliver(vec![delivery(12), delivery(13), delivery(99), delivery(9)]);
        assert_eq!((one.outcome(), other.outcome()), (None, Some(CommitOutcome::Committed)));
        commits.deliver(vec![delivery(10), delivery(11), delivery(11)]);
        assert_eq!(one.outcome(), Some(CommitOutcome::Committed));
        assert_eq!(one.delivery(2), Some(delivery(12)));
        assert!(commits.waiting.borrow().is_empty());
    }

    #[test]
    fn pushes_that_waited_too_long_are_told_and_the_others_wait_on() {
        let commits = Rc::new(PendingCommits::new(LONG));
        let one = commits.add(1, 1);
        while Instant::now() + LONG <= one.push.deadline {}
        let other = commits.add(2, 1);
        assert!(!commits.give_up_before(one.push.deadline - Duration::from_nanos(1)));
        assert!(commits.give_up_before(one.push.deadline));
        assert_eq!(one.outcome(), Some(CommitOutcome::GivenUp));
        commits.deliver(vec![delivery(1)]);
        commits.give_up_all();
        assert_eq!(other.outcome(), Some(CommitOutcome::GivenUp));
    }

    #[test]
    fn nothing_is_kept_of_a_push_that_is_waited_for_no_longer() {
        let commits = Rc::new(PendingCommits::new(LONG));
        let (one, other) = (commits.add(1, 2), commits.add(3, 1));
        drop(one);
        commits.deliver(vec![delivery(2), delivery(3)]);
        assert_eq!(other.outcome(), Some(CommitOutcome::Committed));
        assert!(commits.waiting.borrow().is_empty());
    }
}
