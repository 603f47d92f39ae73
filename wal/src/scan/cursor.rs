//! A position in a segment, and the frame there: which header belongs there, and which of those that verify is believed.

use super::{
    ReadAt,
    window::{Window, first_nonzero},
};
use crate::{
    frame::{self, FrameError, FrameHeader, HEADER_BYTES, SegmentSeed},
    limits::{BLOCK_BYTES, FRAME_ALIGN_BYTES},
};
use std::io;

/// How far a scan has come.
#[derive(Clone, Copy)]
pub(super) struct CursorState {
    /// Offset of the next frame.
    pub(super) at: u32,
    /// Block at which the current group starts; 0 before the first.
    pub(super) group_block: u32,
    /// Offset behind the current group's last frame whose header verifies.
    pub(super) group_end: u32,
    /// Header of the current group's first frame, if it verifies.
    pub(super) group_first: Option<FrameHeader>,
    /// Start of the padding before `at`, until it was checked.
    padding_from: u32,
    /// Ordinal that the next frame should have, once a header has verified.
    next_ordinal: Option<u64>,
    /// Offset behind the bytes that cannot hold missing records.
    known_end: u32,
}

/// The frame at an offset.
pub(super) enum FrameHere {
    /// Header and payload verify.
    Valid(FrameHeader),
    /// Only the header verifies.
    BadPayload(FrameHeader),
    /// No frame belongs there.
    None,
}

/// The bytes of a segment, and a position in them.
pub(super) struct Cursor<F> {
    pub(super) window: Window<F>,
    pub(super) state: CursorState,
    seed: SegmentSeed,
}

impl<F: ReadAt> Cursor<F> {
    /// A cursor at `from`. It ends before `to`.
    pub(super) fn new(file: F, seed: SegmentSeed, from: u32, to: u32) -> Self {
        let state = CursorState {
            at: from,
            group_block: 0,
            group_end: from,
            group_first: None,
            padding_from: from,
            next_ordinal: None,
            known_end: from,
        };
        Self { window: Window::new(file, from, to), state, seed }
    }

    /// Reads the frame at the cursor.
    pub(super) fn frame_here(&mut self) -> io::Result<FrameHere> {
        let at = self.state.at;
        if at >= self.window.to() {
            return Ok(FrameHere::None);
        }
        self.window.fill(at, HEADER_BYTES)?;
        let here = match frame::decode(self.seed, self.window.bytes(at)) {
            Ok(decoded) => FrameHere::Valid(decoded.header),
            Err(FrameError::Incomplete { needed_bytes }) if needed_bytes > HEADER_BYTES => {
                self.window.fill(at, needed_bytes)?;
                match frame::decode(self.seed, self.window.bytes(at)) {
                    Ok(decoded) => FrameHere::Valid(decoded.header),
                    Err(FrameError::Payload(header)) => FrameHere::BadPayload(header),
                    Err(FrameError::Incomplete { .. } | FrameError::Header) => FrameHere::None,
                }
            }
            Err(FrameError::Payload(header)) => FrameHere::BadPayload(header),
            Err(FrameError::Incomplete { .. } | FrameError::Header) => FrameHere::None,
        };
        Ok(match here {
            FrameHere::Valid(header) | FrameHere::BadPayload(header)
                if !self.belongs(&header, at) || !self.can_follow(&header, at) || self.is_contradicted(&header, at) =>
            {
                FrameHere::None
            }
            here => here,
        })
    }

    /// Whether a frame at `at` is of the current group, or of one that starts there.
    fn belongs(&self, header: &FrameHeader, at: u32) -> bool {
        let group_block = self.state.group_block;
        let block = at / BLOCK_BYTES as u32;
        header.group_block == group_block
            || at.is_multiple_of(BLOCK_BYTES as u32) && header.group_block == block
            // The scan may start within a group.
            || group_block == 0 && header.group_block <= block
    }

    /// Whether the ordinal of a frame at `at` is possible after the frames before it.
    ///
    /// An ordinal that was read before is that of a copy. Each missing record took at least the bytes of a header. If an
    /// impossible ordinal were believed, all later frames would be rejected.
    fn can_follow(&self, header: &FrameHeader, at: u32) -> bool {
        let missing_max = u64::from(at.saturating_sub(self.state.known_end)) / HEADER_BYTES as u64;
        self.state.next_ordinal.is_none_or(|next| (next..=next + missing_max).contains(&header.ordinal))
    }

    /// Whether the two frames after the first frame of a scan contradict its ordinal. Only the frames in the window count.
    /// For later frames the ones before them decide.
    fn is_contradicted(&self, header: &FrameHeader, at: u32) -> bool {
        if self.state.next_ordinal.is_some() {
            return false;
        }
        let Some((second, second_at)) = self.frame_after(header, at) else { return false };
        let third = self.frame_after(&second, second_at).map(|(third, _)| third.ordinal);
        let next = header.ordinal + u64::from(!header.is_seal());
        let after_next = next + u64::from(!second.is_seal());
        let after_second = second.ordinal + u64::from(!second.is_seal());
        // Records may be missing between a frame and the next group, but not between two adjacent frames of one group.
        let is_adjacent = second_at as usize == at as usize + frame::frame_len(header.payload_len as usize);
        (second.ordinal < next || is_adjacent && second.ordinal != next)
            && third.is_none_or(|third| third != after_next)
            && (second.ordinal < next || third == Some(after_second))
    }

