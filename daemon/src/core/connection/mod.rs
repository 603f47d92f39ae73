//! One connection: reads requests, answers them in order; all complete requests at hand are taken in one pass and
//! answered with one write. While it is idle it has neither a buffer nor anything else of a conversation.

mod body;

use super::{
    Core,
    budget::{Held, Overloaded},
    registry::Registered,
    watch::{Phase, Watch},
};
use crate::{
    access::{self, Grant},
    api::{self, Reply, Route},
    http::{Body, Head, Limits, Manner, Method, Parsed, Refusal, coding::Coding, request, response::CONTINUE},
    limits::{LINGER_BYTES_MAX, PIPELINED_MAX, READ_BUFFER_BYTES, READ_BUFFER_KEPT_BYTES, READ_ROOM_BYTES},
    rt::{self, Sealed, Transport},
    tls::Session,
};
use monoio::{
    buf::IoBuf,
    io::{AsyncWriteRent, AsyncWriteRentExt},
    net::TcpStream,
};
use smallvec::SmallVec;
use std::io;

/// How a conversation ended.
enum Ended {
    /// The client says nothing for the moment.
    Idle,
    /// The connection is done with.
    Closed,
}

/// What is to be done after a pass over the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// More is to be read; as far as that is known, until the buffer holds so many bytes.
    Read { needed: usize },
    /// More complete requests may stand in the buffer.
    Again,
    /// A request stands at the buffer's start whose body is taken as it comes.
    Body,
    /// The connection is closed, everything was read.
    Close,
    /// It is closed, though more may come.
    Leave,
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// Bytes.
    More,
    /// Nothing: the connection rests, and its buffer is wanted back.
    Interrupted,
    /// The end of the stream.
    End,
    /// The end of our patience.
    Late,
}

/// Serves a connection to its end. Any transport will do; `registered` holds the socket below it.
pub(super) async fn serve<S: Transport>(mut stream: S, registered: Registered) {
    let (core, watch) = (registered.core(), registered.watch());
    loop {
        watch.go_on(Phase::Idle);
        let readable = if core.is_stopping() { stream.shutdown().await } else { stream.readable().await };
        if core.is_stopping() || readable.is_err() {
            break;
        }
        let conversation = Box::pin(Conversation::new(core, &mut stream, watch).run());
        match rt::catch_panic(conversation).await {
            Some(Ok(Ended::Idle)) => {}
            Some(Ok(Ended::Closed)) => break,
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection ended");
                break;
            }
            None => {
                tracing::error!(code = "connection_panicked", "a connection was given up after a panic");
                break;
            }
        }
    }
}

/// The same under TLS. A handshake has the time that a head has.
pub(super) async fn serve_sealed(stream: TcpStream, session: Session, registered: Registered) {
    let (core, watch) = (registered.core(), registered.watch());
    let mut stream = Sealed::new(stream, session);
    watch.begin(Phase::Head, core.now_ms());
    match stream.shake_hands().await {
        Ok(()) => {
            watch.begin(Phase::Idle, core.now_ms());
            serve(stream, registered).await;
        }
        Err(error) => {
            tracing::debug!(%error, "a client was not let in");
            watch.begin(Phase::Leaving, core.now_ms());
            // It may have gone already.
            stream.shutdown().await.unwrap_or_default();
            // Before the stream is closed.
            drop(registered);
        }
    }
}

/// A connection on which something is said.
struct Conversation<'c, S> {
    core: &'c Core,
    stream: &'c mut S,
    watch: &'c Watch,
    buffer: Vec<u8>,
    out: Vec<u8>,
    /// Its part of the budget, for what it has beyond the first buffer.
    held: Held<'c>,
    /// What is remembered of its last token.
    cache: access::Cache,
    /// What is granted to the request at the buffer's start, if it was admitted.
    admitted: Option<Grant>,
    /// Whether its client waits for a 100, and whether it has had it.
    wants_continue: bool,
    continue_sent: bool,
    /// What of a request is waited for, so that its time goes on and does not begin anew.
    waits_for: Option<Phase>,
}

