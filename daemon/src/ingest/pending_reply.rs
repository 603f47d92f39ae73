//! Requests of a core to PostgreSQL whose answer somebody waits for.

use crate::{
    http::ErrorCode,
    state::{cancel_flag::CancelFlag, pg_answer::PgAnswer},
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// A request that somebody waits for. Dropping it gives the request up: what was not sent to PostgreSQL yet is not sent.
pub struct PendingReply {
    replies: Rc<PendingReplies>,
    id: u64,
    cancel_flag: CancelFlag,
    slot: Rc<Slot>,
}

#[derive(Default)]
struct Slot {
    answer: RefCell<Option<PgAnswer>>,
    /// The answer where the daemon ends before; `None`: a refusal.
    at_end: Option<fn() -> PgAnswer>,
    waker: RefCell<Option<Waker>>,
}

impl PendingReply {
    /// Which of the core's requests it is.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Set when nobody waits any more.
    pub fn cancel_flag(&self) -> CancelFlag {
        self.cancel_flag.clone()
    }

    /// Waits for the answer. It comes once.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<PgAnswer> {
        match self.slot.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                self.slot.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.cancel_flag.set();
        self.replies.waiting.borrow_mut().remove(&self.id);
    }
}

/// The requests of one core.
#[derive(Default)]
pub struct PendingReplies {
    next_id: Cell<u64>,
    waiting: RefCell<HashMap<u64, Rc<Slot>>>,
}

impl PendingReplies {
    /// Adds a request.
    pub fn add(self: &Rc<Self>) -> PendingReply {
        self.add_slot(Slot::default())
    }

    /// Adds a request that is answered with `at_end` where the daemon ends before.
    pub fn add_until_end(self: &Rc<Self>, at_end: fn() -> PgAnswer) -> PendingReply {
        self.add_slot(Slot { at_end: Some(at_end), ..Slot::default() })
    }

    fn add_slot(self: &Rc<Self>, slot: Slot) -> PendingReply {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let slot = Rc::new(slot);
        self.waiting.borrow_mut().insert(id, Rc::clone(&slot));
        PendingReply { replies: Rc::clone(self), id, cancel_flag: CancelFlag::default(), slot }
    }

    /// Hands an answer to whoever waits for it. A request that was given up is not there.
    pub(crate) fn answer(&self, id: u64, answer: PgAnswer) {
        let slot = self.waiting.borrow_mut().remove(&id);
        if let Some(slot) = slot {
            slot.answer(answer);
        }
    }

    /// Lets nobody wait any longer: the daemon ends.
    pub(crate) fn give_up_all(&self) {
        for slot in self.waiting.take().into_values() {
            let at_end =
                slot.at_end.map_or_else(|| PgAnswer::Refused(ErrorCode::ShuttingDown.into()), |at_end| at_end());
            slot.answer(at_end);
        }
    }
}

impl Slot {
    fn answer(&self, answer: PgAnswer) {
        self.answer.replace(Some(answer));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_nobody_waits_for_is_given_up_and_forgotten() {
        let replies = Rc::<PendingReplies>::default();
        let (first, second) = (replies.add(), replies.add());
        let flag = first.cancel_flag();
        let id = first.id();
        drop(first);
        assert!(flag.is_set() && !second.cancel_flag().is_set());
        assert_eq!(replies.waiting.borrow().len(), 1);
        replies.answer(id, PgAnswer::away("late"));
        assert!(second.slot.answer.borrow().is_none());
        replies.give_up_all();
        assert!(matches!(second.slot.answer.take(), Some(PgAnswer::Refused(refusal)) if refusal.status == 503));
    }
}
