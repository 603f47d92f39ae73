//! Keeps a server running.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::cluster::{Cluster, StopMode};
use crate::error::ClusterError;
use crate::limits::{
    LOG_SIZE_CHECKS, RESTART_BACKOFF_MAX, RESTART_BACKOFF_MIN, RESTART_FAILURES_BEFORE_ERROR, SOCKET_MISSING_CHECKS,
    WATCH_PERIOD,
};

/// A thread that checks every 200 ms whether a cluster's server runs, and starts it again if it does not.
///
/// The watch leaves a server that [`Cluster::stop`] stopped alone until [`Cluster::start`]. It adopts a server that was
/// restarted by hand. [`Watch::stop`] ends the watch and stops the server; dropping the watch ends it and leaves the
/// server as it is.
#[derive(Debug)]
pub struct Watch {
    cluster: Arc<Cluster>,
    shutdown: Arc<Shutdown>,
    thread: Option<JoinHandle<()>>,
}

/// The request that the watch's thread end.
#[derive(Debug, Default)]
struct Shutdown {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Shutdown {
    fn request(&self) {
        // A poisoned lock holds a valid boolean, here and below.
        *self.requested.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for at most `pause`. Returns whether the end has been requested.
    fn wait(&self, pause: Duration) -> bool {
        let requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(requested, pause, |requested| !*requested);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Watch {
    /// Starts the watch.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(cluster: Arc<Cluster>) -> io::Result<Self> {
        let shutdown = Arc::new(Shutdown::default());
        let (watched, requested) = (Arc::clone(&cluster), Arc::clone(&shutdown));
        let run = move || run(&watched, &requested);
        let thread = thread::Builder::new().name("postgres-watch".to_owned()).spawn(run)?;
        Ok(Self { cluster, shutdown, thread: Some(thread) })
    }

    /// The watched cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Ends the watch, cancels a start under way, and stops the server with [`StopMode::Fast`].
    ///
    /// # Errors
    /// As [`Cluster::stop`].
    pub fn stop(mut self, timeout: Duration) -> Result<(), ClusterError> {
        self.shutdown.request();
        let stopped = self.cluster.stop(StopMode::Fast, timeout);
        self.join();
        stopped
    }

    fn join(&mut self) {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the thread that watches PostgreSQL has panicked");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread is not joined here: it may be in the middle of a start, which only stopping the server cancels.
        self.shutdown.request();
    }
}

fn run(cluster: &Cluster, shutdown: &Shutdown) {
    let mut failures = 0;
    let mut socket_missing = 0;
    let mut checks = 0_u32;
    let mut pause = WATCH_PERIOD;
    while !shutdown.wait(pause) {
        checks = checks.wrapping_add(1);
        pause = WATCH_PERIOD;
        if !cluster.is_wanted() {
            continue;
        }
        if checks.is_multiple_of(LOG_SIZE_CHECKS)
            && let Err(error) = cluster.layout.trim_log()
        {
            tracing::warn!(%error, "cannot trim PostgreSQL's log");
        }
        if cluster.is_alive() {
            socket_missing = if cluster.layout.socket().exists() { 0 } else { socket_missing + 1 };
            if socket_missing >= SOCKET_MISSING_CHECKS {
                tracing::warn!("PostgreSQL's socket has disappeared; restarting PostgreSQL");
                socket_missing = 0;
                if let Err(error) = cluster.restart_if_wanted() {
                    tracing::warn!(%error, "cannot restart PostgreSQL");
                }
            }
            continue;
        }
        if failures == 0 {
            tracing::warn!("PostgreSQL has ended; starting it again");
        }
        match cluster.start_if_wanted() {
            Ok(()) => failures = 0,
            Err(ClusterError::Cancelled) => {}
            Err(error) => {
                failures += 1;
                report(failures, &error);
                pause = (RESTART_BACKOFF_MIN * (1 << failures.min(10))).min(RESTART_BACKOFF_MAX);
            }
        }
    }
}

fn report(failures: u32, error: &ClusterError) {
    if failures == RESTART_FAILURES_BEFORE_ERROR {
        tracing::error!(code = "embedded_postgres_down", failures, %error, "the private PostgreSQL does not start");
    } else {
        tracing::warn!(failures, %error, "cannot start PostgreSQL; retrying");
    }
}
