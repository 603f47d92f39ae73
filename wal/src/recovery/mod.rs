//! Recovery of a lane: from its files to where it continues. It takes bounded memory, changes nothing, and can be repeated
//! at any time.
//!
//! It syncs every file before it reads it. What a killed process left in the page cache must not count as durable and be
//! lost later.
//!
//! It never cuts a file. If the last write did not finish, the segment is never written again, and the header of the next
//! segment records where the unfinished group starts. So every later reader decides alike.

mod progress;
mod segment_scan;

use crate::{
    error::LogError,
    finding::Finding,
    group::LaneStart,
    layout::Layout,
    limits::SEGMENT_HEADER_BYTES,
    position::{Position, segment_start},
    scan::{Item, ReadAt, is_bad_sector},
    segment::{HeaderError, SegmentHeader, parse_end_name, parse_file_name},
    storage::Storage,
};
use progress::Progress;
use segment_scan::{FoundHeader, SegmentContext, SegmentEnd, SegmentScanner};
use std::collections::BTreeMap;

/// Findings of a lane that are kept. A wrecked disk must not fill the memory.
const FINDINGS_MAX: usize = 1000;

/// The two names of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordName {
    /// The record's log sequence number.
    pub number: u64,
    /// The record's index in its lane, from 0.
    pub ordinal: u64,
}

/// A segment as recovery found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSegment {
    /// The segment's number.
    pub segment: u64,
    /// Length of the file in bytes.
    pub length_bytes: u64,
    /// The number of records that verify.
    pub records: u64,
    /// The first and the last of them.
    pub range: Option<(RecordName, RecordName)>,
    /// Whether something that was durable does not verify. Such a segment is set aside once it is drained.
    pub damaged: bool,
}

/// A lane as its files describe it.
#[derive(Clone, Debug)]
pub struct RecoveredLane {
    /// The lane.
    pub lane: u16,
    /// The segments in order: those with records, the tail's if it exists, and those that are ready.
    pub segments: Vec<FoundSegment>,
    /// Position of the next group.
    pub tail: Position,
    /// The header of the tail's segment, if that segment is still to be made: the lane has none, or cannot continue in its
    /// last one.
    pub tail_header: Option<SegmentHeader>,
    /// Ordinal of the oldest record, or of the next one if there is none.
    pub first_ordinal: u64,
    /// Ordinal of the next record.
    pub next_ordinal: u64,
    /// A number that no record has reached.
    pub next_number: u64,
    /// Whether something proves that everything before the tail was durable: a seal, or the header of the segment to be
    /// made.
    pub is_sealed: bool,
    /// How many segments are ready behind the tail's.
    pub ready_count: usize,
    /// The segments that the lane gave up, and others whose [end](crate::segment::end_name) was left behind.
    pub ended: Vec<u64>,
    /// Further segments, which have no record and cannot be used as they are.
    pub unused: Vec<FoundSegment>,
    /// What the operator should know.
    pub findings: Vec<Finding>,
}

impl RecoveredLane {
    /// Where the lane's group commit starts.
    #[must_use]
    pub fn start(&self, log_id: [u8; 16], segment_bytes: u64) -> LaneStart {
        LaneStart {
            log_id,
            lane: self.lane,
            segment_bytes,
            tail: self.tail,
            next_ordinal: self.next_ordinal,
            pending_tail: self.tail_header,
            is_sealed: self.is_sealed,
        }
    }
}

/// How to recover a lane.
#[derive(Clone, Copy, Debug)]
pub struct RecoverOptions {
    /// The log's id.
    pub log_id: [u8; 16],
    /// Size in bytes of the segments that will be made.
    pub segment_bytes: u64,
    /// Whether to sync files before they are read, as a daemon must that continues the log. A command that only looks into
    /// the log of a daemon, which may be running, does not sync, and leaves out what is released meanwhile.
    pub sync: bool,
}

/// Recovers lane `lane` of the log in `layout`.
///
/// # Errors
/// [`LogError::Io`] if a file cannot be read or synced, [`LogError::FormatTooNew`] if a later release wrote a segment. Damage
/// is no error: it is among the findings.
pub fn recover_lane<S: Storage>(
    storage: &S,
    layout: &Layout,
    lane: u16,
    options: RecoverOptions,
) -> Result<RecoveredLane, LogError> {
    let scanner = SegmentScanner { storage, layout, lane, options };
    Recovery { scanner, progress: Progress::default(), ends: BTreeMap::new() }.run()
}

/// The recovery of one lane.
struct Recovery<'a, S: Storage> {
    scanner: SegmentScanner<'a, S>,
    progress: Progress,
    /// The blocks at which segments end that the lane gave up.
    ends: BTreeMap<u64, u32>,
}

