//! Recovery of one segment: which records it has, which are lost, and whether its last write finished.

use super::{
    FINDINGS_MAX, FoundSegment, RecordName, RecoverOptions,
    progress::{Progress, Suspect},
};
use crate::{
    error::LogError,
    finding::Finding,
    frame::SegmentSeed,
    layout::Layout,
    limits::{BLOCK_BYTES, SEGMENT_HEADER_BYTES},
    position::{Position, segment_start},
    scan::{Extent, Item, Scan},
    segment::SegmentHeader,
    storage::Storage,
};

/// Where the scan of a segment ended.
pub(super) struct SegmentEnd {
    pub(super) at: u32,
    pub(super) unfinished: Option<UnfinishedGroup>,
}

/// The group of the write that did not finish. Only the last segment that was written to can have one.
#[derive(Clone, Copy)]
pub(super) struct UnfinishedGroup {
    /// Offset of the bytes that do not verify, as far as is known.
    pub(super) at: u32,
    /// Block at which the group starts.
    pub(super) block: u32,
    /// Whether some of the group verifies.
    verifies_in_part: bool,
}

/// The header of a segment as it was found.
#[derive(Clone, Copy)]
pub(super) struct FoundHeader {
    /// The header, if it verifies and belongs to the segment.
    pub(super) header: Option<SegmentHeader>,
    /// Whether the header's block does not verify, or belongs to another segment.
    pub(super) is_damaged: bool,
}

/// What the scan of a segment must know beforehand.
#[derive(Clone, Copy)]
pub(super) struct SegmentContext {
    pub(super) segment: u64,
    pub(super) header: FoundHeader,
    /// Block of the unfinished group, by the header of the next segment; 0 if there is none.
    pub(super) unfinished_block: u32,
    /// Block at which the segment ends, if the lane gave it up.
    pub(super) end_block: Option<u32>,
    /// Whether the segment is the last that was written to. Only there a write may not have finished.
    pub(super) is_tail: bool,
}

/// The result of a scan, before the decision what of it is damage.
struct ScanResult {
    end_at: u32,
    /// Offset behind the last group's frames of a byte that an unfinished write, or damage, left.
    trace_at: Option<u32>,
    /// Offset of the last frame if its batch is not whole.
    open_batch_at: Option<u32>,
    suspects: Vec<Suspect>,
    /// Block of the last group.
    last_block: u32,
    /// Whether every block of the last group could be read.
    is_readable: bool,
}

/// Scans the segments of one lane.
pub(super) struct SegmentScanner<'a, S> {
    pub(super) storage: &'a S,
    pub(super) layout: &'a Layout,
    pub(super) lane: u16,
    pub(super) options: RecoverOptions,
}

