//! From the files of a lane to where it goes on: bounded memory, changes nothing by itself, can be run again at any time.
//!
//! What is read is synced first: what a process left in the page cache when it was killed must not be trusted, then lost.
//! A tail that does not verify to the last byte is cut *logically*: its segment is never written again, and the next
//! segment's header records where the unfinished group starts, so that every later reading decides alike.

use crate::{
    error::LogError,
    finding::Finding,
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

/// What names a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordName {
    /// Its log sequence number.
    pub number: u64,
    /// Which record of its lane it is, counted from 0.
    pub ordinal: u64,
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
    /// The first and the last of them.
    pub range: Option<(RecordName, RecordName)>,
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
    /// The header of the tail's segment, if that is still to be made (it is new, or follows a cut tail).
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
        Start {
            log_id,
            lane: self.lane,
            segment_bytes,
            tail: self.tail,
            next_ordinal: self.next_ordinal,
            pending_tail: self.tail_header,
        }
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

#[derive(Clone, Default)]
struct Progress {
    segments: Vec<FoundSegment>,
    findings: Vec<Finding>,
    next_number: u64,
    first_ordinal: Option<u64>,
    next_ordinal: u64,
    last_number: Option<u64>,
}

/// Where a segment's scan ended.
struct SegmentEnd {
    at: u32,
    unfinished: Option<Unfinished>,
}

/// The write that did not finish, in the last segment that was written to.
#[derive(Clone, Copy)]
struct Unfinished {
    /// Where what does not verify starts, as far as is known.
    at: u32,
    /// Block at which its group starts.
    block: u32,
    /// Whether something of the group verifies.
    verifies_in_part: bool,
}

/// A finding that is damage, unless it lies within the segment's unfinished group.
struct Doubtful {
    /// Block of the group that it lies within; 0: between groups.
    within_group: u32,
    at: u32,
    finding: Finding,
}

/// What a segment's scan is to know of its place.
#[derive(Clone, Copy)]
struct Place {
    segment: u64,
    header: Option<SegmentHeader>,
    /// Where its unfinished group starts, as the next segment's header says; 0: it has none.
    unfinished_block: u32,
    /// Whether it is the last segment that was written to: only there a write may never have finished.
    is_tail: bool,
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
        let tail_index = self.tail_index(&numbers, &headers)?;
        let mut tail: Option<(FoundSegment, SegmentEnd)> = None;
        for (index, &segment) in numbers.iter().enumerate() {
            // Behind the last one that was written to, a crash may leave any of those that were ready.
            if index > 0 && tail_index.is_some_and(|tail| index <= tail) {
                let missing = numbers[index - 1] + 1..segment;
                missing.take(FINDINGS_MAX).for_each(|segment| self.find(Finding::SegmentMissing { segment }));
            }
            let next = headers.get(index + 1).copied().flatten().filter(|next| next.segment == segment + 1);
            let unfinished_block = next.map_or(0, |next| next.previous_unfinished_block);
            let is_tail = Some(index) == tail_index;
            let place = Place { segment, header: headers[index], unfinished_block, is_tail };
            let (found, end) = self.scan_deciding(place)?;
            self.out.segments.push(found);
            if is_tail {
                tail = Some((found, end));
            }
        }
        Ok(self.finish(&headers, tail))
    }

    /// The last segment that was written to, or the first one if none was.
    fn tail_index(&self, numbers: &[u64], headers: &[Option<SegmentHeader>]) -> Result<Option<usize>, LogError> {
        for (index, &segment) in numbers.iter().enumerate().rev() {
            let place = Place { segment, header: headers[index], unfinished_block: 0, is_tail: true };
            let (mut scan, _) = self.open(place)?;
            let path = self.layout.segment(self.lane, segment);
            match scan.next_item().map_err(LogError::io("read", path))? {
                Item::End { unfinished_at: None, .. } => {}
                _ => return Ok(Some(index)),
            }
        }
        Ok((!numbers.is_empty()).then_some(0))
    }

    /// Scans a segment; where its last group is found not to have finished, once more with that decided, as every later
    /// reading will.
    fn scan_deciding(&mut self, place: Place) -> Result<(FoundSegment, SegmentEnd), LogError> {
        let before = place.is_tail.then(|| self.out.clone());
        let (found, end) = self.scan(place)?;
        match (end.unfinished, before) {
            (Some(unfinished), Some(before)) if unfinished.verifies_in_part && place.unfinished_block == 0 => {
                self.out = before;
                let (found, again) = self.scan(Place { unfinished_block: unfinished.block, ..place })?;
                Ok((found, SegmentEnd { unfinished: end.unfinished, ..again }))
            }
            _ => Ok((found, end)),
        }
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

    fn open(&self, place: Place) -> Result<(Scan<S::File>, u64), LogError> {
        let path = self.layout.segment(self.lane, place.segment);
        let (file, length) = self.storage.open(&path).map_err(LogError::io("open", &path))?;
        if self.options.sync {
            self.storage.sync(&file).map_err(LogError::io("sync", &path))?;
        }
        let extent = Extent {
            seed: SegmentSeed::new(self.options.log_id, self.lane, place.segment),
            from: SEGMENT_HEADER_BYTES as u32,
            to: u32::try_from(length).unwrap_or(u32::MAX),
            unfinished_block: place.unfinished_block,
            zeroed: place.header.is_some_and(|header| header.zeroed),
        };
        Ok((Scan::new(file, extent), length))
    }

    fn scan(&mut self, place: Place) -> Result<(FoundSegment, SegmentEnd), LogError> {
        let segment = place.segment;
        let path = self.layout.segment(self.lane, segment);
        let (mut scan, length_bytes) = self.open(place)?;
        let damaged = place.header.is_none();
        let mut found = FoundSegment { segment, length_bytes, records: 0, range: None, damaged };
        let mut doubtful = Vec::new();
        let mut open_batch_at = None;
        let position = |offset| Position { segment, offset };
        let (end_at, evidence_at) = loop {
            let item = scan.next_item().map_err(LogError::io("read", path.clone()))?;
            let block = scan.group_block();
            // What stands before a group's first frame lies between groups.
            let within = |at: u32| if at == block * BLOCK_BYTES as u32 { 0 } else { block };
            let (within_group, at, finding) = match item {
                Item::Record { header, at, .. } => {
                    found.records += 1;
                    let name = RecordName { number: header.number, ordinal: header.ordinal };
                    found.range = Some((found.range.map_or(name, |(first, _)| first), name));
                    open_batch_at = (header.batch_remaining > 0).then_some(at);
                    match self.note_record(header.ordinal, header.number, position(at)) {
                        Some(finding) => (within(at), at, finding),
                        None => continue,
                    }
                }
                Item::BadPayload { header, at } => {
                    (block, at, Finding::BadPayload { at: position(at), number: header.number })
                }
                Item::Unreadable { at, resumed_at } => {
                    let finding = Finding::Unreadable { at: position(at), resumed_at: position(resumed_at) };
                    (within(resumed_at), at, finding)
                }
                Item::End { at, unfinished_at } => break (at, unfinished_at),
            };
            if doubtful.len() < FINDINGS_MAX {
                doubtful.push(Doubtful { within_group, at, finding });
            }
        };
        let last_block = scan.group_block();
        let mut doubt_at = open_batch_at;
        for Doubtful { within_group, at, finding } in doubtful {
            let undecided = place.is_tail && place.unfinished_block == 0 && within_group == last_block;
            if within_group != 0 && undecided {
                doubt_at = Some(doubt_at.map_or(at, |earlier| earlier.min(at)));
            } else if within_group == 0 || within_group != place.unfinished_block {
                found.damaged = true;
                self.find(finding);
            }
        }
        let unfinished = match (doubt_at, evidence_at) {
            _ if !place.is_tail => None,
            // Cut before, and nothing was written since: the same again.
            _ if place.unfinished_block != 0 => {
                let at = place.unfinished_block * BLOCK_BYTES as u32;
                Some(Unfinished { at, block: place.unfinished_block, verifies_in_part: false })
            }
            (Some(at), _) => Some(Unfinished { at, block: last_block, verifies_in_part: true }),
            (None, Some(at)) => Some(Unfinished { at, block: end_at / BLOCK_BYTES as u32, verifies_in_part: false }),
            (None, None) => None,
        };
        // In a segment that the lane went on from, a write was finished, unless recovery cut it.
        if let Some(at) = evidence_at.filter(|_| !place.is_tail && place.unfinished_block == 0) {
            found.damaged = true;
            self.find(Finding::Unreadable { at: position(at), resumed_at: segment_start(segment + 1) });
        }
        Ok((found, SegmentEnd { at: end_at, unfinished }))
    }

    /// Takes note of a record that verified; finds whether records before it are lost.
    fn note_record(&mut self, ordinal: u64, number: u64, at: Position) -> Option<Finding> {
        let out = &mut self.out;
        let expected = if out.first_ordinal.is_some() { out.next_ordinal } else { ordinal };
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
            Some((found, end)) => match end.unfinished {
                // With another segment size, or a damaged header, what stands is read and what comes goes elsewhere.
                None if found.damaged || found.length_bytes != self.options.segment_bytes => {
                    (segment_start(found.segment + 1), Some(0))
                }
                None => (Position { segment: found.segment, offset: end.at }, None),
                Some(unfinished) => {
                    let at = Position { segment: found.segment, offset: unfinished.at };
                    out.findings.push(Finding::UnfinishedWrite { at });
                    (segment_start(found.segment + 1), Some(unfinished.block))
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
