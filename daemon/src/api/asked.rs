//! An answer of PostgreSQL's that is asked for once there is room for it.
//!
//! Room comes before the answer: a core's budget counts what its clients have not read yet, and nothing is fetched for a client
//! for which there is none. How large an answer is shows when it is asked for. So a first attempt has little room, and one that
//! finds too little says how much it takes.

use super::letter_requests::{LetterAsk, LetterRequests};
use crate::{http::Refusal, ingest::PendingReply, state::pg_answer::PgAnswer};
use std::task::{Context, Poll, ready};

/// A request to PostgreSQL, before it is made and while its answer is waited for.
pub struct Asked {
    letters: LetterRequests,
    ask: LetterAsk,
    owner: Option<u64>,
    /// Bytes that the answer may have, beyond those that every connection has for small ones.
    room_bytes: usize,
    /// `None`: there is no room for the answer yet.
    pending: Option<PendingReply>,
}

impl Asked {
    /// A request for the token `owner`, not made yet.
    pub(super) fn new(letters: LetterRequests, ask: LetterAsk, owner: Option<u64>) -> Self {
        let room_bytes = ask.first_room_bytes();
        Self { letters, ask, owner, room_bytes, pending: None }
    }

    /// Whether the room for its answer is to be held before it goes on.
    #[must_use]
    pub fn needs_room(&self) -> bool {
        self.pending.is_none()
    }

    /// The room that the next attempt takes, in bytes.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        self.room_bytes
    }

    /// Whose memory the answer takes.
    #[must_use]
    pub fn owner(&self) -> Option<u64> {
        self.owner
    }

    /// Makes the request. Its room is held by now.
    ///
    /// # Errors
    /// 503 when too much waits for PostgreSQL.
    pub fn submit(&mut self) -> Result<(), Refusal> {
        self.pending = Some(self.letters.submit(self.ask.clone(), self.room_bytes)?);
        Ok(())
    }

    /// Bytes of memory that it has, or may have at any time.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        if self.pending.is_some() { self.room_bytes } else { 0 }
    }

    /// Waits for the answer. `None`: it [needs more room](Self::needs_room).
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<PgAnswer>> {
        let Some(pending) = &self.pending else { return Poll::Ready(None) };
        match ready!(pending.poll(cx)) {
            PgAnswer::TooLarge { bytes } => {
                self.room_bytes = bytes.max(self.room_bytes + 1);
                self.pending = None;
                Poll::Ready(None)
            }
            answer => Poll::Ready(Some(answer)),
        }
    }
}
