//! A scan reads one segment: its frames in order, and what is wrong between them.
//!
//! A group starts at a block, its frames name that block, and groups became durable strictly one after the other. Therefore:
//! - A frame that says "my group starts at this very block" is a place to continue, wherever it is (*resync*).
//! - Bytes that do not verify before a later group were durable once: they are **damage**. The frames behind them that
//!   verify still count, and missing records show as a gap in the ordinals.
//! - Bytes that do not verify without a later group belong to a write that never finished, or are the end.
//!
//! A read may return wrong bytes once: a flipped bit, or another sector. So a scan reads bytes that do not verify a second
//! time before it reports them, and so the end.

mod cursor;
mod partial_batches;
mod window;

pub use window::ReadAt;
pub(crate) use window::is_bad_sector;

use crate::{
    frame::{FrameHeader, HEADER_BYTES, SegmentSeed},
    limits::{BLOCK_BYTES, SEGMENT_HEADER_BYTES},
};
use cursor::{Cursor, CursorState, FrameHere};
use partial_batches::partial_batches;
use std::{collections::HashSet, io};

/// What a scan returns, in the order of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A record that verifies. [`Scan::payload`] is its payload.
    Record {
        /// The frame's header.
        header: FrameHeader,
        /// Offset of the frame.
        at: u32,
        /// Offset behind the frame.
        end: u32,
    },
    /// A seal that verifies: everything before it was durable.
    Seal {
        /// The frame's header. Its ordinal is that of the next record.
        header: FrameHeader,
        /// Offset of the frame.
        at: u32,
        /// Offset behind the frame.
        end: u32,
    },
    /// A frame whose header verifies and whose payload does not.
    BadPayload {
        /// The frame's header.
        header: FrameHeader,
        /// Offset of the frame.
        at: u32,
    },
    /// Padding behind the last frame that is not zero, before a later group. No record is lost by it.
    DirtyPadding {
        /// Offset of the first byte that is not zero.
        at: u32,
    },
    /// Bytes that are no frame, before a later frame.
    CorruptBytes {
        /// Offset of the first such byte.
        at: u32,
        /// Offset of the frame where the scan continues.
        resumed_at: u32,
    },
    /// No group follows.
    End {
        /// Offset behind the last group of which a frame verifies. It is a multiple of a block.
        at: u32,
        /// Offset of the first byte behind that group's frames that a write left which did not finish, or which is damaged
        /// beyond recognition: a byte in the padding, or anywhere behind it in a zeroed segment, that is not zero.
        unfinished_at: Option<u32>,
    },
}

/// The part of a segment to scan.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// The segment's seed.
    pub seed: SegmentSeed,
    /// Offset to start at: a frame's.
    pub from: u32,
    /// Offset to end before: the segment's size, or its durable end.
    pub to: u32,
    /// Block at which the segment's unfinished group starts; 0 if it has none. See
    /// [`previous_unfinished_block`](crate::segment::SegmentHeader::previous_unfinished_block) of the next segment.
    pub unfinished_block: u32,
    /// Whether bytes that were never written are zero. See [`zeroed`](crate::segment::SegmentHeader::zeroed).
    pub zeroed: bool,
}

/// A scan of one segment. It takes [`WINDOW_BYTES`](crate::limits::WINDOW_BYTES) of memory, or the size of the largest record.
pub struct Scan<F> {
    cursor: Cursor<F>,
    extent: Extent,
    /// Where bytes that do not verify were read a second time.
    reread_at: Option<u32>,
    /// Ordinals of the unfinished group's batches that are not whole, once the scan has reached the group.
    excluded: Option<HashSet<u64>>,
    /// Offset and length of the last record's payload.
    payload: (u32, usize),
}

impl<F: ReadAt> Scan<F> {
    /// A scan of `extent` of `file`.
    #[must_use]
    pub fn new(file: F, extent: Extent) -> Self {
        let from = extent.from.max(SEGMENT_HEADER_BYTES as u32);
        let cursor = Cursor::new(file, extent.seed, from, extent.to.max(from));
        Self { cursor, extent, reread_at: None, excluded: None, payload: (from, 0) }
    }

    /// The next item. After [`Item::End`] it is the same again, unless the scan was [extended](Self::extend_to).
    ///
    /// # Errors
    /// Those of the file.
    pub fn next_item(&mut self) -> io::Result<Item> {
        loop {
            let before = self.cursor.state;
            let item = self.step()?;
            let is_believed = match item {
                Item::Record { .. } | Item::Seal { .. } => true,
                Item::End { unfinished_at: None, .. } => self.confirms_end(before)?,
                _ => self.reread_at == Some(before.at),
            };
            if is_believed {
                return Ok(item);
            }
            self.reread_at = Some(before.at);
            self.cursor.state = before;
            self.cursor.window.forget(before.at);
        }
    }

