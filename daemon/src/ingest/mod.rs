//! A core: one pinned thread with a runtime, a listener and a lane of the log. Its tasks share a [`Core`]; nothing of it
//! is seen by other threads but the lane's durable end and a mailbox.
//!
//! ```text
//!   listener ──> connection ──> api ──> Core::append ──> lane        log_task: ring's eventfd, wakes who waits
//!                     ^                    │                          mailbox:  deliveries from the drain
//!                     └── durable / commits ┘
//! ```

mod commits;
mod gather;
mod log_task;
mod pending_reply;

pub use commits::{Awaited, CommitWait};
pub use log_task::Poisoned;
pub use pending_reply::{PendingReplies, PendingReply};

use crate::{
    connection::{
        budget::Budget,
        date::{DATE_LINE_BYTES, DateLine},
        listener,
        registry::Registry,
        watch::Timeouts,
    },
    ids::{IdMaker, unix_now},
    limits::{
        COLLECT_AFTER, CONNECTION_SWEEP_INTERVAL, CONNECTIONS_GRACE, IN_FLIGHT_BYTES_PER_CORE, IN_FLIGHT_PATIENCE,
        QUIET_SWEEPS_MAX, READ_BUFFER_KEPT_BYTES, SWEEP_INTERVAL,
    },
    postgres::worker::{PgRequests, PgWork},
    rt,
    rt::Notify,
    state::{drain_signal::Patience, mailbox::Letter, shared::Shared},
};
use commits::Commits;
use forebay_wal::{
    group::{Appended, Record},
    lane::{AppendError, Lane, UnstartedLane},
};
use log_task::LogState;
use std::{
    cell::{Cell, RefCell},
    os::fd::OwnedFd,
    rc::Rc,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

/// Why a core ended the daemon.
#[derive(Debug)]
pub enum CoreFailed {
    /// The log cannot be trusted any more.
    Storage(String),
    /// io_uring, or the listener, could not be set up.
    Setup(String),
}

/// What a core thread starts with.
pub struct CoreStart {
    /// Shared by all threads.
    pub shared: Arc<Shared>,
    /// Its lane; the lane's number is the core's.
    pub lane: UnstartedLane,
    /// Its listening socket.
    pub socket: OwnedFd,
    /// The processor it is pinned to, if any.
    pub cpu: Option<usize>,
    /// Connections it serves at once.
    pub connections_max: u32,
    /// Where it asks PostgreSQL.
    pub pg_requests: PgRequests,
    /// Where a failure is told; the daemon ends then.
    pub failed: Sender<CoreFailed>,
    /// Where it is told that the core serves; one that cannot ends without.
    pub starting: Sender<()>,
}

/// What the tasks of one core share.
pub struct Core {
    /// Shared by all threads.
    pub shared: Arc<Shared>,
    index: u16,
    /// Makes message ids.
    pub ids: IdMaker,
    lane: RefCell<Lane>,
    log: LogState,
    commits: Commits,
    replies: Rc<PendingReplies>,
    pg_requests: PgRequests,
    pub(crate) registry: Registry,
    pub(crate) budget: Budget,
    /// Connections that keep a buffer between requests.
    pub(crate) resting: Cell<usize>,
    date: DateLine,
    /// Time as the sweep counts it, in milliseconds: it stands still while the process does, so that nobody is late by that.
    now_ms: Cell<u64>,
    /// Memory for what is made and thrown away within a request.
    scratch: Cell<Vec<u8>>,
    pub(crate) listener: rt::Listener,
    pub(crate) connections_max: usize,
    stopping: Cell<bool>,
    ended: Notify,
    failed: Sender<CoreFailed>,
}

/// A longer step of the sweep counts as one of this length: the process was stopped, or its machine.
const STEP_MAX: Duration = Duration::from_secs(1);

/// Runs a core on the calling thread until the daemon stops.
///
/// # Errors
/// [`CoreFailed`].
pub fn run(start: CoreStart) -> Result<(), CoreFailed> {
    if let Some(cpu) = start.cpu {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
            tracing::warn!(cpu, %error, "the core thread could not be pinned");
        }
    }
    let setup = |error: std::io::Error| CoreFailed::Setup(error.to_string());
    let mut runtime = rt::runtime(start.connections_max).map_err(setup)?;
    let index = start.lane.lane();
    let lane = start.lane.start().map_err(|error| CoreFailed::Setup(error.to_string()))?;
    runtime.block_on(async move {
        let core = Rc::new(Core {
            shared: start.shared,
            index,
            ids: IdMaker::new(),
            lane: RefCell::new(lane),
            log: LogState::default(),
            commits: Commits::default(),
            replies: Rc::default(),
            pg_requests: start.pg_requests,
            registry: Registry::default(),
            budget: Budget::new(IN_FLIGHT_BYTES_PER_CORE, IN_FLIGHT_PATIENCE.as_millis() as u64),
            resting: Cell::new(0),
            date: DateLine::new(unix_now()),
            now_ms: Cell::new(0),
            scratch: Cell::default(),
            listener: rt::Listener::new(start.socket).map_err(setup)?,
            connections_max: start.connections_max as usize,
            stopping: Cell::new(false),
            ended: Notify::default(),
            failed: start.failed,
        });
        log_task::spawn(&core).map_err(setup)?;
        let mail = Rc::clone(&core);
        let event = core.shared.mailboxes[index].event();
        rt::spawn_on_event(event, move || mail.read_mail(index)).map_err(setup)?;
        rt::spawn(sweep(Rc::clone(&core)));
        rt::spawn(listener::accept_all(Rc::clone(&core)));
        if start.starting.send(()).is_err() {
            tracing::debug!("nobody waits for the core to serve");
        }
        drop(start.starting);
        core.ended.notified().await;
        Ok(())
    })
}

