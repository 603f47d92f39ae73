//! A conversation: from the first byte of a request until the connection is idle again, is closed, or waits for PostgreSQL.

use super::{
    body::{self, BodyOutcome},
    exchange::{Exchange, ReadOutcome},
    parked::Parked,
    requests::{NextStep, Pass, Requests, StartedRequest},
    server::Server,
    stream,
    watch::{Phase, Watch},
};
use crate::{
    access,
    api::{Reply, StreamReply, storage_failed_meanwhile},
    http::{Body, Refusal, ResponseOptions, incoming::Bound, response::CONTINUE},
    ingest::NotDurable,
    limits::{READ_BUFFER_BYTES, REPLY_SMALL_BYTES},
    memory::{Buffer, Grow},
    rt::Transport,
};
use std::io;

/// How a conversation ended.
pub(super) enum ConversationEnd<'c> {
    /// The client sends nothing for the moment.
    Idle,
    /// The connection is done with.
    Closed,
    /// A reply waits for PostgreSQL.
    Parked(Box<Parked<'c>>),
}

/// How far the replies that waited could be written.
enum Answered {
    /// All of them.
    All,
    /// Up to one that waits.
    UpToWaiting,
    /// Up to one of so many bytes: what is before it is to leave first, and there is to be memory for it.
    UpToLarge(usize),
    /// Up to one for which PostgreSQL is to be asked: what is before it is to leave first, and there is to be room for the answer.
    UpToAsk,
    /// Up to one that is streamed.
    UpToStream(Box<StreamReply>, ResponseOptions),
}

/// A connection on which a client talks.
pub(super) struct Conversation<'c, 's, S> {
    server: &'c Server,
    exchange: Exchange<'c, 's, S>,
    requests: Requests<'c>,
    /// Replies that wait, and all behind them, in reverse order.
    replies: Vec<(Reply<'static>, ResponseOptions)>,
    next: NextStep,
    /// Leave to write the first of the replies, if it is large.
    leave: Option<Grow>,
}

impl<'c, 's, S: Transport> Conversation<'c, 's, S> {
    /// A conversation that begins.
    pub(super) fn new(server: &'c Server, stream: &'s mut S, watch: &'c Watch) -> Self {
        let held = server.budget.hold(watch.holding());
        Self {
            server,
            exchange: Exchange::new(server, stream, watch, Buffer::free(READ_BUFFER_BYTES), held),
            requests: Requests::new(server, access::Cache::default()),
            replies: Vec::new(),
            next: NextStep::Read,
            leave: None,
        }
    }

    /// A conversation that goes on after it was parked.
    pub(super) fn resume(server: &'c Server, stream: &'s mut S, watch: &'c Watch, parked: Parked<'c>) -> Self {
        let Parked { replies, next, buffer, held, cache } = parked;
        Self {
            server,
            exchange: Exchange::new(server, stream, watch, Buffer::of(buffer), held),
            requests: Requests::new(server, cache),
            replies,
            next,
            leave: None,
        }
    }

