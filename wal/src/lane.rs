//! A lane: the part of the log that one core's thread writes. It drives group commit ([`crate::group`]) on a ring of its own.
//!
//! [`crate::log`] opens a lane on any thread. The thread that uses it *starts* it, waits on [`Lane::event`], an eventfd, and
//! calls [`Lane::on_event`] after each signal.

use crate::{
    error::{LogError, ignore},
    group::{AppendRefusal, Appended, Completion, Group, GroupCommit, LaneStart, Record, SyncMethod, WriteError},
    keeper::KeeperHandle,
    layout::Layout,
    position::Position,
    ring::Ring,
    storage::Disk,
    tail_cache::TailCache,
};
use rustix::fs::OFlags;
use std::{
    collections::VecDeque,
    fs::File,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// The part of a lane that other threads read and write.
pub struct LaneShared {
    lane: u16,
    sync: SyncMethod,
    /// [`Position::pack`]ed.
    durable_end: AtomicU64,
    durable_ordinal: AtomicU64,
    appended_ordinal: AtomicU64,
    is_full: AtomicBool,
    is_refusing: AtomicBool,
    is_poisoned: AtomicBool,
    /// Whether the lane gave a segment up and has not gone on since.
    has_given_up: AtomicBool,
    /// What the keeper has done about it and the lane has not taken yet.
    give_up_steps: Mutex<VecDeque<GiveUpStep>>,
    /// Segments that the keeper has made and the lane has not taken yet.
    ready_segments: Mutex<VecDeque<(u64, Arc<File>)>>,
    tail_cache: Arc<TailCache>,
    event: Arc<OwnedFd>,
}

impl LaneShared {
    /// The bytes that the lane wrote last.
    #[must_use]
    pub fn tail_cache(&self) -> &Arc<TailCache> {
        &self.tail_cache
    }

    /// The lane's number.
    #[must_use]
    pub fn lane(&self) -> u16 {
        self.lane
    }

    /// Position behind the last durable group. Read it *after* the sequence counter: see [`crate::log::SequenceCounter`].
    #[must_use]
    pub fn durable_end(&self) -> Position {
        Position::unpack(self.durable_end.load(Ordering::SeqCst))
    }

    /// Ordinal behind the last durable record.
    #[must_use]
    pub fn durable_ordinal(&self) -> u64 {
        self.durable_ordinal.load(Ordering::SeqCst)
    }

    /// Ordinal behind the last appended record.
    #[must_use]
    pub fn appended_ordinal(&self) -> u64 {
        self.appended_ordinal.load(Ordering::Relaxed)
    }

    /// Whether the quota or the disk has no room for the segment that the lane has requested, or the disk had none for a
    /// write to one that exists.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed) || self.has_given_up()
    }

    fn has_given_up(&self) -> bool {
        self.has_given_up.load(Ordering::Relaxed)
    }

    /// Whether the lane refused a batch because it was full, and has got no segment since.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.has_given_up() || self.is_full() && self.is_refusing.load(Ordering::Relaxed)
    }

    /// Whether a write or sync failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.is_poisoned.load(Ordering::SeqCst)
    }

    /// Says whether there is room for the segment that the lane has requested.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
        self.signal();
    }

    /// Hands a segment that was made to the lane.
    pub(crate) fn add_segment(&self, segment: u64, file: File) {
        self.lock_ready_segments().push_back((segment, Arc::new(file)));
        self.set_full(false);
    }

    /// Tells the lane what was done about the segment that it gave up.
    pub(crate) fn add_give_up_step(&self, step: GiveUpStep) {
        self.lock_give_up_steps().push_back(step);
        self.signal();
    }

    fn lock_give_up_steps(&self) -> MutexGuard<'_, VecDeque<GiveUpStep>> {
        self.give_up_steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a segment's file as the lane writes to it.
    pub(crate) fn open_segment(&self, disk: &Disk, layout: &Layout, segment: u64) -> Result<File, LogError> {
        let path = layout.segment(self.lane, segment);
        let flags = if self.sync == SyncMethod::Direct { OFlags::DIRECT } else { OFlags::empty() };
        let opened = disk.dir().open_file(&path, OFlags::RDWR | flags);
        opened.map_err(LogError::io("open for writing", path))
    }

    fn lock_ready_segments(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<File>)>> {
        self.ready_segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the lane's eventfd readable.
    fn signal(&self) {
        let signalled = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        ignore(signalled, "an eventfd takes no more when its counter is at its limit, and then it is readable");
    }
}

