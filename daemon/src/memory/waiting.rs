//! Those who wait for memory, in the order in which they came.

use std::{collections::BTreeMap, task::Waker};

/// A part of the budget, by the bytes of whoever wants some of it. Smaller requests reach into memory that larger ones may not
/// take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Small,
    Medium,
    Large,
}

impl Share {
    pub(super) const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];
}

/// One who waits.
pub(super) struct Waiter {
    pub(super) waker: Waker,
    pub(super) share: Share,
    pub(super) owner: Option<u64>,
    /// What it wants beyond what it holds.
    pub(super) more_bytes: usize,
    pub(super) since_ms: u64,
    /// Its token holds its part already, and others wait.
    pub(super) is_held_back: bool,
}

/// All who wait, by tickets, which rise.
#[derive(Default)]
pub(super) struct Waiters {
    by_ticket: BTreeMap<u64, Waiter>,
    next_ticket: u64,
}

impl Waiters {
    /// A ticket behind all others.
    pub(super) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    pub(super) fn insert(&mut self, ticket: u64, waiter: Waiter) {
        self.by_ticket.insert(ticket, waiter);
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, ticket: u64) -> bool {
        self.by_ticket.remove(&ticket).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.by_ticket.values()
    }

    /// Whether one with an earlier ticket waits for the same share; without a ticket all are earlier.
    pub(super) fn has_earlier(&self, share: Share, ticket: Option<u64>) -> bool {
        let earlier = self.by_ticket.range(..ticket.unwrap_or(u64::MAX));
        earlier.into_iter().any(|(_, waiter)| waiter.share == share && !waiter.is_held_back)
    }

    /// Whether one waits who is not of this owner.
    pub(super) fn has_other(&self, owner: u64) -> bool {
        self.iter().any(|waiter| waiter.owner != Some(owner) && !waiter.is_held_back)
    }

    /// The first who waits for each share.
    pub(super) fn firsts(&self) -> impl Iterator<Item = &Waiter> {
        Share::ALL
            .into_iter()
            .filter_map(|share| self.iter().find(|waiter| waiter.share == share && !waiter.is_held_back))
    }

    /// Those who are to look again when memory was given back.
    pub(super) fn next_wakers(&self) -> Vec<Waker> {
        let held_back = self.iter().filter(|waiter| waiter.is_held_back);
        self.firsts().chain(held_back).map(|waiter| waiter.waker.clone()).collect()
    }

    pub(super) fn all_wakers(&self) -> Vec<Waker> {
        self.iter().map(|waiter| waiter.waker.clone()).collect()
    }
}
