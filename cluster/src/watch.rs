//! Keeping a server running.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::cluster::{Cluster, StopMode};
use crate::error::ClusterError;
use crate::limits::{
    LOG_CHECK_LOOKS, RESTART_BACKOFF_MAX, RESTART_BACKOFF_MIN, RESTART_FAILURES_BEFORE_ERROR, SOCKET_MISSING_LOOKS,
    WATCH_PERIOD,
};

/// A thread that looks every 200 ms whether a cluster's server lives, and starts it again when it does not.
///
/// A server that was stopped through [`Cluster::stop`] is left alone until [`Cluster::start`]. One that was restarted
/// by hand is adopted. Dropping the watch ends the watching and leaves the server as it is; [`Watch::stop`] also stops
/// the server.
#[derive(Debug)]
pub struct Watch {
    cluster: Arc<Cluster>,
    ending: Arc<Ending>,
    thread: Option<JoinHandle<()>>,
}

/// Whether the watch is to end.
#[derive(Debug, Default)]
struct Ending {
    told: Mutex<bool>,
    changed: Condvar,
}

impl Ending {
    fn tell(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for at most `pause`; true if it is to end.
    fn wait(&self, pause: Duration) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(told, pause, |told| !*told);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Watch {
    /// Starts watching.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(cluster: Arc<Cluster>) -> io::Result<Self> {
        let ending = Arc::new(Ending::default());
        let (watched, told) = (Arc::clone(&cluster), Arc::clone(&ending));
        let thread = thread::Builder::new().name("postgres-watch".to_owned()).spawn(move || run(&watched, &told))?;
        Ok(Self { cluster, ending, thread: Some(thread) })
    }

    /// The cluster that is watched.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Ends the watching, gives up a start under way, and stops the server in order.
    ///
    /// # Errors
    /// As [`Cluster::stop`].
    pub fn stop(mut self, timeout: Duration) -> Result<(), ClusterError> {
        self.ending.tell();
        let stopped = self.cluster.stop(StopMode::Fast, timeout);
        self.join();
        stopped
    }

    fn join(&mut self) {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the watch of PostgreSQL had panicked");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Not joined here: it may be in the middle of a start, which only stopping the server cuts short.
        self.ending.tell();
    }
}

fn run(cluster: &Cluster, ending: &Ending) {
    let mut failures = 0;
    let mut socket_missing = 0;
    let mut looks = 0_u32;
    let mut pause = WATCH_PERIOD;
    while !ending.wait(pause) {
        looks = looks.wrapping_add(1);
        pause = WATCH_PERIOD;
        if !cluster.is_wanted() {
            continue;
        }
        if looks.is_multiple_of(LOG_CHECK_LOOKS)
            && let Err(error) = cluster.layout.trim_log()
        {
            tracing::warn!(%error, "cannot trim PostgreSQL's log");
        }
        if cluster.is_alive() {
            socket_missing = if cluster.layout.socket().exists() { 0 } else { socket_missing + 1 };
            if socket_missing >= SOCKET_MISSING_LOOKS {
                tracing::warn!("PostgreSQL's socket is gone; restarting it");
                socket_missing = 0;
                if let Err(error) = cluster.restart_if_wanted() {
                    tracing::warn!(%error, "cannot restart PostgreSQL");
                }
            }
            continue;
        }
        if failures == 0 {
            tracing::warn!("PostgreSQL is gone; starting it again");
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
        tracing::warn!(failures, %error, "cannot start PostgreSQL; trying again");
    }
}