/// What the keeper has done about a segment that a lane gave up.
#[derive(Debug)]
pub(crate) enum GiveUpStep {
    /// It is durable where the segment ends.
    Ended,
    /// There is room again, so the lane goes on.
    HasRoom,
    /// The disk fails.
    Failed(WriteError),
}

/// What an event of a lane led to.
#[derive(Debug, Default)]
pub struct Progress {
    /// Whether more became durable.
    pub more_is_durable: bool,
    /// The write for which there was no room. The lane gives its segment up and takes nothing. Whether the records that are
    /// not durable are kept is open.
    pub no_room: Option<WriteError>,
    /// Whether it is settled that these records are not kept. No reader ever returns them; others get their ordinals.
    pub are_refused: bool,
    /// Whether there is room again, so that the lane goes on.
    pub has_room_again: bool,
}

/// A lane that is open and not yet started on its thread.
pub struct UnstartedLane {
    pub(crate) shared: Arc<LaneShared>,
    pub(crate) start: LaneStart,
    /// The segments that groups may go to, the current one first.
    pub(crate) files: VecDeque<(u64, Arc<File>)>,
    pub(crate) next_number: Arc<AtomicU64>,
    pub(crate) keeper: KeeperHandle,
}

impl UnstartedLane {
    /// The lane's number.
    #[must_use]
    pub fn lane(&self) -> u16 {
        self.start.lane
    }

    /// The shared part of a lane that starts at `start`.
    pub(crate) fn shared(
        start: &LaneStart,
        sync: SyncMethod,
        tail_cache_bytes: usize,
    ) -> Result<Arc<LaneShared>, LogError> {
        // A blocking descriptor: on others, the io_uring of older kernels does not wait for an event.
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
            .map_err(|error| LogError::Ring(error.into()))?;
        Ok(Arc::new(LaneShared {
            lane: start.lane,
            sync,
            durable_end: AtomicU64::new(start.tail.pack()),
            durable_ordinal: AtomicU64::new(start.next_ordinal),
            appended_ordinal: AtomicU64::new(start.next_ordinal),
            is_full: AtomicBool::new(false),
            is_refusing: AtomicBool::new(false),
            is_poisoned: AtomicBool::new(false),
            has_given_up: AtomicBool::new(false),
            give_up_steps: Mutex::new(VecDeque::new()),
            ready_segments: Mutex::new(VecDeque::new()),
            tail_cache: Arc::new(TailCache::new(tail_cache_bytes)),
            event: Arc::new(event),
        }))
    }

    /// Starts the lane on this thread, where it stays.
    ///
    /// # Errors
    /// [`LogError::Ring`] if the system grants no ring.
    pub fn start(self) -> Result<Lane, LogError> {
        let ring = Ring::new(self.shared.sync, Arc::clone(&self.shared.event)).map_err(LogError::Ring)?;
        let mut commit = GroupCommit::new(self.start);
        for (segment, _) in self.files.iter().skip(1) {
            commit.add_ready_segment(*segment);
        }
        let Self { shared, files, next_number, keeper, .. } = self;
        let mut lane = Lane { has_given_up: false, shared, commit, ring, files, next_number, keeper };
        lane.request_segments();
        Ok(lane)
    }
}

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The batch never fits: a batch lies within one segment.
    #[error("the batch takes more than {max_bytes} bytes")]
    TooLarge {
        /// Bytes that a batch may take, including the headers of its frames.
        max_bytes: usize,
    },
    /// Too many bytes wait for the disk, or the next segment is being made: try again after the lane's next event.
    #[error("too much waits for the disk, or the next segment is being made")]
    Busy,
    /// The quota is reached, or the disk is full: try again after the drain has released a segment, or somebody has made
    /// room on the disk.
    #[error("there is no room for another segment")]
    Full,
    /// A write failed earlier. The lane takes nothing more.
    #[error("an earlier write failed")]
    Poisoned,
}

