//! Reading one segment: its frames in order, and what to make of bytes that are none.
//!
//! A group starts at a block, its frames name that block, and groups became durable strictly one after the other. So:
//! - A block whose first frame says "my group starts here" is a place to go on from, wherever that stands (*resync*).
//! - Bytes that do not verify and have a later group behind them were durable once: **damage**. What else verifies is
//!   still delivered; what is missing shows as a gap in the ordinals.
//! - Bytes that do not verify with no later group behind them belong to a write that never finished, or are the end.
//!
//! A read may lie once (a flipped bit, another sector): what does not verify is read again before it is believed, and so is
//! the place where the records end.

mod resync;
mod window;

pub use window::ReadAt;
pub(crate) use window::is_bad_sector;

use crate::{
    frame::{self, FrameError, FrameHeader, HEADER_BYTES, SegmentSeed},
    limits::{BLOCK_BYTES, FRAME_ALIGN_BYTES, SEGMENT_HEADER_BYTES},
};
use std::{collections::HashSet, io};
use window::{Window, first_nonzero};

/// What a scan met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A record that verified; [`Scan::payload`] is its payload.
    Record {
        /// Its header.
        header: FrameHeader,
        /// Offset of its frame.
        at: u32,
        /// Offset behind its frame.
        end: u32,
    },
    /// A seal that verified: all before it was durable.
    Seal {
        /// Its header; its ordinal is the next record's.
        header: FrameHeader,
        /// Offset of its frame.
        at: u32,
        /// Offset behind its frame.
        end: u32,
    },
    /// A frame whose header verified and whose payload did not.
    BadPayload {
        /// Its header.
        header: FrameHeader,
        /// Offset of its frame.
        at: u32,
    },
    /// Padding behind the last frame that is not zero, with a later group behind it. No record is lost by it.
    DirtyPadding {
        /// Offset of the first byte that is not zero.
        at: u32,
    },
    /// Bytes that are no frame, with a later group behind them.
    Unreadable {
        /// Offset of the first.
        at: u32,
        /// Offset of the group that the scan goes on with.
        resumed_at: u32,
    },
    /// No group follows.
    End {
        /// Offset behind the last group that has a frame which verified, a multiple of a block.
        at: u32,
        /// Offset of the first byte behind that group's frames that betrays a write which did not finish (or was damaged
        /// beyond recognition): one that is not zero, or in a recycled segment, behind that group's padding, a header of the
        /// group that would follow.
        unfinished_at: Option<u32>,
    },
}

/// Which bytes to scan, and as what.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// The segment's seed.
    pub seed: SegmentSeed,
    /// Offset to start from: the first frame of a group, or one that a scan named.
    pub from: u32,
    /// Offset to end before: the segment's size, or how far it is durable.
    pub to: u32,
    /// Block at which this segment's unfinished group starts, 0 for none
    /// ([`previous_unfinished_block`](crate::segment::SegmentHeader::previous_unfinished_block) of the next segment).
    pub unfinished_block: u32,
    /// Whether what was never written is zero ([`zeroed`](crate::segment::SegmentHeader::zeroed)).
    pub zeroed: bool,
}

/// A scan over one segment. Memory: [`WINDOW_BYTES`](crate::limits::WINDOW_BYTES), or the largest record met.
pub struct Scan<F> {
    window: Window<F>,
    extent: Extent,
    place: Place,
    /// Where what does not verify was read a second time.
    doubted_at: Option<u32>,
    /// Ordinals of the unfinished group's batches that are not whole; `None` before the scan came to it.
    excluded: Option<HashSet<u64>>,
    /// Where the payload of the record last returned starts, and its length.
    payload: (u32, usize),
}

/// How far a scan came.
#[derive(Clone, Copy)]
struct Place {
    at: u32,
    /// Block at which the group at hand starts; 0 until one was met.
    group_block: u32,
    /// Offset behind the last frame of the group at hand whose header verified.
    group_end: u32,
    /// Header of the first frame of the group at hand, if it verified.
    group_first: Option<FrameHeader>,
    /// Where the padding in front of `at` starts, until it was looked at.
    padding_from: u32,
    /// Ordinal that the next frame should have, once a header verified.
    next_ordinal: Option<u64>,
    /// Offset behind what is known to be no other record's: records that are missing stood behind it.
    known_end: u32,
}

/// What stands at an offset.
enum Found {
    Frame(FrameHeader),
    Bad(FrameHeader),
    Nothing,
}

impl<F: ReadAt> Scan<F> {
    /// A scan of `extent` of `file`.
    #[must_use]
    pub fn new(file: F, extent: Extent) -> Self {
        let from = extent.from.max(SEGMENT_HEADER_BYTES as u32);
        let place = Place {
            at: from,
            group_block: 0,
            group_end: from,
            group_first: None,
            padding_from: from,
            next_ordinal: None,
            known_end: from,
        };
        Self {
            window: Window::new(file, from, extent.to.max(from)),
            extent,
            place,
            doubted_at: None,
            excluded: None,
            payload: (from, 0),
        }
    }

    /// The next item; after [`Item::End`] the same again.
    ///
    /// # Errors
    /// Those of the file.
    pub fn next_item(&mut self) -> io::Result<Item> {
        loop {
            let before = self.place;
            let item = self.step()?;
            let is_believed = match item {
                Item::Record { .. } | Item::Seal { .. } => true,
                Item::End { unfinished_at: None, .. } => self.ends_still(before)?,
                _ => self.doubted_at == Some(before.at),
            };
            if is_believed {
                return Ok(item);
            }
            self.doubted_at = Some(before.at);
            self.place = before;
            self.window.forget(before.at);
        }
    }

