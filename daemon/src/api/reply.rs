//! A reply, as a handler makes it: known, or to be waited for.

use super::{
    asked::Asked,
    pushed::Pushed,
    stream::StreamReply,
    writer::{ReplyHead, ReplyWriter},
};
use crate::{
    http::{Refusal, ResponseOptions, cors, response::JSON},
    ingest::{PendingReply, Ticket},
    limits::REPLY_SMALL_BYTES,
    state::{pg_answer::PgAnswer, unsent_bytes::Unsent},
};
use std::{
    borrow::Cow,
    task::{Context, Poll},
};

/// What a request is answered with.
pub enum Reply<'a> {
    /// Known already.
    Whole(WholeReply),
    /// Refused.
    Refused(Refusal),
    /// Messages were appended to the log; the reply depends on the disk, and on PostgreSQL where a commit is waited for.
    Pushed(Pushed<'a>),
    /// PostgreSQL is asked, once there is room for its answer.
    Postgres(Box<Asked>),
    /// A consumer asked the queue.
    Queue(PendingReply),
    /// Produced while it is sent.
    Stream(Box<StreamReply>),
}

/// A reply that is known as a whole.
pub struct WholeReply {
    head: ReplyHead,
    body: Vec<u8>,
    /// Counted as long as the reply is there.
    _unsent: Option<Unsent>,
}

