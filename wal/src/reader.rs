//! Reads a lane in order while it is being written. The drain reads the log through it.

use crate::{
    error::LogError,
    frame::{FrameHeader, SegmentSeed},
    layout::Layout,
    limits::{BLOCK_BYTES, SEGMENT_HEADER_BYTES},
    position::{Position, segment_start},
    recovery::RecoveredLane,
    scan::{Extent, Item, ReadAt, Scan, is_bad_sector},
    segment::SegmentHeader,
    storage::Storage,
    tail_cache::TailCache,
};
use std::{io, ops::Range, sync::Arc};

/// What a reader returns, in the order of the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A record. [`LaneReader::payload`] is its payload.
    Record(FrameHeader),
    /// A seal. Records before `ordinal` that were not returned are lost.
    Seal {
        /// Ordinal of the next record.
        ordinal: u64,
    },
    /// Bytes of the segment do not verify, or cannot be read. What follows can be read.
    Damaged {
        /// The segment.
        segment: u64,
        /// Offset of the first byte that is no frame, or of the frame whose payload does not verify.
        at: u32,
        /// Number of the record that is lost, if the frame's header verifies.
        number: Option<u64>,
    },
}

/// Reads one lane, from a position on.
pub struct LaneReader<S: Storage> {
    storage: S,
    layout: Layout,
    log_id: [u8; 16],
    lane: u16,
    position: Position,
    unfinished: Option<UnfinishedGroup>,
    tail_cache: Option<Arc<TailCache>>,
    open_segment: Option<OpenSegment<S::File>>,
}

/// A segment's file, and the lane's tail cache, which may hold its last bytes.
struct CachedFile<F> {
    file: F,
    cache: Option<(Arc<TailCache>, u64)>,
}

impl<F: ReadAt> ReadAt for CachedFile<F> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.cache.as_ref().map_or(0, |(cache, segment)| cache.read(*segment, offset, buf)) {
            0 => self.file.read_at(buf, offset),
            bytes => Ok(bytes),
        }
    }

    fn read_ahead(&self, range: Range<u64>) {
        self.file.read_ahead(range);
    }
}

/// The unfinished group that recovery found in a segment, while no header records it yet.
#[derive(Clone, Copy)]
struct UnfinishedGroup {
    segment: u64,
    block: u32,
}

/// The segment that is being read.
struct OpenSegment<F> {
    segment: u64,
    scan: Scan<CachedFile<F>>,
    length: u32,
    /// How many of the scan's unreadable blocks were returned.
    returned_blocks: usize,
    /// The item that the scan found behind an unreadable block, which had to be returned first.
    deferred_item: Option<Item>,
    /// Whether the lane has moved on to a later segment, so that this one does not grow.
    is_complete: bool,
}

impl<S: Storage> LaneReader<S> {
    /// A reader that starts at `position`: the start of a segment, or a [`position`](Self::position) of a reader.
    #[must_use]
    pub fn new(storage: S, layout: Layout, log_id: [u8; 16], lane: u16, position: Position) -> Self {
        Self { storage, layout, log_id, lane, position, unfinished: None, tail_cache: None, open_segment: None }
    }

    /// The same reader, which reads the lane's last bytes from its tail cache.
    #[must_use]
    pub fn with_tail_cache(mut self, tail_cache: Arc<TailCache>) -> Self {
        self.tail_cache = Some(tail_cache);
        self
    }

    /// A reader of everything that recovery found, up to its [`tail`](RecoveredLane::tail), for a caller that does not
    /// change the log: the disk does not say yet what recovery decided about the last group.
    #[must_use]
    pub fn from_recovery(storage: S, layout: Layout, log_id: [u8; 16], recovered: &RecoveredLane) -> Self {
        let first_segment = recovered.segments.first().map_or(recovered.tail.segment, |found| found.segment);
        Self::new(storage, layout, log_id, recovered.lane, segment_start(first_segment))
            .with_pending_tail(recovered.tail_header)
    }

    /// The same reader, of a lane whose tail's segment is not made yet. `header` is the header that the segment will have:
    /// it records the unfinished group of the segment before.
    #[must_use]
    pub fn with_pending_tail(mut self, header: Option<SegmentHeader>) -> Self {
        self.unfinished = header
            .map(|header| UnfinishedGroup { segment: header.segment - 1, block: header.previous_unfinished_block });
        self
    }

    /// The lane.
    #[must_use]
    pub fn lane(&self) -> u16 {
        self.lane
    }

