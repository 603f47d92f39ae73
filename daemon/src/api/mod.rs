//! What each path does: from a request's head to a row of [`ROUTES`], from its body to a [`Reply`].
//!
//! ```text
//!   routes ─► admit ─► handler ─► Reply     push            appends to the log
//!                         │                 state           health, readiness, figures
//!                         ▼                 dead_letters    asks PostgreSQL
//!                      request: what a handler works with
//! ```
//!
//! A reply may be known at once, depend on the disk, on a commit or on PostgreSQL, or be streamed. Here it is only made and
//! written; waiting for it with a client at the other end is the connection's part.

mod acks;
mod admit;
mod asked;
mod configure;
mod dead_letters;
mod letter_answers;
mod letter_lines;
mod letter_requests;
mod parts;
mod pattern;
mod pop;
mod push;
mod pushed;
mod queue_requests;
mod reply;
mod request;
mod routes;
mod scratch;
mod state;
mod stream;
mod writer;

pub use admit::storage_failed_meanwhile;
pub use asked::Asked;
pub use parts::ReplyParts;
pub use pattern::Pattern;
pub use push::Lines;
pub use reply::Reply;
pub use routes::{BodyKind, ROUTES, Route, RouteMatch, find as find_route};
pub use stream::{BodySource, NextPiece, StreamReply};

use crate::{
    access,
    access::{Gate, Grant, LastHost},
    config::{Config, Sync},
    http::{Head, Method, Refusal, ResponseOptions},
    ingest::{LaneWriter, PendingCommits, PendingReplies},
    letters::files::LetterFiles,
    memory::Grow,
    postgres::worker::PgRequests,
    queue::thread::QueueRequests,
    state::{
        connection_count::ConnectionCount, database_health::HealthMonitor, drain_view::DrainView, log_view::LogView,
        memory_shortage::MemoryShortage, pulse::Pulse,
    },
};
use letter_requests::LetterRequests;
use push::{Prepared, Pushes};
use queue_requests::CoreQueue;
use request::{Endpoints, Request};
use routes::Handler;
use std::{rc::Rc, sync::Arc, time::Duration};
use writer::ReplyWriter;

/// The endpoints of one core.
pub struct Api {
    endpoints: Endpoints,
}

/// What an [`Api`] is made of.
pub struct ApiParts {
    /// The settings.
    pub config: Arc<Config>,
    /// Who may do what.
    pub gate: Arc<Gate>,
    /// The log.
    pub log: Arc<LogView>,
    /// The drain.
    pub drain: Arc<DrainView>,
    /// Whether PostgreSQL answers.
    pub health: Arc<HealthMonitor>,
    /// The cores' signs of life.
    pub pulses: Arc<[Pulse]>,
    /// The daemon's open connections.
    pub connections: Arc<ConnectionCount>,
    /// Whether requests find memory.
    pub memory: Arc<MemoryShortage>,
    /// The core's lane.
    pub lane: Rc<LaneWriter>,
    /// The core's pushes that wait for a commit.
    pub commits: Rc<PendingCommits>,
    /// The core's requests that wait for PostgreSQL.
    pub replies: Rc<PendingReplies>,
    /// Where PostgreSQL is asked.
    pub pg_requests: PgRequests,
    /// Where consumers' requests go.
    pub queue_requests: QueueRequests,
    /// The core's number.
    pub core: u16,
}

