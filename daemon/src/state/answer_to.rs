//! Whom to answer: a request of a core.

use super::{
    mailbox::{Letter, Mailboxes},
    pg_answer::PgAnswer,
};
use std::sync::Arc;

/// A request of a core, which is answered exactly once: where nobody does, its drop does.
pub struct AnswerTo {
    mailboxes: Arc<Mailboxes>,
    core: u16,
    id: u64,
    answer: Option<PgAnswer>,
}

impl AnswerTo {
    /// The request that `core` knows by `id`.
    #[must_use]
    pub fn new(mailboxes: Arc<Mailboxes>, core: u16, id: u64) -> Self {
        Self { mailboxes, core, id, answer: None }
    }

    /// Answers it.
    pub fn answer(mut self, answer: PgAnswer) {
        self.answer = Some(answer);
    }
}

impl Drop for AnswerTo {
    fn drop(&mut self) {
        let answer = self.answer.take().unwrap_or_else(|| PgAnswer::away("the request was given up"));
        if let Some(mailbox) = self.mailboxes.get(self.core) {
            mailbox.send(Letter::PgAnswer { id: self.id, answer });
        }
    }
}

impl std::fmt::Debug for AnswerTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mailboxes: _, core, id, answer: _ } = self;
        f.debug_struct("AnswerTo").field("core", core).field("id", id).finish_non_exhaustive()
    }
}
