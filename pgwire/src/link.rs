//! A connection's wire together with the rule for when it may be used.

use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::wire::Wire;

/// A wire that carries one operation at a time.
///
/// **Invariant:** the link counts as broken from [`Link::begin`] to [`Link::end`]. If the future of an operation is
/// dropped, `end` is never called, and the link stays broken: half a message may have been sent, and replies are still
/// to come. `a_dropped_operation_leaves_the_connection_broken` in `tests/server/failures.rs` checks this.
pub(crate) struct Link {
    wire: Wire,
    /// The time that each operation may take.
    operation_timeout: Option<Duration>,
    is_busy: bool,
    is_closed: bool,
}

impl Link {
    pub(crate) fn new(wire: Wire, operation_timeout: Option<Duration>) -> Self {
        Self { wire, operation_timeout, is_busy: false, is_closed: false }
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    pub(crate) fn wire_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }

    pub(crate) fn set_operation_timeout(&mut self, timeout: Option<Duration>) {
        self.operation_timeout = timeout;
    }

    /// Whether no operation can begin.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_closed || self.is_busy
    }

    /// Whether a failure has closed the link.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The deadline of an operation, or of a step of one, that starts now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.operation_timeout)
    }

    /// Begins an operation. A broken link is closed for good.
    pub(crate) fn begin(&mut self) -> Result<Deadline, Error> {
        if self.is_broken() {
            self.close();
            return Err(Error::Closed);
        }
        self.is_busy = true;
        Ok(self.deadline())
    }

    /// Ends an operation, and closes the link after an error that demands it.
    pub(crate) fn end<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.is_busy = false;
        if result.as_ref().is_err_and(Error::ends_connection) {
            self.close();
        }
        result
    }

    /// Ends the operation if its step failed. The operation continues after a step that succeeded.
    pub(crate) fn end_on_error<T>(&mut self, step: Result<T, Error>) -> Result<T, Error> {
        if step.is_err() { self.end(step) } else { step }
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.wire.shut_down();
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("transaction_status", &self.wire.session().transaction_status())
            .field("is_busy", &self.is_busy)
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}
