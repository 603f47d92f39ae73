//! A group on its way to the disk: bytes that belong at one place, and how many of them stand there.

use crate::{buffer::GroupBuffer, limits::BLOCK_BYTES, position::Position};

/// A group on its way to the disk.
pub struct Group {
    pub(super) start: Position,
    pub(super) buffer: GroupBuffer,
    pub(super) end_ordinal: u64,
    pub(super) written: usize,
}

impl Group {
    pub(super) fn new(start: Position) -> Self {
        Self { start, buffer: GroupBuffer::default(), end_ordinal: 0, written: 0 }
    }

    /// The block at which it starts.
    pub(super) fn block(&self) -> u32 {
        self.start.offset / BLOCK_BYTES as u32
    }

    /// Where the bytes yet to be written stand.
    #[must_use]
    pub fn next_write(&self) -> Position {
        Position { segment: self.start.segment, offset: self.start.offset + self.written as u32 }
    }

    /// Where it starts.
    #[must_use]
    pub fn start(&self) -> Position {
        self.start
    }

    /// Whether all of it is yet to be written.
    #[must_use]
    pub fn is_at_start(&self) -> bool {
        self.written == 0
    }

    /// The bytes yet to be written, in pieces; each starts and ends on a block.
    pub fn unwritten(&self) -> impl Iterator<Item = &[u8]> {
        self.buffer.slices_from(self.written)
    }

    pub(super) fn end(&self) -> Position {
        Position { segment: self.start.segment, offset: self.start.offset + self.buffer.len() as u32 }
    }
}
