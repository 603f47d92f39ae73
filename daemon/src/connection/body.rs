//! Bodies that are taken as they come: in chunks, encoded, or of lines. What has come is taken out of the buffer at once; the
//! buffer never grows with the body.

use super::{Came, Conversation, Next, Phase, Refusal, Reply, manner_of};
use crate::{
    access::Grant,
    api,
    api::{Lines, RouteMatch},
    http::{
        Head, Limits, Manner, Parsed,
        coding::Coding,
        incoming::{Bound, Incoming, Next as BodyNext},
        request,
    },
    limits::{BODY_READ_BYTES, NDJSON_WINDOW_BYTES},
    rt::Transport,
};
use std::io;

/// What came of a body.
enum Taken<T> {
    /// All of it is there.
    Whole(T),
    /// It is refused, before it was all there.
    Refused(T, Refusal),
    /// The client has left.
    Left,
}

/// Room for what a step brings. It doubles, but not beyond what will be refused: a bomb should not get twice as much.
fn make_room(bytes: &mut Vec<u8>, max_bytes: u64) {
    let least = bytes.len() + BODY_READ_BYTES;
    if bytes.capacity() < least {
        let most = (max_bytes as usize).saturating_add(2 * BODY_READ_BYTES);
        let wanted = (2 * bytes.capacity()).min(most).max(least);
        bytes.reserve_exact(wanted - bytes.len());
    }
}

