//! The thread that owns the segments. It makes them ahead of need, for making one blocks for tens of milliseconds, and
//! releases the drained ones.

use crate::{
    error::{LogError, ignore},
    group::WriteError,
    lane::{GiveUpStep, LaneShared},
    position::Position,
    segment::SegmentHeader,
    segments::{PrepareError, Segments},
    storage::Disk,
};
use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Time until a segment that could not be made is tried again. The disk may be full, for one.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Least time between two checks for retained segments whose time is over. Each check tries to release them.
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);

/// A request to the keeper.
enum Request {
    Prepare { header: SegmentHeader, lane: Arc<LaneShared> },
    GiveUp { lane: Arc<LaneShared>, at: Position },
    Release { lane: u16, before: u64 },
    MarkDamaged { lane: u16, segment: u64 },
    SetRetention(Duration),
    RevokeRelease { lane: u16, from: u64, reply: Sender<bool> },
    Stop,
}

/// A handle that sends requests to the keeper. It carries them out in order.
#[derive(Clone)]
pub struct KeeperHandle {
    requests: Sender<Request>,
    stats: Arc<SegmentStats>,
}

/// The figures of the segments, for other threads.
#[derive(Default)]
struct SegmentStats {
    total_bytes: AtomicU64,
    retained_bytes: AtomicU64,
    early_releases: AtomicU64,
}

impl SegmentStats {
    fn update(&self, segments: &Segments<Disk>) {
        self.total_bytes.store(segments.total_bytes(), Ordering::Relaxed);
        self.retained_bytes.store(segments.retained_bytes(), Ordering::Relaxed);
        self.early_releases.store(segments.early_releases(), Ordering::Relaxed);
    }
}

impl KeeperHandle {
    /// Requests a segment. The keeper tells the lane when the segment is ready, or that there is no room for it.
    pub(crate) fn prepare(&self, header: SegmentHeader, lane: Arc<LaneShared>) {
        if !self.send(Request::Prepare { header, lane: Arc::clone(&lane) }) {
            lane.set_full(true);
        }
    }

    /// Has a segment end before `at`, where there was no room for a write. The keeper tells the lane when that is durable, and
    /// when there is room again.
    pub(crate) fn give_up(&self, lane: Arc<LaneShared>, at: Position) {
        self.send_unanswered(Request::GiveUp { lane, at });
    }

    /// Releases the segments of `lane` below segment `before`: PostgreSQL has all their records.
    pub fn release(&self, lane: u16, before: u64) {
        self.send_unanswered(Request::Release { lane, before });
    }

    /// Marks a segment as damaged. Its release then sets it aside and does not recycle it.
    pub fn mark_damaged(&self, lane: u16, segment: u64) {
        self.send_unanswered(Request::MarkDamaged { lane, segment });
    }

    /// Keeps segments that are released from now on for `retention`, unless their room is needed earlier.
    pub fn set_retention(&self, retention: Duration) {
        self.send_unanswered(Request::SetRetention(retention));
    }

    /// Revokes the release of the segments of `lane` from segment `from` on: the commits of their records are gone. Blocks
    /// until the keeper has done so. Returns whether all these segments still exist; if not, nothing has changed.
    #[must_use]
    pub fn revoke_release(&self, lane: u16, from: u64) -> bool {
        let (reply, replies) = channel();
        // A keeper that has ended drops the request and with it `reply`.
        self.send(Request::RevokeRelease { lane, from, reply }) && replies.recv().unwrap_or(false)
    }

    /// Bytes of all segments, including free and retained ones.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.stats.total_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the segments that are drained and retained.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.stats.retained_bytes.load(Ordering::Relaxed)
    }

    /// How many retained segments were released before their time because their room was needed.
    #[must_use]
    pub fn early_releases(&self) -> u64 {
        self.stats.early_releases.load(Ordering::Relaxed)
    }

    fn send_unanswered(&self, request: Request) {
        if !self.send(request) {
            // The next start releases what this one does not.
            tracing::debug!("the keeper of segments has ended; a request to it was dropped");
        }
    }

    /// Sends a request. Returns whether the keeper is there to take it.
    fn send(&self, request: Request) -> bool {
        self.requests.send(request).is_ok()
    }
}

/// The running thread.
pub struct Keeper {
    handle: KeeperHandle,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn start(segments: Segments<Disk>) -> io::Result<Self> {
        let (requests, inbox) = channel();
        let stats = Arc::new(SegmentStats::default());
        stats.update(&segments);
        let handle = KeeperHandle { requests, stats: Arc::clone(&stats) };
        let worker = Worker { segments, waiting: VecDeque::new(), given_up: Vec::new(), stats };
        let thread = std::thread::Builder::new().name("wal-keeper".into()).spawn(move || {
            let mut worker = worker;
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run(&inbox)));
            if outcome.is_err() {
                worker.refuse_waiting();
            }
        })?;
        Ok(Self { handle, thread })
    }

    /// A handle to the thread.
    #[must_use]
    pub fn handle(&self) -> KeeperHandle {
        self.handle.clone()
    }

    /// Carries out the requests that were sent so far, then ends the thread.
    pub fn stop(self) {
        self.handle.send_unanswered(Request::Stop);
        if self.thread.join().is_err() {
            tracing::debug!("the keeper of segments ended in a panic, which it has reported");
        }
    }
}

/// The state of the thread.
struct Worker {
    segments: Segments<Disk>,
    /// Requests for segments that could not be made yet.
    waiting: VecDeque<(SegmentHeader, Arc<LaneShared>)>,
    /// Lanes that gave a segment up and have not gone on since.
    given_up: Vec<GivenUp>,
    stats: Arc<SegmentStats>,
}

