//! A core: one thread with a runtime, a listener, its connections, and a lane of the log. Other threads see nothing of it but
//! the lane's durable end, and reach it by its mailbox.
//!
//! ```text
//!   listener ─► serve ─► conversation ─► api ─► LaneWriter ◄── log task: writes groups, wakes the tasks that wait for them
//!                                         └───► PendingCommits, PendingReplies ◄── mailbox: from the drain, from PostgreSQL
//! ```

use super::registry::Registry;
use crate::{
    access::Gate,
    api::{Api, ApiParts},
    config::Config,
    ingest::{LaneFailed, LaneWriter, PendingCommits, PendingReplies},
    limits::{CONNECTIONS_GRACE, LAST_REPLIES_GRACE, MEMORY_WAIT_MAX},
    memory::{Budget, Turns},
    postgres::worker::PgRequests,
    queue::thread::QueueRequests,
    rt,
    rt::Notify,
    state::{
        connection_count::ConnectionCount,
        database_health::HealthMonitor,
        drain_view::DrainView,
        log_view::LogView,
        mailbox::{Letter, Mailboxes},
        memory_shortage::MemoryShortage,
        pulse::Pulse,
    },
};
use forebay_wal::{error::LogError, lane::UnstartedLane};
use std::{
    cell::Cell,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

/// Why a core ends the daemon.
#[derive(Debug, thiserror::Error)]
pub enum CoreFailed {
    /// A write to the log failed. Next step: see [`LaneFailed`].
    #[error(transparent)]
    Log(#[from] LaneFailed),
    /// The lane could not be started. Next step: check the limits on io_uring.
    #[error(transparent)]
    Lane(#[from] LogError),
    /// The runtime, or the listener, could not be set up. Next step: check the limits on io_uring and on descriptors.
    #[error(transparent)]
    Setup(#[from] io::Error),
}

/// What a core's thread starts with.
pub struct ServerStart {
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
    /// The cores' mailboxes.
    pub mailboxes: Arc<Mailboxes>,
    /// The cores' signs of life.
    pub pulses: Arc<[Pulse]>,
    /// The daemon's open connections.
    pub connections: Arc<ConnectionCount>,
    /// Whether requests find memory.
    pub memory: Arc<MemoryShortage>,
    /// Where PostgreSQL is asked.
    pub pg_requests: PgRequests,
    /// Where consumers' requests go.
    pub queue_requests: QueueRequests,
    /// The core's lane; the lane's number is the core's.
    pub lane: UnstartedLane,
    /// The core's listening socket.
    pub socket: OwnedFd,
    /// The processor that the thread is pinned to, if any.
    pub cpu: Option<usize>,
    /// Connections that the core serves at once.
    pub connections_max: u32,
    /// Called on the core's thread when the log fails; the daemon ends then. Other failures are the result of [`run`](super::run).
    pub on_failure: Box<dyn Fn(CoreFailed)>,
    /// Receives a word once the core serves. A core that fails before that drops it.
    pub starting: Sender<()>,
}

/// What the tasks of one core share to serve connections.
pub(crate) struct Server {
    pub(crate) api: Api,
    pub(crate) registry: Registry,
    pub(crate) budget: Budget,
    pub(crate) turns: Turns,
    pub(crate) memory: Arc<MemoryShortage>,
    pub(crate) listener: rt::Listener,
    pub(crate) connections_max: usize,
    /// Connections that keep a buffer between requests.
    pub(crate) buffered_idle: Cell<usize>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) connections: Arc<ConnectionCount>,
    pub(crate) lane: Rc<LaneWriter>,
    commits: Rc<PendingCommits>,
    replies: Rc<PendingReplies>,
    health: Arc<HealthMonitor>,
    commit_wait: Duration,
    now_ms: Cell<u64>,
    ended: Notify,
}

impl Server {
    pub(super) fn new(start: ServerStart) -> Result<Self, CoreFailed> {
        let core = start.lane.lane();
        let on_failure = start.on_failure;
        let lane = Rc::new(LaneWriter::new(
            start.lane.start()?,
            Arc::clone(&start.log),
            Arc::clone(&start.drain),
            Box::new(move |failed| on_failure(failed.into())),
        ));
        let commits = Rc::new(PendingCommits::new(start.config.commit_wait));
        let replies = Rc::new(PendingReplies::default());
        let api = Api::new(ApiParts {
            config: Arc::clone(&start.config),
            gate: Arc::clone(&start.gate),
            log: start.log,
            drain: start.drain,
            health: Arc::clone(&start.health),
            pulses: start.pulses,
            connections: Arc::clone(&start.connections),
            memory: Arc::clone(&start.memory),
            lane: Rc::clone(&lane),
            commits: Rc::clone(&commits),
            replies: Rc::clone(&replies),
            pg_requests: start.pg_requests,
            queue_requests: start.queue_requests,
            core,
        });
        Ok(Self {
            api,
            registry: Registry::default(),
            budget: Budget::new(start.config.memory_budget as usize, MEMORY_WAIT_MAX.as_millis() as u64),
            turns: Turns::default(),
            memory: start.memory,
            listener: rt::Listener::new(start.socket)?,
            connections_max: start.connections_max as usize,
            buffered_idle: Cell::new(0),
            gate: start.gate,
            connections: start.connections,
            lane,
            commits,
            replies,
            health: start.health,
            commit_wait: start.config.commit_wait,
            now_ms: Cell::new(0),
            ended: Notify::default(),
        })
    }

    /// Whether the daemon shuts down. Replies then close their connections.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.lane.is_shutting_down()
    }

    /// The clock for limits on connections, in milliseconds since the core started; as exact as the sweep is frequent. It
    /// stands still while the process does, so that no client is late by that.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    pub(super) fn set_now_ms(&self, now_ms: u64) {
        self.now_ms.set(now_ms);
    }

    /// Ends the thread if the daemon shuts down, no connection is left, and the lane is finished.
    pub(crate) fn end_if_done(&self) {
        if self.is_shutting_down() && self.registry.is_empty() && self.lane.finish() {
            self.ended.notify();
        }
    }

    /// Waits until the thread may end.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Gives up waiting for commits that take too long.
    pub(super) fn give_up_expired(&self, now: Instant) {
        if self.commits.give_up_before(now) {
            self.health.commit_wait_expired(self.commit_wait);
        }
    }

    /// Takes in what another thread sent.
    pub(super) fn take_in(self: &Rc<Self>, letter: Letter) {
        match letter {
            Letter::Committed(deliveries) => self.commits.deliver(deliveries),
            Letter::DatabaseAway => self.commits.give_up_all(),
            Letter::PgAnswer { id, answer } => self.replies.answer(id, answer),
            Letter::Stop => self.shut_down(),
        }
    }

    fn shut_down(self: &Rc<Self>) {
        if !self.lane.shut_down() {
            return;
        }
        self.listener.stop();
        self.registry.stop_idle();
        let server = Rc::clone(self);
        rt::spawn(async move {
            rt::sleep(CONNECTIONS_GRACE).await;
            server.commits.give_up_all();
            server.replies.give_up_all();
            rt::sleep(LAST_REPLIES_GRACE).await;
            server.registry.stop_all();
        });
        let server = Rc::clone(self);
        rt::spawn(async move {
            loop {
                server.end_if_done();
                server.lane.next_event().await;
            }
        });
    }
}
