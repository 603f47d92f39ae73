//! What a session knows besides the request under way: parameters, notices, notifications.

use std::collections::{BTreeMap, VecDeque};

use super::TransactionStatus;
use super::limits::{NOTICES_MAX, NOTIFICATIONS_MAX, PARAMETER_VALUE_MAX_BYTES, PARAMETERS_MAX};
use super::message::Backend;
use crate::db_error::DbError;

/// A NOTIFY that reached this session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Process id of the session that sent it.
    pub process_id: i32,
    /// Its channel.
    pub channel: String,
    /// Its payload, at most 8,000 bytes by the server's own rule.
    pub payload: String,
}

/// State of a session that outlives a request. All of it is bounded by [`super::limits`].
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
    /// Keeps an asynchronous message for itself; gives every other one back.
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

    /// A run-time parameter the server reports, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The notices kept, oldest first, and how many older ones had to go since the last call.
    pub fn take_notices(&mut self) -> (Vec<DbError>, u64) {
        (std::mem::take(&mut self.notices).into(), std::mem::take(&mut self.notices_dropped))
    }

    /// The notifications kept, oldest first, and how many older ones had to go since the last call.
    pub fn take_notifications(&mut self) -> (Vec<Notification>, u64) {
        (std::mem::take(&mut self.notifications).into(), std::mem::take(&mut self.notifications_dropped))
    }

    /// Takes the oldest notification.
    pub fn pop_notification(&mut self) -> Option<Notification> {
        self.notifications.pop_front()
    }

    /// Whether a notification is there to take.
    pub fn has_notifications(&self) -> bool {
        !self.notifications.is_empty()
    }

    /// What the last ReadyForQuery said.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.transaction_status
    }

    fn set_parameter(&mut self, name: String, value: String) {
        // Forgotten, not cut: half a value is worse than none.
        if name.len() > PARAMETER_VALUE_MAX_BYTES || value.len() > PARAMETER_VALUE_MAX_BYTES {
            self.parameters.remove(&name);
        } else if self.parameters.len() < PARAMETERS_MAX || self.parameters.contains_key(&name) {
            self.parameters.insert(name, value);
        }
    }
}

/// Appends, and returns how many had to go for it.
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