    /// The payload of the record that the last item is.
    ///
    /// # Panics
    /// If the last item is no record and the window has moved on.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let (at, length) = self.payload;
        &self.cursor.window.bytes(at)[..length]
    }

    /// Extends the scan to `to`, for more became durable.
    ///
    /// # Panics
    /// If `to` is below the scan's end so far.
    pub fn extend_to(&mut self, to: u32) {
        self.cursor.window.extend_to(to);
    }

    /// Offset to end before.
    #[must_use]
    pub fn to(&self) -> u32 {
        self.cursor.window.to()
    }

    /// Sets the block of the segment's unfinished group. Call it before the scan reaches the group.
    pub fn set_unfinished_block(&mut self, block: u32) {
        self.extent.unfinished_block = block;
    }

    /// Block at which the last item's group starts.
    #[must_use]
    pub fn group_block(&self) -> u32 {
        self.cursor.state.group_block
    }

    /// Header of the first frame of the last item's group, if it verifies. The frame's record may not count.
    #[must_use]
    pub fn group_first(&self) -> Option<FrameHeader> {
        self.cursor.state.group_first
    }

    /// Whether the last item lies in the segment's unfinished group.
    #[must_use]
    pub fn in_unfinished_group(&self) -> bool {
        let (block, state) = (self.extent.unfinished_block, &self.cursor.state);
        // A scan that starts within the group has met none of its frames yet. The group is the segment's last.
        block != 0 && (state.group_block == block || state.at > block * BLOCK_BYTES as u32)
    }

    /// Offsets of the blocks so far that the disk could not read. They count as zeros.
    #[must_use]
    pub fn unreadable_blocks(&self) -> &[u32] {
        self.cursor.window.unreadable_blocks()
    }

    /// The item at the cursor, as one reading finds it.
    fn step(&mut self) -> io::Result<Item> {
        if let Some(at) = self.cursor.dirty_padding(self.cursor.state.at)? {
            return Ok(Item::DirtyPadding { at });
        }
        loop {
            let at = self.cursor.state.at;
            match self.cursor.frame_here()? {
                FrameHere::Valid(header) => {
                    self.pass(&header)?;
                    if self.excluded.as_ref().is_some_and(|excluded| excluded.contains(&header.ordinal)) {
                        continue;
                    }
                    self.payload = (at + HEADER_BYTES as u32, header.payload_len as usize);
                    let end = self.cursor.state.at;
                    return Ok(match header.is_seal() {
                        true => Item::Seal { header, at, end },
                        false => Item::Record { header, at, end },
                    });
                }
                FrameHere::BadPayload(header) => {
                    self.pass(&header)?;
                    self.cursor.distrust_payload(at);
                    return Ok(Item::BadPayload { header, at });
                }
                FrameHere::None => {
                    if let Some(item) = self.resync()? {
                        return Ok(item);
                    }
                }
            }
        }
    }

    /// Moves behind the frame at the cursor. If it is the first of the unfinished group, finds the batches that do not count.
    fn pass(&mut self, header: &FrameHeader) -> io::Result<()> {
        self.cursor.enter_group(header);
        if self.in_unfinished_group() && self.excluded.is_none() {
            let window = &self.cursor.window;
            let from = header.group_block * BLOCK_BYTES as u32;
            let extent = Extent { from, to: window.to(), unfinished_block: 0, ..self.extent };
            self.excluded = Some(partial_batches(window.file(), extent, header.group_block)?);
            window.resume();
        }
        self.cursor.advance(header);
        Ok(())
    }

    /// Finds where to continue when there is no frame at the cursor. `None`: at the next group, behind clean padding.
    fn resync(&mut self) -> io::Result<Option<Item>> {
        let from = self.cursor.state.at;
        let to = self.cursor.window.to();
        let next_block = from.next_multiple_of(BLOCK_BYTES as u32);
        let dirty_at = self.cursor.dirty_padding(next_block.min(to))?;
        if next_block > from && self.cursor.skip_to_next_group()? {
            return Ok(dirty_at.map(|at| Item::DirtyPadding { at }));
        }
        if let Some(resumed_at) = self.cursor.skip_to_next_frame()? {
            return Ok(Some(Item::CorruptBytes { at: from, resumed_at }));
        }
        let group_end = self.cursor.state.group_end;
        let nonzero_at = if self.extent.zeroed { self.cursor.nonzero_from(group_end)? } else { None };
        let at = self.cursor.skip_group();
        Ok(Some(Item::End { at, unfinished_at: nonzero_at.or(dirty_at) }))
    }

    /// Whether a second reading from `before` on confirms that the scan ends there.
    fn confirms_end(&mut self, before: CursorState) -> io::Result<bool> {
        if before.at >= self.cursor.window.to() || self.reread_at == Some(before.at) {
            return Ok(true);
        }
        let end = std::mem::replace(&mut self.cursor.state, before);
        self.cursor.window.forget(before.at);
        let continues = !matches!(self.cursor.frame_here()?, FrameHere::None) || self.cursor.skip_to_next_group()?;
        self.cursor.state = end;
        Ok(!continues)
    }
}