    /// Goes on until nothing is left to do. What is rare has memory of its own, so that a conversation which only pushes needs
    /// little, and more of them fit into the processor's caches.
    #[expect(clippy::manual_async_fn, reason = "the future of an async fn holds its arguments twice")]
    pub(super) fn run(mut self) -> impl Future<Output = io::Result<ConversationEnd<'c>>> {
        async move {
            // Whoever was just woken to read does so first.
            let mut may_rest = !self.replies.is_empty();
            loop {
                while !self.replies.is_empty() {
                    self.exchange.keep(self.reply_bytes());
                    match self.answer_waiting() {
                        Answered::All => self.exchange.keep(0),
                        Answered::UpToLarge(bytes) => {
                            self.exchange.write().await?;
                            self.leave = self.exchange.try_hold_reply(bytes);
                            if self.leave.is_none() {
                                Box::pin(self.send_in_parts()).await?;
                            }
                        }
                        Answered::UpToAsk => {
                            self.exchange.write().await?;
                            Box::pin(self.ask()).await;
                        }
                        Answered::UpToWaiting => {
                            self.exchange.write().await?;
                            return Ok(ConversationEnd::Parked(self.park()));
                        }
                        Answered::UpToStream(stream, options) => Box::pin(self.send_stream(stream, options)).await?,
                    }
                }
                if let NextStep::ReadWhole(started) | NextStep::TakeBody(started) | NextStep::PassOver(started) =
                    &mut self.next
                    && std::mem::take(&mut started.wants_continue)
                {
                    self.exchange.out.extend_from_slice(CONTINUE);
                }
                self.exchange.write().await?;
                self.next = match std::mem::replace(&mut self.next, NextStep::Again) {
                    NextStep::Read if may_rest && self.gives_buffer_back() => return Ok(ConversationEnd::Idle),
                    NextStep::Read => match self.exchange.read().await? {
                        ReadOutcome::More => self.take_requests(None).await,
                        ReadOutcome::Interrupted => return Ok(ConversationEnd::Idle),
                        ReadOutcome::End => NextStep::Close,
                        ReadOutcome::Refused(refusal) => self.refuse(&refusal),
                    },
                    NextStep::ReadWhole(started) => {
                        self.exchange.set_owner(started.grant.owner());
                        match self.exchange.read_until(started.total_bytes()).await? {
                            ReadOutcome::More => self.take_requests(Some(started)).await,
                            ReadOutcome::Interrupted | ReadOutcome::End => NextStep::Close,
                            ReadOutcome::Refused(refusal) => self.refuse(&refusal),
                        }
                    }
                    NextStep::TakeBody(started) => Box::pin(self.take_body(started)).await?,
                    NextStep::PassOver(started) => Box::pin(self.pass_over_body(started)).await?,
                    NextStep::Again => self.take_requests(None).await,
                    NextStep::Close => {
                        self.exchange.shut_down().await?;
                        return Ok(ConversationEnd::Closed);
                    }
                    NextStep::Linger { most_bytes } => {
                        Box::pin(self.exchange.linger(most_bytes)).await?;
                        return Ok(ConversationEnd::Closed);
                    }
                };
                may_rest = true;
            }
        }
    }

    /// Whether the connection keeps no buffer until its client sends something again. To verify a token again would cost more.
    fn gives_buffer_back(&self) -> bool {
        self.requests.cache.is_empty() && self.exchange.gives_buffer_back()
    }

    /// Takes all complete requests in the buffer, waits for the disk, and appends the replies to what is written next. The
    /// first of the requests is `started`, if there is one, and complete.
    async fn take_requests(&mut self, started: Option<Box<StartedRequest>>) -> NextStep {
        self.exchange.watch().go_on(Phase::Busy);
        let buffer = std::mem::take(&mut self.exchange.buffer);
        let out = &mut self.exchange.out;
        let before_bytes = out.len();
        let (next, consumed) = match self.requests.pass(&buffer, started.as_deref(), out) {
            None => (None, 0),
            Some(Pass { mut next, consumed, ticket, waiting }) => {
                if ticket.is_some() {
                    self.server.lane.request_write(waiting.is_empty());
                }
                if let Err(not_durable) = self.server.lane.durable(ticket.as_ref()).await {
                    out.truncate(before_bytes);
                    let refusal = match (not_durable, ticket) {
                        (NotDurable::Refused { durable_ordinal }, Some(ticket))
                            if ticket.is_behind(durable_ordinal) =>
                        {
                            self.server.api.log_full()
                        }
                        // Of several pushes the first may be kept.
                        _ => storage_failed_meanwhile(),
                    };
                    self.server.api.write_refusal(&refusal, ResponseOptions::CLOSING, out);
                    next = NextStep::Close;
                } else if !waiting.is_empty() {
                    self.replies = in_reverse(waiting);
                }
                (Some(next), consumed)
            }
        };
        self.exchange.buffer = buffer;
        self.exchange.buffer.remove(consumed);
        if consumed > 0 {
            self.exchange.request_ended();
        }
        match (next, started) {
            (Some(next), _) => next,
            (None, Some(started)) => NextStep::TakeBody(started),
            (None, None) => panic!("only a started request waits for room here"),
        }
    }

