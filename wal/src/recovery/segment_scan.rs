//! One segment's part of a recovery: what stands in it, what is missing, whether its last write finished.

use super::{FINDINGS_MAX, FoundSegment, RecordName, Recovery};
use crate::{
    error::LogError,
    finding::Finding,
    frame::{FrameHeader, SegmentSeed},
    limits::{BLOCK_BYTES, SEGMENT_HEADER_BYTES},
    position::{Position, segment_start},
    scan::{Extent, Item, Scan},
    segment::SegmentHeader,
    storage::Storage,
};

/// What was learnt of a lane so far.
#[derive(Clone, Default)]
pub(super) struct Progress {
    pub(super) segments: Vec<FoundSegment>,
    pub(super) findings: Vec<Finding>,
    pub(super) next_number: u64,
    pub(super) first_ordinal: Option<u64>,
    pub(super) next_ordinal: u64,
    last_number: Option<u64>,
    /// Whether something stands behind the last seal.
    pub(super) unsealed: bool,
}

impl Progress {
    /// Forgets what was learnt of the segments up to this one, for it was released, and those before it were too.
    pub(super) fn leave_out_up_to(&mut self, segment: u64) {
        let mut findings = std::mem::take(&mut self.findings);
        findings.retain(|finding| finding.segment().is_none_or(|of| of > segment));
        *self = Self { findings, next_number: self.next_number, ..Self::default() };
    }
}

/// Where a segment's scan ended.
pub(super) struct SegmentEnd {
    pub(super) at: u32,
    pub(super) unfinished: Option<Unfinished>,
}

/// The write that did not finish, in the last segment that was written to.
#[derive(Clone, Copy)]
pub(super) struct Unfinished {
    /// Where what does not verify starts, as far as is known.
    pub(super) at: u32,
    /// Block at which its group starts.
    pub(super) block: u32,
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

/// A segment's header as found.
#[derive(Clone, Copy)]
pub(super) struct FoundHeader {
    /// The header, if its checksum matches and it belongs here.
    pub(super) header: Option<SegmentHeader>,
    /// Whether its block does not verify, or belongs elsewhere.
    pub(super) is_damaged: bool,
}

/// What a segment's scan is to know of its place.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) header: FoundHeader,
    /// Where its unfinished group starts, as the next segment's header says; 0: it has none.
    pub(super) unfinished_block: u32,
    /// Whether it is the last segment that was written to: only there a write may never have finished.
    pub(super) is_tail: bool,
}

