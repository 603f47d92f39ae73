//! A pass over the buffer: all requests in it that are complete. Nothing is waited for, so all that it needs is on the stack,
//! and nothing of it is kept but the answers.

use super::{CLOSING, Conversation, Next, manner_of};
use crate::{
    access::Grant,
    api,
    api::{Ahead, Reply, RouteMatch},
    http::{Body, ErrorCode, Head, Limits, Manner, Parsed, Refusal, chunked::Decoder, request},
    ingest::Core,
    limits::PIPELINED_MAX,
    rt::Transport,
};

/// What a pass came to.
pub(crate) struct Pass<'b> {
    /// What is to be done next.
    pub(crate) next: Next,
    /// How many bytes at the buffer's start are done with.
    pub(crate) consumed: usize,
    /// The answers that were written leave when the lane is durable up to here.
    pub(crate) end_ordinal: u64,
    /// Replies that wait for more than the disk, and all behind them.
    pub(crate) waiting: Vec<(Reply<'b>, Manner)>,
}

impl<S: Transport> Conversation<'_, S> {
    /// Takes all complete requests at the start of `buffer`.
    pub(crate) fn pass<'b>(&mut self, buffer: &'b [u8]) -> Pass<'b> {
        let mut pass = Pass { next: Next::Again, consumed: 0, end_ordinal: 0, waiting: Vec::new() };
        for _ in 0..PIPELINED_MAX {
            if let Some(next) = self.take_one(buffer, &mut pass) {
                pass.next = next;
                break;
            }
        }
        pass
    }

    /// Takes the next request. Returns what is to be done where that is not to take the one behind it.
    fn take_one<'b>(&mut self, buffer: &'b [u8], pass: &mut Pass<'b>) -> Option<Next> {
        let rest = &buffer[pass.consumed..];
        if rest.is_empty() {
            return Some(Next::Read { needed: 0 });
        }
        // How large a body may be depends on what is asked for.
        let head = match request::parse(rest, &Limits::new(u64::MAX)) {
            Ok(Parsed::Partial) => return Some(Next::Read { needed: 0 }),
            Ok(Parsed::Head(head)) => head,
            Err(refusal) => {
                self.answer_ahead(Reply::refused(refusal), CLOSING, pass);
                return Some(Next::Leave);
            }
        };
        let manner = manner_of(self.core, &head);
        let (route, grant) = match self.admit(&head, rest) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.turn_away(refusal, &head, manner, rest, pass),
        };
        let body_bytes = match head.framing {
            Body::None => Some(0),
            Body::Length(length) if head.content_encoding.is_none() && !route.takes_lines(&head) => {
                Some(length as usize)
            }
            Body::Length(_) | Body::Chunked => None,
        };
        let Some(body_bytes) = body_bytes else {
            return Some(self.go_on_with(Next::Body, grant, &head, rest));
        };
        let total = head.head_len.saturating_add(body_bytes);
        if total > rest.len() {
            return Some(self.go_on_with(Next::Read { needed: total }, grant, &head, rest));
        }
        let Some(reply) = api::handle_now(self.core, &head, route, &grant, &rest[head.head_len..total]) else {
            return Some(self.go_on_with(Next::Body, grant, &head, rest));
        };
        pass.consumed += total;
        self.request_ended();
        let closes = self.answer_ahead(reply, manner, pass);
        (closes || !manner.keep_alive).then_some(Next::Close)
    }

    /// What a request asks for, and what its sender may do, if it may go on.
    fn admit<'h>(&mut self, head: &Head<'h>, rest: &[u8]) -> Result<(RouteMatch<'h>, Grant), Refusal> {
        let route = api::find_route(head.method, head.path)?;
        if let Some(grant) = &self.admitted {
            return Ok((route, grant.clone()));
        }
        let grant = api::admit(self.core, head, &route, &mut self.cache)?;
        if self.core.is_stopping() && whole_request_bytes(head, self.core, rest).is_none() {
            return Err(ErrorCode::ShuttingDown.into());
        }
        Ok((route, grant))
    }

    /// A request was admitted, and more is to be done before it is answered.
    fn go_on_with(&mut self, next: Next, grant: Grant, head: &Head<'_>, rest: &[u8]) -> Next {
        self.admitted = Some(grant);
        self.wants_continue = head.expect_continue && rest.len() == head.head_len;
        next
    }

    /// Refuses a request by its head.
    fn turn_away<'b>(
        &mut self,
        refusal: Refusal,
        head: &Head<'_>,
        manner: Manner,
        rest: &[u8],
        pass: &mut Pass<'b>,
    ) -> Option<Next> {
        // A body that is at hand is passed over. For the rest of one nobody waits.
        let request_bytes = whole_request_bytes(head, self.core, rest);
        let is_kept = request_bytes.is_some() && manner.keep_alive && !refusal.close;
        pass.consumed += request_bytes.unwrap_or(rest.len());
        self.request_ended();
        self.answer_ahead(Reply::refused(refusal), Manner { keep_alive: is_kept, ..manner }, pass);
        match (is_kept, request_bytes) {
            (true, _) => None,
            (false, Some(_)) => Some(Next::Close),
            (false, None) => Some(Next::Leave),
        }
    }

    /// Writes an answer, or puts it behind those that wait. Returns whether the connection is known to be closed after it.
    fn answer_ahead<'b>(&mut self, reply: Reply<'b>, manner: Manner, pass: &mut Pass<'b>) -> bool {
        let is_next = pass.waiting.is_empty();
        match is_next.then(|| reply.write_ahead(self.core, manner, &mut self.out)).flatten() {
            Some(Ahead { end_ordinal, closes }) => {
                pass.end_ordinal = pass.end_ordinal.max(end_ordinal);
                closes
            }
            None => {
                pass.waiting.push((reply, manner));
                false
            }
        }
    }
}

/// How many bytes at the start of `rest` are the request with this head, if all of it is there. Its chunks are only gone
/// through to be passed over.
fn whole_request_bytes(head: &Head<'_>, core: &Core, rest: &[u8]) -> Option<usize> {
    let total = match head.framing {
        Body::None => head.head_len,
        Body::Length(length) => head.head_len.saturating_add(length as usize),
        Body::Chunked => {
            let mut decoder = Decoder::new(core.shared.config.max_body_bytes);
            let progress = decoder.feed(&rest[head.head_len..], &mut Vec::new());
            head.head_len + progress.ok().filter(|progress| progress.is_done)?.consumed
        }
    };
    (total <= rest.len()).then_some(total)
}