    /// The payload of the record last returned.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let (at, length) = self.payload;
        self.window.bytes(at).get(..length).unwrap_or_default()
    }

    /// Lets the scan go on to `to`, at least as far as before: more became durable.
    pub fn extend_to(&mut self, to: u32) {
        self.window.extend_to(to);
    }

    /// Names the segment's unfinished group, before the scan comes to it.
    pub fn set_unfinished_block(&mut self, block: u32) {
        self.extent.unfinished_block = block;
    }

    /// Block at which the group of the last item starts.
    #[must_use]
    pub fn group_block(&self) -> u32 {
        self.place.group_block
    }

    /// Header of the first frame of that group, if it verified, though the record may not count.
    #[must_use]
    pub fn group_first(&self) -> Option<FrameHeader> {
        self.place.group_first
    }

    /// Whether the last item lies in the segment's unfinished group.
    #[must_use]
    pub fn in_unfinished_group(&self) -> bool {
        let block = self.extent.unfinished_block;
        // A scan that starts within it has met no frame of it yet; it is the segment's last.
        block != 0 && (self.place.group_block == block || self.place.at > block * BLOCK_BYTES as u32)
    }

    /// Offsets of the blocks met so far that the disk could not read. They were taken for zeros.
    #[must_use]
    pub fn holes(&self) -> &[u32] {
        self.window.holes()
    }

    fn step(&mut self) -> io::Result<Item> {
        if let Some(at) = self.dirty_padding(self.place.at)? {
            return Ok(Item::DirtyPadding { at });
        }
        loop {
            let at = self.place.at;
            match self.look()? {
                Found::Frame(header) => {
                    self.pass(&header)?;
                    if self.excluded.as_ref().is_some_and(|excluded| excluded.contains(&header.ordinal)) {
                        continue;
                    }
                    self.payload = (at + HEADER_BYTES as u32, header.payload_len as usize);
                    let end = self.place.at;
                    return Ok(match header.is_seal() {
                        true => Item::Seal { header, at, end },
                        false => Item::Record { header, at, end },
                    });
                }
                Found::Bad(header) => {
                    self.pass(&header)?;
                    // Its payload may be other records by now.
                    self.place.known_end = at + HEADER_BYTES as u32;
                    return Ok(Item::BadPayload { header, at });
                }
                Found::Nothing => {
                    if let Some(item) = self.resync()? {
                        return Ok(item);
                    }
                }
            }
        }
    }

    fn look(&mut self) -> io::Result<Found> {
        let at = self.place.at;
        if at >= self.window.to() {
            return Ok(Found::Nothing);
        }
        self.window.fill(at, HEADER_BYTES)?;
        let found = match frame::decode(self.extent.seed, self.window.bytes(at)) {
            Ok(decoded) => Found::Frame(decoded.header),
            Err(FrameError::Incomplete { needed }) if needed > HEADER_BYTES => {
                self.window.fill(at, needed)?;
                match frame::decode(self.extent.seed, self.window.bytes(at)) {
                    Ok(decoded) => Found::Frame(decoded.header),
                    Err(FrameError::Payload(header)) => Found::Bad(header),
                    Err(_) => Found::Nothing,
                }
            }
            Err(FrameError::Payload(header)) => Found::Bad(header),
            Err(_) => Found::Nothing,
        };
        // A frame in the midst of a block goes on with the group at hand; at a block it may also start one.
        let group = self.place.group_block;
        let block = at / BLOCK_BYTES as u32;
        let starts_block = at.is_multiple_of(BLOCK_BYTES as u32);
        let belongs = |header: &FrameHeader| {
            header.group_block == group
                || starts_block && header.group_block == block
                // The scan may start within a group.
                || group == 0 && header.group_block <= block
        };
        Ok(match found {
            Found::Frame(header) | Found::Bad(header)
                if !belongs(&header) || !self.comes_next(&header, at) || self.is_belied(&header, at) =>
            {
                Found::Nothing
            }
            found => found,
        })
    }

    /// Moves behind the frame at hand.
    fn pass(&mut self, header: &FrameHeader) -> io::Result<()> {
        if u64::from(self.place.at) == u64::from(header.group_block) * BLOCK_BYTES as u64 {
            self.place.group_first = Some(*header);
        } else if self.place.group_block != header.group_block {
            self.place.group_first = None;
        }
        self.place.group_block = header.group_block;
        if self.in_unfinished_group() && self.excluded.is_none() {
            self.excluded = Some(self.partial_batches(header.group_block)?);
            self.window.resume();
        }
        let payload_end = self.place.at as usize + HEADER_BYTES + header.payload_len as usize;
        // The padding behind the payload may be cut off by the end of what is read.
        let end = payload_end.next_multiple_of(FRAME_ALIGN_BYTES).min(self.window.to() as usize) as u32;
        self.place.padding_from = end.min(payload_end as u32);
        self.place.at = end;
        self.place.group_end = end;
        self.place.known_end = end;
        self.place.next_ordinal = header.ordinal.checked_add(u64::from(!header.is_seal()));
        Ok(())
    }

    /// The first byte that is not zero from the padding not looked at yet up to `to`.
    fn dirty_padding(&mut self, to: u32) -> io::Result<Option<u32>> {
        let from = self.place.padding_from;
        if from >= to {
            return Ok(None);
        }
        self.window.fill(from, (to - from) as usize)?;
        self.place.padding_from = to;
        Ok(first_nonzero(&self.window.bytes(from)[..(to - from) as usize]).map(|index| from + index as u32))
    }
}
