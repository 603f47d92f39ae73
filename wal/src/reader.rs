//! Reading a lane in order while it is being written: what the drain stands on.

use crate::{
    error::LogError,
    frame::{FrameHeader, SegmentSeed},
    layout::Layout,
    limits::SEGMENT_HEADER_BYTES,
    position::{Position, segment_start},
    recent::Recent,
    recovery::RecoveredLane,
    scan::{Extent, Item, ReadAt, Scan, is_bad_sector},
    segment::SegmentHeader,
    storage::Storage,
};
use std::{io, ops::Range, sync::Arc};

/// What a reader met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A record; [`LaneReader::payload`] is its payload.
    Record(FrameHeader),
    /// A seal: the next record's ordinal is this one, so that a higher one than expected tells of records lost at the end.
    Sealed {
        /// Ordinal of the next record.
        ordinal: u64,
    },
    /// Something of the segment does not verify, or cannot be read; what follows can.
    Damaged {
        /// The segment.
        segment: u64,
        /// Offset of the first byte that is no frame, or of the frame whose payload does not verify.
        at: u32,
        /// The number of the record that is lost by it, where the frame's header still tells.
        number: Option<u64>,
    },
}

/// Reads one lane from a position on.
pub struct LaneReader<S: Storage> {
    storage: S,
    layout: Layout,
    log_id: [u8; 16],
    lane: u16,
    position: Position,
    cut: Option<Cut>,
    recent: Option<Arc<Recent>>,
    open: Option<Open<S::File>>,
}

/// A segment's file, of which the last bytes may be in memory.
struct Source<F> {
    file: F,
    recent: Option<(Arc<Recent>, u64)>,
}

impl<F: ReadAt> ReadAt for Source<F> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.recent.as_ref().map_or(0, |(recent, segment)| recent.read(*segment, offset, buf)) {
            0 => self.file.read_at(buf, offset),
            bytes => Ok(bytes),
        }
    }

    fn read_ahead(&self, range: Range<u64>) {
        self.file.read_ahead(range);
    }
}

/// A segment whose last group recovery found unfinished, while no header says so yet.
#[derive(Clone, Copy)]
struct Cut {
    segment: u64,
    unfinished_block: u32,
}

struct Open<F> {
    segment: u64,
    scan: Scan<Source<F>>,
    length: u32,
    /// How many of the scan's holes were told.
    holes_told: usize,
    /// What the scan met behind a hole that had to be told first.
    held_back: Option<Item>,
    /// Whether the lane has gone on to another segment, so that this one will not grow.
    sealed: bool,
}

impl<S: Storage> LaneReader<S> {
    /// A reader that starts at `position`: a segment's start, or one that a reader named.
    #[must_use]
    pub fn new(storage: S, layout: Layout, log_id: [u8; 16], lane: u16, position: Position) -> Self {
        Self { storage, layout, log_id, lane, position, cut: None, recent: None, open: None }
    }

    /// Takes what is in memory from there: it is what the lane whose log this is wrote last.
    #[must_use]
    pub fn with_recent(mut self, recent: Arc<Recent>) -> Self {
        self.recent = Some(recent);
        self
    }

    /// A reader of all that recovery found, up to its [`tail`](RecoveredLane::tail), for who changes nothing: what recovery
    /// decided of the last group is not on the disk then.
    #[must_use]
    pub fn of_recovered(storage: S, layout: Layout, log_id: [u8; 16], recovered: &RecoveredLane) -> Self {
        let first_segment = recovered.segments.first().map_or(recovered.tail.segment, |found| found.segment);
        Self::new(storage, layout, log_id, recovered.lane, segment_start(first_segment))
            .with_pending_tail(recovered.tail_header)
    }

    /// The same reader, of a lane whose tail's segment is not made yet: what its header will say of the group before it.
    #[must_use]
    pub fn with_pending_tail(mut self, header: Option<SegmentHeader>) -> Self {
        self.cut = header
            .map(|header| Cut { segment: header.segment - 1, unfinished_block: header.previous_unfinished_block });
        self
    }

    /// The lane.
    #[must_use]
    pub fn lane(&self) -> u16 {
        self.lane
    }