    /// Takes the body of a request as it comes; the head is at the buffer's start.
    async fn take_body(&mut self, mut started: Box<StartedRequest>) -> io::Result<NextStep> {
        let StartedRequest { head, found, grant, options, .. } = &mut *started;
        let head = head.head();
        self.exchange.buffer.remove(head.head_len);
        self.exchange.set_owner(grant.owner());
        let max_body_bytes = self.server.api.max_body_bytes();
        let takes_lines = found.takes_lines(&head);
        if let Body::Length(length) = head.framing
            && head.content_encoding.is_none()
            && !takes_lines
            && self.exchange.buffer.len() as u64 >= length
        {
            // It is here, and waits for room in the log, or for memory.
            if self.server.budget.is_overdrawn()
                && let Err(refusal) = self.exchange.keep_more(length as usize).await
            {
                return Ok(self.refuse(&refusal));
            }
            let mut buffer = std::mem::take(&mut self.exchange.buffer);
            self.exchange.watch().go_on(Phase::Busy);
            let reply = self.server.api.dispatch(&head, found, grant, &buffer[..length as usize]).await;
            let reply = reply.into_owned();
            buffer.remove(length as usize);
            self.exchange.buffer = buffer;
            return Ok(self.answer(reply, *options, true).await);
        }
        let bound = if takes_lines { Bound::Expansion } else { Bound::Bytes(max_body_bytes) };
        let incoming = match self.exchange.begin_body(head.framing, head.content_encoding, bound).await {
            Ok(incoming) => incoming,
            Err(refusal) => return Ok(self.refuse(&refusal)),
        };
        if takes_lines {
            let mut lines = match self.server.api.begin_lines(&head, found, grant) {
                Ok(lines) => lines,
                Err(refusal) => return Ok(self.answer(Reply::Refused(refusal), *options, false).await),
            };
            return Ok(match body::take_lines(&mut self.exchange, incoming, max_body_bytes, &mut lines).await? {
                BodyOutcome::Whole => self.answer(lines.reply(None), *options, true).await,
                BodyOutcome::Refused { refusal, is_whole } => {
                    self.answer(lines.reply(Some(refusal)), *options, is_whole).await
                }
                // The lines that came are kept, like any others; nobody is told.
                BodyOutcome::Left => NextStep::Close,
            });
        }
        let mut body = Buffer::default();
        Ok(match body::take_whole(&mut self.exchange, incoming, max_body_bytes, &mut body).await? {
            BodyOutcome::Whole => {
                self.exchange.watch().go_on(Phase::Busy);
                let reply = self.server.api.dispatch(&head, found, grant, &body).await;
                self.answer(reply, *options, true).await
            }
            BodyOutcome::Refused { refusal, is_whole } => {
                self.answer(Reply::Refused(refusal), *options, is_whole).await
            }
            BodyOutcome::Left => NextStep::Close,
        })
    }

    /// Passes over the body of a request that has no use for it; the head is at the buffer's start.
    async fn pass_over_body(&mut self, mut started: Box<StartedRequest>) -> io::Result<NextStep> {
        let StartedRequest { head, found, grant, options, .. } = &mut *started;
        let head = head.head();
        self.exchange.buffer.remove(head.head_len);
        Ok(match body::pass_over(&mut self.exchange, head.framing).await? {
            BodyOutcome::Whole => {
                let reply = self.server.api.dispatch(&head, found, grant, &[]).await;
                self.answer(reply, *options, true).await
            }
            BodyOutcome::Refused { refusal, is_whole } => {
                self.answer(Reply::Refused(refusal), *options, is_whole).await
            }
            BodyOutcome::Left => NextStep::Close,
        })
    }

    /// Waits for the disk, and appends the reply to what is written next or to those that wait. `is_whole`: the body was read
    /// to its end.
    async fn answer(&mut self, reply: Reply<'_>, options: ResponseOptions, is_whole: bool) -> NextStep {
        self.exchange.watch().go_on(Phase::Busy);
        let options = if is_whole { self.requests.current(options) } else { options.closing() };
        let closes = reply.closes(options) || !options.keep_alive;
        if reply.ticket().is_some() {
            self.server.lane.request_write(reply.is_settled());
        }
        self.exchange.request_ended();
        let reply = match self.server.lane.durable(reply.ticket()).await {
            Ok(()) => reply,
            Err(NotDurable::Refused { durable_ordinal }) => reply.refused(durable_ordinal, self.server.api.log_full()),
            Err(NotDurable::Unknown) => {
                let refusal = storage_failed_meanwhile();
                self.server.api.write_refusal(&refusal, options.closing(), &mut self.exchange.out);
                return if is_whole { NextStep::Close } else { self.requests.linger() };
            }
        };
        let is_written =
            reply.is_settled() && self.server.api.write_reply(&reply, options, None, &mut self.exchange.out);
        if !is_written {
            self.replies = in_reverse(vec![(reply, options)]);
        }
        self.exchange.keep(self.reply_bytes());
        match (is_whole, closes) {
            (false, _) => self.requests.linger(),
            (true, true) => NextStep::Close,
            (true, false) if self.exchange.buffer.is_empty() => NextStep::Read,
            (true, false) => NextStep::Again,
        }
    }