impl<S: Storage> SegmentScanner<'_, S> {
    /// Scans a segment. If its last group turns out to be unfinished, scans it once more with that known, as every later
    /// reader will.
    pub(super) fn scan(
        &self,
        context: SegmentContext,
        progress: &mut Progress,
    ) -> Result<(FoundSegment, SegmentEnd), LogError> {
        let before = context.is_tail.then(|| progress.clone());
        let (found, end) = self.scan_once(context, progress)?;
        match (end.unfinished, before) {
            (Some(unfinished), Some(before)) if unfinished.verifies_in_part && context.unfinished_block == 0 => {
                *progress = before;
                let context = SegmentContext { unfinished_block: unfinished.block, ..context };
                let (found, again) = self.scan_once(context, progress)?;
                Ok((found, SegmentEnd { unfinished: end.unfinished, ..again }))
            }
            _ => Ok((found, end)),
        }
    }

    /// Opens a segment. Returns its scan and its length in bytes.
    pub(super) fn open(&self, context: SegmentContext) -> Result<(Scan<S::File>, u64), LogError> {
        let path = self.layout.segment(self.lane, context.segment);
        let (file, length) = self.storage.open(&path).map_err(LogError::io("open", &path))?;
        if self.options.sync {
            self.storage.sync(&file).map_err(LogError::io("sync", &path))?;
        }
        let end = context.end_block.map_or(u32::MAX, |block| block.saturating_mul(BLOCK_BYTES as u32));
        let extent = Extent {
            seed: SegmentSeed::new(self.options.log_id, self.lane, context.segment),
            from: SEGMENT_HEADER_BYTES as u32,
            to: u32::try_from(length).unwrap_or(u32::MAX).min(end),
            unfinished_block: context.unfinished_block,
            zeroed: context.header.header.is_some_and(|header| header.zeroed),
        };
        Ok((Scan::new(file, extent), length))
    }

    fn scan_once(
        &self,
        context: SegmentContext,
        progress: &mut Progress,
    ) -> Result<(FoundSegment, SegmentEnd), LogError> {
        let segment = context.segment;
        let (mut scan, length_bytes) = self.open(context)?;
        let damaged = context.header.is_damaged;
        let mut found = FoundSegment { segment, length_bytes, records: 0, range: None, damaged };
        if context.header.header.is_some_and(|header| header.segment_bytes != length_bytes) {
            found.damaged = true;
            progress.report(Finding::WrongLength { segment, length_bytes });
        }
        progress.observe_header(context);
        let result = self.scan_items(&mut scan, &mut found, progress)?;
        for &offset in scan.unreadable_blocks() {
            found.damaged = true;
            progress.report(Finding::ReadFailed { at: Position { segment, offset } });
        }
        let end_at = result.end_at;
        let unfinished = decide(context, result, &mut found, progress);
        Ok((found, SegmentEnd { at: end_at, unfinished }))
    }

    /// Reads all items of a segment.
    fn scan_items(
        &self,
        scan: &mut Scan<S::File>,
        found: &mut FoundSegment,
        progress: &mut Progress,
    ) -> Result<ScanResult, LogError> {
        let segment = found.segment;
        let mut suspects = Vec::new();
        let mut open_batch_at = None;
        let (end_at, trace_at) = loop {
            let item = match scan.next_item() {
                Ok(item) => item,
                Err(error) => return Err(LogError::io("read", self.layout.segment(self.lane, segment))(error)),
            };
            let group_start = Position { segment, offset: scan.group_block() * BLOCK_BYTES as u32 };
            let lost = progress.observe_group(scan.group_first(), group_start);
            suspects.extend(lost.filter(|_| suspects.len() < FINDINGS_MAX));
            match item {
                Item::End { at, unfinished_at } => break (at, unfinished_at),
                Item::Record { header, at, .. } => {
                    found.records += 1;
                    let name = RecordName { number: header.number, ordinal: header.ordinal };
                    found.range = Some((found.range.map_or(name, |(first, _)| first), name));
                    open_batch_at = (header.batch_remaining > 0).then_some(at);
                }
                // A seal proves that the batch before it was whole: what is missing from it is damage.
                Item::Seal { .. } => open_batch_at = None,
                Item::BadPayload { .. } | Item::DirtyPadding { .. } | Item::CorruptBytes { .. } => {}
            }
            let suspect = progress.observe_item(item, segment, scan.group_block());
            suspects.extend(suspect.filter(|_| suspects.len() < FINDINGS_MAX));
        };
        let last_block = scan.group_block();
        let is_readable = scan.unreadable_blocks().iter().all(|at| *at < last_block * BLOCK_BYTES as u32);
        Ok(ScanResult { end_at, trace_at, open_batch_at, suspects, last_block, is_readable })
    }
}

/// Decides what is damage, which it reports, and what belongs to an unfinished write, which it returns.
fn decide(
    context: SegmentContext,
    result: ScanResult,
    found: &mut FoundSegment,
    progress: &mut Progress,
) -> Option<UnfinishedGroup> {
    let segment = context.segment;
    let ScanResult { end_at, trace_at, open_batch_at, suspects, last_block, is_readable } = result;
    // What cannot be read may have been answered, so its group does not count as unfinished.
    let may_be_unfinished = context.is_tail && context.unfinished_block == 0 && is_readable;
    let mut unfinished_at = open_batch_at.filter(|_| may_be_unfinished);
    for Suspect { group_block, at, finding } in suspects {
        if group_block != 0 && group_block == last_block && may_be_unfinished {
            unfinished_at = Some(unfinished_at.map_or(at, |earlier| earlier.min(at)));
        } else if group_block == 0 || group_block != context.unfinished_block {
            found.damaged = true;
            progress.report(finding);
        }
    }
    if context.is_tail {
        return match (unfinished_at, trace_at) {
            // Recovery has decided so before, and nothing was written since.
            _ if context.unfinished_block != 0 => {
                let at = context.unfinished_block * BLOCK_BYTES as u32;
                Some(UnfinishedGroup { at, block: context.unfinished_block, verifies_in_part: false })
            }
            (Some(at), _) => Some(UnfinishedGroup { at, block: last_block, verifies_in_part: true }),
            // In the padding of the last group.
            (None, Some(at)) if at < end_at => Some(UnfinishedGroup { at, block: last_block, verifies_in_part: true }),
            (None, Some(at)) => {
                Some(UnfinishedGroup { at, block: end_at / BLOCK_BYTES as u32, verifies_in_part: false })
            }
            (None, None) => None,
        };
    }
    // The lane went on from this segment, so its writes finished, unless recovery found one that did not.
    if let Some(offset) = trace_at.filter(|_| context.unfinished_block == 0) {
        let at = Position { segment, offset };
        found.damaged = true;
        progress.report(if offset < end_at {
            Finding::DirtyPadding { at }
        } else {
            Finding::CorruptBytes { at, resumed_at: segment_start(segment + 1) }
        });
    }
    None
}
