//! A core's way into the log: appends to its lane, and the waits for what was appended to become durable.

use super::{
    commit_window::CommitWindow,
    ticket::{NotDurable, Stretch, Ticket},
};
use crate::{
    limits::{GIVE_UP_WAIT, WINDOW_BYTES},
    rt::Notify,
    state::{
        drain_signal::Patience,
        drain_view::DrainView,
        log_view::{LogFailure, LogView},
    },
};
use forebay_wal::{
    group::{Record, WriteError},
    lane::{AppendError, Lane},
    position::Position,
    segment::{file_name, lane_dir_name},
};
use std::{
    cell::{Cell, Ref, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Instant,
};

/// The write with which a lane failed. Next step: check the disk, then start the daemon again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a write to {file} failed behind byte {offset}: {reason}; check the disk, then start again")]
pub struct LaneFailed {
    /// The segment, below the data directory.
    pub file: String,
    /// Where in it the write began.
    pub offset: u32,
    /// What the kernel said.
    pub reason: String,
}

/// Records that the drain is told of once they are durable.
struct RegisteredCommit {
    end_ordinal: u64,
    count: u64,
    patience: Patience,
}

/// One core's lane. All tasks of the core append through it; the log task writes.
pub struct LaneWriter {
    lane: RefCell<Lane>,
    log: Arc<LogView>,
    drain: Arc<DrainView>,
    pub(super) window: CommitWindow,
    /// Tells the log task that there may be something to write.
    pub(super) write_wanted: Notify,
    /// In the order of their ordinals.
    registered: RefCell<VecDeque<RegisteredCommit>>,
    /// Tasks that wait for the lane to be durable up to an ordinal.
    durability_waiters: RefCell<Vec<(u64, Waker)>>,
    /// Tasks that wait for the next event of the lane, whatever it is.
    event_waiters: RefCell<Vec<Waker>>,
    events: Cell<u64>,
    has_failed: Cell<bool>,
    /// The records that are appended now belong to it.
    stretch: RefCell<Rc<Stretch>>,
    /// Since when it is open whether the records are kept for which there was no room.
    unsettled_since: Cell<Option<Instant>>,
    is_shutting_down: Cell<bool>,
    on_failure: Box<dyn Fn(LaneFailed)>,
}

impl LaneWriter {
    /// A writer for `lane`. `on_failure` is called at most once.
    pub fn new(lane: Lane, log: Arc<LogView>, drain: Arc<DrainView>, on_failure: Box<dyn Fn(LaneFailed)>) -> Self {
        Self {
            lane: RefCell::new(lane),
            log,
            drain,
            window: CommitWindow::default(),
            write_wanted: Notify::default(),
            registered: RefCell::default(),
            durability_waiters: RefCell::default(),
            event_waiters: RefCell::default(),
            events: Cell::new(0),
            has_failed: Cell::new(false),
            stretch: RefCell::default(),
            unsettled_since: Cell::new(None),
            is_shutting_down: Cell::new(false),
            on_failure,
        }
    }

    /// Appends a batch, whole or not at all. `patience` says when the drain should take it. Returns the number of the first
    /// record as well.
    ///
    /// # Errors
    /// With [`AppendError::Busy`] the batch may fit after [`room`](Self::room).
    pub fn append(&self, records: &[Record<'_>], patience: Patience) -> Result<(u64, Ticket), AppendError> {
        if self.log.has_failed() {
            return Err(AppendError::Poisoned);
        }
        let appended = self.lane.borrow_mut().append(records)?;
        self.register_commit(appended.end_ordinal, records.len() as u64, patience);
        Ok((appended.first_number, Ticket::new(Rc::clone(&self.stretch.borrow()), appended.end_ordinal)))
    }

    /// Waits until a lane that was busy may have room. Returns also when the daemon shuts down.
    pub async fn room(&self) {
        self.wake_writer();
        self.next_event().await;
    }

    /// Has what one pass over a connection's requests appended written before long, together with what other passes append
    /// until the commit window closes. `is_acked_on_write`: the client is answered as soon as it is durable, so that it may
    /// push again then.
    pub fn request_write(&self, is_acked_on_write: bool) {
        self.window.push_appended(is_acked_on_write);
        self.wake_writer();
    }

    /// Waits until the records of `ticket` are durable, if there are any.
    ///
    /// # Errors
    /// [`NotDurable`]: they are not, or nobody knows.
    pub async fn durable(&self, ticket: Option<&Ticket>) -> Result<(), NotDurable> {
        let Some(ticket) = ticket else { return Ok(()) };
        poll_fn(|cx| match self.outcome(ticket) {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                self.durability_waiters.borrow_mut().push((ticket.end(), cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }

    /// What became of the records of `ticket`, if that is known.
    fn outcome(&self, ticket: &Ticket) -> Option<Result<(), NotDurable>> {
        if let Some(settled) = ticket.settled() {
            return Some(settled);
        }
        if self.lane.borrow().durable_ordinal() >= ticket.end() {
            return Some(Ok(()));
        }
        let is_unknown = self.has_failed.get() || self.unsettled_since.get().is_some_and(|since| self.is_over(since));
        is_unknown.then_some(Err(NotDurable::Unknown))
    }

    /// Whether nobody waits longer for what is unsettled `since` then.
    fn is_over(&self, since: Instant) -> bool {
        self.is_shutting_down.get() || since.elapsed() >= GIVE_UP_WAIT
    }

    /// Whether further records can be counted together with those of `ticket`.
    ///
    /// # Errors
    /// [`NotDurable::Refused`]: those are not kept.
    pub fn can_extend(&self, ticket: &Ticket) -> Result<bool, NotDurable> {
        match ticket.settled() {
            Some(settled) => settled.map(|()| false),
            None => Ok(ticket.is_of(&self.stretch.borrow())),
        }
    }

    /// Ends the waits for what has been unsettled for too long.
    pub fn end_long_waits(&self) {
        if self.unsettled_since.get().is_some_and(|since| self.is_over(since)) {
            self.wake_durable(u64::MAX);
        }
    }

    /// Waits for the next event of the lane: a write or a segment was completed, the lane failed, or the daemon shuts down.
    pub async fn next_event(&self) {
        let seen = self.events.get();
        poll_fn(|cx| {
            if self.events.get() != seen {
                return Poll::Ready(());
            }
            self.event_waiters.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether the lane has no room, and gets none before the drain releases something.
    pub fn is_full(&self) -> bool {
        self.lane.borrow().is_full()
    }

    /// Share of the log's quota that is used when all that this core appended is durable, in hundredths from 0 to 100.
    pub fn fill_percent(&self) -> u8 {
        self.log.fill_percent(self.lane.borrow().queued_bytes())
    }

    /// Ordinal behind the last record that was appended.
    pub fn appended_ordinal(&self) -> u64 {
        self.lane.borrow().shared().appended_ordinal()
    }

    /// Whether the daemon shuts down. A push that finds the lane busy then waits for no room.
    pub fn is_shutting_down(&self) -> bool {
        self.is_shutting_down.get()
    }

    /// Begins to shut down. Returns whether that was the first time.
    pub fn shut_down(&self) -> bool {
        let is_first = !self.is_shutting_down.replace(true);
        if is_first {
            self.end_long_waits();
            self.wake_waiters();
        }
        is_first
    }

    /// Seals the lane once nothing is on its way to the disk. Returns whether nothing is left to do: everything is durable and
    /// sealed, or never will be.
    pub fn finish(&self) -> bool {
        self.has_failed.get() || (self.lane.borrow().is_idle() && !self.seal())
    }

    /// Puts a seal behind the records of the lane, unless there is one or something is on its way to the disk. Returns whether
    /// a seal is on its way now; the lane has an event once it is durable.
    pub fn seal(&self) -> bool {
        let outcome = self.lane.borrow_mut().seal();
        outcome.unwrap_or_else(|failed| {
            self.poison(&failed);
            false
        })
    }

    pub(super) fn lane(&self) -> Ref<'_, Lane> {
        self.lane.borrow()
    }

    /// Lets the log task see whether there is something to write.
    fn wake_writer(&self) {
        self.write_wanted.notify();
    }

    fn register_commit(&self, end_ordinal: u64, count: u64, patience: Patience) {
        self.registered.borrow_mut().push_back(RegisteredCommit { end_ordinal, count, patience });
    }

    /// Wakes the tasks that wait for an event.
    fn wake_waiters(&self) {
        self.events.set(self.events.get() + 1);
        self.event_waiters.take().into_iter().for_each(Waker::wake);
    }

    fn wake_durable(&self, durable_ordinal: u64) {
        self.durability_waiters.borrow_mut().retain_mut(|(end_ordinal, waker)| {
            let waits_on = *end_ordinal > durable_ordinal;
            if !waits_on {
                waker.wake_by_ref();
            }
            waits_on
        });
    }

    /// Whether so much is collected that more would make the write no cheaper.
    pub(super) fn is_large(&self) -> bool {
        self.lane.borrow().queued_bytes() >= WINDOW_BYTES
    }

    /// Gives the collected group to the disk, unless a write is in flight.
    pub(super) fn write_group(&self) {
        let outcome = self.lane.borrow_mut().submit();
        match outcome {
            Ok(true) => self.window.write_started(),
            Ok(false) => {}
            Err(failed) => self.poison(&failed),
        }
    }

    /// Takes in what the disk has completed.
    pub(super) fn on_event(&self) {
        let outcome = self.lane.borrow_mut().on_event();
        match outcome {
            Ok(progress) => {
                if progress.are_refused {
                    self.refuse_unsettled();
                }
                if progress.has_room_again {
                    tracing::info!("the log has room again; pushes are accepted");
                }
                if let Some(no_room) = &progress.no_room {
                    self.begin_to_give_up(no_room);
                }
                if progress.more_is_durable {
                    self.window.write_ended();
                    // A large group goes before the woken tasks have their turn.
                    if self.is_large() {
                        self.write_group();
                    }
                    let durable_ordinal = self.lane.borrow().durable_ordinal();
                    self.wake_durable(durable_ordinal);
                    self.tell_drain(durable_ordinal);
                }
                self.wake_waiters();
                self.wake_writer();
            }
            Err(failed) => self.poison(&failed),
        }
    }

    fn tell_drain(&self, durable_ordinal: u64) {
        let mut registered = self.registered.borrow_mut();
        let mut due: Option<(u64, Patience)> = None;
        while let Some(commit) = registered.pop_front_if(|commit| commit.end_ordinal <= durable_ordinal) {
            due = Some(match due {
                Some((count, patience)) => (count + commit.count, patience.shorter(commit.patience)),
                None => (commit.count, commit.patience),
            });
        }
        if let Some((count, patience)) = due {
            self.drain.signal.add(count, patience);
        }
    }

    /// There was no room for a write. What is not durable stays open until it is durable where the segment ends.
    fn begin_to_give_up(&self, no_room: &WriteError) {
        self.unsettled_since.set(Some(Instant::now()));
        self.window.clear();
        let durable_ordinal = self.lane.borrow().durable_ordinal();
        self.registered.borrow_mut().retain(|commit| commit.end_ordinal <= durable_ordinal);
        let (lane, file) = self.file_of(no_room.at);
        tracing::error!(
            code = "log_disk_full",
            lane,
            file,
            offset = no_room.at.offset,
            error = %no_room.source,
            "there was no room for a write to the log; pushes are refused until there is some"
        );
    }

    /// What was open is settled: it is refused.
    fn refuse_unsettled(&self) {
        self.unsettled_since.set(None);
        let durable_ordinal = self.lane.borrow().durable_ordinal();
        self.stretch.take().end(durable_ordinal);
        self.wake_durable(u64::MAX);
    }

    /// The lane, and the file of a position in it.
    fn file_of(&self, at: Position) -> (u16, String) {
        let lane = self.lane.borrow().shared().lane();
        (lane, format!("wal/{}/{}", lane_dir_name(lane), file_name(at.segment)))
    }

    fn poison(&self, failed: &WriteError) {
        if self.has_failed.replace(true) {
            return;
        }
        // First of all: the daemon is about to end, and no other core may take a push meanwhile.
        self.log.set_failed(LogFailure::Storage);
        let offset = failed.at.offset;
        let (lane, file) = self.file_of(failed.at);
        tracing::error!(
            code = "log_write_failed",
            lane,
            file,
            offset,
            error = %failed.source,
            "a write to the log failed; pushes are refused, and the daemon ends once the drain had its time"
        );
        self.wake_durable(u64::MAX);
        self.wake_waiters();
        (self.on_failure)(LaneFailed { file, offset, reason: failed.source.to_string() });
    }
}
