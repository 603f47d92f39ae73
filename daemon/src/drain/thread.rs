//! The thread that the drain runs on, and how it ends.

use super::{
    drainers::{drainer_board::FinishBy, drainer_set::DrainerSet},
    start::DrainStart,
};
use crate::{rt, state::drain_view::DrainView};
use forebay_os::rights::keep_only;
use rustix::thread::CapabilitySet;
use std::{
    io,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Operations that the drain's ring can have under way.
const RING_OPERATIONS: u32 = 64;

/// The running thread.
pub struct DrainThread {
    drain: Arc<DrainView>,
    finish_by: FinishBy,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl DrainThread {
    /// Starts the thread, and waits until it has all that it needs of the system.
    ///
    /// # Errors
    /// When the system gives no thread, ring or descriptor.
    pub fn start(start: DrainStart) -> io::Result<Self> {
        let drain = Arc::clone(&start.drain);
        let finish_by = FinishBy::default();
        let (ended_sender, ended) = channel();
        let (set_up_sender, set_up) = channel();
        let finish = Arc::clone(&finish_by);
        let thread = std::thread::Builder::new().name("drain".into()).spawn(move || {
            run(start, finish, &set_up_sender);
            drop(ended_sender);
        })?;
        // A thread that says nothing has panicked, and reported that.
        set_up.recv().unwrap_or_else(|_| Err(io::Error::other("the drain did not start")))?;
        Ok(Self { drain, finish_by, ended, thread })
    }

    /// Lets the drain empty the log, at most for `grace`, then ends it. Returns whether it ended in time.
    #[must_use]
    pub fn finish(self, grace: Duration) -> bool {
        /// Time for a transaction under way to end by itself.
        const PATIENCE: Duration = Duration::from_secs(1);
        *self.finish_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + grace);
        self.drain.signal.wake_anyway();
        let is_in_time = self.ended.recv_timeout(grace + PATIENCE) != Err(RecvTimeoutError::Timeout);
        is_in_time && self.thread.join().is_ok()
    }
}

/// Runs the drainers to their end. Tells `set_up` once whether the thread has all that it needs.
fn run(start: DrainStart, finish_by: FinishBy, set_up: &Sender<io::Result<()>>) {
    let runtime = rt::runtime(RING_OPERATIONS);
    let mut runtime = match runtime.and_then(|made| keep_only(CapabilitySet::empty()).map(|()| made)) {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(set_up, Err(error));
            return;
        }
    };
    runtime.block_on(async {
        match DrainerSet::new(start, finish_by) {
            Ok(drainers) => {
                tell(set_up, Ok(()));
                drainers.run().await;
            }
            Err(error) => tell(set_up, Err(error)),
        }
    })
}

fn tell(set_up: &Sender<io::Result<()>>, outcome: io::Result<()>) {
    if set_up.send(outcome).is_err() {
        tracing::debug!("nobody waits for the drain to start");
    }
}