/// A lane on its thread.
pub struct Lane {
    shared: Arc<LaneShared>,
    commit: GroupCommit,
    ring: Ring,
    /// The segments that groups may go to, the current one first.
    files: VecDeque<(u64, Arc<File>)>,
    next_number: Arc<AtomicU64>,
    keeper: KeeperHandle,
    /// Whether the lane gave a segment up and has not gone on since.
    has_given_up: bool,
}

impl Lane {
    /// Appends a batch: all of it or nothing. [`submit`](Self::submit) starts to write it. The batch is durable, and may be
    /// answered, once [`durable_ordinal`](Self::durable_ordinal) has reached [`Appended::end_ordinal`].
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&mut self, records: &[Record<'_>]) -> Result<Appended, AppendError> {
        if self.shared.is_poisoned() {
            return Err(AppendError::Poisoned);
        }
        if self.has_given_up {
            return Err(AppendError::Full);
        }
        let is_full = self.is_full();
        if is_full && self.shared.is_refusing() {
            // A smaller batch might fit, but it must not overtake the one that was refused. Nor should clients get yes and no
            // in turns until the last byte is taken.
            return Err(AppendError::Full);
        }
        let next_number = &self.next_number;
        let appended = self.commit.append(records, |count| next_number.fetch_add(count, Ordering::SeqCst));
        let appended = appended.map_err(|refusal| match refusal {
            AppendRefusal::TooLarge { max_bytes } => AppendError::TooLarge { max_bytes },
            AppendRefusal::Busy if is_full => {
                self.shared.is_refusing.store(true, Ordering::Relaxed);
                AppendError::Full
            }
            AppendRefusal::Busy => AppendError::Busy,
            AppendRefusal::Poisoned => AppendError::Poisoned,
        })?;
        self.shared.appended_ordinal.store(appended.end_ordinal, Ordering::Relaxed);
        self.request_segments();
        Ok(appended)
    }

    /// Starts to write what was appended. Returns whether it did: it does not while a write is in flight. Everything appended
    /// until the next call is written together.
    ///
    /// # Errors
    /// [`WriteError`]: the lane is poisoned.
    pub fn submit(&mut self) -> Result<bool, WriteError> {
        let Some(group) = self.commit.take_next_group() else { return Ok(false) };
        self.start_write(group)?;
        Ok(true)
    }

    /// Appends a seal and starts to write it, if everything appended is durable and not sealed yet. Call it when the lane has
    /// been idle for a moment, and before the lane ends. Returns whether it did. The lane is idle again once the seal is
    /// durable.
    ///
    /// # Errors
    /// [`WriteError`]: the lane is poisoned.
    pub fn seal(&mut self) -> Result<bool, WriteError> {
        if !self.commit.seal(self.next_number.load(Ordering::SeqCst)) {
            return Ok(false);
        }
        self.request_segments();
        self.submit()?;
        Ok(true)
    }

    fn start_write(&mut self, group: Group) -> Result<(), WriteError> {
        let start = group.start();
        // Groups come in order, so the earlier segments are written to their ends.
        while self.files.front().is_some_and(|(segment, _)| *segment < start.segment) {
            self.files.pop_front();
        }
        let Some((segment, file)) = self.files.front() else { unreachable!("the segment of a group is open") };
        assert_eq!(*segment, start.segment, "the segment of a group is open");
        let started = self.ring.start(group, Arc::clone(file));
        started.map_err(|source| self.poison(WriteError { at: start, source }))?;
        // Copies while the disk writes. The rest of a short write was inserted with its group.
        if let Some(group) = self.ring.in_flight().filter(|group| group.is_unwritten()) {
            self.shared.tail_cache.insert(start, group.unwritten());
        }
        Ok(())
    }

