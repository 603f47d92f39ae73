//! A push request, split into items.
//!
//! ```text
//! {"items": [{"queue", "partition", "payload", "transactionId", "traceId", "namespace", "task"}, …],
//!  "bufferMs", "bufferMax", "qos0"}
//! ```
//!
//! The scanner is that of [`validate`](super::validate), so a payload passes exactly the same checks, in the same pass. Keys may
//! come in any order and may be spelled with escapes. Unknown keys are ignored, but their values must be JSON. If a key comes
//! twice, both values are checked and the last one counts. `null` means absent, except for the payload, where it is a payload.

mod fault;
mod parse;
mod rules;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use uuid::Uuid;

pub use fault::{PushError, PushErrorKind};
pub use parse::parse;
pub use rules::{
    check_namespace, check_partition, check_queue, check_task, check_transaction_id, parse_buffer_max, parse_buffer_ms,
};

/// Longest name of a queue, in bytes.
pub const MAX_QUEUE_BYTES: usize = 255;
/// Longest name of a partition, in bytes.
pub const MAX_PARTITION_BYTES: usize = 255;
/// Longest transaction id, in characters, as in Queen's clients.
pub const MAX_TRANSACTION_ID_CHARS: usize = 255;
/// Longest namespace and longest task, in bytes.
pub const MAX_LABEL_BYTES: usize = 255;
/// Longest wait for other messages that a request may ask for, in milliseconds: an hour.
pub const MAX_BUFFER_MS: u32 = 3_600_000;
/// Most messages for which a request may ask to wait.
pub const MAX_BUFFER_MAX: u32 = 1_000_000;
/// Most items of one request. The log takes a request whole or not at all, so all of it is in memory.
pub const MAX_ITEMS: usize = 100_000;

/// Limits that differ from the constants of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushLimits {
    /// Most items of one request.
    pub max_items: usize,
}

impl Default for PushLimits {
    fn default() -> Self {
        Self { max_items: MAX_ITEMS }
    }
}

/// A whole, checked request. It borrows from the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRequest<'a> {
    /// In the body's order; may be empty.
    pub items: Vec<PushItem<'a>>,
    /// How long the messages may wait for others, in milliseconds, 0 to [`MAX_BUFFER_MS`].
    pub buffer_ms: Option<u32>,
    /// Number of messages that ends the wait, 1 to [`MAX_BUFFER_MAX`]. A 0 in the body is 1.
    pub buffer_max: Option<u32>,
    /// Whether the request has `"qos0": true`.
    pub qos0: bool,
}

impl PushRequest<'_> {
    /// Whether the push is buffered: it is answered as soon as the log has it.
    #[must_use]
    pub fn is_buffered(&self) -> bool {
        self.qos0 || self.buffer_ms.is_some() || self.buffer_max.is_some()
    }
}

/// One message of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushItem<'a> {
    /// 1 to [`MAX_QUEUE_BYTES`] bytes.
    pub queue: Cow<'a, str>,
    /// 1 to [`MAX_PARTITION_BYTES`] bytes.
    pub partition: Option<Cow<'a, str>>,
    /// The payload's bytes in the body: JSON in UTF-8 that `jsonb` can hold.
    pub payload: &'a [u8],
    /// 1 to [`MAX_TRANSACTION_ID_CHARS`] characters.
    pub transaction_id: Option<Cow<'a, str>>,
    /// Any text form of a UUID that PostgreSQL reads.
    pub trace_id: Option<Uuid>,
    /// At most [`MAX_LABEL_BYTES`] bytes, may be empty.
    pub namespace: Option<Cow<'a, str>>,
    /// At most [`MAX_LABEL_BYTES`] bytes, may be empty.
    pub task: Option<Cow<'a, str>>,
}
