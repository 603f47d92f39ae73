//! A pending group: frames that one write makes durable together.

use crate::{buffer::GroupBuffer, limits::BLOCK_BYTES, position::Position};

/// A group that is open, closed or in flight. It is gone once it is durable.
pub struct Group {
    pub(super) start: Position,
    pub(super) buffer: GroupBuffer,
    /// Ordinal behind the last record, once the group is closed.
    pub(super) end_ordinal: u64,
    /// Bytes that are on the disk, counted from `start`.
    pub(super) written_bytes: usize,
}

impl Group {
    pub(super) fn new(start: Position) -> Self {
        Self { start, buffer: GroupBuffer::default(), end_ordinal: 0, written_bytes: 0 }
    }

    /// The block at which the group starts.
    pub(super) fn block(&self) -> u32 {
        self.start.offset / BLOCK_BYTES as u32
    }

    /// Position of the first byte that is still to be written.
    #[must_use]
    pub fn next_write(&self) -> Position {
        Position { segment: self.start.segment, offset: self.start.offset + self.written_bytes as u32 }
    }

    /// Position of the group.
    #[must_use]
    pub fn start(&self) -> Position {
        self.start
    }

    /// Whether nothing of the group is written yet.
    #[must_use]
    pub fn is_unwritten(&self) -> bool {
        self.written_bytes == 0
    }

    /// The bytes that are still to be written, in slices. Each starts and ends on a block.
    pub fn unwritten(&self) -> impl Iterator<Item = &[u8]> {
        self.buffer.slices_from(self.written_bytes)
    }

    /// Position behind the group.
    pub(super) fn end(&self) -> Position {
        Position { segment: self.start.segment, offset: self.start.offset + self.buffer.len() as u32 }
    }
}
