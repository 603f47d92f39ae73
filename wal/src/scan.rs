//! Reading one segment: its frames in order, and what to make of bytes that are none.
//!
//! A group starts at a block, its frames name that block, and groups became durable strictly one after the other. So:
//! - A block whose first frame says "my group starts here" is a place to go on from, wherever that stands (*resync*).
//! - Bytes that do not verify and have a later group behind them were durable once: **damage**. What else verifies is
//!   still delivered; what is missing shows as a gap in the ordinals.
//! - Bytes that do not verify with no later group behind them belong to a write that never finished, or are the end.

use crate::{
    frame::{self, FrameError, FrameHeader, HEADER_BYTES, SegmentSeed},
    limits::{BLOCK_BYTES, FRAME_ALIGN_BYTES, SCAN_BYTES, SEGMENT_HEADER_BYTES},
};
use std::{collections::HashSet, io};

/// Something that can be read at an offset: a file, a simulated file, bytes.
pub trait ReadAt {
    /// Reads up to `buf.len()` bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    /// Whatever the device says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for std::fs::File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buf.len());
        buf[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

impl<F: ReadAt + ?Sized> ReadAt for &F {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buf, offset)
    }
}

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
    /// A frame whose header verified and whose payload did not.
    BadPayload {
        /// Its header.
        header: FrameHeader,
        /// Offset of its frame.
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
        /// beyond recognition): one that is not zero, or in a recycled segment a header of the group that would follow.
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

/// A scan over one segment. Memory: [`SCAN_BYTES`] plus the largest record met.
pub struct Scan<F> {
    file: F,
    extent: Extent,
    at: u32,
    /// Block at which the group at hand starts; 0 until one was met.
    group_block: u32,
    /// Offset behind the last frame of the group at hand whose header verified.
    group_end: u32,
    /// Ordinal behind the last frame whose header verified.
    next_ordinal: Option<u64>,
    /// Ordinals of the unfinished group's batches that are not whole.
    excluded: HashSet<u64>,
    buf: Vec<u8>,
    buf_at: u32,
    /// Where the payload of the record last returned stands in the buffer.
    payload: std::ops::Range<usize>,
}

/// Which group a header found by searching belongs to.
enum Belongs {
    Here,
    ToNextGroup,
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
        Self {
            file,
            extent,
            at: from,
            group_block: 0,
            group_end: from,
            next_ordinal: None,
            excluded: HashSet::new(),
            buf: Vec::new(),
            buf_at: from,
            payload: 0..0,
        }
    }

    /// The next item; after [`Item::End`] the same again.
    ///
    /// # Errors
    /// Those of the file.
    pub fn next_item(&mut self) -> io::Result<Item> {
        loop {
            match self.look()? {
                Found::Frame(header) => {
                    let at = self.at;
                    self.pass(&header)?;
                    if self.excluded.contains(&header.ordinal) {
                        continue;
                    }
                    let start = (at - self.buf_at) as usize + HEADER_BYTES;
                    self.payload = start..start + header.payload_len as usize;
                    return Ok(Item::Record { header, at, end: self.at });
                }
                Found::Bad(header) => {
                    let at = self.at;
                    self.pass(&header)?;
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

    /// The payload of the record last returned.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.buf.get(self.payload.clone()).unwrap_or_default()
    }

    /// Lets the scan go on to `to`, at least as far as before: more became durable.
    pub fn extend_to(&mut self, to: u32) {
        assert!(to >= self.extent.to, "what is durable stays so");
        self.extent.to = to;
    }

    /// Names the segment's unfinished group, before the scan comes to it.
    pub fn set_unfinished_block(&mut self, block: u32) {
        self.extent.unfinished_block = block;
    }

    /// Block at which the group of the last item starts.
    #[must_use]
    pub fn group_block(&self) -> u32 {
        self.group_block
    }

    /// Whether the last item lies in the segment's unfinished group.
    #[must_use]
    pub fn in_unfinished_group(&self) -> bool {
        self.group_block != 0 && self.group_block == self.extent.unfinished_block
    }

    fn look(&mut self) -> io::Result<Found> {
        if self.at >= self.extent.to {
            return Ok(Found::Nothing);
        }
        self.fill(self.at, HEADER_BYTES)?;
        let found = match frame::decode(self.extent.seed, self.bytes_from(self.at)) {
            Ok(decoded) => Found::Frame(decoded.header),
            Err(FrameError::Incomplete { needed }) if needed > HEADER_BYTES => {
                self.fill(self.at, needed)?;
                match frame::decode(self.extent.seed, self.bytes_from(self.at)) {
                    Ok(decoded) => Found::Frame(decoded.header),
                    Err(FrameError::Payload(header)) => Found::Bad(header),
                    Err(_) => Found::Nothing,
                }
            }
            Err(FrameError::Payload(header)) => Found::Bad(header),
            Err(_) => Found::Nothing,
        };
        // A frame in the midst of a block goes on with the group at hand; at a block it may also start one.
        let block = self.at / BLOCK_BYTES as u32;
        let starts_block = self.at.is_multiple_of(BLOCK_BYTES as u32);
        Ok(match found {
            Found::Frame(header) | Found::Bad(header)
                if header.group_block != self.group_block && !(starts_block && header.group_block == block) =>
            {
                // The scan may start within a group.
                if self.group_block == 0 && header.group_block <= block { found } else { Found::Nothing }
            }
            found => found,
        })
    }

    /// Moves behind the frame at hand.
    fn pass(&mut self, header: &FrameHeader) -> io::Result<()> {
        if header.group_block != self.group_block {
            self.group_block = header.group_block;
            if self.extent.unfinished_block == header.group_block && header.group_block != 0 {
                self.exclude_partial_batches(header.group_block)?;
            }
        }
        // The padding behind the payload may be cut off by the end of what is read.
        let end = self.at as usize + frame::frame_len(header.payload_len as usize);
        self.at = end.min(self.extent.to as usize) as u32;
        self.group_end = self.at;
        self.next_ordinal = header.ordinal.checked_add(1);
        Ok(())
    }

    /// Finds where to go on when no frame stands at hand. `None`: the next group follows at once, behind clean padding.
    fn resync(&mut self) -> io::Result<Option<Item>> {
        let from = self.at;
        let next_block = from.next_multiple_of(BLOCK_BYTES as u32);
        if next_block > from && next_block < self.extent.to {
            self.at = next_block;
            // What the padding holds says nothing: a crash may have left what stood there before. The ordinal tells.
            if let Found::Frame(header) | Found::Bad(header) = self.look()?
                && self.next_ordinal.is_none_or(|ordinal| ordinal == header.ordinal)
            {
                return Ok(None);
            }
        }
        let mut of_next_group = None;
        let mut candidate = from + FRAME_ALIGN_BYTES as u32;
        while candidate < self.extent.to {
            match self.header_at(candidate, next_block / BLOCK_BYTES as u32)? {
                Some(Belongs::Here) => {
                    self.at = candidate;
                    return Ok(Some(Item::Unreadable { at: from, resumed_at: candidate }));
                }
                Some(Belongs::ToNextGroup) => of_next_group = of_next_group.or(Some(candidate)),
                None => {}
            }
            candidate += FRAME_ALIGN_BYTES as u32;
        }
        let nonzero_at = if self.extent.zeroed { self.first_nonzero(self.group_end)? } else { None };
        let end = self.group_end.next_multiple_of(BLOCK_BYTES as u32).min(self.extent.to);
        self.at = end;
        Ok(Some(Item::End { at: end, unfinished_at: nonzero_at.or(of_next_group) }))
    }

    /// Whether a header stands at `at` that goes on with the group at hand or starts one, or belongs to the group that
    /// starts at `next_block`.
    fn header_at(&mut self, at: u32, next_block: u32) -> io::Result<Option<Belongs>> {
        self.fill(at, HEADER_BYTES)?;
        let bytes = self.bytes_from(at);
        // The group's block is the header's last field: one comparison spares nearly every checksum.
        let Some(group_block) = bytes.get(HEADER_BYTES - 4..HEADER_BYTES).map(|field| frame::u32_at(field, 0)) else {
            return Ok(None);
        };
        let starts_group = at.is_multiple_of(BLOCK_BYTES as u32) && group_block == at / BLOCK_BYTES as u32;
        let goes_on = group_block == self.group_block && group_block != 0;
        let belongs = match (starts_group || goes_on, group_block == next_block) {
            (true, _) => Belongs::Here,
            (false, true) => Belongs::ToNextGroup,
            (false, false) => return Ok(None),
        };
        Ok(frame::decode_header(self.extent.seed, bytes).is_ok().then_some(belongs))
    }

    /// Notes which records of the group at `block` belong to a batch of which one does not verify.
    fn exclude_partial_batches(&mut self, block: u32) -> io::Result<()> {
        let extent = Extent { from: block * BLOCK_BYTES as u32, unfinished_block: 0, ..self.extent };
        // By reference to a trait object, or each scan would instantiate another type of scan.
        let mut group = Scan::new(&self.file as &dyn ReadAt, extent);
        let mut batch: Vec<u64> = Vec::new();
        let mut expected_ordinal = None;
        loop {
            match group.next_item()? {
                Item::Record { header, .. } if header.group_block == block => {
                    if header.starts_batch() || expected_ordinal != Some(header.ordinal) {
                        self.excluded.extend(batch.drain(..));
                        expected_ordinal = header.starts_batch().then_some(header.ordinal);
                    }
                    batch.push(header.ordinal);
                    expected_ordinal = expected_ordinal.map(|ordinal| ordinal + 1);
                    if header.batch_remaining == 0 && expected_ordinal.is_some() {
                        batch.clear();
                        expected_ordinal = None;
                    }
                }
                Item::Record { .. } | Item::End { .. } => {
                    self.excluded.extend(batch);
                    return Ok(());
                }
                Item::BadPayload { .. } | Item::Unreadable { .. } => {}
            }
        }
    }

    fn bytes_from(&self, at: u32) -> &[u8] {
        self.buf.get((at - self.buf_at) as usize..).unwrap_or_default()
    }

    /// Sees to it that `length` bytes at `at` are in the buffer, as far as the extent reaches.
    fn fill(&mut self, at: u32, length: usize) -> io::Result<()> {
        let available = (self.extent.to - at) as usize;
        let length = length.min(available);
        let buffered_end = self.buf_at as usize + self.buf.len();
        if at >= self.buf_at && at as usize + length <= buffered_end {
            return Ok(());
        }
        let read_length = length.max(SCAN_BYTES).min(available);
        self.buf.clear();
        self.buf.resize(read_length, 0);
        self.buf_at = at;
        let mut filled = 0;
        while filled < read_length {
            match self.file.read_at(&mut self.buf[filled..], u64::from(at) + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A file that ends early reads as zeros, as the rest of a segment does.
        Ok(())
    }

    fn first_nonzero(&mut self, from: u32) -> io::Result<Option<u32>> {
        let mut at = from;
        while at < self.extent.to {
            self.fill(at, FRAME_ALIGN_BYTES)?;
            let bytes = self.bytes_from(at);
            if let Some(offset) = bytes.iter().position(|byte| *byte != 0) {
                return Ok(Some(at + offset as u32));
            }
            at += bytes.len() as u32;
        }
        Ok(None)
    }
}
