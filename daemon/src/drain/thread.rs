//! The thread that the drain runs on, and how it is ended.

use super::crew::Crew;
use crate::{rt, shared::Shared};
use forebay_pgwire::Config;
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

/// Where to connect: settings, or what a private server says once it runs.
pub type TargetSource = Arc<dyn Fn() -> Option<Config> + Send + Sync>;

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
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        shared: &Arc<Shared>,
        layout: &Layout,
        target: TargetSource,
        failed: Sender<DrainFailed>,
    ) -> io::Result<Self> {
        let finish_by = Arc::new(Mutex::new(None));
        let (ended_sender, ended) = channel();
        let work = (Arc::clone(shared), layout.clone(), Arc::clone(&finish_by));
        let thread = std::thread::Builder::new().name("drain".into()).spawn(move || {
            let (shared, layout, finish_by) = work;
            let outcome = rt::runtime(RING_OPERATIONS).map_err(|error| DrainFailed(error.to_string()));
            let outcome = outcome.and_then(|mut runtime| {
                let run = std::panic::AssertUnwindSafe(|| {
                    runtime.block_on(async {
                        match Crew::new(shared, layout, target, finish_by) {
                            Ok(crew) => crew.run().await,
                            Err(error) => Err(DrainFailed(error.to_string())),
                        }
                    })
                });
                std::panic::catch_unwind(run).unwrap_or_else(|_| {
                    tracing::error!(code = "drain_panicked", "the drain panicked; the daemon ends");
                    Err(DrainFailed("the drain panicked".to_owned()))
                })
            });
            if let Err(failure) = outcome
                && let Err(unsent) = failed.send(failure)
            {
                tracing::error!(code = "drain_failed", error = %unsent.0.0, "nobody was left to hear of it");
            }
            drop(ended_sender);
        })?;
        Ok(Self { shared: Arc::clone(shared), finish_by, ended, thread })
    }

    /// Lets the drain empty the log, at most for `grace`, then ends it. Returns whether it ended in time.
    #[must_use]
    pub fn finish(self, grace: Duration) -> bool {
        /// Time for a transaction under way to end by itself.
        const PATIENCE: Duration = Duration::from_secs(1);
        *self.finish_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + grace);
        self.shared.drain.wake_anyway();
        let in_time = self.ended.recv_timeout(grace + PATIENCE) != Err(RecvTimeoutError::Timeout);
        in_time && self.thread.join().is_ok()
    }
}