    /// Position behind the last record read; a reader may start there.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The payload of the record last returned.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.open.as_ref().map_or(&[], |open| open.scan.payload())
    }

    /// Whether the record last returned is of a write that never finished: records beside it may be missing.
    #[must_use]
    pub fn in_unfinished_group(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.scan.in_unfinished_group())
    }

    /// The next event before `end`, up to which the lane is durable; `None` when there is none.
    ///
    /// # Errors
    /// [`LogError::Io`]; the same place is tried again with the next call.
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
            let open = self.open_for(end)?;
            let sealed = open.sealed;
            let item = match open.held_back.take() {
                Some(item) => item,
                None => match open.scan.next_item() {
                    Ok(item) => item,
                    Err(error) => return Err(LogError::io("read", self.layout.segment(self.lane, segment))(error)),
                },
            };
            if let Some(&at) = open.scan.holes().get(open.holes_told) {
                open.holes_told += 1;
                // An end is found again, and may lie elsewhere by then.
                open.held_back = Some(item).filter(|item| !matches!(item, Item::End { .. }));
                return Ok(Some(Event::Damaged { segment, at, number: None }));
            }
            match item {
                Item::Record { header, end, .. } => {
                    self.position = Position { segment, offset: end };
                    return Ok(Some(Event::Record(header)));
                }
                Item::Seal { header, end, .. } => {
                    self.position = Position { segment, offset: end };
                    return Ok(Some(Event::Sealed { ordinal: header.ordinal }));
                }
                // No answer was given for what a write that never finished held.
                Item::BadPayload { .. } | Item::Unreadable { .. } | Item::DirtyPadding { .. }
                    if open.scan.in_unfinished_group() => {}
                Item::BadPayload { at, header } => {
                    return Ok(Some(Event::Damaged { segment, at, number: Some(header.number) }));
                }
                Item::Unreadable { at, .. } | Item::DirtyPadding { at } => {
                    return Ok(Some(Event::Damaged { segment, at, number: None }));
                }
                Item::End { .. } if sealed => {
                    self.position = segment_start(segment + 1);
                    self.open = None;
                }
                Item::End { .. } => return Ok(None),
            }
        }
    }

    /// Whether the segment at hand, which is not open yet, is gone: nothing will bring it back, and others wait behind it.
    fn is_missing(&self) -> bool {
        let segment = self.position.segment;
        let is_open = self.open.as_ref().is_some_and(|open| open.segment == segment);
        let open = || self.storage.open(&self.layout.segment(self.lane, segment));
        !is_open && open().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// The scan of the segment at hand, as far as `end` allows.
    fn open_for(&mut self, end: Position) -> Result<&mut Open<S::File>, LogError> {
        let segment = self.position.segment;
        let sealed = end.segment > segment;
        let mut open = match self.open.take() {
            Some(open) if open.segment == segment => open,
            _ => self.open_segment(segment, end)?,
        };
        if sealed && !open.sealed {
            open.scan.set_unfinished_block(self.unfinished_block(segment)?);
            // A file that was cut short behind what was read before has nothing more to give.
            open.scan.extend_to(open.length.max(self.position.offset));
            open.sealed = true;
        } else if !sealed {
            open.scan.extend_to(end.offset);
        }
        Ok(self.open.insert(open))
    }

    fn open_segment(&self, segment: u64, end: Position) -> Result<Open<S::File>, LogError> {
        let path = self.layout.segment(self.lane, segment);
        let (file, length) = self.storage.open(&path).map_err(LogError::io("open", &path))?;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let extent = Extent {
            seed: SegmentSeed::new(self.log_id, self.lane, segment),
            from: self.position.offset,
            to: if end.segment > segment { self.position.offset } else { end.offset },
            unfinished_block: 0,
            // Only the end of an unfinished write shows by it, and that is recovery's to tell.
            zeroed: false,
        };
        let file = Source { file, recent: self.recent.clone().map(|recent| (recent, segment)) };
        Ok(Open { segment, scan: Scan::new(file, extent), length, holes_told: 0, held_back: None, sealed: false })
    }

    /// Where the unfinished group of `segment` starts: the next segment's header says so.
    fn unfinished_block(&self, segment: u64) -> Result<u32, LogError> {
        if let Some(cut) = self.cut.filter(|cut| cut.segment == segment) {
            return Ok(cut.unfinished_block);
        }
        let path = self.layout.segment(self.lane, segment + 1);
        let file = match self.storage.open(&path) {
            Ok((file, _)) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(LogError::io("open", path)(error)),
        };
        let read = || {
            let mut block = [0; SEGMENT_HEADER_BYTES];
            let length = match file.read_at(&mut block, 0) {
                Err(error) if is_bad_sector(&error) => 0,
                outcome => outcome?,
            };
            let header = SegmentHeader::decode(&block[..length]).ok();
            let place = (self.log_id, self.lane, segment + 1);
            Ok(header.filter(|header| (header.log_id, header.lane, header.segment) == place))
        };
        // A read may lie once. A header that does not verify was reported by recovery; the records it would have excluded are
        // delivered.
        let header = match read() {
            Ok(None) => read(),
            outcome => outcome,
        };
        Ok(header.map_err(LogError::io("read", path))?.map_or(0, |header| header.previous_unfinished_block))
    }
}
