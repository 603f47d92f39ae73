//! The budget: what all connections of a core hold together, and who waits for some of it.
//!
//! When it is used up nobody is refused at once: whoever wants more waits. Who is refused in the end is decided by the sweep,
//! which knows how fast each connection is; see `connection::relief`.

use super::waiting::{Share, Waiter, Waiters};
use crate::limits::{
    CONNECTION_FREE_BYTES, MEDIUM_HELD_BYTES, MEDIUM_SHARE, SMALL_HELD_BYTES, SMALL_SHARE, TOKEN_SHARE,
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    task::{Poll, Waker},
};

/// The budget of one core.
///
/// Invariant: what is held is at most `max_bytes`, but for what was allocated before it was counted ([`Held::note`]): the list of
/// what a push has put into the log. While there is too much of that, no further large push is carried out.
pub struct Budget {
    max_bytes: usize,
    /// How long a body waits at most.
    wait_max_ms: u64,
    held_bytes: Cell<usize>,
    /// Of each token that holds something.
    by_owner: RefCell<HashMap<u64, usize>>,
    now_ms: Cell<u64>,
    waiters: RefCell<Waiters>,
    /// When one who waited got something last, by shares.
    granted_ms: [Cell<u64>; Share::ALL.len()],
}

/// There was no room in time, or others were to have it.
#[derive(Debug, PartialEq, Eq)]
pub struct Overloaded;

/// Leave to have more memory.
#[must_use]
#[derive(Debug)]
pub struct Grow {
    total_bytes: usize,
}

/// What one connection holds, and how that stands. Shared by the connection, which changes it, and the sweep.
#[derive(Debug, Default)]
pub struct Holding {
    /// Beyond what each connection has.
    bytes: Cell<usize>,
    owner: Cell<Option<u64>>,
    waits_for_body: Cell<bool>,
    is_refused: Cell<bool>,
}

/// One connection's part of the budget; given back when dropped.
pub struct Held<'b> {
    budget: &'b Budget,
    holding: &'b Holding,
}

/// What those want who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What the first of them lack.
    pub missing_bytes: usize,
    /// How long nobody got something of what the first of them waits for.
    pub wait_ms: u64,
}

impl Budget {
    /// `max_bytes` for all; a body waits `wait_max_ms` at most.
    #[must_use]
    pub fn new(max_bytes: usize, wait_max_ms: u64) -> Self {
        Self {
            max_bytes,
            wait_max_ms,
            held_bytes: Cell::new(0),
            by_owner: RefCell::default(),
            now_ms: Cell::new(0),
            waiters: RefCell::default(),
            granted_ms: Default::default(),
        }
    }

    /// A connection that holds nothing yet.
    #[must_use]
    pub fn hold<'b>(&'b self, holding: &'b Holding) -> Held<'b> {
        Held { budget: self, holding }
    }

    /// Whether more is held than may be.
    #[must_use]
    pub fn is_overdrawn(&self) -> bool {
        self.held_bytes.get() > self.max_bytes
    }

    /// Moves the clock: those who wait see whether their time is over.
    pub fn tick(&self, now_ms: u64) {
        self.now_ms.set(now_ms);
        self.wake_all();
    }

    /// Lets all who wait look again.
    pub fn wake_all(&self) {
        let wakers = self.waiters.borrow().all_wakers();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// What those lack who wait, and could have it if others gave some back; `None` if nobody does.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        let waiters = self.waiters.borrow();
        let firsts = waiters.firsts().map(|waiter| {
            let needed = self.held_bytes.get() + waiter.more_bytes;
            let since_ms = waiter.since_ms.max(self.granted_ms[waiter.share as usize].get());
            (needed.saturating_sub(self.ceiling(waiter.share)), self.now_ms.get().saturating_sub(since_ms))
        });
        let (missing_bytes, wait_ms) = firsts.reduce(|one, other| (one.0.max(other.0), one.1.max(other.1)))?;
        Some(Shortage { missing_bytes, wait_ms })
    }

