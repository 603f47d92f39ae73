//! The state of a session that is independent of the request in progress: parameters, notices, notifications.

use std::collections::{BTreeMap, VecDeque};

use super::TransactionStatus;
use super::limits::{NOTICES_MAX, NOTIFICATIONS_MAX, PARAMETER_VALUE_MAX_BYTES, PARAMETERS_MAX};
use super::message::Backend;
use crate::db_error::DbError;

/// A notification that reached this session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The process id of the session that sent it.
    pub process_id: i32,
    /// Its channel.
    pub channel: String,
    /// Its payload. The server allows at most 8,000 bytes.
    pub payload: String,
}

/// The state of a session that outlives a request. [`super::limits`] bounds all of it.
#[derive(Debug)]
pub struct Session {
    parameters: BTreeMap<String, String>,
    notices: VecDeque<DbError>,
    notices_dropped: u64,
    notifications: VecDeque<Notification>,
    notifications_dropped: u64,
    transaction_status: TransactionStatus,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            parameters: BTreeMap::new(),
            notices: VecDeque::new(),
            notices_dropped: 0,
            notifications: VecDeque::new(),
            notifications_dropped: 0,
            transaction_status: TransactionStatus::Idle,
        }
    }
}

impl Session {
    /// Keeps an asynchronous message, and returns any other message.
    pub fn absorb(&mut self, message: Backend) -> Option<Backend> {
        match message {
            Backend::Notice(notice) => {
                self.notices_dropped += push_bounded(&mut self.notices, *notice, NOTICES_MAX);
                None
            }
            Backend::Notification(notification) => {
                self.notifications_dropped += push_bounded(&mut self.notifications, notification, NOTIFICATIONS_MAX);
                None
            }
            Backend::ParameterStatus { name, value } => {
                self.set_parameter(name, value);
                None
            }
            Backend::ReadyForQuery(status) => {
                self.transaction_status = status;
                Some(Backend::ReadyForQuery(status))
            }
            other => Some(other),
        }
    }

    /// The value of a run-time parameter that the server reports on its own, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The notices since the last call, oldest first, and the number of older notices that were dropped.
    pub fn take_notices(&mut self) -> (Vec<DbError>, u64) {
        (std::mem::take(&mut self.notices).into(), std::mem::take(&mut self.notices_dropped))
    }

    /// The notifications since the last call, oldest first, and the number of older notifications that were dropped.
    pub fn take_notifications(&mut self) -> (Vec<Notification>, u64) {
        (std::mem::take(&mut self.notifications).into(), std::mem::take(&mut self.notifications_dropped))
    }

    /// Takes the oldest notification.
    pub fn pop_notification(&mut self) -> Option<Notification> {
        self.notifications.pop_front()
    }

    /// Whether there is a notification to take.
    pub fn has_notifications(&self) -> bool {
        !self.notifications.is_empty()
    }

    /// The status in the last ReadyForQuery.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.transaction_status
    }

    fn set_parameter(&mut self, name: String, value: String) {
        // Half a value is worse than none.
        if name.len() > PARAMETER_VALUE_MAX_BYTES || value.len() > PARAMETER_VALUE_MAX_BYTES {
            self.parameters.remove(&name);
        } else if self.parameters.len() < PARAMETERS_MAX || self.parameters.contains_key(&name) {
            self.parameters.insert(name, value);
        }
    }
}

/// Appends an item, and returns how many items were dropped for it.
fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, max: usize) -> u64 {
    let dropped = if queue.len() >= max {
        queue.pop_front();
        1
    } else {
        0
    };
    queue.push_back(item);
    dropped
}
