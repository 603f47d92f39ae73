//! A lane: one core thread's part of the log. Group commit ([`crate::group`]) driven on the thread's own ring.
//!
//! A lane is opened anywhere ([`crate::log`]) and *started* on the thread that uses it. The thread waits on [`Lane::event`]
//! (an eventfd) by whatever means it has, and calls [`Lane::on_event`] whenever that was signalled.

use crate::{
    error::LogError,
    group::{Appended, GroupCommit, Record, Refused, Start, Step, SyncMethod, WriteFailed},
    keeper::KeeperHandle,
    layout::Layout,
    position::Position,
    recent::Recent,
    ring::Ring,
};
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// What other threads see of a lane, and tell it.
pub struct LaneShared {
    lane: u16,
    sync: SyncMethod,
    durable: AtomicU64,
    durable_ordinal: AtomicU64,
    appended_ordinal: AtomicU64,
    full: AtomicBool,
    refusing: AtomicBool,
    poisoned: AtomicBool,
    made: Mutex<VecDeque<(u64, Arc<File>)>>,
    recent: Arc<Recent>,
    event: Arc<OwnedFd>,
}

impl LaneShared {
    /// What the lane wrote last.
    #[must_use]
    pub fn recent(&self) -> &Arc<Recent> {
        &self.recent
    }

    /// The lane's number.
    #[must_use]
    pub fn lane(&self) -> u16 {
        self.lane
    }

    /// Position behind the last durable group. Read it *after* the counter of numbers: see [`crate::log::Numbers`].
    #[must_use]
    pub fn durable(&self) -> Position {
        Position::unpack(self.durable.load(Ordering::SeqCst))
    }

    /// Ordinal behind the last durable record.
    #[must_use]
    pub fn durable_ordinal(&self) -> u64 {
        self.durable_ordinal.load(Ordering::SeqCst)
    }

    /// Ordinal behind the last record appended.
    #[must_use]
    pub fn appended_ordinal(&self) -> u64 {
        self.appended_ordinal.load(Ordering::Relaxed)
    }

    /// Whether the quota, or the disk, allows no further segment.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether a batch was refused because of that, and no segment was made since.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.is_full() && self.refusing.load(Ordering::Relaxed)
    }

    /// Whether a write or sync failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
        self.signal();
    }

    pub(crate) fn segment_made(&self, segment: u64, file: File) {
        self.lock_made().push_back((segment, Arc::new(file)));
        self.set_full(false);
    }

    pub(crate) fn open_segment(&self, layout: &Layout, segment: u64) -> Result<File, LogError> {
        let path = layout.segment(self.lane, segment);
        let flags = if self.sync == SyncMethod::Direct { libc::O_DIRECT } else { 0 };
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path);
        opened.map_err(LogError::io("open for writing", path))
    }

    fn lock_made(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<File>)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        // An eventfd write fails only when its counter is at its limit, and then it is readable anyway.
        if let Err(error) = rustix::io::write(&self.event, &1_u64.to_ne_bytes()) {
            tracing::debug!(%error, "the lane's eventfd was not written");
        }
    }
}

/// A lane that is open but not yet on its thread.
pub struct LaneOpen {
    pub(crate) shared: Arc<LaneShared>,
    pub(crate) start: Start,
    pub(crate) files: VecDeque<(u64, Arc<File>)>,
    pub(crate) numbers: Arc<AtomicU64>,
    pub(crate) keeper: KeeperHandle,
}

impl LaneOpen {
    /// Its number.
    #[must_use]
    pub fn lane(&self) -> u16 {
        self.start.lane
    }