impl Core {
    /// Whether the daemon is ending: answers then close their connections.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// The time for limits on connections, in milliseconds since the core started; as exact as the sweep is frequent.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// The `Date` of an answer, as a header line.
    pub fn date_line(&self) -> [u8; DATE_LINE_BYTES] {
        self.date.get()
    }

    /// Empty memory of some size, for bytes that are done with soon; to be given back.
    pub fn scratch(&self) -> Vec<u8> {
        self.scratch.take()
    }

    /// Takes [`scratch`](Self::scratch) back.
    pub fn give_back(&self, mut scratch: Vec<u8>) {
        scratch.clear();
        if scratch.capacity() <= READ_BUFFER_KEPT_BYTES {
            self.scratch.set(scratch);
        }
    }

    /// Whether this core's lane has no room, and gets none before the drain releases something.
    pub fn is_full(&self) -> bool {
        self.lane.borrow().is_full()
    }

    /// Share of the log's quota that is used when all that this core appended is durable, in hundredths from 0 to 100.
    pub fn fill_percent(&self) -> u8 {
        self.shared.log.fill_percent(self.lane.borrow().queued_bytes())
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// With [`AppendError::Busy`] it may fit after [`room`](Self::room).
    pub fn append(&self, records: &[Record<'_>], patience: Patience) -> Result<Appended, AppendError> {
        if self.shared.log.has_failed() {
            return Err(AppendError::Poisoned);
        }
        let appended = self.lane.borrow_mut().append(records)?;
        self.log.note(appended.end_ordinal, records.len() as u64, patience);
        Ok(appended)
    }

    /// Waits until there may be room, after the disk or the next segment kept the lane busy, or until the daemon ends.
    pub async fn room(&self) {
        self.log.look();
        self.log.next_event().await;
    }

    /// Sends what was appended on its way, together with what those append whose turn is next. `is_answered_then`: whether
    /// whoever appended it is answered as soon as it is durable, and may come with more then.
    pub fn submit(&self, is_answered_then: bool) {
        self.log.submit(is_answered_then);
    }

    /// Waits until everything below `end_ordinal` is durable.
    ///
    /// # Errors
    /// [`Poisoned`]: it never will be.
    pub async fn durable(&self, end_ordinal: u64) -> Result<(), Poisoned> {
        log_task::durable(self, end_ordinal).await
    }

    /// Waits for the commit of the `count` messages from `first_number` on.
    pub fn await_commit(&self, first_number: u64, count: usize) -> Rc<Awaited> {
        self.commits.add(first_number, count, Instant::now() + self.shared.config.commit_wait)
    }

    /// Leaves work for the thread that asks PostgreSQL; `None` when too much waits there.
    pub fn ask(&self, work: PgWork) -> Option<PendingReply> {
        let pending = self.replies.add();
        self.pg_requests.submit(self.index, pending.id(), pending.cancel_flag(), work).then_some(pending)
    }

    fn read_mail(self: &Rc<Self>, index: u16) -> bool {
        for letter in self.shared.mailboxes[index].take() {
            match letter {
                Letter::Committed(deliveries) => self.commits.deliver(deliveries),
                Letter::DatabaseAway => self.commits.give_up_all(),
                Letter::PgAnswer { id, answer } => self.replies.answer(id, answer),
                Letter::Stop => self.begin_stop(),
            }
        }
        true
    }

    fn begin_stop(self: &Rc<Self>) {
        if self.stopping.replace(true) {
            return;
        }
        self.listener.stop();
        self.registry.stop_idle();
        // Those who wait for room get none any more.
        self.log.happened();
        let core = Rc::clone(self);
        rt::spawn(async move {
            rt::sleep(CONNECTIONS_GRACE).await;
            core.replies.give_up_all();
            core.registry.stop_all();
        });
        self.end_if_done();
    }

    /// Ends the thread once no connection is left and all that was appended is durable, and a seal says so; or never will be.
    pub(crate) fn end_if_done(&self) {
        if !self.stopping.get() || !self.registry.is_empty() {
            return;
        }
        let has_failed = self.log.has_failed();
        if has_failed || (self.lane.borrow().is_idle() && !self.seal()) {
            self.ended.notify();
        }
    }

    /// Puts a seal behind what the lane holds, unless there is one or something is on its way to the disk. Returns whether a
    /// seal is on its way now; the lane has an event once it is durable.
    fn seal(&self) -> bool {
        let outcome = self.lane.borrow_mut().seal();
        outcome.unwrap_or_else(|failed| {
            log_task::poison(self, &failed);
            false
        })
    }

    fn fail(&self, failed: CoreFailed) {
        if let Err(unsent) = self.failed.send(failed) {
            tracing::error!(code = "core_failed", failure = ?unsent.0, "nobody was left to hear of it");
        }
    }
}

/// Ends waits for commits that take too long and connections that do, and seals the lane when nothing was pushed for a moment.
async fn sweep(core: Rc<Core>) {
    let timeouts = Timeouts::new(core.shared.config.idle_timeout, core.shared.config.request_timeout);
    let (mut appended, mut quiet_sweeps) = (0, 0);
    let (mut last, mut connections_at_ms, mut given_back) = (Instant::now(), 0, 0);
    loop {
        rt::sleep(SWEEP_INTERVAL).await;
        core.shared.pulses[usize::from(core.index)].beat();
        let now = Instant::now();
        if core.commits.give_up_before(now) {
            core.shared.health.commit_wait_expired(core.shared.config.commit_wait);
        }
        core.date.set(unix_now());
        let step = now.duration_since(std::mem::replace(&mut last, now)).min(STEP_MAX);
        let now_ms = core.now_ms.get() + step.as_millis() as u64;
        core.now_ms.set(now_ms);
        if now_ms >= connections_at_ms {
            connections_at_ms = now_ms + CONNECTION_SWEEP_INTERVAL.as_millis() as u64;
            // Those of the last sweep have given theirs back by now.
            let given_back_now = core.registry.take_given_back();
            given_back += given_back_now;
            let nobody_follows = given_back > 0 && given_back_now == 0;
            if given_back >= COLLECT_AFTER || nobody_follows {
                given_back = 0;
                rt::give_free_memory_back();
            }
            core.budget.tick(now_ms);
            core.registry.sweep(now_ms, &timeouts);
        }
        let appended_now = core.lane.borrow().shared().appended_ordinal();
        quiet_sweeps = if appended_now == appended { quiet_sweeps + 1 } else { 0 };
        appended = appended_now;
        if quiet_sweeps >= QUIET_SWEEPS_MAX {
            core.seal();
        }
        core.end_if_done();
    }
}
