//! Waiting for notifications.

use std::time::Duration;

use crate::conn::Connection;
use crate::core::Notification;
use crate::deadline::Deadline;
use crate::error::Error;

const LISTEN: &str = "LISTEN";

impl Connection {
    /// Waits for the next NOTIFY on a channel that this session listens to (by `LISTEN channel`), at most this long;
    /// `None` for ever. Gives `Ok(None)` if none came, and the connection is as usable as before.
    ///
    /// Notifications that came with other operations are given first. The future may be dropped without loss.
    ///
    /// # Errors
    /// [`Error::Server`] if the server ends the session, and failures of the connection. It is broken then.
    pub async fn wait_for_notification(&mut self, wait: Option<Duration>) -> Result<Option<Notification>, Error> {
        if let Some(notification) = self.wire.session.pop_notification() {
            return Ok(Some(notification));
        }
        if self.is_broken() {
            return Err(Error::Closed);
        }
        match self.wire.notified(Deadline::after(wait), LISTEN).await {
            Ok(_) => Ok(self.wire.session.pop_notification()),
            Err(error) => self.end(Err(error)),
        }
    }
}