impl<S: Storage> Recovery<'_, S> {
    /// Scans a segment; where its last group is found not to have finished, once more with that decided, as every later
    /// reading will.
    pub(super) fn scan_deciding(&mut self, place: Place) -> Result<(FoundSegment, SegmentEnd), LogError> {
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

    pub(super) fn open(&self, place: Place) -> Result<(Scan<S::File>, u64), LogError> {
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
            zeroed: place.header.header.is_some_and(|header| header.zeroed),
        };
        Ok((Scan::new(file, extent), length))
    }

    fn scan(&mut self, place: Place) -> Result<(FoundSegment, SegmentEnd), LogError> {
        let segment = place.segment;
        let path = self.layout.segment(self.lane, segment);
        let (mut scan, length_bytes) = self.open(place)?;
        let damaged = place.header.is_damaged;
        let mut found = FoundSegment { segment, length_bytes, records: 0, range: None, damaged };
        if place.header.header.is_some_and(|header| header.segment_bytes != length_bytes) {
            found.damaged = true;
            self.find(Finding::WrongLength { segment, length_bytes });
        }
        self.note_header(place);
        let mut doubtful = Vec::new();
        let mut open_batch_at = None;
        let (end_at, evidence_at) = loop {
            let item = scan.next_item().map_err(LogError::io("read", path.clone()))?;
            let lost = self
                .note_group(scan.group_first(), Position { segment, offset: scan.group_block() * BLOCK_BYTES as u32 });
            doubtful.extend(lost.filter(|_| doubtful.len() < FINDINGS_MAX));
            if let Item::End { at, unfinished_at } = item {
                break (at, unfinished_at);
            }
            if let Item::Record { header, at, .. } = item {
                found.records += 1;
                let name = RecordName { number: header.number, ordinal: header.ordinal };
                found.range = Some((found.range.map_or(name, |(first, _)| first), name));
                open_batch_at = (header.batch_remaining > 0).then_some(at);
            } else if let Item::Seal { .. } = item {
                // It proves that the batch before it was whole: what is missing from that is damage.
                open_batch_at = None;
            }
            let doubt = self.note(item, segment, scan.group_block());
            doubtful.extend(doubt.filter(|_| doubtful.len() < FINDINGS_MAX));
        };
        let position = |offset| Position { segment, offset };
        let last_block = scan.group_block();
        for &at in scan.holes() {
            found.damaged = true;
            self.find(Finding::ReadFailed { at: position(at) });
        }
        // What cannot be read may have been answered: nothing of its group is excused.
        let is_readable = scan.holes().iter().all(|at| *at < last_block * BLOCK_BYTES as u32);
        let may_be_unfinished = place.is_tail && place.unfinished_block == 0 && is_readable;
        let mut doubt_at = open_batch_at.filter(|_| may_be_unfinished);
        for Doubtful { within_group, at, finding } in doubtful {
            if within_group != 0 && within_group == last_block && may_be_unfinished {
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
            // In the padding of the last group.
            (None, Some(at)) if at < end_at => Some(Unfinished { at, block: last_block, verifies_in_part: true }),
            (None, Some(at)) => Some(Unfinished { at, block: end_at / BLOCK_BYTES as u32, verifies_in_part: false }),
            (None, None) => None,
        };
        // In a segment that the lane went on from, a write was finished, unless recovery cut it.
        if let Some(at) = evidence_at.filter(|_| !place.is_tail && place.unfinished_block == 0) {
            found.damaged = true;
            self.find(match at < end_at {
                true => Finding::DirtyPadding { at: position(at) },
                false => Finding::Unreadable { at: position(at), resumed_at: segment_start(segment + 1) },
            });
        }
        Ok((found, SegmentEnd { at: end_at, unfinished }))
    }

    /// Takes note of what a scan met in the group at `block`; returns what it finds wrong.
    fn note(&mut self, item: Item, segment: u64, block: u32) -> Option<Doubtful> {
        let position = |offset| Position { segment, offset };
        // What stands before a group's first frame lies between groups.
        let within = |at: u32| if at == block * BLOCK_BYTES as u32 { 0 } else { block };
        let (within_group, at, finding) = match item {
            Item::Record { header, at, .. } | Item::Seal { header, at, .. } => {
                self.out.unsealed = !header.is_seal();
                (within(at), at, self.note_frame(&header, position(at))?)
            }
            Item::BadPayload { header, at } => {
                self.out.unsealed = true;
                (block, at, Finding::BadPayload { at: position(at), number: header.number })
            }
            Item::DirtyPadding { at } => (block, at, Finding::DirtyPadding { at: position(at) }),
            Item::Unreadable { at, resumed_at } => {
                let finding = Finding::Unreadable { at: position(at), resumed_at: position(resumed_at) };
                (within(resumed_at), at, finding)
            }
            Item::End { .. } => return None,
        };
        Some(Doubtful { within_group, at, finding })
    }

    /// Takes note of a segment's header: what was durable when it was made stands in the segments before, or is lost.
    fn note_header(&mut self, place: Place) {
        let Some(header) = place.header.header else { return };
        let out = &mut self.out;
        if out.first_ordinal.is_some() && header.base_ordinal > out.next_ordinal {
            let first_ordinal = std::mem::replace(&mut out.next_ordinal, header.base_ordinal);
            let finding = Finding::Lost {
                records: header.base_ordinal - first_ordinal,
                first_ordinal,
                after_number: out.last_number,
                before_number: Some(header.base_number),
                before: segment_start(place.segment),
            };
            self.find(finding);
        }
    }

    /// Takes note of where a group starts; finds whether records before it are lost. Also of a group none of whose records
    /// counts: it proves that those before it were durable.
    fn note_group(&mut self, first: Option<FrameHeader>, at: Position) -> Option<Doubtful> {
        let out = &mut self.out;
        let (expected, first) = (out.next_ordinal, first?);
        if out.first_ordinal.is_none() {
            (out.first_ordinal, out.next_ordinal) = (Some(first.ordinal), expected.max(first.ordinal));
        }
        if first.ordinal <= out.next_ordinal {
            return None;
        }
        out.next_ordinal = first.ordinal;
        let finding = Finding::Lost {
            records: first.ordinal - expected,
            first_ordinal: expected,
            after_number: out.last_number,
            before_number: Some(first.number),
            before: at,
        };
        Some(Doubtful { within_group: 0, at: at.offset, finding })
    }

    /// Takes note of a frame that verified; finds whether records before it are lost.
    fn note_frame(&mut self, header: &FrameHeader, at: Position) -> Option<Finding> {
        let out = &mut self.out;
        let (ordinal, records) = (header.ordinal, u64::from(!header.is_seal()));
        let expected = if out.first_ordinal.is_some() { out.next_ordinal } else { ordinal };
        out.first_ordinal.get_or_insert(ordinal);
        out.next_number = out.next_number.max(header.number + records);
        let after_number = out.last_number;
        if !header.is_seal() {
            out.last_number = Some(header.number);
        }
        out.next_ordinal = out.next_ordinal.max(ordinal + records);
        let lost = ordinal.saturating_sub(expected);
        (lost > 0).then_some(Finding::Lost {
            records: lost,
            first_ordinal: expected,
            after_number,
            before_number: Some(header.number),
            before: at,
        })
    }
}