    /// Takes completions, ready segments, and what the keeper has done. Call [`submit`](Self::submit) afterwards: it starts
    /// to write what was appended meanwhile.
    ///
    /// # Errors
    /// [`WriteError`]: the lane is poisoned. What is not durable yet never will be.
    pub fn on_event(&mut self) -> Result<Progress, WriteError> {
        let mut progress = Progress::default();
        self.take_ready_segments();
        if self.has_given_up {
            self.take_give_up_steps(&mut progress)?;
        }
        let before = self.commit.durable_ordinal();
        while let Some((group, outcome)) = self.ring.take_completed() {
            match self.commit.complete(group, outcome) {
                Ok(Completion::ShortWrite(group)) => self.start_write(group)?,
                Ok(Completion::Durable) => {
                    // The position before the ordinal: a thread that sees the ordinal may rely on the position.
                    self.shared.durable_end.store(self.commit.durable_end().pack(), Ordering::SeqCst);
                    self.shared.durable_ordinal.store(self.commit.durable_ordinal(), Ordering::SeqCst);
                }
                Ok(Completion::NoRoom(error)) => {
                    self.give_up(&error);
                    progress.no_room = Some(error);
                }
                Err(error) => return Err(self.poison(error)),
            }
        }
        progress.more_is_durable = self.commit.durable_ordinal() > before;
        Ok(progress)
    }

    /// Has the keeper make it durable where the segment ends, and find out when there is room again.
    fn give_up(&mut self, error: &WriteError) {
        self.has_given_up = true;
        self.shared.has_given_up.store(true, Ordering::Relaxed);
        self.shared.appended_ordinal.store(self.commit.durable_ordinal(), Ordering::Relaxed);
        self.request_segments();
        self.keeper.give_up(Arc::clone(&self.shared), error.at);
    }

    fn take_give_up_steps(&mut self, progress: &mut Progress) -> Result<(), WriteError> {
        let steps = std::mem::take(&mut *self.shared.lock_give_up_steps());
        for step in steps {
            match step {
                GiveUpStep::Ended => progress.are_refused = true,
                GiveUpStep::HasRoom => {
                    progress.has_room_again = true;
                    self.has_given_up = false;
                    self.shared.has_given_up.store(false, Ordering::Relaxed);
                }
                GiveUpStep::Failed(error) => return Err(self.poison(error)),
            }
        }
        Ok(())
    }

    fn poison(&self, error: WriteError) -> WriteError {
        self.shared.is_poisoned.store(true, Ordering::SeqCst);
        error
    }

    fn take_ready_segments(&mut self) {
        let mut ready_segments = self.shared.lock_ready_segments();
        while let Some((segment, file)) = ready_segments.pop_front() {
            self.commit.add_ready_segment(segment);
            self.files.push_back((segment, file));
            // The lane itself clears what it set: the keeper may make a segment right before the lane sets it.
            self.shared.is_refusing.store(false, Ordering::Relaxed);
        }
    }

    fn request_segments(&mut self) {
        while let Some(header) = self.commit.take_segment_request(self.next_number.load(Ordering::SeqCst)) {
            self.keeper.prepare(header, Arc::clone(&self.shared));
        }
    }

    /// The eventfd that becomes readable with each completion, and when the keeper has something for the lane. Read its
    /// counter, then call [`on_event`](Self::on_event).
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        self.ring.event()
    }

    /// The part of the lane that other threads use.
    #[must_use]
    pub fn shared(&self) -> &Arc<LaneShared> {
        &self.shared
    }

    /// Whether something was appended and no write is in flight.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.ring.in_flight().is_none() && self.queued_bytes() > 0
    }

    /// Ordinal behind the last durable record.
    #[must_use]
    pub fn durable_ordinal(&self) -> u64 {
        self.commit.durable_ordinal()
    }

    /// Bytes that wait for the disk, including those in flight.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.commit.queued_bytes()
    }

    /// Whether no segment is ready behind the current one, and none will be before one is released; or whether the disk has
    /// no room for writes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        // The lane may not have taken the last segment that there is room for.
        let is_without_segment = self.commit.ready_segments() == 0
            && self.shared.is_full.load(Ordering::Relaxed)
            && self.shared.lock_ready_segments().is_empty();
        self.has_given_up || is_without_segment
    }

    /// Whether everything appended is durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.commit.is_idle()
    }
}
