//! A pass over a connection's bytes: all complete requests at their start are answered. Nothing is waited for, so all that a
//! pass needs is on the stack, and nothing of it is kept but the replies.

use super::server::Server;
use crate::{
    access,
    access::Grant,
    api::{self, Reply, RouteMatch},
    http::{
        Body, ErrorCode, Head, Limits, OwnedHead, Parsed, Refusal, ResponseOptions, chunked::Decoder, request,
        sink::Discard,
    },
    ingest::Ticket,
    limits::{LISTED_BODY_BYTES, PIPELINED_MAX, REPLY_SMALL_BYTES},
    panics::panic_if_planted,
};

/// What a connection does next.
pub(super) enum NextStep {
    /// Reads more; what is there is no whole head.
    Read,
    /// Reads until the whole body is in the buffer, behind the head.
    ReadWhole(Box<StartedRequest>),
    /// Takes the body out of the buffer while it comes.
    TakeBody(Box<StartedRequest>),
    /// Passes over the body while it comes: nobody uses it.
    PassOver(Box<StartedRequest>),
    /// Takes further requests, which may be complete.
    Again,
    /// Closes the connection; everything was read.
    Close,
    /// Closes it, though more may come: so many bytes at most are waited for.
    Linger { most_bytes: u64 },
}

/// A request whose head was read and which was admitted. The head is at the start of the buffer; it is not parsed again.
pub(super) struct StartedRequest {
    pub(super) head: OwnedHead,
    pub(super) found: RouteMatch<'static>,
    pub(super) grant: Grant,
    pub(super) options: ResponseOptions,
    /// Whether its client waits for a 100 before it sends the body.
    pub(super) wants_continue: bool,
}

impl StartedRequest {
    /// Bytes of head and body, if the length of the body is known.
    pub(super) fn total_bytes(&self) -> usize {
        let head = self.head.head();
        match head.framing {
            Body::Length(length) => head.head_len.saturating_add(length as usize),
            Body::None | Body::Chunked => head.head_len,
        }
    }
}

/// What a pass came to.
pub(super) struct Pass<'b> {
    pub(super) next: NextStep,
    /// Bytes at the buffer's start that are done with.
    pub(super) consumed: usize,
    /// The replies may leave when this is durable.
    pub(super) ticket: Option<Ticket>,
    /// Replies that wait for more than the disk, and all behind them.
    pub(super) waiting: Vec<(Reply<'b>, ResponseOptions)>,
}

/// Takes the requests of one connection.
pub(super) struct Requests<'c> {
    server: &'c Server,
    /// The verified token of the last request.
    pub(super) cache: access::Cache,
}

impl<'c> Requests<'c> {
    pub(super) fn new(server: &'c Server, cache: access::Cache) -> Self {
        Self { server, cache }
    }