impl<S: Storage> Recovery<'_, S> {
    fn run(mut self) -> Result<RecoveredLane, LogError> {
        let numbers = self.list()?;
        if numbers.first() == Some(&1) {
            // Nothing was released yet. Where the ordinals of a later first segment start, nobody knows.
            self.progress.first_ordinal = Some(0);
        }
        let headers = self.read_headers(&numbers)?;
        let last_ended = self.last_ended(&numbers);
        let tail_index = self.tail_index(&numbers, &headers)?;
        let mut tail: Option<(FoundSegment, SegmentEnd)> = None;
        for (index, &segment) in numbers.iter().enumerate() {
            // Behind the last segment that was written to, a crash may leave any of those that were ready.
            if index > 0 && tail_index.map_or(last_ended.is_some(), |tail| index <= tail) {
                let missing = numbers[index - 1] + 1..segment;
                missing
                    .take(FINDINGS_MAX)
                    .for_each(|segment| self.progress.report(Finding::SegmentMissing { segment }));
            }
            let next = headers.get(index + 1).and_then(|next| next.header).filter(|next| next.segment == segment + 1);
            let unfinished_block = next.map_or(0, |next| next.previous_unfinished_block);
            let is_tail = Some(index) == tail_index;
            let end_block = self.ends.get(&segment).copied();
            let context = SegmentContext { segment, header: headers[index], unfinished_block, end_block, is_tail };
            let (found, end) = match self.scanner.scan(context, &mut self.progress) {
                Err(error) if self.is_released(&error) && !is_tail => {
                    self.progress.forget_through(segment);
                    continue;
                }
                outcome => outcome?,
            };
            self.progress.segments.push(found);
            if end_block.is_some() {
                // Everything before the end was durable when the lane gave the segment up.
                self.progress.is_unsealed = false;
            }
            if is_tail {
                tail = Some((found, end));
            }
        }
        Ok(self.finish(&headers, tail, last_ended))
    }

    /// The last segment that the lane gave up, if there is one.
    fn last_ended(&self, numbers: &[u64]) -> Option<u64> {
        self.ends.keys().rev().copied().find(|segment| numbers.binary_search(segment).is_ok())
    }

    /// The index of the last segment that was written to, or of the first if none was. A segment that the lane gave up is
    /// never written again: the tail is behind it. `None` if no segment is there.
    fn tail_index(&self, numbers: &[u64], headers: &[FoundHeader]) -> Result<Option<usize>, LogError> {
        let first = self.last_ended(numbers).map_or(0, |ended| numbers.partition_point(|segment| *segment <= ended));
        for (index, &segment) in numbers.iter().enumerate().skip(first).rev() {
            let header = headers[index];
            let context = SegmentContext { segment, header, unfinished_block: 0, end_block: None, is_tail: true };
            let (mut scan, _) = self.scanner.open(context)?;
            let path = self.scanner.layout.segment(self.scanner.lane, segment);
            match scan.next_item().map_err(LogError::io("read", path))? {
                Item::End { unfinished_at: None, .. } => {}
                _ => return Ok(Some(index)),
            }
        }
        Ok((first < numbers.len()).then_some(first))
    }

    /// The numbers of the lane's segments, in order.
    fn list(&mut self) -> Result<Vec<u64>, LogError> {
        let dir = self.scanner.layout.lane(self.scanner.lane);
        let mut numbers = Vec::new();
        for name in self.scanner.storage.list(&dir).map_err(LogError::io("list", &dir))? {
            match parse_file_name(&name) {
                Some(segment) if segment <= Position::SEGMENT_MAX => numbers.push(segment),
                _ => match parse_end_name(&name) {
                    Some(segment) => self.read_end(segment)?,
                    None => self.progress.report(Finding::ForeignFile { name }),
                },
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read_end(&mut self, segment: u64) -> Result<(), LogError> {
        let SegmentScanner { storage, layout, lane, .. } = &self.scanner;
        // A running daemon may have released the segment meanwhile.
        if let Some(block) = layout.read_segment_end(*storage, *lane, segment)? {
            self.ends.insert(segment, block);
        }
        Ok(())
    }

    fn read_headers(&mut self, numbers: &[u64]) -> Result<Vec<FoundHeader>, LogError> {
        let mut headers = Vec::with_capacity(numbers.len());
        for &segment in numbers {
            let header = match self.read_header(segment) {
                // The scan leaves this segment out.
                Err(error) if self.is_released(&error) => FoundHeader { header: None, is_damaged: false },
                outcome => outcome?,
            };
            if let Some(header) = header.header {
                self.progress.next_number = self.progress.next_number.max(header.base_number);
            }
            headers.push(header);
        }
        Ok(headers)
    }

    fn read_header(&mut self, segment: u64) -> Result<FoundHeader, LogError> {
        let SegmentScanner { storage, layout, lane, options } = &self.scanner;
        let path = layout.segment(*lane, segment);
        let (file, _) = storage.open(&path).map_err(LogError::io("open", &path))?;
        let read = || {
            let mut block = [0; SEGMENT_HEADER_BYTES];
            let outcome = file.read_at(&mut block, 0);
            outcome.map(|length| (SegmentHeader::decode(&block[..length]), SegmentHeader::is_rest_zero(&block)))
        };
        // A read may return wrong bytes once.
        let outcome = match read() {
            Ok((Ok(header), true)) => Ok((Ok(header), true)),
            _ => read(),
        };
        let (finding, header) = match outcome {
            Ok((Err(HeaderError::FormatTooNew { version }), _)) => {
                return Err(LogError::FormatTooNew { path, version });
            }
            Ok((Err(HeaderError::Invalid), _)) => (Finding::HeaderDamaged { segment }, None),
            Ok((Ok(header), is_rest_zero)) => {
                if (header.log_id, header.lane, header.segment) != (options.log_id, *lane, segment) {
                    (Finding::Misplaced { segment }, None)
                } else if is_rest_zero {
                    return Ok(FoundHeader { header: Some(header), is_damaged: false });
                } else {
                    (Finding::HeaderDamaged { segment }, Some(header))
                }
            }
            Err(error) if is_bad_sector(&error) => (Finding::ReadFailed { at: Position { segment, offset: 0 } }, None),
            Err(error) => return Err(LogError::io("read", path)(error)),
        };
        self.progress.report(finding);
        Ok(FoundHeader { header, is_damaged: true })
    }

    /// Whether an error means that a segment was released since the lane was listed.
    fn is_released(&self, error: &LogError) -> bool {
        !self.scanner.options.sync && error.is_not_found()
    }

    fn finish(
        self,
        headers: &[FoundHeader],
        tail: Option<(FoundSegment, SegmentEnd)>,
        last_ended: Option<u64>,
    ) -> RecoveredLane {
        let Self { scanner, mut progress, ends } = self;
        let RecoverOptions { log_id, segment_bytes, .. } = scanner.options;
        let headers = headers.iter().filter_map(|found| found.header);
        let base_ordinal = headers.map(|header| header.base_ordinal).max().unwrap_or(0);
        let next_ordinal = progress.next_ordinal.max(base_ordinal);
        // Where the lane continues. If that segment is still to be made: the unfinished block of the one before.
        let (tail, previous_unfinished_block) = match tail {
            None => (segment_start(last_ended.map_or(1, |ended| ended + 1)), Some(0)),
            Some((found, end)) => match end.unfinished {
                // A damaged segment, or one of another size, is read and no longer written to.
                None if found.damaged || found.length_bytes != segment_bytes => {
                    (segment_start(found.segment + 1), Some(0))
                }
                None => (Position { segment: found.segment, offset: end.at }, None),
                Some(unfinished) => {
                    let at = Position { segment: found.segment, offset: unfinished.at };
                    progress.findings.push(Finding::UnfinishedWrite { at });
                    (segment_start(found.segment + 1), Some(unfinished.block))
                }
            },
        };
        let tail_header = previous_unfinished_block.map(|previous_unfinished_block| SegmentHeader {
            log_id,
            lane: scanner.lane,
            segment: tail.segment,
            segment_bytes,
            base_number: progress.next_number,
            base_ordinal: next_ordinal,
            previous_unfinished_block,
            zeroed: false,
        });
        let behind = progress.segments.partition_point(|found| found.segment <= tail.segment);
        let ready_count = match tail_header {
            Some(_) => 0,
            None => ready_count(&progress.segments[behind..], tail.segment, segment_bytes),
        };
        let used_count = progress.segments.partition_point(|found| found.segment < tail.segment)
            + usize::from(tail_header.is_none())
            + ready_count;
        // The daemon may have released even the tail since the lane was listed; then it is not among the segments.
        let unused = progress.segments.split_off(used_count.min(progress.segments.len()));
        RecoveredLane {
            lane: scanner.lane,
            tail,
            tail_header,
            is_sealed: !progress.is_unsealed || tail_header.is_some(),
            first_ordinal: progress.first_ordinal.unwrap_or(next_ordinal),
            next_ordinal,
            next_number: progress.next_number,
            ready_count,
            ended: ends.into_keys().collect(),
            unused,
            segments: progress.segments,
            findings: progress.findings,
        }
    }
}

/// How many segments are ready behind the tail's, without a gap.
fn ready_count(behind: &[FoundSegment], tail_segment: u64, segment_bytes: u64) -> usize {
    let ready = |(index, found): &(usize, &FoundSegment)| {
        found.segment == tail_segment + 1 + *index as u64 && !found.damaged && found.length_bytes == segment_bytes
    };
    behind.iter().enumerate().take_while(ready).count()
}
