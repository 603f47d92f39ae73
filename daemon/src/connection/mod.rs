//! One connection: reads requests, answers them in order; all complete requests at hand are taken in one pass and
//! answered with one write. While it is idle it has neither a buffer nor anything else of a conversation.

mod body;
pub mod budget;
pub mod date;
mod exchange;
pub mod listener;
mod pass;
pub mod registry;
pub mod watch;

use crate::{
    access,
    access::Grant,
    api,
    api::Reply,
    http::{Head, Manner, Method, Refusal, response::CONTINUE},
    limits::READ_BUFFER_BYTES,
    rt,
    rt::{Sealed, Transport},
    tls::Session,
};
use crate::{
    connection::{
        budget::Held,
        registry::Registered,
        watch::{Phase, Watch},
    },
    ingest::Core,
};
use monoio::{io::AsyncWriteRent, net::TcpStream};
use pass::Pass;
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
pub(crate) async fn serve<S: Transport>(mut stream: S, registered: Registered) {
    let (core, watch) = (registered.core(), registered.watch());
    loop {
        watch.go_on(Phase::Idle);
        let readable = if core.is_stopping() { stream.shutdown().await } else { stream.readable().await };
        if core.is_stopping() || readable.is_err() {
            break;
        }
        let mut conversation = Conversation::new(core, &mut stream, watch);
        let conversation = Box::pin(async move { conversation.run().await });
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
pub(crate) async fn serve_sealed(stream: TcpStream, session: Session, registered: Registered) {
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

    /// Goes on until nobody says anything. What is rare has memory of its own, so that those who only push need little, and
    /// more of them fit into the processor's caches.
    async fn run(&mut self) -> io::Result<Ended> {
        let mut next = Next::Read { needed: 0 };
        loop {
            next = match next {
                Next::Read { needed } => match self.read(needed).await? {
                    Ok(Came::More) => self.take_requests().await,
                    Ok(Came::Interrupted) => return Ok(Ended::Idle),
                    // The runtime may end with this task, before it has closed the descriptor.
                    Ok(Came::End) => Next::Close,
                    Ok(Came::Late) => self.refuse(&Refusal::too_slow()),
                    Err(refusal) => self.refuse(&refusal),
                },
                Next::Again => self.take_requests().await,
                Next::Body => Box::pin(self.take_body()).await?,
                Next::Close => {
                    self.stream.shutdown().await?;
                    return Ok(Ended::Closed);
                }
                Next::Leave => {
                    Box::pin(self.leave()).await?;
                    return Ok(Ended::Closed);
                }
            };
            if self.wants_continue && !self.continue_sent {
                self.out.extend_from_slice(CONTINUE);
                self.continue_sent = true;
            }
            self.write().await?;
            if next == (Next::Read { needed: 0 }) && self.gives_buffer_back() {
                return Ok(Ended::Idle);
            }
        }
    }

    /// Takes all complete requests in the buffer, waits for what they are to be answered with, and appends the answers to
    /// what leaves next.
    async fn take_requests(&mut self) -> Next {
        self.watch.go_on(Phase::Busy);
        let buffer = std::mem::take(&mut self.buffer);
        let before_bytes = self.out.len();
        let (next, consumed) = {
            let Pass { next, consumed, end_ordinal, waiting } = self.pass(&buffer);
            if end_ordinal > 0 || !waiting.is_empty() {
                self.core.submit(waiting.is_empty());
            }
            let next = if self.core.durable(end_ordinal).await.is_err() {
                self.out.truncate(before_bytes);
                api::write_refusal(self.core, &api::storage_failed_meanwhile(), None, CLOSING, &mut self.out);
                Next::Close
            } else if waiting.is_empty() {
                next
            } else {
                Box::pin(self.finish(waiting, next)).await
            };
            (next, consumed)
        };
        self.buffer = buffer;
        if consumed == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.drain(..consumed);
        }
        next
    }

    /// Waits for what replies stand on, and appends them to what leaves next.
    async fn finish(&mut self, waiting: Vec<(Reply<'_>, Manner)>, mut next: Next) -> Next {
        for (reply, manner) in waiting {
            if reply.finish(self.core, manner, &mut self.out).await && next != Next::Leave {
                next = Next::Close;
            }
        }
        next
    }

    fn request_ended(&mut self) {
        self.admitted = None;
        self.wants_continue = false;
        self.continue_sent = false;
        self.waits_for = None;
    }

    /// Answers what stands at the buffer's start with a refusal that closes.
    fn refuse(&mut self, refusal: &Refusal) -> Next {
        api::write_refusal(self.core, refusal, None, CLOSING, &mut self.out);
        self.buffer.clear();
        self.request_ended();
        Next::Leave
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
