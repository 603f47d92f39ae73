//! Deadlines of operations.
//!
//! monoio gives no way to take back a read that is under way: dropping its future asks the kernel to cancel it, and
//! bytes that had arrived by then are lost. So a deadline ends an operation by `shutdown(2)` on its socket, which makes
//! every read and write of it complete; the connection is then broken for good, and the caller is told so.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use monoio::time::{Instant, timeout_at};

use crate::error::Error;

/// How long an operation may go on after its socket was shut down. It ends at once in practice; the bound keeps a
/// caller from hanging should it not, at the price of leaving the buffer to the runtime until the kernel lets go.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// When an operation has to be over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    after: Duration,
}

impl Deadline {
    /// Begins to count; `None` is never. A time too far for the clock is never, too.
    pub(crate) fn after(after: Option<Duration>) -> Self {
        let at = after.and_then(|after| Instant::now().checked_add(after));
        Self { at, after: after.unwrap_or_default() }
    }

    /// The earlier of this deadline and `share` of the time left to it; for trying several addresses in turn.
    pub(crate) fn share(self, share: u32) -> Self {
        let at = self.at.map(|at| {
            let now = Instant::now();
            now + at.saturating_duration_since(now) / share.max(1)
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

    /// Waits for a future that must not be dropped; when the time is over, `end` has to make it complete.
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
        // What it returns now is of no use: the operation is late either way.
        drop(timeout_at(Instant::now() + SHUTDOWN_GRACE, future).await);
        Err(self.error(during))
    }
}
