//! The thread that keeps segments ready: it makes them while lanes write, for making one blocks for tens of milliseconds.

use crate::{
    error::LogError,
    lane::LaneShared,
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

/// How long after a failure (a full disk, say) a segment is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Least time between looks at what was retained for long enough.
const RELEASE_STEP: Duration = Duration::from_secs(1);

/// What the keeper is asked for.
enum Request {
    Prepare { header: SegmentHeader, lane: Arc<LaneShared> },
    Release { lane: u16, before: u64 },
    MarkDamaged { lane: u16, segment: u64 },
    Retain(Duration),
    Reclaim { lane: u16, from: u64, done: Sender<bool> },
    Stop,
}

/// A handle to ask the keeper by; requests are carried out in order.
#[derive(Clone)]
pub struct KeeperHandle {
    requests: Sender<Request>,
    figures: Arc<Figures>,
}

/// What others may know of the segments.
#[derive(Default)]
struct Figures {
    total_bytes: AtomicU64,
    retained_bytes: AtomicU64,
    given_up: AtomicU64,
}

impl Figures {
    fn note(&self, segments: &Segments<Disk>) {
        self.total_bytes.store(segments.total_bytes(), Ordering::Relaxed);
        self.retained_bytes.store(segments.retained_bytes(), Ordering::Relaxed);
        self.given_up.store(segments.given_up(), Ordering::Relaxed);
    }
}

impl KeeperHandle {
    /// Asks for a segment; the lane is told when it is there, or why not.
    pub(crate) fn prepare(&self, header: SegmentHeader, lane: Arc<LaneShared>) {
        if !self.send(Request::Prepare { header, lane: Arc::clone(&lane) }) {
            lane.set_full(true);
        }
    }

    /// Releases the segments of `lane` below `before`, all of whose records PostgreSQL confirmed.
    pub fn release(&self, lane: u16, before: u64) {
        self.send_or_forget(Request::Release { lane, before });
    }

    /// Lets a segment be set aside, not recycled, once it is released.
    pub fn mark_damaged(&self, lane: u16, segment: u64) {
        self.send_or_forget(Request::MarkDamaged { lane, segment });
    }

    /// Keeps segments that are released from now on for `retention`, as long as nothing else needs the room.
    pub fn retain(&self, retention: Duration) {
        self.send_or_forget(Request::Retain(retention));
    }

    /// Takes the segments of `lane` from `from` on as not drained again: what was committed is gone. Waits for the answer,
    /// whether they are all still there; nothing has changed if not.
    #[must_use]
    pub fn reclaim(&self, lane: u16, from: u64) -> bool {
        let (done, answer) = channel();
        self.send(Request::Reclaim { lane, from, done }) && answer.recv().unwrap_or(false)
    }

    /// Bytes of all segments, free and retained ones included.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.figures.total_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of segments that are drained and retained.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.figures.retained_bytes.load(Ordering::Relaxed)
    }

    /// How many retained segments went before their time, for want of room.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.figures.given_up.load(Ordering::Relaxed)
    }

    fn send_or_forget(&self, request: Request) {
        if !self.send(request) {
            tracing::debug!("a request to the keeper of segments, which has ended, was dropped");
        }
    }

    /// Returns whether the keeper is there to hear it. What is not released now is released at the next start.
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
    /// When the system gives no thread.
    pub fn start(segments: Segments<Disk>) -> io::Result<Self> {
        let (requests, inbox) = channel();
        let figures = Arc::new(Figures::default());
        figures.note(&segments);
        let handle = KeeperHandle { requests, figures: Arc::clone(&figures) };
        let work = Work { segments, waiting: VecDeque::new(), figures };
        let thread = std::thread::Builder::new().name("wal-keeper".into()).spawn(move || {
            let mut work = work;
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work.run(&inbox)));
            if outcome.is_err() {
                tracing::error!(
                    code = "keeper_panicked",
                    "the keeper of segments panicked; pushes are refused once the segments at hand are full"
                );
                work.refuse_waiting();
            }
        })?;
        Ok(Self { handle, thread })
    }

    /// A handle to the thread.
    #[must_use]
    pub fn handle(&self) -> KeeperHandle {
        self.handle.clone()
    }

    /// Carries out what was asked for so far, then ends the thread.
    pub fn stop(self) {
        self.handle.send_or_forget(Request::Stop);
        // A panic was caught and told in the thread.
        drop(self.thread.join());
    }
}

struct Work {
    segments: Segments<Disk>,
    /// Segments that could not be made yet.
    waiting: VecDeque<(SegmentHeader, Arc<LaneShared>)>,
    figures: Arc<Figures>,
}

impl Work {
    fn run(&mut self, inbox: &Receiver<Request>) {
        loop {
            let request = match self.wait() {
                Some(wait) => inbox.recv_timeout(wait),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match request {
                Ok(Request::Prepare { header, lane }) => self.waiting.push_back((header, lane)),
                Ok(Request::Release { lane, before }) => self.release(lane, before),
                Ok(Request::MarkDamaged { lane, segment }) => self.segments.mark_damaged(lane, segment),
                Ok(Request::Retain(retention)) => self.segments.retain(retention),
                Ok(Request::Reclaim { lane, from, done }) => {
                    // Nobody waits for it any more: what is kept too long goes with the next release.
                    done.send(self.segments.reclaim(lane, from)).unwrap_or_default();
                }
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.release_retained(),
            }
            self.prepare_waiting();
            self.figures.note(&self.segments);
        }
    }

    /// How long to wait for a request before something else is due.
    fn wait(&self) -> Option<Duration> {
        let release = self.segments.next_release().map(|at| at.saturating_duration_since(Instant::now()));
        // Each look at a segment that cannot be released takes its time.
        let release = release.map(|wait| wait.max(RELEASE_STEP));
        let retry = (!self.waiting.is_empty()).then_some(RETRY_INTERVAL);
        release.into_iter().chain(retry).min()
    }

    fn release_retained(&mut self) {
        if let Err(error) = self.segments.release_retained() {
            tracing::error!(code = "segment_release_failed", %error, "drained segments were not released");
        }
    }

    /// Makes what waits, in turn. A lane's segments come in order, so one that fails holds up those of its own lane; other
    /// lanes may stand on another disk.
    fn prepare_waiting(&mut self) {
        let mut left = VecDeque::new();
        while let Some((header, lane)) = self.waiting.pop_front() {
            let held_up = left.iter().any(|(header_left, _): &(SegmentHeader, _)| header_left.lane == header.lane);
            if held_up || !self.prepare(header, &lane) {
                left.push_back((header, lane));
            }
        }
        self.waiting = left;
        self.refuse_waiting();
    }

    fn prepare(&mut self, header: SegmentHeader, lane: &LaneShared) -> bool {
        let made = match self.segments.prepare(header) {
            Ok(()) => lane.open_segment(self.segments.layout(), header.segment),
            Err(PrepareError::Quota) => return false,
            Err(PrepareError::Failed(error)) => Err(error),
        };
        match made {
            Ok(file) => {
                lane.segment_made(header.segment, file);
                // What was only kept until there is this one.
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

    fn refuse_waiting(&self) {
        for (_, lane) in &self.waiting {
            lane.set_full(true);
        }
    }

    fn report(&self, lane: &LaneShared, error: &LogError) {
        if !lane.is_full() {
            tracing::error!(code = "segment_not_made", %error, "no further segment can be made; pushes are refused when the last is full");
        }
    }
}