    pub(crate) fn shared(start: &Start, sync: SyncMethod, recent_bytes: usize) -> Result<Arc<LaneShared>, LogError> {
        // Blocking: on a descriptor that is not, older kernels' io_uring would not wait for an event.
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
            .map_err(|error| LogError::Ring(error.into()))?;
        Ok(Arc::new(LaneShared {
            lane: start.lane,
            sync,
            durable: AtomicU64::new(start.tail.pack()),
            durable_ordinal: AtomicU64::new(start.next_ordinal),
            appended_ordinal: AtomicU64::new(start.next_ordinal),
            full: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            made: Mutex::new(VecDeque::new()),
            recent: Arc::new(Recent::new(recent_bytes)),
            event: Arc::new(event),
        }))
    }

    /// Starts the lane on this thread; it stays here.
    ///
    /// # Errors
    /// [`LogError::Ring`].
    pub fn start(self) -> Result<Lane, LogError> {
        let ring = Ring::new(self.shared.sync, Arc::clone(&self.shared.event)).map_err(LogError::Ring)?;
        let mut commit = GroupCommit::new(self.start);
        for (segment, _) in self.files.iter().skip(1) {
            commit.segment_ready(*segment);
        }
        let mut lane =
            Lane { shared: self.shared, commit, ring, files: self.files, numbers: self.numbers, keeper: self.keeper };
        lane.request_segments();
        Ok(lane)
    }
}

/// Why records were not appended. Nothing of them is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The batch can never fit.
    TooLarge {
        /// Bytes that a batch may take, frames' headers included.
        max: usize,
    },
    /// Too much waits for the disk, or the next segment is being made: try again after the lane's next event.
    Busy,
    /// The quota is reached, or the disk is full: try again once the drain has released something.
    Full,
    /// A write failed. Nothing more is taken, ever.
    Poisoned,
}

/// A lane on its thread.
pub struct Lane {
    shared: Arc<LaneShared>,
    commit: GroupCommit,
    ring: Ring,
    /// The segments that groups may go to, the current one first.
    files: VecDeque<(u64, Arc<File>)>,
    numbers: Arc<AtomicU64>,
    keeper: KeeperHandle,
}

impl Lane {
    /// Appends a batch, all of it or nothing; [`submit`](Self::submit) sends it on its way. The batch is durable, and may be
    /// answered, once [`durable_ordinal`](Self::durable_ordinal) has reached [`Appended::end_ordinal`].
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&mut self, records: &[Record<'_>]) -> Result<Appended, AppendError> {
        if self.shared.is_poisoned() {
            return Err(AppendError::Poisoned);
        }
        let is_full = self.is_full();
        if is_full && self.shared.is_refusing() {
            // A smaller batch may still fit. But whoever was refused must not be overtaken by whoever asks for less, nor
            // each client be told yes and no in turns until the last byte is taken.
            return Err(AppendError::Full);
        }
        let numbers = &self.numbers;
        let appended = self.commit.append(records, |count| numbers.fetch_add(count, Ordering::SeqCst));
        let appended = appended.map_err(|refused| match refused {
            Refused::TooLarge { max } => AppendError::TooLarge { max },
            Refused::Busy if is_full => {
                self.shared.refusing.store(true, Ordering::Relaxed);
                AppendError::Full
            }
            Refused::Busy => AppendError::Busy,
            Refused::Poisoned => AppendError::Poisoned,
        })?;
        self.shared.appended_ordinal.store(appended.end_ordinal, Ordering::Relaxed);
        self.request_segments();
        Ok(appended)
    }

    /// Starts writing what was appended; returns whether it did. While a write is under way it does not: what is appended
    /// until this is called after its completion is written together.
    ///
    /// # Errors
    /// [`WriteFailed`]: the lane is poisoned.
    pub fn submit(&mut self) -> Result<bool, WriteFailed> {
        let Some(group) = self.commit.next_group() else { return Ok(false) };
        self.start_operation(group)?;
        Ok(true)
    }

    /// Appends a seal and sends it on its way, if all that was appended is durable and not sealed yet: for a lane that is idle
    /// for a moment, or ends. Returns whether it did; the lane is idle again once the seal is durable.
    ///
    /// # Errors
    /// [`WriteFailed`]: the lane is poisoned.
    pub fn seal(&mut self) -> Result<bool, WriteFailed> {
        if !self.commit.seal(self.numbers.load(Ordering::SeqCst)) {
            return Ok(false);
        }
        self.request_segments();
        self.submit()?;
        Ok(true)
    }