impl<S: Transport> Conversation<'_, S> {
    /// Takes the request at the buffer's start, whose head is whole and admitted.
    pub(crate) async fn take_body(&mut self) -> io::Result<Next> {
        // The answers before it are on their way, and a 100 with them.
        let head_bytes = match request::parse(&self.buffer, &Limits::new(u64::MAX)) {
            Ok(Parsed::Head(head)) => self.buffer.drain(..head.head_len).collect::<Vec<u8>>(),
            // It was a head before.
            _ => return Ok(Next::Close),
        };
        let Ok(Parsed::Head(head)) = request::parse(&head_bytes, &Limits::new(u64::MAX)) else {
            return Ok(Next::Close);
        };
        let Ok(route) = api::find_route(head.method, head.path) else { return Ok(Next::Close) };
        let Some(grant) = self.admitted.clone() else { return Ok(Next::Close) };
        let takes_lines = route.takes_lines(&head);
        let max_body_bytes = self.core.shared.config.max_body_bytes;
        let bound = if takes_lines { Bound::Expansion } else { Bound::Bytes(max_body_bytes) };
        let coding = Coding::of(head.content_encoding).unwrap_or(Coding::Identity);
        let incoming = match Incoming::new(head.framing, coding, bound) {
            Ok(incoming) => incoming,
            Err(refusal) => return Ok(self.refuse(&refusal)),
        };
        let manner = manner_of(self.core, &head);
        if takes_lines {
            self.take_lines(&head, (&route, &grant), manner, incoming).await
        } else {
            self.take_whole(&head, (route, &grant), manner, incoming).await
        }
    }

    /// A body that is needed whole.
    async fn take_whole(
        &mut self,
        head: &Head<'_>,
        (route, grant): (RouteMatch<'_>, &Grant),
        manner: Manner,
        mut incoming: Incoming,
    ) -> io::Result<Next> {
        let mut body = Vec::new();
        let max_body_bytes = self.core.shared.config.max_body_bytes;
        let taken = loop {
            make_room(&mut body, max_body_bytes);
            let fed = match incoming.feed(&self.buffer, &mut body, BODY_READ_BYTES) {
                Ok(fed) => fed,
                Err(refusal) => break Taken::Refused((), refusal),
            };
            self.buffer.drain(..fed.consumed);
            match fed.next {
                BodyNext::Done => break Taken::Whole(()),
                BodyNext::Step if body.capacity() <= 2 * BODY_READ_BYTES => {}
                BodyNext::Step => {
                    if let Err(refusal) = self.hold(self.buffer.capacity() + body.capacity()).await {
                        break Taken::Refused((), refusal);
                    }
                }
                BodyNext::Wire => match self.read_body(body.capacity() + incoming.memory_bytes()).await? {
                    Ok(true) => {}
                    Ok(false) => break Taken::Left,
                    Err(refusal) => break Taken::Refused((), refusal),
                },
            }
        };
        match taken {
            Taken::Whole(()) => {
                self.watch.go_on(Phase::Busy);
                let reply = api::handle(self.core, head, route, grant, &body).await;
                Ok(self.answer(reply, manner, true).await)
            }
            Taken::Refused((), refusal) => Ok(self.answer(Reply::refused(refusal), manner, false).await),
            Taken::Left => Ok(Next::Close),
        }
    }

    /// A body of lines: those at hand are appended before more is read.
    async fn take_lines(
        &mut self,
        head: &Head<'_>,
        (route, grant): (&RouteMatch<'_>, &Grant),
        manner: Manner,
        mut incoming: Incoming,
    ) -> io::Result<Next> {
        let mut lines = match Lines::begin(self.core, head, route, grant) {
            Ok(lines) => lines,
            Err(refusal) => return Ok(self.answer(Reply::refused(refusal), manner, false).await),
        };
        let mut window = Vec::new();
        let max_line_bytes = self.core.shared.config.max_body_bytes;
        let taken = loop {
            make_room(&mut window, max_line_bytes);
            let fed = match incoming.feed(&self.buffer, &mut window, BODY_READ_BYTES) {
                Ok(fed) => fed,
                Err(refusal) => break Taken::Refused(lines, refusal),
            };
            self.buffer.drain(..fed.consumed);
            if fed.next == BodyNext::Step && window.len() < NDJSON_WINDOW_BYTES {
                continue;
            }
            let paused_ms = self.core.now_ms();
            self.watch.go_on(Phase::Busy);
            let has_come = fed.next == BodyNext::Done;
            if let Err(refusal) = lines.take(&mut window, has_come).await {
                if has_come {
                    // It is certain where the next request starts.
                    return Ok(self.answer(lines.reply(Some(refusal)), manner, true).await);
                }
                break Taken::Refused(lines, refusal);
            }
            if self.waits_for == Some(Phase::Body) {
                self.watch.go_on_with_body(paused_ms, self.core.now_ms());
            }
            match fed.next {
                BodyNext::Done => break Taken::Whole(lines),
                BodyNext::Step => {}
                BodyNext::Wire => match self.read_body(window.capacity() + incoming.memory_bytes()).await? {
                    Ok(true) => {}
                    Ok(false) => break Taken::Left,
                    Err(refusal) => break Taken::Refused(lines, refusal),
                },
            }
        };
        match taken {
            Taken::Whole(lines) => Ok(self.answer(lines.reply(None), manner, true).await),
            Taken::Refused(lines, refusal) => Ok(self.answer(lines.reply(Some(refusal)), manner, false).await),
            // What came is kept: it is durable like any other, though nobody hears of it.
            Taken::Left => Ok(Next::Close),
        }
    }

    /// Reads more of a body into the buffer, which is empty; `other_bytes` are held beside it. Whether more came; not where the
    /// client has left.
    async fn read_body(&mut self, other_bytes: usize) -> io::Result<Result<bool, Refusal>> {
        if let Err(refusal) = self.hold(BODY_READ_BYTES + other_bytes).await {
            return Ok(Err(refusal));
        }
        self.buffer.reserve(BODY_READ_BYTES);
        self.wait_for(Phase::Body);
        Ok(match self.read_more().await? {
            Came::More => Ok(true),
            Came::Late => Err(Refusal::too_slow()),
            Came::End | Came::Interrupted => Ok(false),
        })
    }

    /// Appends the answer to what leaves next.
    async fn answer(&mut self, reply: Reply<'_>, manner: Manner, is_whole: bool) -> Next {
        self.watch.go_on(Phase::Busy);
        self.core.submit(true);
        let manner = if is_whole { manner } else { Manner { keep_alive: false, keep_alive_header: None, ..manner } };
        let closes = reply.finish(self.core, manner, &mut self.out).await;
        self.request_ended();
        if !is_whole {
            self.buffer.clear();
            return Next::Leave;
        }
        if closes || !manner.keep_alive {
            return Next::Close;
        }
        if self.buffer.is_empty() { Next::Read { needed: 0 } } else { Next::Again }
    }
}
