//! The thread that the drain runs on, and how it is ended.

use super::crew::Crew;
use crate::postgres::connect::TargetSource;
use crate::{rt, state::shared::Shared};
use forebay_wal::layout::Layout;
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Operations that the drain's ring has under way at most.
const RING_OPERATIONS: u32 = 64;

/// The drain cannot go on, and neither can the daemon.
#[derive(Debug)]
pub struct DrainFailed(pub String);

/// The running thread.
pub struct DrainThread {
    shared: Arc<Shared>,
    finish_by: Arc<Mutex<Option<Instant>>>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl DrainThread {
    /// Starts the thread, and waits until it has all that it needs of the system.
    ///
    /// # Errors
    /// When the system gives no thread, ring or descriptor.
    pub fn start(
        shared: &Arc<Shared>,
        layout: &Layout,
        target: TargetSource,
        failed: Sender<DrainFailed>,
    ) -> io::Result<Self> {
        let finish_by = Arc::new(Mutex::new(None));
        let (ended_sender, ended) = channel();
        let (set_up_sender, set_up) = channel();
        let work = (Arc::clone(shared), layout.clone(), Arc::clone(&finish_by));
        let thread = std::thread::Builder::new().name("drain".into()).spawn(move || {
            let (shared, layout, finish_by) = work;
            let mut runtime = match rt::runtime(RING_OPERATIONS) {
                Ok(runtime) => runtime,
                Err(error) => return tell(&set_up_sender, Err(error)),
            };
            let run = std::panic::AssertUnwindSafe(|| {
                runtime.block_on(async {
                    match Crew::new(shared, layout, target, finish_by) {
                        Ok(crew) => {
                            tell(&set_up_sender, Ok(()));
                            crew.run().await
                        }
                        Err(error) => {
                            tell(&set_up_sender, Err(error));
                            Ok(())
                        }
                    }
                })
            });
            let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| {
                tracing::error!(code = "drain_panicked", "the drain panicked; the daemon ends");
                Err(DrainFailed("the drain panicked".to_owned()))
            });
            if let Err(failure) = outcome
                && let Err(unsent) = failed.send(failure)
            {
                tracing::error!(code = "drain_failed", error = %unsent.0.0, "nobody was left to hear of it");
            }
            drop(ended_sender);
        })?;
        // Without a word it has panicked, and said so.
        set_up.recv().unwrap_or_else(|_| Err(io::Error::other("the drain did not start")))?;
        Ok(Self { shared: Arc::clone(shared), finish_by, ended, thread })
    }

    /// Lets the drain empty the log, at most for `grace`, then ends it. Returns whether it ended in time.
    #[must_use]
    pub fn finish(self, grace: Duration) -> bool {
        /// Time for a transaction under way to end by itself.
        const PATIENCE: Duration = Duration::from_secs(1);
        *self.finish_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + grace);
        self.shared.drain.signal.wake_anyway();
        let in_time = self.ended.recv_timeout(grace + PATIENCE) != Err(RecvTimeoutError::Timeout);
        in_time && self.thread.join().is_ok()
    }
}

fn tell(set_up: &Sender<io::Result<()>>, outcome: io::Result<()>) {
    if set_up.send(outcome).is_err() {
        tracing::debug!("nobody waits for the drain to start");
    }
}
