//! A record of the log on its way into PostgreSQL.

use super::shared_slice::SharedSlice;
use crate::{message::CheckedMessage, state::mark::Mark};
use forebay_wal::{
    frame::{FrameHeader, KIND_MESSAGE},
    position::Position,
};

/// Bytes of memory that a round holds for a record besides its payload and its partition, at most. The types of a round are
/// checked against it.
pub(crate) const RECORD_BYTES_MAX: usize = 96;

/// A record that was read from the log. It was checked then whether it is a message.
#[derive(Clone, Debug)]
pub(crate) struct LogRecord {
    number: u64,
    ordinal: u64,
    /// Packed, since a round holds many records.
    end: u64,
    payload: SharedSlice,
    lane: u16,
    kind: u16,
    is_message: bool,
}

/// The message in a record's payload; `None` for a kind or a version that another release wrote.
pub(crate) fn check(kind: u16, payload: &[u8]) -> Option<CheckedMessage<'_>> {
    (kind == KIND_MESSAGE).then(|| CheckedMessage::check(payload).ok()).flatten()
}

impl LogRecord {
    /// The record with `header`, which ends at `end`. `lane` is the index of its lane in the log's view. `is_message` says
    /// whether [`check`] found a message in `payload`.
    pub(crate) fn new(header: &FrameHeader, lane: u16, end: Position, payload: SharedSlice, is_message: bool) -> Self {
        let (number, ordinal, kind) = (header.number, header.ordinal, header.kind);
        Self { number, ordinal, end: end.pack(), payload, lane, kind, is_message }
    }

    /// Its log sequence number, unique and rising over all lanes.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Its ordinal in its lane.
    pub(crate) fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// Index of its lane in the log's view.
    pub(crate) fn lane(&self) -> usize {
        usize::from(self.lane)
    }

    /// How far its lane is done once this record is.
    pub(crate) fn mark(&self) -> Mark {
        Mark { position: Position::unpack(self.end), ordinal: self.ordinal + 1 }
    }

    /// What its payload is, as its frame says.
    pub(crate) fn kind(&self) -> u16 {
        self.kind
    }

    /// Its payload.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Bytes of memory that a round holds for it.
    pub(crate) fn held_bytes(&self) -> usize {
        self.payload.len() + RECORD_BYTES_MAX
    }

    /// The message in it; `None` for a record that another release wrote.
    pub(crate) fn message(&self) -> Option<CheckedMessage<'_>> {
        self.is_message.then(|| CheckedMessage::accepted_earlier(&self.payload))
    }
}
