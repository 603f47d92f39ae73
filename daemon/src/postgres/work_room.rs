//! Memory of a thread that asks PostgreSQL: who works on large values, and who waits for that.
//!
//! The requests of a thread run beside one another, and one that works on a large value has it several times: as a row, as a
//! letter, as JSON. Such requests take room first, in the order in which they came. Those that work on little need none, and
//! wait for nobody.

use crate::{
    limits::{MEMORY_WAIT_MAX, PG_WORK_BYTES_MAX, PG_WORK_FREE_BYTES},
    rt,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

/// How often one who waits looks whether it is given up.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The room of one thread.
#[derive(Debug)]
pub struct WorkRoom {
    free_bytes: Cell<usize>,
    /// By tickets, which rise.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next_ticket: Cell<u64>,
}

/// Room for a large value; given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct TakenRoom {
    room: Rc<WorkRoom>,
    bytes: usize,
}

/// There was no room within [`MEMORY_WAIT_MAX`], or nobody waits any more. Next step: ask again later.
#[derive(Debug, thiserror::Error)]
#[error("others hold all memory that there is for such requests")]
pub struct NoRoom;

impl Default for WorkRoom {
    fn default() -> Self {
        Self { free_bytes: Cell::new(PG_WORK_BYTES_MAX), waiting: RefCell::default(), next_ticket: Cell::new(0) }
    }
}

impl WorkRoom {
    /// Waits for room for so many bytes. Up to [`PG_WORK_FREE_BYTES`] need none; more than there is gets all of it. A request that
    /// `is_given_up` does not wait on.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub async fn take(self: &Rc<Self>, bytes: usize, is_given_up: impl Fn() -> bool) -> Result<TakenRoom, NoRoom> {
        if bytes <= PG_WORK_FREE_BYTES {
            return Ok(TakenRoom { room: Rc::clone(self), bytes: 0 });
        }
        let bytes = bytes.min(PG_WORK_BYTES_MAX);
        let place = Place::take(self);
        if let Some(taken) = self.try_take(bytes, place.ticket) {
            return Ok(taken);
        }
        let give_up = Instant::now() + MEMORY_WAIT_MAX;
        while Instant::now() < give_up && !is_given_up() {
            let mut look = pin!(rt::sleep(LOOK_INTERVAL));
            let taken = poll_fn(|cx| {
                if let Some(taken) = self.try_take(bytes, place.ticket) {
                    return Poll::Ready(Some(taken));
                }
                self.waiting.borrow_mut().insert(place.ticket, cx.waker().clone());
                look.as_mut().poll(cx).map(|()| None)
            });
            if let Some(taken) = taken.await {
                return Ok(taken);
            }
        }
        Err(NoRoom)
    }

    fn try_take(self: &Rc<Self>, bytes: usize, ticket: u64) -> Option<TakenRoom> {
        let is_first = self.waiting.borrow().range(..ticket).next().is_none();
        let free_bytes = self.free_bytes.get().checked_sub(bytes).filter(|_| is_first)?;
        self.free_bytes.set(free_bytes);
        Some(TakenRoom { room: Rc::clone(self), bytes })
    }

    fn wake_first(&self) {
        let first = self.waiting.borrow().first_key_value().map(|(_, waker)| waker.clone());
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

impl Drop for TakenRoom {
    fn drop(&mut self) {
        self.room.free_bytes.update(|free| free + self.bytes);
        self.room.wake_first();
    }
}

/// A place among those who wait.
struct Place<'r> {
    room: &'r WorkRoom,
    ticket: u64,
}

impl<'r> Place<'r> {
    fn take(room: &'r WorkRoom) -> Self {
        let ticket = room.next_ticket.get();
        room.next_ticket.set(ticket + 1);
        Self { room, ticket }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let was_there = self.room.waiting.borrow_mut().remove(&self.ticket).is_some();
        if was_there {
            self.room.wake_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{pin::Pin, task::Context};

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn large_ones_come_one_after_the_other_in_their_order_and_small_ones_wait_for_nobody() {
        rt::runtime(8).unwrap().block_on(async {
            let room = Rc::<WorkRoom>::default();
            let first = room.take(2 * PG_WORK_BYTES_MAX, || false).await.unwrap();
            let mut second = Box::pin(room.take(PG_WORK_BYTES_MAX, || false));
            let mut third = Box::pin(room.take(PG_WORK_FREE_BYTES + 1, || false));
            let mut fourth = Box::pin(room.take(PG_WORK_FREE_BYTES + 1, || false));
            assert!(poll(second.as_mut()).is_pending() && poll(third.as_mut()).is_pending());
            assert!(poll(fourth.as_mut()).is_pending());
            drop(room.take(PG_WORK_FREE_BYTES, || true).await.unwrap());
            assert!(room.take(PG_WORK_FREE_BYTES + 1, || true).await.is_err(), "it is given up");
            drop(first);
            assert!(poll(third.as_mut()).is_pending(), "another one came before");
            // One that leaves makes way.
            drop(second);
            let taken = poll(third.as_mut());
            assert!(taken.is_ready() && poll(fourth.as_mut()).is_ready());
            drop(taken);
            drop(third);
            drop(fourth);
            assert_eq!((room.free_bytes.get(), room.waiting.borrow().len()), (PG_WORK_BYTES_MAX, 0));
        });
    }
}
