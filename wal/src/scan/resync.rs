//! Where a scan goes on when no frame stands at hand, and which frames it believes.

use super::{Extent, Found, Item, Place, ReadAt, Scan, window::first_nonzero};
use crate::{
    frame::{self, FrameHeader, HEADER_BYTES},
    limits::{BLOCK_BYTES, FRAME_ALIGN_BYTES},
};
use std::{collections::HashSet, io};

impl<F: ReadAt> Scan<F> {
    /// Whether at the next block, behind the padding, the next group starts, and goes there if so.
    pub(super) fn passes_to_next_group(&mut self) -> io::Result<bool> {
        let before = self.place;
        self.place.at = before.at.next_multiple_of(BLOCK_BYTES as u32);
        // By the ordinal: a group that starts there may also be one behind another that is gone.
        if let Found::Frame(header) | Found::Bad(header) = self.look()?
            && self.place.next_ordinal.is_none_or(|ordinal| ordinal == header.ordinal)
        {
            return Ok(true);
        }
        self.place = before;
        Ok(false)
    }

    /// Whether a second reading also finds no frame behind `before`, where the scan has ended.
    pub(super) fn ends_still(&mut self, before: Place) -> io::Result<bool> {
        if before.at >= self.window.to() || self.doubted_at == Some(before.at) {
            return Ok(true);
        }
        let ended = std::mem::replace(&mut self.place, before);
        self.window.forget(before.at);
        let goes_on = !matches!(self.look()?, Found::Nothing) || self.passes_to_next_group()?;
        self.place = ended;
        Ok(!goes_on)
    }

    /// Finds where to go on when no frame stands at hand. `None`: the next group follows at once, behind clean padding.
    pub(super) fn resync(&mut self) -> io::Result<Option<Item>> {
        let from = self.place.at;
        let to = self.window.to();
        let next_block = from.next_multiple_of(BLOCK_BYTES as u32);
        let dirty_at = self.dirty_padding(next_block.min(to))?;
        if next_block > from && self.passes_to_next_group()? {
            return Ok(dirty_at.map(|at| Item::DirtyPadding { at }));
        }
        let mut candidate = from + FRAME_ALIGN_BYTES as u32;
        while candidate < to {
            if let Some(group_block) = self.group_to_resume(candidate)? {
                self.place.at = candidate;
                self.place.padding_from = candidate;
                if candidate != group_block * BLOCK_BYTES as u32 && self.place.group_block != group_block {
                    (self.place.group_block, self.place.group_first) = (group_block, None);
                }
                return Ok(Some(Item::Unreadable { at: from, resumed_at: candidate }));
            }
            candidate += FRAME_ALIGN_BYTES as u32;
        }
        let group_end = self.place.group_end;
        let nonzero_at = if self.extent.zeroed { self.nonzero_from(group_end)? } else { None };
        let end = group_end.next_multiple_of(BLOCK_BYTES as u32).min(to);
        self.place.at = end;
        self.place.padding_from = end;
        Ok(Some(Item::End { at: end, unfinished_at: nonzero_at.or(dirty_at) }))
    }

    /// The block of the group at hand, or of one behind it, of which a header stands at `at`.
    fn group_to_resume(&mut self, at: u32) -> io::Result<Option<u32>> {
        self.window.fill(at, HEADER_BYTES)?;
        let bytes = self.window.bytes(at);
        // The group's block is the header's last field: one comparison spares nearly every checksum.
        let group_block = bytes.get(HEADER_BYTES - 4..HEADER_BYTES).map(|field| frame::u32_at(field, 0));
        let groups = self.place.group_block.max(1)..=at / BLOCK_BYTES as u32;
        let Some(group_block) = group_block.filter(|block| groups.contains(block)) else { return Ok(None) };
        let header = frame::decode_header(self.extent.seed, bytes);
        Ok(header.is_ok_and(|header| self.comes_next(&header, at)).then_some(group_block))
    }