impl<'c, S: Transport> Conversation<'c, S> {
    fn new(core: &'c Core, stream: &'c mut S, watch: &'c Watch) -> Self {
        Self {
            core,
            stream,
            watch,
            buffer: Vec::with_capacity(READ_BUFFER_BYTES),
            out: Vec::new(),
            held: core.budget.hold(),
            cache: access::Cache::default(),
            admitted: None,
            wants_continue: false,
            continue_sent: false,
            waits_for: None,
        }
    }

    async fn run(mut self) -> io::Result<Ended> {
        let mut next = Next::Read { needed: 0 };
        loop {
            next = match next {
                Next::Read { needed } => match self.read(needed).await? {
                    Ok(Came::More) => self.take_requests().await,
                    Ok(Came::Interrupted) => return Ok(Ended::Idle),
                    // The runtime may end with this task, before it has closed the descriptor.
                    Ok(Came::End) => Next::Close,
                    Ok(Came::Late) => self.refuse(Refusal::too_slow()).await,
                    Err(refusal) => self.refuse(refusal).await,
                },
                Next::Again => self.take_requests().await,
                Next::Body => self.take_body().await?,
                Next::Close => {
                    self.stream.shutdown().await?;
                    return Ok(Ended::Closed);
                }
                Next::Leave => {
                    self.leave().await?;
                    return Ok(Ended::Closed);
                }
            };
            if self.wants_continue && !self.continue_sent {
                self.out.extend_from_slice(CONTINUE);
                self.continue_sent = true;
            }
            self.write().await?;
        }
    }