    /// Takes all complete requests at the start of `buffer`, and appends the replies that are known to `out`. If the request
    /// that `started` is at the start of the buffer, its body is complete. `None`: that request has to wait for room in the
    /// log, or for memory, and nothing was done.
    pub(super) fn pass<'b>(
        &mut self,
        buffer: &'b [u8],
        started: Option<&'b StartedRequest>,
        out: &mut Vec<u8>,
    ) -> Option<Pass<'b>> {
        let mut pass = Pass { next: NextStep::Again, consumed: 0, ticket: None, waiting: Vec::new() };
        if let Some(started) = started {
            let total_bytes = started.total_bytes();
            assert!(total_bytes <= buffer.len(), "the body was read to its end");
            let head = started.head.head();
            let body = &buffer[head.head_len..total_bytes];
            let reply = self.dispatch_now(&head, &started.found.borrowed(), &started.grant, body)?;
            pass.consumed = total_bytes;
            if self.answer(reply, self.current(started.options), &mut pass, out) {
                pass.next = NextStep::Close;
                return Some(pass);
            }
        }
        for _ in 0..PIPELINED_MAX {
            if out.len() >= REPLY_SMALL_BYTES {
                break;
            }
            if let Some(next) = self.take_one(buffer, &mut pass, out) {
                pass.next = next;
                break;
            }
        }
        Some(pass)
    }

    /// Takes the next request. Returns what is done next where that is not to take the request behind it.
    fn take_one<'b>(&mut self, buffer: &'b [u8], pass: &mut Pass<'b>, out: &mut Vec<u8>) -> Option<NextStep> {
        let remaining = &buffer[pass.consumed..];
        if remaining.is_empty() {
            return Some(NextStep::Read);
        }
        // How large a body may be depends on the route.
        let head = match request::parse(remaining, &Limits::new(u64::MAX)) {
            Ok(Parsed::Partial) => return Some(NextStep::Read),
            Ok(Parsed::Head(head)) => head,
            Err(refusal) => {
                self.answer(Reply::Refused(refusal), ResponseOptions::CLOSING, pass, out);
                return Some(self.linger());
            }
        };
        panic_if_planted("connection");
        let options = self.server.api.response_options(&head);
        let (found, grant) = match self.admit(&head, remaining) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse(refusal, &head, options, remaining, pass, out),
        };
        let is_used = found.route.body.is_used();
        let body_bytes = match head.framing {
            Body::None => Some(0),
            Body::Length(length) if !is_used || head.content_encoding.is_none() && !found.takes_lines(&head) => {
                Some(length as usize)
            }
            Body::Length(_) | Body::Chunked => None,
        };
        let total_bytes = body_bytes.map(|bytes| head.head_len.saturating_add(bytes));
        let total_bytes = match total_bytes {
            Some(total_bytes) if total_bytes <= remaining.len() => total_bytes,
            _ if !is_used => return Some(NextStep::PassOver(proceed(&head, found, grant, options, remaining))),
            Some(_) => return Some(NextStep::ReadWhole(proceed(&head, found, grant, options, remaining))),
            None => return Some(NextStep::TakeBody(proceed(&head, found, grant, options, remaining))),
        };
        let body = if is_used { &remaining[head.head_len..total_bytes] } else { &[] };
        let Some(reply) = self.dispatch_now(&head, &found, &grant, body) else {
            return Some(NextStep::TakeBody(proceed(&head, found, grant, options, remaining)));
        };
        pass.consumed += total_bytes;
        self.answer(reply, options, pass, out).then_some(NextStep::Close)
    }

    /// Carries a request out, unless it has to wait for room in the log, or its answer for memory: `None` then.
    fn dispatch_now<'b>(
        &self,
        head: &Head<'b>,
        found: &RouteMatch<'b>,
        grant: &Grant,
        body: &'b [u8],
    ) -> Option<Reply<'b>> {
        if body.len() > LISTED_BODY_BYTES && self.server.budget.is_overdrawn() {
            return None;
        }
        self.server.api.dispatch_now(head, found, grant, body)
    }

    /// What a request asks for, and what its sender may do, if it may proceed.
    fn admit<'h>(&mut self, head: &Head<'h>, remaining: &[u8]) -> Result<(RouteMatch<'h>, Grant), Refusal> {
        self.server.api.check_origin(head, &mut self.cache)?;
        let found = api::find_route(head.method, head.path)?;
        let grant = self.server.api.admit(head, &found, &mut self.cache)?;
        if self.server.is_shutting_down() && self.whole_request_bytes(head, remaining).is_none() {
            return Err(ErrorCode::ShuttingDown.into());
        }
        Ok((found, grant))
    }

    /// Refuses a request by its head.
    fn refuse(
        &self,
        refusal: Refusal,
        head: &Head<'_>,
        options: ResponseOptions,
        remaining: &[u8],
        pass: &mut Pass<'_>,
        out: &mut Vec<u8>,
    ) -> Option<NextStep> {
        // A body that is at hand is passed over. The rest of one is not waited for.
        let request_bytes = self.whole_request_bytes(head, remaining);
        pass.consumed += request_bytes.unwrap_or(remaining.len());
        let options = if request_bytes.is_some() { options } else { options.closing() };
        let closes = self.answer(Reply::Refused(refusal), options, pass, out);
        match request_bytes {
            Some(_) => closes.then_some(NextStep::Close),
            None => Some(match head.framing {
                Body::Length(length) => {
                    let most_bytes = (head.head_len as u64).saturating_add(length) - remaining.len() as u64;
                    NextStep::Linger { most_bytes }
                }
                Body::None | Body::Chunked => self.linger(),
            }),
        }
    }

    /// Closes the connection; how much is still on its way is not known.
    pub(super) fn linger(&self) -> NextStep {
        NextStep::Linger { most_bytes: self.server.api.max_body_bytes() }
    }

    /// Appends a reply to `out`, or to those that wait. Returns whether the connection is closed after it.
    fn answer<'b>(&self, reply: Reply<'b>, options: ResponseOptions, pass: &mut Pass<'b>, out: &mut Vec<u8>) -> bool {
        if let Some(ticket) = reply.ticket() {
            match &mut pass.ticket {
                Some(earlier) => earlier.extend(ticket),
                None => pass.ticket = Some(ticket.clone()),
            }
        }
        let closes = reply.closes(options) || !options.keep_alive;
        let is_written =
            pass.waiting.is_empty() && reply.is_settled() && self.server.api.write_reply(&reply, options, None, out);
        if !is_written {
            pass.waiting.push((reply, options));
        }
        closes
    }

    /// The options of a request that began earlier.
    pub(super) fn current(&self, options: ResponseOptions) -> ResponseOptions {
        if self.server.is_shutting_down() { options.closing() } else { options }
    }

    /// How many bytes at the start of `remaining` are the request with this head, if all of it is there. The chunks of a body
    /// are only passed over.
    fn whole_request_bytes(&self, head: &Head<'_>, remaining: &[u8]) -> Option<usize> {
        let total_bytes = match head.framing {
            Body::None => head.head_len,
            Body::Length(length) => head.head_len.saturating_add(length as usize),
            Body::Chunked => {
                let mut decoder = Decoder::new(self.server.api.max_body_bytes());
                let progress = decoder.feed(&remaining[head.head_len..], &mut Discard);
                head.head_len + progress.ok().filter(|progress| progress.is_done)?.consumed
            }
        };
        (total_bytes <= remaining.len()).then_some(total_bytes)
    }
}

/// A request was admitted, and its body, or room for it in the log, is to be waited for.
fn proceed(
    head: &Head<'_>,
    found: RouteMatch<'_>,
    grant: Grant,
    options: ResponseOptions,
    remaining: &[u8],
) -> Box<StartedRequest> {
    let wants_continue = head.expect_continue && remaining.len() == head.head_len;
    Box::new(StartedRequest { head: OwnedHead::of(head), found: found.into_owned(), grant, options, wants_continue })
}
