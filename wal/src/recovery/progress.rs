//! What recovery knows of a lane after the segments that it has read so far.

use super::{FINDINGS_MAX, FoundSegment, segment_scan::SegmentContext};
use crate::{
    finding::Finding,
    frame::FrameHeader,
    limits::BLOCK_BYTES,
    position::{Position, segment_start},
    scan::Item,
};

/// What recovery knows of a lane so far.
#[derive(Clone, Default)]
pub(super) struct Progress {
    pub(super) segments: Vec<FoundSegment>,
    pub(super) findings: Vec<Finding>,
    /// A number that no record has reached.
    pub(super) next_number: u64,
    /// Ordinal of the oldest record, once it is known.
    pub(super) first_ordinal: Option<u64>,
    /// Ordinal behind the last record.
    pub(super) next_ordinal: u64,
    last_number: Option<u64>,
    /// Whether a record follows the last seal.
    pub(super) is_unsealed: bool,
}

/// A finding that is damage, unless it belongs to the segment's unfinished group.
pub(super) struct Suspect {
    /// Block of the finding's group; 0 if it lies between groups.
    pub(super) group_block: u32,
    /// Offset of the finding.
    pub(super) at: u32,
    pub(super) finding: Finding,
}

impl Progress {
    /// Forgets the segments up to `segment`: the drain has released them.
    pub(super) fn forget_through(&mut self, segment: u64) {
        let mut findings = std::mem::take(&mut self.findings);
        findings.retain(|finding| finding.segment().is_none_or(|of| of > segment));
        *self = Self { findings, next_number: self.next_number, ..Self::default() };
    }

    /// Adds a finding, unless there are too many.
    pub(super) fn report(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// Takes in the header of a segment. Records that were durable when it was made are in the earlier segments, or lost.
    pub(super) fn observe_header(&mut self, context: SegmentContext) {
        let Some(header) = context.header.header else { return };
        if self.first_ordinal.is_some() && header.base_ordinal > self.next_ordinal {
            let first_ordinal = std::mem::replace(&mut self.next_ordinal, header.base_ordinal);
            self.report(Finding::Lost {
                records: header.base_ordinal - first_ordinal,
                first_ordinal,
                after_number: self.last_number,
                before_number: Some(header.base_number),
                before: segment_start(context.segment),
            });
        }
    }

    /// Takes in the start of a group. Returns the records that are lost before it, if there are any.
    ///
    /// It counts even if none of the group's records do: it proves that the groups before it were durable.
    pub(super) fn observe_group(&mut self, first: Option<FrameHeader>, at: Position) -> Option<Suspect> {
        let (expected, first) = (self.next_ordinal, first?);
        if self.first_ordinal.is_none() {
            (self.first_ordinal, self.next_ordinal) = (Some(first.ordinal), expected.max(first.ordinal));
        }
        if first.ordinal <= self.next_ordinal {
            return None;
        }
        self.next_ordinal = first.ordinal;
        let finding = Finding::Lost {
            records: first.ordinal - expected,
            first_ordinal: expected,
            after_number: self.last_number,
            before_number: Some(first.number),
            before: at,
        };
        Some(Suspect { group_block: 0, at: at.offset, finding })
    }

    /// Takes in an item of a segment's scan, in the group at `block`. Returns what is wrong with it.
    pub(super) fn observe_item(&mut self, item: Item, segment: u64, block: u32) -> Option<Suspect> {
        let position = |offset| Position { segment, offset };
        // What is before a group's first frame lies between groups.
        let block_of = |at: u32| if at == block * BLOCK_BYTES as u32 { 0 } else { block };
        let (group_block, at, finding) = match item {
            Item::Record { header, at, .. } | Item::Seal { header, at, .. } => {
                self.is_unsealed = !header.is_seal();
                (block_of(at), at, self.observe_frame(&header, position(at))?)
            }
            Item::BadPayload { header, at } => {
                self.is_unsealed = true;
                (block, at, Finding::BadPayload { at: position(at), number: header.number })
            }
            Item::DirtyPadding { at } => (block, at, Finding::DirtyPadding { at: position(at) }),
            Item::CorruptBytes { at, resumed_at } => {
                let finding = Finding::CorruptBytes { at: position(at), resumed_at: position(resumed_at) };
                (block_of(resumed_at), at, finding)
            }
            Item::End { .. } => return None,
        };
        Some(Suspect { group_block, at, finding })
    }

    /// Takes in a frame that verifies. Returns the records that are lost before it, if there are any.
    fn observe_frame(&mut self, header: &FrameHeader, at: Position) -> Option<Finding> {
        let (ordinal, record_count) = (header.ordinal, u64::from(!header.is_seal()));
        let expected = if self.first_ordinal.is_some() { self.next_ordinal } else { ordinal };
        self.first_ordinal.get_or_insert(ordinal);
        self.next_number = self.next_number.max(header.number + record_count);
        let after_number = self.last_number;
        if !header.is_seal() {
            self.last_number = Some(header.number);
        }
        self.next_ordinal = self.next_ordinal.max(ordinal + record_count);
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
