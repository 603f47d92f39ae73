//! All dead letters as a streamed reply, one JSON object a line.

use super::{
    letter_requests::{LetterAsk, LetterRequests},
    stream::{BodySource, NextPiece},
};
use crate::{letters::id::LetterId, state::pg_answer::PgAnswer};
use std::future::poll_fn;

/// The letters of a queue, or of all queues. Each piece is a page, which PostgreSQL is asked for when the piece before has left.
pub(super) struct LetterLines {
    letters: LetterRequests,
    queue: Option<String>,
    after: Option<LetterId>,
}

impl LetterLines {
    /// The letters behind `after`, or from the first one on.
    pub(super) fn new(letters: LetterRequests, queue: Option<String>, after: Option<LetterId>) -> Self {
        Self { letters, queue, after }
    }
}

impl BodySource for LetterLines {
    fn next<'a>(&'a mut self, piece: &'a mut Vec<u8>) -> NextPiece<'a> {
        Box::pin(async move {
            let ask = LetterAsk::Lines { queue: self.queue.clone(), after: self.after };
            let room_bytes = ask.first_room_bytes();
            let pending = self.letters.submit(ask, room_bytes)?;
            match poll_fn(|cx| pending.poll(cx)).await {
                PgAnswer::Lines { lines, next } => {
                    piece.extend_from_slice(&lines);
                    let next = next.map(|id| match id.parse() {
                        Ok(id) => id,
                        Err(error) => panic!("the id of a letter that was listed: {error}"),
                    });
                    self.after = next.or(self.after);
                    Ok(next.is_some())
                }
                PgAnswer::Refused(refusal) => Err(refusal),
                PgAnswer::Json(_) | PgAnswer::Popped { .. } | PgAnswer::Empty | PgAnswer::TooLarge { .. } => {
                    panic!("lines were asked for")
                }
            }
        })
    }
}
