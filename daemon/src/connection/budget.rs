//! The budget of bytes in flight: memory for the requests and replies of a core's connections, beyond the small buffer that each
//! may have.
//!
//! When the budget is used up, nobody is refused at once: bodies wait to be read. One connection at a time may exceed it, so
//! that some body always comes to its end, however large the bodies are. At most the budget and one body are held.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    task::{Poll, Waker},
};

/// The budget of one core.
pub(crate) struct Budget {
    max_bytes: usize,
    patience_ms: u64,
    held_bytes: Cell<usize>,
    /// Whether a connection exceeds it.
    is_exceeded: Cell<bool>,
    now_ms: Cell<u64>,
    /// By tickets, which rise: a connection that finds too little keeps its place.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next_ticket: Cell<u64>,
}

/// There was no room in time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overloaded;

/// One connection's part of the budget; given back when dropped.
pub(crate) struct Held<'b> {
    budget: &'b Budget,
    bytes: usize,
    exceeds: bool,
}

impl Budget {
    pub(crate) fn new(max_bytes: usize, patience_ms: u64) -> Self {
        Self {
            max_bytes,
            patience_ms,
            held_bytes: Cell::new(0),
            is_exceeded: Cell::new(false),
            now_ms: Cell::new(0),
            waiting: RefCell::default(),
            next_ticket: Cell::new(0),
        }
    }

    pub(crate) fn hold(&self) -> Held<'_> {
        Held { budget: self, bytes: 0, exceeds: false }
    }

    /// Moves the clock: waiting connections see whether their time is over.
    pub(crate) fn tick(&self, now_ms: u64) {
        self.now_ms.set(now_ms);
        self.waiting.take().into_values().for_each(Waker::wake);
    }

    fn wake_next(&self) {
        let next = self.waiting.borrow_mut().pop_first();
        if let Some((_, waker)) = next {
            waker.wake();
        }
    }
}