    /// Whether a token holds more than its part.
    #[must_use]
    pub fn exceeds_share(&self, owner: Option<u64>) -> bool {
        owner.is_some_and(|owner| self.of_owner(owner) > self.max_bytes / TOKEN_SHARE)
    }

    fn of_owner(&self, owner: u64) -> usize {
        self.by_owner.borrow().get(&owner).copied().unwrap_or(0)
    }

    /// Up to where a share reaches.
    fn ceiling(&self, share: Share) -> usize {
        let below_small = self.max_bytes - self.max_bytes / SMALL_SHARE;
        match share {
            Share::Small => self.max_bytes,
            Share::Medium => below_small,
            Share::Large => below_small - self.max_bytes / MEDIUM_SHARE,
        }
    }

    fn share_of(&self, bytes: usize) -> Share {
        if bytes <= SMALL_HELD_BYTES {
            Share::Small
        } else if bytes <= MEDIUM_HELD_BYTES.min(self.max_bytes / MEDIUM_SHARE) {
            Share::Medium
        } else {
            Share::Large
        }
    }

    fn wake_next(&self) {
        let wakers = self.waiters.borrow().next_wakers();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn add_to_owner(&self, owner: Option<u64>, before: usize, after: usize) {
        let Some(owner) = owner else { return };
        let mut by_owner = self.by_owner.borrow_mut();
        let bytes = by_owner.get(&owner).copied().unwrap_or(0) + after - before;
        if bytes == 0 {
            by_owner.remove(&owner);
        } else {
            by_owner.insert(owner, bytes);
        }
    }
}

impl Held<'_> {
    /// Whose memory it is: that of a token, or nobody's in particular.
    pub fn set_owner(&mut self, owner: Option<u64>) {
        let before = self.holding.owner.replace(owner);
        let bytes = self.holding.bytes.get();
        if before != owner && bytes > 0 {
            self.budget.add_to_owner(before, bytes, 0);
            self.budget.add_to_owner(owner, 0, bytes);
        }
    }

    /// Whether it holds as much as it takes to have so many bytes in all.
    #[must_use]
    pub fn covers(&self, total_bytes: usize) -> bool {
        counted(total_bytes) <= self.holding.bytes.get()
    }

    /// Leave for so many bytes in all, which [it holds](Self::covers).
    ///
    /// # Panics
    /// If it does not.
    pub fn covered(&self, total_bytes: usize) -> Grow {
        assert!(self.covers(total_bytes), "{total_bytes} bytes need leave");
        Grow { total_bytes: total_bytes.max(CONNECTION_FREE_BYTES) }
    }

    /// The connection has so many bytes in all: fewer than before, or such that are allocated already.
    pub fn note(&mut self, total_bytes: usize) {
        let bytes = counted(total_bytes);
        let before = self.holding.bytes.replace(bytes);
        if before == bytes {
            return;
        }
        self.budget.held_bytes.update(|held| held - before + bytes);
        self.budget.add_to_owner(self.holding.owner.get(), before, bytes);
        if bytes < before {
            self.budget.wake_next();
        }
    }

    /// Leave to have so many bytes in all for an answer, if there is room now. Answers are no business of those who push small
    /// bodies: they compete with large ones.
    pub fn try_grow_to(&mut self, total_bytes: usize) -> Option<Grow> {
        let has_room = self.try_grow(counted(total_bytes), Share::Large, None) == Attempt::Done;
        has_room.then(|| self.covered(total_bytes))
    }

