//! From the files of a lane to where it goes on: bounded memory, changes nothing by itself, can be run again at any time.
//!
//! What is read is synced first: what a process left in the page cache when it was killed must not be trusted, then lost.
//! A tail that does not verify to the last byte is cut *logically*: its segment is never written again, and the next
//! segment's header records where the unfinished group starts, so that every later reading decides alike.

use crate::{
    error::LogError,
    frame::SegmentSeed,
    group::Start,
    layout::Layout,
    limits::{BLOCK_BYTES, SEGMENT_HEADER_BYTES},
    position::{Position, segment_start},
    scan::{Extent, Item, Scan},
    segment::{HeaderError, SegmentHeader, parse_file_name},
    storage::Storage,
};

/// Findings kept; a wrecked disk must not fill the memory.
const FINDINGS_MAX: usize = 1000;

/// Something an operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Records that were durable are gone.
    Lost {
        /// How many.
        records: u64,
        /// Ordinal of the first.
        first_ordinal: u64,
        /// Number of the last record before them, if one is known.
        after_number: Option<u64>,
        /// Where the next record stands.
        before: Position,
    },
    /// A frame's payload does not verify.
    BadPayload {
        /// Where the frame starts.
        at: Position,
        /// The record's number, which its header vouches for.
        number: u64,
    },
    /// Bytes that are no frame, with records behind them.
    Unreadable {
        /// The first.
        at: Position,
        /// Where reading goes on.
        resumed_at: Position,
    },
    /// The last write did not finish; no answer was given for what it held.
    UnfinishedWrite {
        /// Where what does not verify starts, as far as is known.
        at: Position,
    },
    /// A segment's header does not verify; its records are read all the same.
    HeaderDamaged {
        /// The segment.
        segment: u64,
    },
    /// A segment's header belongs to another place: a copy, or exchanged names.
    Misplaced {
        /// The segment by its name.
        segment: u64,
    },
    /// A file between two others is gone.
    SegmentMissing {
        /// Its number.
        segment: u64,
    },
    /// A name in the lane's directory that the log did not make.
    Stranger {
        /// The name.
        name: String,
    },
}

impl Finding {
    /// Whether answered records may be lost, rather than a write that never was answered.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::UnfinishedWrite { .. } | Self::Stranger { .. })
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost { records, first_ordinal, after_number, before } => {
                let last_ordinal = first_ordinal + records - 1;
                write!(f, "{records} records lost (ordinals {first_ordinal} to {last_ordinal}")?;
                if let Some(number) = after_number {
                    write!(f, ", after number {number}")?;
                }
                write!(f, ") before {before}")
            }
            Self::BadPayload { at, number } => write!(f, "record {number} at {at}: its payload does not verify"),
            Self::Unreadable { at, resumed_at } => write!(f, "bytes from {at} to {resumed_at} are no frames"),
            Self::UnfinishedWrite { at } => write!(f, "the last write did not finish: {at}"),
            Self::HeaderDamaged { segment } => write!(f, "segment {segment}: its header does not verify"),
            Self::Misplaced { segment } => write!(f, "segment {segment}: its header belongs to another segment"),
            Self::SegmentMissing { segment } => write!(f, "segment {segment} is missing"),
            Self::Stranger { name } => write!(f, "{name:?} is no file of the log"),
        }
    }
}

/// A segment's file as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSegment {
    /// Its number.
    pub segment: u64,
    /// Its length in bytes.
    pub length_bytes: u64,
    /// Records in it that verify.
    pub records: u64,
    /// Whether something in it does not verify that was durable: it is set aside after the drain.
    pub damaged: bool,
}