    fn start_operation(&mut self, group: crate::group::Group) -> Result<(), WriteFailed> {
        let segment = group.start().segment;
        // Groups come in order, so the segments before are written to the end.
        while self.files.front().is_some_and(|(number, _)| *number < segment) {
            self.files.pop_front();
        }
        let started = match self.files.front() {
            Some((number, file)) if *number == segment => self.ring.start(group, Arc::clone(file)),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "the group's segment is not open")),
        };
        started.map_err(|source| {
            self.shared.poisoned.store(true, Ordering::SeqCst);
            WriteFailed { at: self.commit.durable(), source }
        })?;
        // While the disk writes. A group that goes on after a short write was kept when it began.
        if let Some(group) = self.ring.in_flight().filter(|group| group.is_at_start()) {
            self.shared.recent.keep(group.start(), group.unwritten());
        }
        Ok(())
    }

    /// Takes in what happened: completions, segments that are ready. Returns whether more became durable; what was appended
    /// since is for [`submit`](Self::submit) to send on its way.
    ///
    /// # Errors
    /// [`WriteFailed`]: the lane is poisoned, nothing that is not durable yet ever will be.
    pub fn on_event(&mut self) -> Result<bool, WriteFailed> {
        self.take_made_segments();
        let before = self.commit.durable_ordinal();
        while let Some((group, outcome)) = self.ring.take_completed() {
            match self.commit.completed(group, outcome) {
                Ok(Step::Again(group)) => self.start_operation(group)?,
                Ok(Step::Durable) => {
                    // The position first: whoever sees the ordinal may rely on the position.
                    self.shared.durable.store(self.commit.durable().pack(), Ordering::SeqCst);
                    self.shared.durable_ordinal.store(self.commit.durable_ordinal(), Ordering::SeqCst);
                }
                Err(failed) => {
                    self.shared.poisoned.store(true, Ordering::SeqCst);
                    return Err(failed);
                }
            }
        }
        Ok(self.commit.durable_ordinal() > before)
    }

    fn take_made_segments(&mut self) {
        let mut made = self.shared.lock_made();
        while let Some((segment, file)) = made.pop_front() {
            self.commit.segment_ready(segment);
            self.files.push_back((segment, file));
            // Here, on the thread that sets it: whoever makes segments may do so right before it is set.
            self.shared.refusing.store(false, Ordering::Relaxed);
        }
    }

    fn request_segments(&mut self) {
        while let Some(header) = self.commit.wanted_segment(self.numbers.load(Ordering::SeqCst)) {
            self.keeper.prepare(header, Arc::clone(&self.shared));
        }
    }

    /// The eventfd that is readable after each completion and whenever another thread has something for the lane. It counts;
    /// read it, then call [`on_event`](Self::on_event).
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        self.ring.event()
    }

    /// What other threads see of the lane.
    #[must_use]
    pub fn shared(&self) -> &Arc<LaneShared> {
        &self.shared
    }

    /// Whether something waits that no write is under way for.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.ring.in_flight().is_none() && self.queued_bytes() > 0
    }

    /// Ordinal behind the last durable record.
    #[must_use]
    pub fn durable_ordinal(&self) -> u64 {
        self.commit.durable_ordinal()
    }

    /// Bytes that wait for the disk, those in flight included.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.commit.queued_bytes()
    }

    /// Whether the lane has no segment left behind the current one, and gets none before something is released.
    #[must_use]
    pub fn is_full(&self) -> bool {
        // One that was made, but not taken in yet, may be the last there is.
        self.commit.segments_ready() == 0 && self.shared.is_full() && self.shared.lock_made().is_empty()
    }

    /// Whether all that was appended is durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.commit.is_idle()
    }
}
