//! From the files of a lane to where it goes on: bounded memory, changes nothing by itself, can be run again at any time.
//!
//! What is read is synced first: what a process left in the page cache when it was killed must not be trusted, then lost.
//! A tail that does not verify to the last byte is cut *logically*: its segment is never written again, and the next
//! segment's header records where the unfinished group starts, so that every later reading decides alike.

mod segment_scan;

use crate::{
    error::LogError,
    finding::Finding,
    group::Start,
    layout::Layout,
    limits::SEGMENT_HEADER_BYTES,
    position::{Position, segment_start},
    scan::{Item, ReadAt, is_bad_sector},
    segment::{HeaderError, SegmentHeader, parse_file_name},
    storage::Storage,
};
use segment_scan::{FoundHeader, Place, Progress, SegmentEnd};

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
    /// Whether something proves that all of it was durable: a seal at its end, or the header of the segment to be made.
    pub sealed: bool,
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
            sealed: self.sealed,
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
    /// Whether to sync before trusting, as who goes on with the log does. A look into a log that may be a running daemon's
    /// does not, and leaves out what is released meanwhile.
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
        if numbers.first() == Some(&1) {
            // Nothing was released yet. Of a later first segment nobody knows what ordinals it begins with.
            self.out.first_ordinal = Some(0);
        }
        let headers = self.read_headers(&numbers)?;
        let tail_index = self.tail_index(&numbers, &headers)?;
        let mut tail: Option<(FoundSegment, SegmentEnd)> = None;
        for (index, &segment) in numbers.iter().enumerate() {
            // Behind the last one that was written to, a crash may leave any of those that were ready.
            if index > 0 && tail_index.is_some_and(|tail| index <= tail) {
                let missing = numbers[index - 1] + 1..segment;
                missing.take(FINDINGS_MAX).for_each(|segment| self.find(Finding::SegmentMissing { segment }));
            }
            let next = headers.get(index + 1).and_then(|next| next.header).filter(|next| next.segment == segment + 1);
            let unfinished_block = next.map_or(0, |next| next.previous_unfinished_block);
            let is_tail = Some(index) == tail_index;
            let place = Place { segment, header: headers[index], unfinished_block, is_tail };
            let (found, end) = match self.scan_deciding(place) {
                Err(error) if self.is_released(&error) && !is_tail => {
                    self.out.leave_out_up_to(segment);
                    continue;
                }
                scanned => scanned?,
            };
            self.out.segments.push(found);
            if is_tail {
                tail = Some((found, end));
            }
        }
        Ok(self.finish(&headers, tail))
    }

    /// The last segment that was written to, or the first one if none was.
    fn tail_index(&self, numbers: &[u64], headers: &[FoundHeader]) -> Result<Option<usize>, LogError> {
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

    fn read_headers(&mut self, numbers: &[u64]) -> Result<Vec<FoundHeader>, LogError> {
        let mut headers = Vec::with_capacity(numbers.len());
        for &segment in numbers {
            let header = match self.read_header(segment) {
                // Its scan leaves it out.
                Err(error) if self.is_released(&error) => FoundHeader { header: None, is_damaged: false },
                read => read?,
            };
            if let Some(header) = header.header {
                self.out.next_number = self.out.next_number.max(header.base_number);
            }
            headers.push(header);
        }
        Ok(headers)
    }

    fn read_header(&mut self, segment: u64) -> Result<FoundHeader, LogError> {
        let path = self.layout.segment(self.lane, segment);
        let (file, _) = self.storage.open(&path).map_err(LogError::io("open", &path))?;
        let read = || {
            let mut block = [0; SEGMENT_HEADER_BYTES];
            let outcome = file.read_at(&mut block, 0);
            outcome.map(|length| (SegmentHeader::decode(&block[..length]), SegmentHeader::rest_is_zero(&block)))
        };
        // A read may lie once.
        let outcome = match read() {
            Ok((Ok(header), true)) => Ok((Ok(header), true)),
            _ => read(),
        };
        let (finding, header) = match outcome {
            Ok((Err(HeaderError::FormatTooNew { version }), _)) => {
                return Err(LogError::FormatTooNew { path, version });
            }
            Ok((Err(HeaderError::Invalid), _)) => (Finding::HeaderDamaged { segment }, None),
            Ok((Ok(header), rest_is_zero)) => {
                if (header.log_id, header.lane, header.segment) != (self.options.log_id, self.lane, segment) {
                    (Finding::Misplaced { segment }, None)
                } else if rest_is_zero {
                    return Ok(FoundHeader { header: Some(header), is_damaged: false });
                } else {
                    (Finding::HeaderDamaged { segment }, Some(header))
                }
            }
            Err(error) if is_bad_sector(&error) => (Finding::ReadFailed { at: Position { segment, offset: 0 } }, None),
            Err(error) => return Err(LogError::io("read", path)(error)),
        };
        self.find(finding);
        Ok(FoundHeader { header, is_damaged: true })
    }

    /// Whether an error says that a segment was released since the lane was listed.
    fn is_released(&self, error: &LogError) -> bool {
        !self.options.sync && error.is_not_found()
    }

    fn find(&mut self, finding: Finding) {
        if self.out.findings.len() < FINDINGS_MAX {
            self.out.findings.push(finding);
        }
    }

    fn finish(self, headers: &[FoundHeader], tail: Option<(FoundSegment, SegmentEnd)>) -> RecoveredLane {
        let mut out = self.out;
        let headers = headers.iter().filter_map(|found| found.header);
        let base_ordinal = headers.map(|header| header.base_ordinal).max().unwrap_or(0);
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
            sealed: !out.unsealed || tail_header.is_some(),
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