/// What a lane's files say.
#[derive(Clone, Debug)]
pub struct RecoveredLane {
    /// The lane.
    pub lane: u16,
    /// Its segments in order: those with records, the tail's if it exists, those that are ready.
    pub segments: Vec<FoundSegment>,
    /// Where it goes on.
    pub tail: Position,
    /// Whether the tail's segment must first be given a header (it is new, or follows a cut tail).
    pub tail_header: Option<SegmentHeader>,
    /// Ordinal of the oldest record, or of the next one if there is none.
    pub first_ordinal: u64,
    /// Ordinal of the next record.
    pub next_ordinal: u64,
    /// A number that no record reaches.
    pub next_number: u64,
    /// How many of the last segments are ready behind the tail's.
    pub ready_count: usize,
    /// Segments behind these that hold no record and cannot be used as they are.
    pub unused: Vec<FoundSegment>,
    /// What an operator should hear of.
    pub findings: Vec<Finding>,
}

impl RecoveredLane {
    /// The start of the lane's group commit.
    #[must_use]
    pub fn start(&self, log_id: [u8; 16], segment_bytes: u64) -> Start {
        Start { log_id, lane: self.lane, segment_bytes, tail: self.tail, next_ordinal: self.next_ordinal }
    }
}

/// How to recover a lane.
#[derive(Clone, Copy, Debug)]
pub struct RecoverOptions {
    /// The log.
    pub log_id: [u8; 16],
    /// The size of the segments that will be made, in bytes.
    pub segment_bytes: u64,
    /// Whether to sync before trusting; a look into a running daemon's log does not.
    pub sync: bool,
}

/// Reads lane `lane` of the log in `layout`.
///
/// # Errors
/// [`LogError::Io`] when something cannot be read or synced, [`LogError::FormatTooNew`]. Damage is no error: it is among
/// the findings.
pub fn recover_lane<S: Storage>(
    storage: &S,
    layout: &Layout,
    lane: u16,
    options: RecoverOptions,
) -> Result<RecoveredLane, LogError> {
    Recovery { storage, layout, lane, options, out: Progress::default() }.run()
}

#[derive(Default)]
struct Progress {
    segments: Vec<FoundSegment>,
    findings: Vec<Finding>,
    next_number: u64,
    first_ordinal: Option<u64>,
    next_ordinal: u64,
    last_number: Option<u64>,
    /// Ordinals below this may be missing without a loss: their group never finished.
    excused_below: u64,
}

/// Where a segment's scan ended.
struct SegmentEnd {
    at: u32,
    last_group_block: u32,
    unfinished_at: Option<u32>,
}

/// A finding that is damage, unless it lies within the segment's unfinished group.
struct Doubtful {
    /// Block of the group that it lies within; 0: between groups.
    within_group: u32,
    at: u32,
    finding: Finding,
}

struct Recovery<'a, S: Storage> {
    storage: &'a S,
    layout: &'a Layout,
    lane: u16,
    options: RecoverOptions,
    out: Progress,
}