    /// Takes all complete requests in the buffer, waits for what they are to be answered with, and appends the answers to
    /// what leaves next.
    async fn take_requests(&mut self) -> Next {
        self.watch.go_on(Phase::Busy);
        let buffer = std::mem::take(&mut self.buffer);
        let mut consumed = 0;
        let next = {
            let mut replies: SmallVec<[(Reply<'_>, Manner); 1]> = SmallVec::new();
            let mut next = self.take_each(&buffer, &mut consumed, &mut replies).await;
            if !replies.is_empty() {
                self.core.submit();
            }
            for (reply, manner) in replies {
                if reply.finish(self.core, manner, &mut self.out).await && next != Next::Leave {
                    next = Next::Close;
                }
            }
            next
        };
        self.buffer = buffer;
        self.buffer.drain(..consumed);
        next
    }

    async fn take_each<'b>(
        &mut self,
        buffer: &'b [u8],
        consumed: &mut usize,
        replies: &mut SmallVec<[(Reply<'b>, Manner); 1]>,
    ) -> Next {
        let core = self.core;
        // How large a body may be depends on what is asked for.
        let limits = Limits::new(u64::MAX);
        loop {
            if replies.len() == PIPELINED_MAX {
                return Next::Again;
            }
            let rest = &buffer[*consumed..];
            let head = match request::parse(rest, &limits) {
                Ok(Parsed::Partial) => return Next::Read { needed: 0 },
                Ok(Parsed::Head(head)) => head,
                Err(refusal) => {
                    replies.push((Reply::refused(refusal), CLOSING));
                    return Next::Leave;
                }
            };
            let manner = manner_of(core, &head);
            let is_here = whole_request_bytes(&head, core, rest);
            let (route, grant) = match self.admit(&head, is_here.is_some()) {
                Ok(admitted) => admitted,
                Err(refusal) => {
                    // All of the body is at hand: it is passed over. For the rest of it nobody waits.
                    let is_kept = is_here.is_some() && manner.keep_alive && !refusal.close;
                    replies.push((Reply::refused(refusal), Manner { keep_alive: is_kept, ..manner }));
                    *consumed += is_here.unwrap_or(rest.len());
                    self.request_ended();
                    match (is_kept, is_here) {
                        (true, _) => continue,
                        (false, Some(_)) => return Next::Close,
                        (false, None) => return Next::Leave,
                    }
                }
            };
            let coding = Coding::of(head.content_encoding).unwrap_or(Coding::Identity);
            let total = match head.framing {
                Body::None => head.head_len,
                Body::Length(length) if coding == Coding::Identity => head.head_len.saturating_add(length as usize),
                Body::Length(_) | Body::Chunked => usize::MAX,
            };
            if total > rest.len() {
                self.wants_continue = head.expect_continue && rest.len() == head.head_len;
                let as_it_comes = total == usize::MAX || route.takes_lines(&head);
                return if as_it_comes { Next::Body } else { Next::Read { needed: total } };
            }
            let body = &rest[head.head_len..total];
            *consumed += total;
            replies.push((api::handle(core, &head, route, &grant, body).await, manner));
            self.request_ended();
            if !manner.keep_alive {
                return Next::Close;
            }
        }
    }

    /// What a request asks for, and what its sender may do, if it may go on.
    fn admit<'h>(&mut self, head: &Head<'h>, is_here: bool) -> Result<(Route<'h>, Grant), Refusal> {
        let route = api::route(head.method, head.path)?;
        if let Some(grant) = &self.admitted {
            return Ok((route, grant.clone()));
        }
        let grant = api::admit(self.core, head, &route, &mut self.cache)?;
        if self.core.is_stopping() && !is_here && head.framing != Body::None {
            return Err(api::shutting_down());
        }
        self.admitted = Some(grant.clone());
        Ok((route, grant))
    }

    fn request_ended(&mut self) {
        self.admitted = None;
        self.wants_continue = false;
        self.continue_sent = false;
        self.waits_for = None;
    }

    /// Answers what stands at the buffer's start with a refusal that closes.
    async fn refuse(&mut self, refusal: Refusal) -> Next {
        Reply::refused(refusal).finish(self.core, CLOSING, &mut self.out).await;
        self.buffer.clear();
        self.request_ended();
        Next::Leave
    }

    /// Reads on, until there is more; a request that is told to close instead comes as a refusal.
    async fn read(&mut self, needed: usize) -> io::Result<Result<Came, Refusal>> {
        if self.buffer.is_empty() {
            return self.rest().await.map(Ok);
        }
        // A body's announced length is believed only as far as it came: the buffer doubles.
        let missing = needed.saturating_sub(self.buffer.len());
        let room = missing.min(self.buffer.len().max(READ_BUFFER_KEPT_BYTES)).max(READ_ROOM_BYTES);
        if self.buffer.capacity() - self.buffer.len() < room {
            let wanted = (self.buffer.len() + room).max(self.buffer.capacity() * 2).min(
                // What is known to be enough is enough.
                if missing > 0 { needed.max(self.buffer.len() + READ_ROOM_BYTES) } else { usize::MAX },
            );
            if let Err(refusal) = self.hold(wanted).await {
                return Ok(Err(refusal));
            }
            self.buffer.reserve_exact(wanted - self.buffer.len());
        }
        self.wait_for(if needed > 0 { Phase::Body } else { Phase::Head });
        self.read_more().await.map(Ok)
    }

    /// Waits for the next request.
    async fn rest(&mut self) -> io::Result<Came> {
        if self.core.is_stopping() {
            return Ok(Came::End);
        }
        if self.buffer.capacity() > READ_BUFFER_KEPT_BYTES || self.buffer.capacity() == 0 {
            self.buffer = Vec::with_capacity(READ_BUFFER_BYTES);
        }
        self.held.set(self.buffer.capacity().saturating_sub(READ_BUFFER_BYTES));
        self.watch.begin(Phase::Resting, self.core.now_ms());
        let buffer = std::mem::take(&mut self.buffer);
        let (outcome, buffer) = self.stream.read_interruptibly(buffer, self.watch.interrupter()).await;
        self.buffer = buffer;
        if rt::is_interrupted(&outcome) {
            return Ok(Came::Interrupted);
        }
        outcome.map(|bytes| if bytes == 0 { Came::End } else { Came::More })
    }

    fn wait_for(&mut self, phase: Phase) {
        if self.waits_for.replace(phase) == Some(phase) {
            self.watch.go_on(phase);
        } else {
            self.watch.begin(phase, self.core.now_ms());
        }
    }

    async fn read_more(&mut self) -> io::Result<Came> {
        let buffer = std::mem::take(&mut self.buffer);
        let (outcome, buffer) = rt::read_more(self.stream, buffer).await;
        self.buffer = buffer;
        if self.watch.is_late() {
            return Ok(Came::Late);
        }
        let bytes = outcome?;
        self.watch.received(bytes);
        Ok(if bytes == 0 { Came::End } else { Came::More })
    }

    /// Waits until the connection may have so many bytes.
    async fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.watch.go_on(Phase::Busy);
        let paused_ms = self.core.now_ms();
        self.held.grow_to(bytes.saturating_sub(READ_BUFFER_BYTES)).await.map_err(|Overloaded| {
            Refusal::new(503, "overloaded", "too much is on its way through this daemon").retry_after_s(1).closing()
        })?;
        if self.waits_for == Some(Phase::Body) {
            self.watch.go_on_with_body(paused_ms, self.core.now_ms());
        }
        Ok(())
    }

    /// Sends what is to leave.
    async fn write(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        // It is there already: what others hold does not matter any more.
        let beyond = out.capacity().saturating_sub(READ_BUFFER_KEPT_BYTES);
        if beyond > 0 {
            self.held.set(self.buffer.capacity().saturating_sub(READ_BUFFER_BYTES) + beyond);
        }
        let (written, mut out) = if out.len() <= READ_BUFFER_KEPT_BYTES {
            self.watch.begin(Phase::Writing, self.core.now_ms());
            self.stream.write_all(out).await
        } else {
            self.write_in_parts(out).await
        };
        written?;
        self.stream.flush().await?;
        self.watch.go_on(Phase::Busy);
        self.waits_for = None;
        out.clear();
        if out.capacity() <= READ_BUFFER_KEPT_BYTES {
            self.out = out;
        }
        Ok(())
    }

    /// A large answer may take long, as long as some of it leaves.
    async fn write_in_parts(&mut self, mut out: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let mut at = 0;
        while at < out.len() {
            self.watch.begin(Phase::Writing, self.core.now_ms());
            let end = out.len().min(at + READ_BUFFER_KEPT_BYTES);
            let (written, part) = self.stream.write_all(out.slice(at..end)).await;
            out = part.into_inner();
            if let Err(error) = written {
                return (Err(error), out);
            }
            at = end;
        }
        (Ok(at), out)
    }

    /// Says that nothing more is sent, and throws away what the client still sends, for a while: a socket closed on bytes that
    /// nobody has read takes the last answer along.
    async fn leave(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        self.watch.begin(Phase::Leaving, self.core.now_ms());
        let mut thrown_away = 0;
        while thrown_away < LINGER_BYTES_MAX && !self.core.is_stopping() {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            buffer.reserve(READ_BUFFER_BYTES);
            let (outcome, buffer) = rt::read_more(self.stream, buffer).await;
            self.buffer = buffer;
            match outcome {
                Ok(bytes) if bytes > 0 => thrown_away += bytes,
                _ => break,
            }
        }
        Ok(())
    }
}

/// How an answer leaves after which nothing is read.
const CLOSING: Manner = Manner { keep_alive: false, head_only: false, keep_alive_header: None, allow_origin: None };

fn manner_of(core: &Core, head: &Head<'_>) -> Manner {
    Manner {
        keep_alive: head.keep_alive && !core.is_stopping(),
        head_only: head.method == Method::Head,
        keep_alive_header: head.keep_alive_header(),
        allow_origin: core.shared.gate.origins.allow(head.origin),
    }
}

/// How many bytes at the start of `rest` are the request with this head, if all of it is there. Its chunks are only gone
/// through to be passed over.
fn whole_request_bytes(head: &Head<'_>, core: &Core, rest: &[u8]) -> Option<usize> {
    let total = match head.framing {
        Body::None => head.head_len,
        Body::Length(length) => head.head_len.saturating_add(length as usize),
        Body::Chunked => {
            let mut decoder = crate::http::chunked::Decoder::new(core.shared.config.max_body_bytes);
            let progress = decoder.feed(&rest[head.head_len..], &mut Vec::new());
            head.head_len + progress.ok().filter(|progress| progress.is_done)?.consumed
        }
    };
    (total <= rest.len()).then_some(total)
}