    /// Position behind the last record. Another reader may start there.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The payload of the record that was returned last.
    ///
    /// # Panics
    /// If the last event was no record.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let Some(open) = &self.open_segment else { unreachable!("the segment of the last record is open") };
        open.scan.payload()
    }

    /// Whether the record that was returned last belongs to a write that never finished. Other records of that write may be
    /// missing.
    #[must_use]
    pub fn in_unfinished_group(&self) -> bool {
        self.open_segment.as_ref().is_some_and(|open| open.scan.in_unfinished_group())
    }

    /// The next event before `end`, the durable end of the lane. `None` if there is none.
    ///
    /// # Errors
    /// [`LogError::Io`]. The next call tries the same bytes again.
    pub fn next_event(&mut self, end: Position) -> Result<Option<Event>, LogError> {
        loop {
            if self.position >= end {
                return Ok(None);
            }
            let segment = self.position.segment;
            if segment < end.segment && self.is_missing() {
                let at = std::mem::replace(&mut self.position, segment_start(segment + 1)).offset;
                return Ok(Some(Event::Damaged { segment, at, number: None }));
            }
            let open = self.open_up_to(end)?;
            let is_complete = open.is_complete;
            let item = match open.deferred_item.take() {
                Some(item) => item,
                None => match open.scan.next_item() {
                    Ok(item) => item,
                    Err(error) => return Err(LogError::io("read", self.layout.segment(self.lane, segment))(error)),
                },
            };
            if let Some(&at) = open.scan.unreadable_blocks().get(open.returned_blocks) {
                open.returned_blocks += 1;
                // The scan finds the end again, and it may be elsewhere by then.
                open.deferred_item = Some(item).filter(|item| !matches!(item, Item::End { .. }));
                return Ok(Some(Event::Damaged { segment, at, number: None }));
            }
            match item {
                Item::Record { header, end, .. } => {
                    self.position = Position { segment, offset: end };
                    return Ok(Some(Event::Record(header)));
                }
                Item::Seal { header, end, .. } => {
                    self.position = Position { segment, offset: end };
                    return Ok(Some(Event::Seal { ordinal: header.ordinal }));
                }
                // Nobody was answered for a write that never finished.
                Item::BadPayload { .. } | Item::CorruptBytes { .. } | Item::DirtyPadding { .. }
                    if open.scan.in_unfinished_group() => {}
                Item::BadPayload { at, header } => {
                    return Ok(Some(Event::Damaged { segment, at, number: Some(header.number) }));
                }
                Item::CorruptBytes { at, .. } | Item::DirtyPadding { at } => {
                    return Ok(Some(Event::Damaged { segment, at, number: None }));
                }
                Item::End { .. } if is_complete => {
                    self.position = segment_start(segment + 1);
                    self.open_segment = None;
                }
                Item::End { .. } => return Ok(None),
            }
        }
    }

    /// Whether the segment at the position is missing and not open. It will not come back, and later segments follow it.
    fn is_missing(&self) -> bool {
        let segment = self.position.segment;
        let is_open = self.open_segment.as_ref().is_some_and(|open| open.segment == segment);
        let open = || self.storage.open(&self.layout.segment(self.lane, segment));
        !is_open && open().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// The segment at the position, with its scan extended to `end`.
    fn open_up_to(&mut self, end: Position) -> Result<&mut OpenSegment<S::File>, LogError> {
        let segment = self.position.segment;
        let is_complete = end.segment > segment;
        let mut open = match self.open_segment.take() {
            Some(open) if open.segment == segment => open,
            _ => self.open(segment, end)?,
        };
        if is_complete && !open.is_complete {
            open.scan.set_unfinished_block(self.unfinished_block(segment)?);
            let end = self.segment_end(segment)?.map_or(open.length, |end| end.min(open.length));
            // A file that was cut shorter than what was durable goes on with zeros, which are reported as far as records are missing.
            open.scan.extend_to(end.max(self.position.offset).max(open.scan.to()));
            open.is_complete = true;
        } else if !is_complete {
            open.scan.extend_to(end.offset);
        }
        Ok(self.open_segment.insert(open))
    }

    fn open(&self, segment: u64, end: Position) -> Result<OpenSegment<S::File>, LogError> {
        let path = self.layout.segment(self.lane, segment);
        let (file, length) = self.storage.open(&path).map_err(LogError::io("open", &path))?;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let extent = Extent {
            seed: SegmentSeed::new(self.log_id, self.lane, segment),
            from: self.position.offset,
            to: if end.segment > segment { self.position.offset } else { end.offset },
            unfinished_block: 0,
            // It only shows the end of an unfinished write, which is recovery's to report.
            zeroed: false,
        };
        let file = CachedFile { file, cache: self.tail_cache.clone().map(|cache| (cache, segment)) };
        let scan = Scan::new(file, extent);
        Ok(OpenSegment { segment, scan, length, returned_blocks: 0, deferred_item: None, is_complete: false })
    }

    /// Offset at which `segment` ends, if the lane gave it up.
    fn segment_end(&self, segment: u64) -> Result<Option<u32>, LogError> {
        let block = self.layout.read_segment_end(&self.storage, self.lane, segment)?;
        Ok(block.map(|block| block.saturating_mul(BLOCK_BYTES as u32)))
    }

    /// The block of the unfinished group of `segment`, from the header of the next segment; 0 if it has none.
    fn unfinished_block(&self, segment: u64) -> Result<u32, LogError> {
        if let Some(unfinished) = self.unfinished.filter(|unfinished| unfinished.segment == segment) {
            return Ok(unfinished.block);
        }
        let path = self.layout.segment(self.lane, segment + 1);
        let file = match self.storage.open(&path) {
            Ok((file, _)) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(LogError::io("open", path)(error)),
        };
        let read = || {
            let mut block = [0; SEGMENT_HEADER_BYTES];
            let length = match file.read_at(&mut block, 0) {
                Err(error) if is_bad_sector(&error) => 0,
                outcome => outcome?,
            };
            // Recovery has reported a header that does not verify. Without it, no record of the segment is excluded.
            let header = SegmentHeader::decode(&block[..length]).ok();
            let identity = (self.log_id, self.lane, segment + 1);
            Ok(header.filter(|header| (header.log_id, header.lane, header.segment) == identity))
        };
        // A read may return wrong bytes once.
        let header = match read() {
            Ok(None) => read(),
            outcome => outcome,
        };
        Ok(header.map_err(LogError::io("read", path))?.map_or(0, |header| header.previous_unfinished_block))
    }
}