impl<'a> Reply<'a> {
    /// A JSON document, to which a line end is added.
    #[must_use]
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Self::counted(status, body, None)
    }

    fn counted(status: u16, mut body: Vec<u8>, unsent: Option<Unsent>) -> Self {
        body.push(b'\n');
        Self::Whole(WholeReply { head: ReplyHead { status, ..ReplyHead::ok(JSON) }, body, _unsent: unsent })
    }

    /// 204.
    #[must_use]
    pub fn empty() -> Self {
        let head = ReplyHead { status: 204, ..ReplyHead::ok("") };
        Self::Whole(WholeReply { head, body: Vec::new(), _unsent: None })
    }

    /// The answer to OPTIONS. `is_preflight`: a browser asks before it lets a web page send a request.
    #[must_use]
    pub fn allow(methods: impl std::fmt::Display, is_preflight: bool) -> Self {
        let preflight = if is_preflight { cors::PREFLIGHT } else { "" };
        let lines = Cow::Owned(format!("Allow: {methods}\r\n{preflight}").into_bytes());
        let head = ReplyHead { status: 204, content_type: "", lines };
        Self::Whole(WholeReply { head, body: Vec::new(), _unsent: None })
    }

    /// What was appended for it and may not be durable yet.
    #[must_use]
    pub fn ticket(&self) -> Option<&Ticket> {
        match self {
            Self::Pushed(pushed) => pushed.ticket.as_ref(),
            _ => None,
        }
    }

    /// The reply if what was appended for it behind `durable_ordinal` is not kept for the reason in `refusal`.
    #[must_use]
    pub fn refused(self, durable_ordinal: u64, refusal: Refusal) -> Self {
        match self {
            Self::Pushed(pushed) => pushed.refused(durable_ordinal, refusal),
            other => other,
        }
    }

    /// The same reply, which borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Reply<'static> {
        match self {
            Self::Whole(whole) => Reply::Whole(whole),
            Self::Refused(refusal) => Reply::Refused(refusal),
            Self::Pushed(pushed) => Reply::Pushed(pushed.into_owned()),
            Self::Postgres(asked) => Reply::Postgres(asked),
            Self::Queue(pending) => Reply::Queue(pending),
            Self::Stream(stream) => Reply::Stream(stream),
        }
    }

    /// Bytes of memory that it has, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Whole(whole) => whole.body.capacity(),
            Self::Refused(refusal) => refusal.message.len(),
            Self::Pushed(pushed) => pushed.memory_bytes(),
            Self::Postgres(asked) => asked.memory_bytes(),
            Self::Queue(_) | Self::Stream(_) => 0,
        }
    }

    /// Bytes that it has when it is written, about and at most.
    #[must_use]
    pub fn written_bytes(&self) -> usize {
        const HEAD_BYTES: usize = 512;
        HEAD_BYTES
            + match self {
                Self::Whole(whole) => whole.body.len() + whole.head.lines.len(),
                Self::Refused(refusal) => refusal.message.len(),
                Self::Pushed(pushed) => pushed.written_bytes(),
                Self::Postgres(_) | Self::Queue(_) | Self::Stream(_) => 0,
            }
    }

    /// Whether the connection must be closed after it, as far as that is known.
    #[must_use]
    pub fn closes(&self, options: ResponseOptions) -> bool {
        match self {
            Self::Refused(refusal) => refusal.close,
            Self::Pushed(pushed) => pushed.ended_by.as_ref().is_some_and(|refusal| refusal.close),
            // The client knows the end of the body by that of the connection.
            Self::Stream(_) => !options.takes_chunks(),
            Self::Whole(_) | Self::Postgres(_) | Self::Queue(_) => false,
        }
    }

    /// Whether nothing is to be waited for but the disk.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Whole(_) | Self::Refused(_) => true,
            Self::Pushed(pushed) => pushed.is_settled(),
            Self::Postgres(_) | Self::Queue(_) | Self::Stream(_) => false,
        }
    }

    /// Waits until the reply is settled, or [needs room](Asked::needs_room) for that. A stream never is: it is sent piece by piece.
    pub fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Whole(_) | Self::Refused(_) => Poll::Ready(()),
            Self::Pushed(pushed) => pushed.poll_settled(cx),
            Self::Postgres(asked) => asked.poll(cx).map(|answer| match answer {
                None => {}
                Some(PgAnswer::Json(body)) => *self = Self::json(200, body),
                Some(PgAnswer::Refused(refusal)) => *self = Self::Refused(refusal),
                Some(PgAnswer::Lines { .. }) => panic!("only a stream asks for lines"),
                Some(PgAnswer::TooLarge { .. }) => panic!("it is asked for again"),
                Some(PgAnswer::Empty | PgAnswer::Popped { .. }) => panic!("an answer about letters has a body"),
            }),
            Self::Queue(pending) => pending.poll(cx).map(|answer| {
                *self = match answer {
                    PgAnswer::Json(body) => Self::json(200, body),
                    PgAnswer::Popped { body, unsent } => Self::counted(200, body, Some(unsent)),
                    PgAnswer::Empty => Self::empty(),
                    PgAnswer::Refused(refusal) => Self::Refused(refusal),
                    PgAnswer::Lines { .. } | PgAnswer::TooLarge { .. } => panic!("the queue answers with a document"),
                };
            }),
            Self::Stream(_) => Poll::Pending,
        }
    }

    /// Appends to `out` what is known of the reply, also where it is not settled: a push whose commit nobody has heard of is
    /// `buffered`, since it is durable. Returns whether anything is known; otherwise nothing was written.
    pub(super) fn write(&self, writer: &ReplyWriter, options: ResponseOptions, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Whole(whole) => {
                let ReplyHead { status, content_type, lines } = &whole.head;
                writer.reply(*status, content_type, lines, &whole.body, options, out);
            }
            Self::Refused(refusal) => writer.refusal(refusal, None, options, out),
            Self::Pushed(pushed) => pushed.write(writer, options, out),
            Self::Postgres(_) | Self::Queue(_) | Self::Stream(_) => return false,
        }
        true
    }

    /// Whether it needs leave to be written as a whole, or is written in parts. A refusal never does: its text is bounded.
    #[must_use]
    pub fn is_large(&self) -> bool {
        let has_parts = match self {
            Self::Whole(_) => true,
            Self::Pushed(pushed) => pushed.ended_by.is_none(),
            Self::Refused(_) | Self::Postgres(_) | Self::Queue(_) | Self::Stream(_) => false,
        };
        has_parts && self.written_bytes() > REPLY_SMALL_BYTES
    }

    /// Appends what stands before a body of `length` bytes, which follows in parts.
    pub(super) fn write_head(&self, writer: &ReplyWriter, length: usize, options: ResponseOptions, out: &mut Vec<u8>) {
        match self {
            Self::Whole(whole) => {
                let ReplyHead { status, content_type, lines } = &whole.head;
                writer.head(*status, content_type, lines, length, options, out);
            }
            Self::Pushed(pushed) => pushed.write_head(writer, length, options, out),
            Self::Refused(_) | Self::Postgres(_) | Self::Queue(_) | Self::Stream(_) => {
                unreachable!("only a large reply has parts")
            }
        }
    }

    /// Appends the part of the body from the place `from` on, of `most` bytes and what is left of an item. Returns where the next
    /// one begins.
    pub(super) fn write_part(
        &self,
        from: usize,
        database_is_healthy: bool,
        most: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        match self {
            Self::Whole(whole) => {
                let end = whole.body.len().min(from.saturating_add(most));
                out.extend_from_slice(&whole.body[from..end]);
                (end < whole.body.len()).then_some(end)
            }
            Self::Pushed(pushed) => pushed.write_part(from, database_is_healthy, most, out),
            Self::Refused(_) | Self::Postgres(_) | Self::Queue(_) | Self::Stream(_) => {
                unreachable!("only a large reply has parts")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ErrorCode;

    #[test]
    fn a_long_document_needs_leave_and_a_long_refusal_is_written_all_the_same() {
        assert!(!Reply::json(200, Vec::new()).is_large());
        assert!(Reply::json(200, vec![b' '; REPLY_SMALL_BYTES]).is_large());
        let why = "x".repeat(2 * REPLY_SMALL_BYTES);
        assert!(!Reply::Refused(Refusal::new(ErrorCode::InvalidRequest, why)).is_large());
    }
}