/// A lane that gave a segment up.
struct GivenUp {
    lane: Arc<LaneShared>,
    /// Where the segment ends.
    at: Position,
    /// Whether that is durable.
    is_ended: bool,
}

impl Worker {
    fn run(&mut self, inbox: &Receiver<Request>) {
        loop {
            let request = match self.timeout() {
                Some(timeout) => inbox.recv_timeout(timeout),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match request {
                Ok(Request::Prepare { header, lane }) => self.waiting.push_back((header, lane)),
                Ok(Request::GiveUp { lane, at }) => self.given_up.push(GivenUp { lane, at, is_ended: false }),
                Ok(Request::Release { lane, before }) => self.release(lane, before),
                Ok(Request::MarkDamaged { lane, segment }) => self.segments.mark_damaged(lane, segment),
                Ok(Request::SetRetention(retention)) => self.segments.set_retention(retention),
                Ok(Request::RevokeRelease { lane, from, reply }) => {
                    let sent = reply.send(self.segments.revoke_release(lane, from));
                    ignore(sent, "the sender of the request is gone; the next release covers the segments again");
                }
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.release_retained(),
            }
            // First: what little room there is goes to what lets clients be answered.
            self.settle_given_up();
            self.prepare_waiting();
            self.stats.update(&self.segments);
        }
    }

    /// How long to wait for a request before something else is due.
    fn timeout(&self) -> Option<Duration> {
        let release = self.segments.next_release().map(|at| at.saturating_duration_since(Instant::now()));
        // A segment that cannot be released must not be tried without a pause.
        let release = release.map(|wait| wait.max(RELEASE_INTERVAL));
        let is_waiting = !self.waiting.is_empty() || !self.given_up.is_empty();
        let retry = is_waiting.then_some(RETRY_INTERVAL);
        release.into_iter().chain(retry).min()
    }

    /// Makes it durable where the segments end that lanes gave up, then lets these lanes go on if there is room.
    fn settle_given_up(&mut self) {
        let Self { segments, given_up, .. } = self;
        given_up.retain_mut(|given_up| match given_up.end(segments) {
            Ok(()) => true,
            Err(error) if error.is_no_room() => true,
            Err(error) => given_up.fail(Arc::new(error)),
        });
        if given_up.iter().all(|given_up| !given_up.is_ended) {
            return;
        }
        match segments.probe_room() {
            Ok(()) => given_up.retain(|given_up| {
                if given_up.is_ended {
                    given_up.lane.add_give_up_step(GiveUpStep::HasRoom);
                }
                !given_up.is_ended
            }),
            Err(error) if error.is_no_room() => {}
            Err(error) => {
                let error = Arc::new(error);
                given_up.retain(|given_up| !given_up.is_ended || given_up.fail(Arc::clone(&error)));
            }
        }
    }

    fn release_retained(&mut self) {
        if let Err(error) = self.segments.release_retained() {
            tracing::error!(code = "segment_release_failed", %error, "drained segments were not released");
        }
    }

    /// Makes the segments that wait, in order. A lane needs its segments in order, so one that fails holds up the others of
    /// its lane. Other lanes may be on another disk.
    fn prepare_waiting(&mut self) {
        let mut still_waiting = VecDeque::new();
        while let Some((header, lane)) = self.waiting.pop_front() {
            let is_held_up = still_waiting.iter().any(|(other, _): &(SegmentHeader, _)| other.lane == header.lane);
            if is_held_up || !self.prepare(header, &lane) {
                still_waiting.push_back((header, lane));
            }
        }
        self.waiting = still_waiting;
        self.refuse_waiting();
    }

    /// Makes a segment and hands it to its lane. Returns whether it could.
    fn prepare(&mut self, header: SegmentHeader, lane: &LaneShared) -> bool {
        let file = match self.segments.prepare(header) {
            Ok(()) => lane.open_segment(self.segments.storage(), self.segments.layout(), header.segment),
            Err(PrepareError::Quota) => return false,
            Err(PrepareError::Failed(error)) => Err(error),
        };
        match file {
            Ok(file) => {
                lane.add_segment(header.segment, file);
                // The segment before it may have been kept only until this one was made.
                self.release(header.lane, 0);
                true
            }
            Err(error) => {
                self.report(lane, &error);
                false
            }
        }
    }

    fn release(&mut self, lane: u16, before: u64) {
        if let Err(error) = self.segments.release(lane, before) {
            tracing::error!(code = "segment_release_failed", lane, %error, "drained segments were not released");
        }
    }

    /// Tells the lanes that wait for a segment that there is none.
    fn refuse_waiting(&self) {
        for (_, lane) in &self.waiting {
            lane.set_full(true);
        }
    }

    /// Logs why a segment cannot be made, unless the lane is full already: then it was logged.
    fn report(&self, lane: &LaneShared, error: &LogError) {
        if !lane.is_full() {
            tracing::error!(code = "segment_not_made", %error, "no further segment can be made; pushes are refused when the last is full");
        }
    }
}

impl GivenUp {
    /// Makes it durable where the segment ends, and tells the lane.
    fn end(&mut self, segments: &mut Segments<Disk>) -> Result<(), LogError> {
        if !self.is_ended {
            segments.end_segment(self.lane.lane(), self.at)?;
            self.is_ended = true;
            self.lane.add_give_up_step(GiveUpStep::Ended);
        }
        Ok(())
    }

    /// Tells the lane that the disk fails. Returns whether the lane is still to go on: it is not.
    fn fail(&self, error: Arc<LogError>) -> bool {
        let error = WriteError { at: self.at, source: io::Error::other(error) };
        self.lane.add_give_up_step(GiveUpStep::Failed(error));
        false
    }
}