impl<S: Storage> Recovery<'_, S> {
    fn run(mut self) -> Result<RecoveredLane, LogError> {
        let numbers = self.list()?;
        let headers = self.read_headers(&numbers)?;
        let mut tail: Option<(FoundSegment, SegmentEnd)> = None;
        for (index, &segment) in numbers.iter().enumerate() {
            let next = headers.get(index + 1).copied().flatten().filter(|next| next.segment == segment + 1);
            let unfinished_block = next.map_or(0, |next| next.previous_unfinished_block);
            if index > 0 {
                let missing = numbers[index - 1] + 1..segment;
                missing.take(FINDINGS_MAX).for_each(|segment| self.find(Finding::SegmentMissing { segment }));
            }
            let (found, end) = self.scan(segment, headers[index], unfinished_block)?;
            if let Some(next) = next
                && unfinished_block != 0
            {
                self.out.excused_below = next.base_ordinal;
            }
            self.out.segments.push(found);
            if found.records > 0 || end.last_group_block != 0 || end.unfinished_at.is_some() || tail.is_none() {
                tail = Some((found, end));
            }
        }
        Ok(self.finish(&headers, tail))
    }

    fn list(&mut self) -> Result<Vec<u64>, LogError> {
        let dir = self.layout.lane(self.lane);
        let mut numbers = Vec::new();
        for name in self.storage.list(&dir).map_err(LogError::io("list", &dir))? {
            match parse_file_name(&name) {
                Some(segment) if segment <= Position::SEGMENT_MAX => numbers.push(segment),
                _ => self.find(Finding::Stranger { name }),
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read_headers(&mut self, numbers: &[u64]) -> Result<Vec<Option<SegmentHeader>>, LogError> {
        let mut headers = Vec::with_capacity(numbers.len());
        for &segment in numbers {
            let path = self.layout.segment(self.lane, segment);
            let (file, _) = self.storage.open(&path).map_err(LogError::io("open", &path))?;
            let mut block = [0; SEGMENT_HEADER_BYTES];
            let length = crate::scan::ReadAt::read_at(&file, &mut block, 0).map_err(LogError::io("read", &path))?;
            headers.push(match SegmentHeader::decode(&block[..length]) {
                Ok(header) => {
                    let ours =
                        header.log_id == self.options.log_id && header.lane == self.lane && header.segment == segment;
                    if !ours {
                        self.find(Finding::Misplaced { segment });
                    }
                    ours.then_some(header)
                }
                Err(HeaderError::FormatTooNew { version }) => return Err(LogError::FormatTooNew { path, version }),
                Err(HeaderError::Invalid) => {
                    self.find(Finding::HeaderDamaged { segment });
                    None
                }
            });
        }
        for header in headers.iter().flatten() {
            self.out.next_number = self.out.next_number.max(header.base_number);
        }
        Ok(headers)
    }

    fn scan(
        &mut self,
        segment: u64,
        header: Option<SegmentHeader>,
        unfinished_block: u32,
    ) -> Result<(FoundSegment, SegmentEnd), LogError> {
        let path = self.layout.segment(self.lane, segment);
        let (file, length) = self.storage.open(&path).map_err(LogError::io("open", &path))?;
        if self.options.sync {
            self.storage.sync(&file).map_err(LogError::io("sync", &path))?;
        }
        let extent = Extent {
            seed: SegmentSeed::new(self.options.log_id, self.lane, segment),
            from: SEGMENT_HEADER_BYTES as u32,
            to: u32::try_from(length).unwrap_or(u32::MAX),
            unfinished_block,
            zeroed: header.is_some_and(|header| header.zeroed),
        };
        let mut scan = Scan::new(file, extent);
        let mut found = FoundSegment { segment, length_bytes: length, records: 0, damaged: header.is_none() };
        let mut doubtful = Vec::new();
        let mut open_batch_at = None;
        let (at, mut unfinished_at) = loop {
            let position = |offset| Position { segment, offset };
            let (at, finding) = match scan.next_item().map_err(LogError::io("read", &path))? {
                Item::Record { header, at, .. } => {
                    found.records += 1;
                    open_batch_at = (header.batch_remaining > 0).then_some(at);
                    match self.note_record(header.ordinal, header.number, position(at)) {
                        Some(finding) => (at, finding),
                        None => continue,
                    }
                }
                Item::BadPayload { header, at } => {
                    (at, Finding::BadPayload { at: position(at), number: header.number })
                }
                Item::Unreadable { at, resumed_at } => {
                    (resumed_at, Finding::Unreadable { at: position(at), resumed_at: position(resumed_at) })
                }
                Item::End { at, unfinished_at } => break (at, unfinished_at.or(open_batch_at)),
            };
            let block = scan.group_block();
            let within_group = if at == block * BLOCK_BYTES as u32 { 0 } else { block };
            if doubtful.len() < FINDINGS_MAX {
                doubtful.push(Doubtful { within_group, at, finding });
            }
        };
        let last_group_block = scan.group_block();
        for Doubtful { within_group, at, finding } in doubtful {
            let last = unfinished_block == 0 && within_group == last_group_block;
            if within_group != 0 && (last || within_group == unfinished_block) {
                unfinished_at = Some(unfinished_at.map_or(at, |earlier| earlier.min(at)));
            } else {
                found.damaged = true;
                self.find(finding);
            }
        }
        Ok((found, SegmentEnd { at, last_group_block, unfinished_at }))
    }

    /// Takes note of a record that verified; finds whether records before it are lost.
    fn note_record(&mut self, ordinal: u64, number: u64, at: Position) -> Option<Finding> {
        let out = &mut self.out;
        let expected = if out.first_ordinal.is_some() { out.next_ordinal.max(out.excused_below) } else { ordinal };
        out.first_ordinal.get_or_insert(ordinal);
        out.next_number = out.next_number.max(number.saturating_add(1));
        let after_number = out.last_number.replace(number);
        out.next_ordinal = out.next_ordinal.max(ordinal.saturating_add(1));
        let records = ordinal.saturating_sub(expected);
        (records > 0).then_some(Finding::Lost { records, first_ordinal: expected, after_number, before: at })
    }

    fn find(&mut self, finding: Finding) {
        if self.out.findings.len() < FINDINGS_MAX {
            self.out.findings.push(finding);
        }
    }

    fn finish(self, headers: &[Option<SegmentHeader>], tail: Option<(FoundSegment, SegmentEnd)>) -> RecoveredLane {
        let mut out = self.out;
        let base_ordinal = headers.iter().flatten().map(|header| header.base_ordinal).max().unwrap_or(0);
        let next_ordinal = out.next_ordinal.max(base_ordinal);
        // Where it goes on, and if that is a segment yet to be made, what its header says of the one before.
        let (tail, made_after) = match tail {
            None => (segment_start(1), Some(0)),
            Some((found, end)) => match end.unfinished_at {
                // With another segment size, or a damaged header, what stands is read and what comes goes elsewhere.
                None if found.damaged || found.length_bytes != self.options.segment_bytes => {
                    (segment_start(found.segment + 1), Some(0))
                }
                None => (Position { segment: found.segment, offset: end.at }, None),
                Some(offset) => {
                    let at = Position { segment: found.segment, offset };
                    out.findings.push(Finding::UnfinishedWrite { at });
                    // A first group of which nothing verifies has no block; any but 0 says that there was one.
                    let block = end.last_group_block.max((SEGMENT_HEADER_BYTES / BLOCK_BYTES) as u32);
                    (segment_start(found.segment + 1), Some(block))
                }
            },
        };
        let tail_header = made_after.map(|previous_unfinished_block| SegmentHeader {
            log_id: self.options.log_id,
            lane: self.lane,
            segment: tail.segment,
            segment_bytes: self.options.segment_bytes,
            base_number: out.next_number,
            base_ordinal: next_ordinal,
            previous_unfinished_block,
            zeroed: false,
        });
        let behind = out.segments.partition_point(|found| found.segment <= tail.segment);
        let ready_count = match tail_header {
            Some(_) => 0,
            None => ready_count(&out.segments[behind..], tail.segment, self.options.segment_bytes),
        };
        let kept = out.segments.partition_point(|found| found.segment < tail.segment)
            + usize::from(tail_header.is_none())
            + ready_count;
        let unused = out.segments.split_off(kept.min(out.segments.len()));
        RecoveredLane {
            lane: self.lane,
            tail,
            tail_header,
            first_ordinal: out.first_ordinal.unwrap_or(next_ordinal),
            next_ordinal,
            next_number: out.next_number,
            ready_count,
            unused,
            segments: out.segments,
            findings: out.findings,
        }
    }
}

/// How many segments in a row are ready behind the tail's.
fn ready_count(behind: &[FoundSegment], tail_segment: u64, segment_bytes: u64) -> usize {
    let ready = |(index, found): &(usize, &FoundSegment)| {
        found.segment == tail_segment + 1 + *index as u64 && !found.damaged && found.length_bytes == segment_bytes
    };
    behind.iter().enumerate().take_while(ready).count()
}