    /// Whether a frame may stand at `at` behind those before. One that comes again is a copy, and each of those that are
    /// missing took the bytes of a header: an ordinal that were believed though it is impossible would belie all behind it.
    pub(super) fn comes_next(&self, header: &FrameHeader, at: u32) -> bool {
        let missing_max = u64::from(at.saturating_sub(self.place.known_end)) / HEADER_BYTES as u64;
        self.place.next_ordinal.is_none_or(|next| (next..=next + missing_max).contains(&header.ordinal))
    }

    /// Whether the two frames behind the one at `at`, as far as they are at hand, belie its ordinal. Only of a scan's first: of
    /// others those before tell.
    pub(super) fn is_belied(&self, header: &FrameHeader, at: u32) -> bool {
        if self.place.next_ordinal.is_some() {
            return false;
        }
        let Some((second, second_at)) = self.behind(header, at) else { return false };
        let third = self.behind(&second, second_at).map(|(third, _)| third.ordinal);
        let next = header.ordinal + u64::from(!header.is_seal());
        let after_next = next + u64::from(!second.is_seal());
        let after_second = second.ordinal + u64::from(!second.is_seal());
        // Between a frame and the next group others may be lost; between two of one group that touch there is none.
        let touches = second_at as usize == at as usize + frame::frame_len(header.payload_len as usize);
        (second.ordinal < next || touches && second.ordinal != next)
            && third.is_none_or(|third| third != after_next)
            && (second.ordinal < next || third == Some(after_second))
    }

    /// The header, and its place, of what stands behind a frame: in its group, or at the start of the next one.
    fn behind(&self, header: &FrameHeader, at: u32) -> Option<(FrameHeader, u32)> {
        let end = at as usize + frame::frame_len(header.payload_len as usize);
        [end, end.next_multiple_of(BLOCK_BYTES)].into_iter().find_map(|place| {
            let place = u32::try_from(place).ok()?;
            let next = frame::decode_header(self.extent.seed, self.window.bytes(place)).ok()?;
            let starts_group = next.group_block as usize * BLOCK_BYTES == place as usize;
            // One of the same group at the next block stands behind others that are gone.
            let follows = place as usize == end && next.group_block == header.group_block;
            (starts_group || follows).then_some((next, place))
        })
    }

    /// Ordinals of the records of the group at `block` that belong to a batch of which one does not verify.
    pub(super) fn partial_batches(&self, block: u32) -> io::Result<HashSet<u64>> {
        let (from, to) = (block * BLOCK_BYTES as u32, self.window.to());
        let extent = Extent { from, to, unfinished_block: 0, ..self.extent };
        // By reference to a trait object, or each scan would instantiate another type of scan.
        let mut group = Scan::new(self.window.file() as &dyn ReadAt, extent);
        let mut partial = HashSet::new();
        let mut batch: Vec<u64> = Vec::new();
        let mut expected_ordinal = None;
        loop {
            match group.next_item()? {
                Item::Record { header, .. } if header.group_block == block => {
                    if header.starts_batch() || expected_ordinal != Some(header.ordinal) {
                        partial.extend(batch.drain(..));
                        expected_ordinal = header.starts_batch().then_some(header.ordinal);
                    }
                    batch.push(header.ordinal);
                    expected_ordinal = expected_ordinal.map(|ordinal| ordinal + 1);
                    if header.batch_remaining == 0 && expected_ordinal.is_some() {
                        batch.clear();
                        expected_ordinal = None;
                    }
                }
                Item::Record { .. } | Item::Seal { .. } | Item::End { .. } => {
                    partial.extend(batch);
                    return Ok(partial);
                }
                Item::BadPayload { .. } | Item::Unreadable { .. } | Item::DirtyPadding { .. } => {}
            }
        }
    }

    fn nonzero_from(&mut self, from: u32) -> io::Result<Option<u32>> {
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
