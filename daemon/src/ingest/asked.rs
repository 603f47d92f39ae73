//! Those who wait for an errand to PostgreSQL.

use crate::{api::Answer, http::ErrorCode};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// An errand that somebody waits for.
#[derive(Default)]
pub struct Asked {
    answer: RefCell<Option<Answer>>,
    waker: RefCell<Option<Waker>>,
}

impl Asked {
    /// Waits for the answer. It comes once.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                self.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    fn answer(&self, answer: Answer) {
        self.answer.replace(Some(answer));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Those of one core.
#[derive(Default)]
pub struct PendingReplies {
    next_id: Cell<u64>,
    waiting: RefCell<HashMap<u64, Rc<Asked>>>,
}

impl PendingReplies {
    /// Adds one; returns its id.
    pub(crate) fn add(&self) -> (u64, Rc<Asked>) {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let asked = Rc::new(Asked::default());
        self.waiting.borrow_mut().insert(id, Rc::clone(&asked));
        (id, asked)
    }

    /// Forgets one that was not asked for after all.
    pub(crate) fn forget(&self, id: u64) {
        self.waiting.borrow_mut().remove(&id);
    }

    /// Hands an answer to whoever waits for it.
    pub(crate) fn answer(&self, id: u64, answer: Answer) {
        // One that was given up is not there.
        let asked = self.waiting.borrow_mut().remove(&id);
        if let Some(asked) = asked {
            asked.answer(answer);
        }
    }

    /// Lets nobody wait any longer: the daemon ends.
    pub(crate) fn give_up_all(&self) {
        for asked in self.waiting.take().into_values() {
            asked.answer(Answer::Refused(ErrorCode::ShuttingDown.into()));
        }
    }
}