    /// Waits until the connection may have so many bytes in all, for a body.
    ///
    /// # Errors
    /// [`Overloaded`]; it holds the same as before.
    pub async fn grow_to(&mut self, total_bytes: usize) -> Result<Grow, Overloaded> {
        if self.covers(total_bytes) {
            return Ok(self.covered(total_bytes));
        }
        let leave = Ok(Grow { total_bytes: total_bytes.max(CONNECTION_FREE_BYTES) });
        let budget = self.budget;
        let share = budget.share_of(counted(total_bytes));
        // More than there is can only be had as far as there is some.
        let bytes = counted(total_bytes).min(budget.ceiling(share));
        if self.try_grow(bytes, share, None) == Attempt::Done {
            return leave;
        }
        let since_ms = budget.now_ms.get();
        let place = Place::take(budget, self.holding);
        poll_fn(|cx| {
            if self.holding.is_refused.get() {
                return Poll::Ready(Err(Overloaded));
            }
            let is_held_back = match self.try_grow(bytes, share, Some(place.ticket)) {
                Attempt::Done => {
                    budget.granted_ms[share as usize].set(budget.now_ms.get());
                    return Poll::Ready(Ok(()));
                }
                Attempt::HeldBack => true,
                Attempt::NoRoom => false,
            };
            if budget.now_ms.get() >= since_ms + budget.wait_max_ms {
                return Poll::Ready(Err(Overloaded));
            }
            let owner = self.holding.owner.get();
            let more_bytes = bytes - self.holding.bytes.get();
            let waiter = Waiter { waker: cx.waker().clone(), share, owner, more_bytes, since_ms, is_held_back };
            budget.waiters.borrow_mut().insert(place.ticket, waiter);
            Poll::Pending
        })
        .await?;
        leave
    }

    fn try_grow(&mut self, bytes: usize, share: Share, ticket: Option<u64>) -> Attempt {
        let before = self.holding.bytes.get();
        if bytes <= before {
            return Attempt::Done;
        }
        let budget = self.budget;
        let more = bytes - before;
        if let Some(owner) = self.holding.owner.get()
            && budget.of_owner(owner) + more > budget.max_bytes / TOKEN_SHARE
            && budget.waiters.borrow().has_other(owner)
        {
            return Attempt::HeldBack;
        }
        let fits = budget.held_bytes.get() + more <= budget.ceiling(share);
        if !fits || budget.waiters.borrow().has_earlier(share, ticket) {
            return Attempt::NoRoom;
        }
        self.note(bytes + CONNECTION_FREE_BYTES);
        Attempt::Done
    }
}

/// What came of an attempt to hold more.
#[derive(PartialEq, Eq)]
enum Attempt {
    Done,
    /// Others wait, and its token has its part.
    HeldBack,
    NoRoom,
}

/// What is counted of so many bytes.
const fn counted(total_bytes: usize) -> usize {
    total_bytes.saturating_sub(CONNECTION_FREE_BYTES)
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.note(0);
    }
}

impl Grow {
    /// How many bytes the connection may have in all.
    #[must_use]
    pub const fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// Leave for tests of what grows.
    #[cfg(test)]
    pub(crate) const fn unbounded() -> Self {
        Self { total_bytes: usize::MAX }
    }
}

impl Holding {
    /// Bytes that it holds beyond what each connection has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// The token whose memory it is.
    #[must_use]
    pub fn owner(&self) -> Option<u64> {
        self.owner.get()
    }

    /// Whether it waits for more, for a body.
    #[must_use]
    pub fn waits_for_body(&self) -> bool {
        self.waits_for_body.get()
    }

    /// Whether it is to give back what it holds.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_refused.get()
    }

    /// It is to give back what it holds. One that waits finds out when it is woken.
    pub fn refuse(&self) {
        self.is_refused.set(true);
    }
}

/// A place among those who wait.
struct Place<'b> {
    budget: &'b Budget,
    holding: &'b Holding,
    ticket: u64,
}

impl<'b> Place<'b> {
    fn take(budget: &'b Budget, holding: &'b Holding) -> Self {
        holding.waits_for_body.set(true);
        Self { budget, holding, ticket: budget.waiters.borrow_mut().ticket() }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.holding.waits_for_body.set(false);
        let was_there = self.budget.waiters.borrow_mut().remove(self.ticket);
        if was_there {
            self.budget.wake_next();
        }
    }
}

#[cfg(test)]
mod tests;
