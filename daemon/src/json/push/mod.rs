//! A push request, cut into items.
//!
//! ```text
//! {"items": [{"queue", "partition", "payload", "transactionId", "traceId", "namespace", "task"}, …],
//!  "bufferMs", "bufferMax", "qos0"}
//! ```
//!
//! One pass with the scanner that [`validate`](super::validate) uses, so a payload that is returned has passed exactly
//! the same checks. Keys come in any order and may be spelled with escapes; unknown ones are ignored, though what they
//! hold must be JSON. Where a key comes twice, each value is checked and the last one counts. `null` for anything but
//! the payload means that it is absent; for the payload it is a payload.

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

/// The longest name of a queue, in bytes.
pub const MAX_QUEUE_BYTES: usize = 255;
/// The longest name of a partition, in bytes.
pub const MAX_PARTITION_BYTES: usize = 255;
/// The longest transaction id, in characters, as in the Queen clients.
pub const MAX_TRANSACTION_ID_CHARS: usize = 255;
/// The longest namespace and the longest task, in bytes.
pub const MAX_LABEL_BYTES: usize = 255;
/// The longest wait for company that a request may ask for, in milliseconds: an hour.
pub const MAX_BUFFER_MS: u32 = 3_600_000;
/// The most messages a request may ask to be waited for.
pub const MAX_BUFFER_MAX: u32 = 1_000_000;
/// How many items one request may have: it is in the log whole or not at all, so it is in memory whole.
pub const MAX_ITEMS: usize = 100_000;

/// What may be set otherwise than by the constants of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushLimits {
    /// How many items one request may have.
    pub max_items: usize,
}

impl Default for PushLimits {
    fn default() -> Self {
        Self { max_items: MAX_ITEMS }
    }
}

/// A request, whole and checked. It borrows from the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRequest<'a> {
    /// In the body's order; may be empty.
    pub items: Vec<PushItem<'a>>,
    /// How long the messages may wait for company, in milliseconds, 0 to [`MAX_BUFFER_MS`].
    pub buffer_ms: Option<u32>,
    /// How many messages end the wait, 1 to [`MAX_BUFFER_MAX`]; a 0 in the body is returned as 1.
    pub buffer_max: Option<u32>,
    /// Whether `"qos0": true` asks for a buffered push.
    pub qos0: bool,
}

impl PushRequest<'_> {
    /// Whether the request asks to be answered as soon as the log has it.
    #[must_use]
    pub fn is_buffered(&self) -> bool {
        self.qos0 || self.buffer_ms.is_some() || self.buffer_max.is_some()
    }
}

/// One message to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushItem<'a> {
    /// 1 to [`MAX_QUEUE_BYTES`] bytes.
    pub queue: Cow<'a, str>,
    /// 1 to [`MAX_PARTITION_BYTES`] bytes.
    pub partition: Option<Cow<'a, str>>,
    /// The bytes of the body that are the payload, from its first to its last: JSON that `jsonb` can hold, UTF-8.
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