    /// The header of the frame after another, in its group or at the start of the next one, and its offset.
    fn frame_after(&self, header: &FrameHeader, at: u32) -> Option<(FrameHeader, u32)> {
        let end = at as usize + frame::frame_len(header.payload_len as usize);
        [end, end.next_multiple_of(BLOCK_BYTES)].into_iter().find_map(|offset| {
            let next_at = u32::try_from(offset).ok()?;
            let next = frame::decode_header(self.seed, self.window.bytes(next_at)).ok()?;
            let starts_group = next.group_block as usize * BLOCK_BYTES == offset;
            // A frame of the same group at the next block follows others that are gone.
            let is_adjacent = offset == end && next.group_block == header.group_block;
            (starts_group || is_adjacent).then_some((next, next_at))
        })
    }

    /// Makes the group of the frame at the cursor the current one.
    pub(super) fn enter_group(&mut self, header: &FrameHeader) {
        if u64::from(self.state.at) == u64::from(header.group_block) * BLOCK_BYTES as u64 {
            self.state.group_first = Some(*header);
        } else if self.state.group_block != header.group_block {
            self.state.group_first = None;
        }
        self.state.group_block = header.group_block;
    }

    /// Moves behind the frame at the cursor.
    pub(super) fn advance(&mut self, header: &FrameHeader) {
        let payload_end = self.state.at as usize + HEADER_BYTES + header.payload_len as usize;
        // The end of the scan may cut the padding off.
        let end = payload_end.next_multiple_of(FRAME_ALIGN_BYTES).min(self.window.to() as usize) as u32;
        self.state.padding_from = end.min(payload_end as u32);
        self.state.at = end;
        self.state.group_end = end;
        self.state.known_end = end;
        self.state.next_ordinal = header.ordinal.checked_add(u64::from(!header.is_seal()));
    }

    /// Says that the frame at `at` is not whole: its payload may have been overwritten by other records.
    pub(super) fn distrust_payload(&mut self, at: u32) {
        self.state.known_end = at + HEADER_BYTES as u32;
    }

    /// Moves to the next block if the next group starts there, behind the padding. Returns whether it does.
    pub(super) fn skip_to_next_group(&mut self) -> io::Result<bool> {
        let before = self.state;
        self.state.at = before.at.next_multiple_of(BLOCK_BYTES as u32);
        // The ordinal decides: a group there may also follow another one that is gone.
        if let FrameHere::Valid(header) | FrameHere::BadPayload(header) = self.frame_here()?
            && self.state.next_ordinal.is_none_or(|ordinal| ordinal == header.ordinal)
        {
            return Ok(true);
        }
        self.state = before;
        Ok(false)
    }

    /// Moves to the first frame behind the cursor that is of the current group or a later one. Returns its offset; `None` if
    /// there is none, and then the cursor has not moved.
    pub(super) fn skip_to_next_frame(&mut self) -> io::Result<Option<u32>> {
        let mut candidate = self.state.at + FRAME_ALIGN_BYTES as u32;
        while candidate < self.window.to() {
            if let Some(group_block) = self.group_of_header(candidate)? {
                self.state.at = candidate;
                self.state.padding_from = candidate;
                if candidate != group_block * BLOCK_BYTES as u32 && self.state.group_block != group_block {
                    (self.state.group_block, self.state.group_first) = (group_block, None);
                }
                return Ok(Some(candidate));
            }
            candidate += FRAME_ALIGN_BYTES as u32;
        }
        Ok(None)
    }

    /// The block of the group that a header at `at` names, if the header verifies and the group is the current one or later.
    fn group_of_header(&mut self, at: u32) -> io::Result<Option<u32>> {
        self.window.fill(at, HEADER_BYTES)?;
        let bytes = self.window.bytes(at);
        // The group's block is the last field of a header. Comparing it first avoids nearly every checksum.
        let group_block = bytes.get(HEADER_BYTES - 4..HEADER_BYTES).map(|field| frame::u32_at(field, 0));
        let groups = self.state.group_block.max(1)..=at / BLOCK_BYTES as u32;
        let Some(group_block) = group_block.filter(|block| groups.contains(block)) else { return Ok(None) };
        let header = frame::decode_header(self.seed, bytes);
        Ok(header.is_ok_and(|header| self.can_follow(&header, at)).then_some(group_block))
    }

    /// Moves behind the current group. Returns the offset there.
    pub(super) fn skip_group(&mut self) -> u32 {
        let end = self.state.group_end.next_multiple_of(BLOCK_BYTES as u32).min(self.window.to());
        self.state.at = end;
        self.state.padding_from = end;
        end
    }

    /// Checks the padding before `to` that was not checked yet. Returns the offset of the first byte that is not zero.
    pub(super) fn dirty_padding(&mut self, to: u32) -> io::Result<Option<u32>> {
        let from = self.state.padding_from;
        if from >= to {
            return Ok(None);
        }
        self.window.fill(from, (to - from) as usize)?;
        self.state.padding_from = to;
        Ok(first_nonzero(&self.window.bytes(from)[..(to - from) as usize]).map(|index| from + index as u32))
    }

    /// The offset of the first byte from `from` on that is not zero.
    pub(super) fn nonzero_from(&mut self, from: u32) -> io::Result<Option<u32>> {
        let mut at = from;
        while at < self.window.to() {
            self.window.fill(at, FRAME_ALIGN_BYTES)?;
            let bytes = self.window.bytes(at);
            if let Some(index) = first_nonzero(bytes) {
                return Ok(Some(at + index as u32));
            }
            at += bytes.len() as u32;
        }
        Ok(None)
    }
}