    /// Appends the replies that are settled to what is written next, in their order. If the client has hung up, the others are
    /// written as far as they are known; at the first of which nothing is known the connection is closed.
    fn answer_waiting(&mut self) -> Answered {
        let has_hung_up = self.exchange.watch().has_hung_up();
        while let Some((reply, options)) = self.replies.pop() {
            let options = self.requests.current(options);
            let closes = reply.closes(options);
            match reply {
                Reply::Stream(stream) if !has_hung_up => return Answered::UpToStream(stream, options),
                Reply::Postgres(asked) if asked.needs_room() && !has_hung_up => {
                    self.replies.push((Reply::Postgres(asked), options));
                    return Answered::UpToAsk;
                }
                reply if !reply.is_settled() && !has_hung_up => {
                    self.replies.push((reply, options));
                    return Answered::UpToWaiting;
                }
                reply if self.has_to_leave_first(&reply) => {
                    let bytes = reply.written_bytes();
                    self.replies.push((reply, options));
                    return Answered::UpToLarge(bytes);
                }
                reply => {
                    let leave = self.leave.take();
                    let is_written = self.server.api.write_reply(&reply, options, leave, &mut self.exchange.out);
                    if closes || !is_written {
                        self.close_after_this();
                    }
                }
            }
        }
        Answered::All
    }

    /// Whether what is to be written has to leave before this reply is, or the reply is large and there is no leave for it.
    fn has_to_leave_first(&self, reply: &Reply<'_>) -> bool {
        self.exchange.out.len() >= REPLY_SMALL_BYTES || reply.is_large() && self.leave.is_none()
    }

    /// Holds room for the next reply, and asks PostgreSQL for it.
    async fn ask(&mut self) {
        let Some((Reply::Postgres(mut asked), options)) = self.replies.pop() else { return };
        self.exchange.set_owner(asked.owner());
        let held = self.exchange.keep_answer(self.reply_bytes() + asked.room_bytes()).await;
        let reply = match held.and_then(|()| asked.submit()) {
            Ok(()) => Reply::Postgres(asked),
            Err(refusal) => Reply::Refused(refusal),
        };
        self.replies.push((reply, options));
    }

    /// Sends the next reply part by part.
    async fn send_in_parts(&mut self) -> io::Result<()> {
        let Some((reply, options)) = self.replies.pop() else { return Ok(()) };
        let options = self.requests.current(options);
        let closes = reply.closes(options);
        let mut parts = self.server.api.start_parts(reply, options, &mut self.exchange.out);
        self.exchange.keep(self.reply_bytes() + parts.memory_bytes());
        if parts.write(&mut self.exchange.out) {
            self.exchange.write().await?;
            while parts.write(&mut self.exchange.out) {
                self.exchange.write_part().await?;
            }
        }
        if closes {
            self.close_after_this();
        }
        Ok(())
    }

    async fn send_stream(&mut self, stream: Box<StreamReply>, options: ResponseOptions) -> io::Result<()> {
        let is_kept = stream::send(&mut self.exchange, self.server, *stream, options).await?;
        self.exchange.request_ended();
        if !is_kept {
            self.close_after_this();
        }
        Ok(())
    }

    /// No further replies are written, and the connection is closed.
    fn close_after_this(&mut self) {
        self.replies.clear();
        if !matches!(self.next, NextStep::Linger { .. }) {
            self.next = NextStep::Close;
        }
    }

    /// Bytes of the replies that wait.
    fn reply_bytes(&self) -> usize {
        self.replies.iter().map(|(reply, _)| reply.memory_bytes()).sum()
    }

    /// Gives up everything but what [`Parked`] keeps.
    fn park(self) -> Box<Parked<'c>> {
        let reply_bytes = self.reply_bytes();
        let (buffer, held) = self.exchange.into_parked(reply_bytes);
        self.server.registry.note_freed_buffers(1);
        Box::new(Parked { replies: self.replies, next: self.next, buffer, held, cache: self.requests.cache })
    }

    /// Answers the request at the buffer's start with a refusal that closes.
    fn refuse(&mut self, refusal: &Refusal) -> NextStep {
        self.server.api.write_refusal(refusal, ResponseOptions::CLOSING, &mut self.exchange.out);
        self.exchange.buffer.clear();
        self.exchange.request_ended();
        self.requests.linger()
    }
}

/// The replies in reverse order, borrowing nothing, in no more memory than they need.
fn in_reverse(replies: Vec<(Reply<'_>, ResponseOptions)>) -> Vec<(Reply<'static>, ResponseOptions)> {
    let mut owned = Vec::with_capacity(replies.len());
    owned.extend(replies.into_iter().rev().map(|(reply, options)| (reply.into_owned(), options)));
    owned
}