impl Held<'_> {
    /// Holds so many bytes, whatever others hold. Only for fewer bytes than before, or bytes that are allocated already.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let held = self.budget.held_bytes.get();
        self.budget.held_bytes.set(held - before + bytes);
        // A connection that exceeded the budget for a body and goes on with less must not keep others from doing so.
        let is_within = bytes == 0 || self.budget.held_bytes.get() <= self.budget.max_bytes;
        let gives_up = is_within && std::mem::take(&mut self.exceeds);
        if gives_up {
            self.budget.is_exceeded.set(false);
        }
        if gives_up || bytes < before {
            self.budget.wake_next();
        }
    }

    /// Waits until the connection may hold so many bytes in all, and holds them.
    ///
    /// # Errors
    /// [`Overloaded`]; it holds the same as before.
    pub(crate) async fn grow_to(&mut self, bytes: usize) -> Result<(), Overloaded> {
        if bytes <= self.bytes || self.try_grow_to(bytes) {
            return Ok(());
        }
        let deadline_ms = self.budget.now_ms.get() + self.budget.patience_ms;
        let ticket = self.budget.next_ticket.get();
        self.budget.next_ticket.set(ticket + 1);
        poll_fn(|cx| {
            if self.try_grow_to(bytes) {
                self.budget.wake_next();
                return Poll::Ready(Ok(()));
            }
            if self.budget.now_ms.get() >= deadline_ms {
                self.budget.wake_next();
                return Poll::Ready(Err(Overloaded));
            }
            self.budget.waiting.borrow_mut().insert(ticket, cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn try_grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes - self.bytes;
        let fits = self.budget.held_bytes.get() + more <= self.budget.max_bytes;
        if !fits && !self.exceeds {
            if self.budget.is_exceeded.replace(true) {
                return false;
            }
            self.exceeds = true;
        }
        self.set(bytes);
        true
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::Future,
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::{Context, Wake},
    };

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn one_may_go_beyond_it_and_the_next_waits_until_there_is_room() {
        let budget = Budget::new(100, 1000);
        let (mut one, mut other, mut third) = (budget.hold(), budget.hold(), budget.hold());
        assert_eq!(poll(pin!(one.grow_to(90))), Poll::Ready(Ok(())));
        assert_eq!(poll(pin!(other.grow_to(500))), Poll::Ready(Ok(())));
        assert_eq!(poll(pin!(other.grow_to(900))), Poll::Ready(Ok(())), "it has gone beyond it already");
        {
            let mut waits = pin!(third.grow_to(20));
            assert_eq!(poll(waits.as_mut()), Poll::Pending);
            drop(other);
            assert_eq!(poll(waits.as_mut()), Poll::Ready(Ok(())));
        }
        assert_eq!(budget.held_bytes.get(), 110);
        drop((one, third));
        assert_eq!((budget.held_bytes.get(), budget.is_exceeded.get()), (0, false));
    }

    #[test]
    fn who_has_gone_beyond_it_and_goes_on_with_less_leaves_that_to_others() {
        let budget = Budget::new(100, 1000);
        let (mut one, mut other, mut third) = (budget.hold(), budget.hold(), budget.hold());
        assert_eq!(poll(pin!(one.grow_to(500))), Poll::Ready(Ok(())));
        one.set(20);
        assert_eq!(poll(pin!(other.grow_to(500))), Poll::Ready(Ok(())));
        {
            let mut waits = pin!(third.grow_to(500));
            assert_eq!(poll(waits.as_mut()), Poll::Pending);
            // Not while it still is beyond it.
            one.set(10);
            assert_eq!(poll(waits.as_mut()), Poll::Pending);
            other.set(10);
            assert_eq!(poll(waits.as_mut()), Poll::Ready(Ok(())));
        }
        drop((one, other, third));
        assert_eq!((budget.held_bytes.get(), budget.is_exceeded.get()), (0, false));
    }

    /// Whether it was woken.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn those_who_wait_stay_in_the_order_in_which_they_came_however_often_they_look_in_vain() {
        let budget = Budget::new(100, 1000);
        let (mut one, mut beyond) = (budget.hold(), budget.hold());
        assert_eq!(poll(pin!(one.grow_to(100))), Poll::Ready(Ok(())));
        assert_eq!(poll(pin!(beyond.grow_to(100))), Poll::Ready(Ok(())));
        let mut held: [Held<'_>; 3] = std::array::from_fn(|_| budget.hold());
        let mut waits: Vec<_> = held.iter_mut().map(|held| Box::pin(held.grow_to(60))).collect();
        let woken: [Arc<Woken>; 3] = Default::default();
        let mut poll_woken = || -> Vec<usize> {
            let is_woken = |index: &usize| woken[*index].0.swap(false, Ordering::Relaxed);
            let poll = |index: &usize| {
                let waker = Waker::from(Arc::clone(&woken[*index]));
                waits[*index].as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
            };
            (0..3).filter(is_woken).filter(poll).collect()
        };
        woken.iter().for_each(|woken| Arc::clone(woken).wake());
        for now_ms in 0..3 {
            assert_eq!(poll_woken(), [0; 0]);
            budget.tick(now_ms);
        }
        assert_eq!(poll_woken(), [0; 0]);
        beyond.set(0);
        one.set(50);
        assert_eq!(poll_woken(), [0]);
    }

    #[test]
    fn whoever_waits_too_long_is_told_and_holds_what_it_held() {
        let budget = Budget::new(100, 1000);
        let (mut one, mut other) = (budget.hold(), budget.hold());
        assert_eq!(poll(pin!(one.grow_to(1000))), Poll::Ready(Ok(())));
        {
            let mut waits = pin!(other.grow_to(10));
            assert_eq!(poll(waits.as_mut()), Poll::Pending);
            budget.tick(999);
            assert_eq!(poll(waits.as_mut()), Poll::Pending);
            budget.tick(1000);
            assert_eq!(poll(waits.as_mut()), Poll::Ready(Err(Overloaded)));
        }
        assert_eq!(other.bytes, 0);
        one.set(50);
        assert_eq!(poll(pin!(other.grow_to(10))), Poll::Ready(Ok(())));
    }
}