impl Api {
    /// The endpoints over these views.
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        let ApiParts {
            config,
            gate,
            log,
            drain,
            health,
            pulses,
            connections,
            memory,
            lane,
            commits,
            replies,
            pg_requests,
            queue_requests,
            core,
        } = parts;
        let queue = CoreQueue { core, replies: Rc::clone(&replies), requests: queue_requests };
        let letters = LetterRequests {
            core,
            replies,
            pg_requests,
            config: Arc::clone(&config),
            drain: Arc::clone(&drain),
            files: LetterFiles::below(log.disk.dir()),
        };
        let endpoints = Endpoints {
            gate,
            last_host: LastHost::default(),
            max_body_bytes: config.max_body_bytes,
            sync: config.sync,
            log: Arc::clone(&log),
            drain: Arc::clone(&drain),
            health: Arc::clone(&health),
            pulses,
            connections,
            memory,
            lane: Rc::clone(&lane),
            writer: ReplyWriter::new(
                Rc::clone(&lane),
                Arc::clone(&health),
                config.sync != Sync::None && !log.is_volatile,
            ),
            letters,
            queue,
            pushes: Pushes::new(config, lane, commits, log, drain, health),
        };
        Self { endpoints }
    }

    /// Sets the time that replies are dated with, since 1970.
    pub fn set_date(&self, now: Duration) {
        self.endpoints.writer.set_date(now);
    }

    /// Bytes that a body may have.
    #[must_use]
    pub fn max_body_bytes(&self) -> u64 {
        self.endpoints.max_body_bytes
    }

    /// The refusal of a push for which the log has no room.
    #[must_use]
    pub fn log_full(&self) -> Refusal {
        push::log_full(&self.endpoints.drain, &self.endpoints.log)
    }

    /// How the request with this head is to be answered.
    #[must_use]
    pub fn response_options(&self, head: &Head<'_>) -> ResponseOptions {
        ResponseOptions {
            keep_alive: head.keep_alive && !self.endpoints.lane.is_shutting_down(),
            head_only: head.method == Method::Head,
            version: head.version,
            allow_origin: self.endpoints.gate.origins.allow(head.origin),
        }
    }

    /// Appends a refusal to `out`.
    pub fn write_refusal(&self, refusal: &Refusal, options: ResponseOptions, out: &mut Vec<u8>) {
        self.endpoints.writer.refusal(refusal, None, options, out);
    }

    /// Appends what is known of a reply to `out`; see [`Reply::is_settled`]. A [large](Reply::is_large) one needs `leave` for
    /// [`Reply::written_bytes`]. Returns whether anything is known and there is leave for it; otherwise nothing was written.
    pub fn write_reply(
        &self,
        reply: &Reply<'_>,
        options: ResponseOptions,
        leave: Option<Grow>,
        out: &mut Vec<u8>,
    ) -> bool {
        (leave.is_some() || !reply.is_large()) && reply.write(&self.endpoints.writer, options, out)
    }

    /// Appends the head of a large reply to `out`; its body follows in parts.
    #[must_use]
    pub fn start_parts(&self, reply: Reply<'static>, options: ResponseOptions, out: &mut Vec<u8>) -> ReplyParts {
        ReplyParts::start(reply, &self.endpoints.writer, options, out)
    }

    /// Appends what stands before the body of a streamed reply to `out`.
    pub fn write_stream_head(&self, stream: &StreamReply, options: ResponseOptions, out: &mut Vec<u8>) {
        stream.write_head(&self.endpoints.writer, options, out);
    }

    /// Refuses a request that a web page of another origin may have sent, unless it shows a valid token. It is called before the
    /// request's route is looked up: such a page does not learn which routes there are.
    ///
    /// # Errors
    /// 421 or 403. Probes and `OPTIONS` never get them.
    #[inline]
    pub fn check_origin(&self, head: &Head<'_>, cache: &mut access::Cache) -> Result<(), Refusal> {
        let gate = &self.endpoints.gate;
        gate.origin_check.check(head, &self.endpoints.last_host).or_else(|refusal| {
            let is_open = head.method == Method::Options || routes::is_probe(head.path);
            if is_open || gate.access.is_verified(cache, head.authorization) { Ok(()) } else { Err(refusal) }
        })
    }

    /// Decides whether a request proceeds. Returns what its sender may do. It is called once for each request, when its head
    /// has been parsed.
    ///
    /// # Errors
    /// The request's answer. The connection is closed after it, unless the whole body has arrived.
    pub fn admit(&self, head: &Head<'_>, found: &RouteMatch<'_>, cache: &mut access::Cache) -> Result<Grant, Refusal> {
        admit::admit(&self.endpoints, head, found, cache)
    }

    /// Dispatches a whole request that was admitted, unless it has to wait for room in the log: `None` then, and nothing was
    /// done. The reply may still have to wait.
    pub fn dispatch_now<'a>(
        &self,
        head: &Head<'a>,
        found: &RouteMatch<'a>,
        grant: &Grant,
        body: &'a [u8],
    ) -> Option<Reply<'a>> {
        let renewed = match self.renewed(found, grant) {
            Ok(renewed) => renewed,
            Err(refusal) => return Some(Reply::Refused(refusal)),
        };
        let request = self.request(head, found, renewed.as_ref().unwrap_or(grant), body);
        let reply = match found.route.handler {
            Handler::Answer(answer) => answer(&request).map(Some),
            Handler::Push(prepare) => prepare(&request).and_then(Prepared::append_now),
        };
        reply.unwrap_or_else(|refusal| Some(Reply::Refused(refusal)))
    }

    /// As [`dispatch_now`](Self::dispatch_now), but waits for room in the log.
    pub async fn dispatch<'a>(
        &self,
        head: &Head<'a>,
        found: &RouteMatch<'a>,
        grant: &mut Grant,
        body: &'a [u8],
    ) -> Reply<'a> {
        match self.renewed(found, grant) {
            Ok(None) => {}
            Ok(Some(renewed)) => *grant = renewed,
            Err(refusal) => return Reply::Refused(refusal),
        }
        let request = self.request(head, found, grant, body);
        let reply = match found.route.handler {
            Handler::Answer(answer) => answer(&request),
            Handler::Push(prepare) => match prepare(&request) {
                Ok(prepared) => prepared.append().await,
                Err(refusal) => Err(refusal),
            },
        };
        reply.unwrap_or_else(Reply::Refused)
    }

    /// What the sender may do now, if that was looked for again: a body may come for long after its head.
    fn renewed(&self, found: &RouteMatch<'_>, grant: &Grant) -> Result<Option<Grant>, Refusal> {
        let renewed = self.endpoints.gate.access.renewed(grant, found.route.access)?;
        if let Some(renewed) = &renewed
            && let Some(queue) = found.param("queue").filter(|_| found.route.is_push())
        {
            push::check_queue(renewed, queue)?;
        }
        Ok(renewed)
    }

    fn request<'r, 'c, 'a>(
        &'c self,
        head: &'r Head<'a>,
        found: &'r RouteMatch<'a>,
        grant: &'c Grant,
        body: &'a [u8],
    ) -> Request<'r, 'c, 'a> {
        let access = found.route.access;
        Request { endpoints: &self.endpoints, head, params: &found.params, grant, access, body }
    }

    /// Begins a push of lines.
    ///
    /// # Errors
    /// What is wrong with its head.
    pub fn begin_lines<'c, 'h>(
        &'c self,
        head: &Head<'h>,
        found: &'h RouteMatch<'_>,
        grant: &Grant,
    ) -> Result<Lines<'c, 'h>, Refusal> {
        Lines::begin(&self.endpoints.pushes, &self.endpoints.gate.access, head, found, grant)
    }
}
