//! Deadlines of operations.
//!
//! monoio cannot take back a read that is in progress: dropping its future only asks the kernel to cancel the read, and
//! bytes that have arrived by then are lost. Therefore a deadline ends an operation by `shutdown(2)` on its socket,
//! which completes every read and write of that socket. The connection is closed for good, and the caller gets an
//! error.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use monoio::time::{Instant, timeout_at};

use crate::error::Error;

/// How long an operation may take to end after its socket was shut down. In practice it ends at once. If it does not,
/// this limit keeps the caller from hanging, and the runtime keeps the buffer until the kernel releases it.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// The time by which an operation must have ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    after: Duration,
}

impl Deadline {
    /// A deadline this long from now. Without a duration, and beyond the range of the clock, there is no deadline.
    pub(crate) fn after(after: Option<Duration>) -> Self {
        let at = after.and_then(|after| Instant::now().checked_add(after));
        Self { at, after: after.unwrap_or_default() }
    }

    /// A deadline at this instant, which may have passed already.
    pub(crate) fn at(at: std::time::Instant) -> Self {
        let at = Instant::from_std(at);
        Self { at: Some(at), after: at.saturating_duration_since(Instant::now()) }
    }

    /// A deadline after one of `shares` equal parts of the remaining time, for trying several addresses in turn.
    pub(crate) fn share(self, shares: u32) -> Self {
        let at = self.at.map(|at| {
            let now = Instant::now();
            now + at.saturating_duration_since(now) / shares.max(1)
        });
        Self { at, ..self }
    }

    pub(crate) fn error(self, during: &'static str) -> Error {
        Error::Timeout { during, after: self.after }
    }

    /// Waits for a future that may be dropped without loss, such as one that waits for readiness.
    pub(crate) async fn bound<F: Future>(self, during: &'static str, future: F) -> Result<F::Output, Error> {
        match self.at {
            None => Ok(future.await),
            Some(at) => timeout_at(at, future).await.map_err(|_| self.error(during)),
        }
    }

    /// Waits for a future that must not be dropped. After the deadline, `end` must make the future complete.
    pub(crate) async fn bound_or_end<F: Future>(
        self,
        during: &'static str,
        future: F,
        end: impl FnOnce(),
    ) -> Result<F::Output, Error> {
        let Some(at) = self.at else { return Ok(future.await) };
        let mut future = pin!(future);
        if let Ok(output) = timeout_at(at, future.as_mut()).await {
            return Ok(output);
        }
        end();
        // The output is not used: the operation is late in any case.
        drop(timeout_at(Instant::now() + SHUTDOWN_GRACE, future).await);
        Err(self.error(during))
    }
}
