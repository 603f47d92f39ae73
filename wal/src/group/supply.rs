//! Which segment a lane writes to, which are ready behind it, and which it has requested.

use super::LaneStart;
use crate::{
    frame::SegmentSeed,
    limits::SEGMENTS_AHEAD,
    position::{Position, segment_start},
    segment::SegmentHeader,
};

/// The segments of one lane, by their numbers, which have no gaps.
///
/// Invariant: `first <= current <= current + ready_count <= last_requested`. `assert_order` checks it after each change. The
/// test `segments_are_requested_once_and_become_current_in_order_only_when_they_are_ready` holds it.
pub(super) struct SegmentSupply {
    log_id: [u8; 16],
    lane: u16,
    segment_bytes: u64,
    /// The segment that the lane started in.
    first: u64,
    /// The segment that groups go to.
    current: u64,
    /// Whether the current segment exists. A lane may start on a full disk.
    is_current_ready: bool,
    /// The header of the current segment, until the lane has requested it.
    unrequested_current: Option<SegmentHeader>,
    /// How many segments are ready behind the current one.
    ready_count: u64,
    /// The last segment that the lane has requested, or that was ready without a request.
    last_requested: u64,
}

impl SegmentSupply {
    pub(super) fn new(start: &LaneStart) -> Self {
        Self {
            log_id: start.log_id,
            lane: start.lane,
            segment_bytes: start.segment_bytes,
            first: start.tail.segment,
            current: start.tail.segment,
            is_current_ready: start.pending_tail.is_none(),
            unrequested_current: start.pending_tail,
            ready_count: 0,
            last_requested: start.tail.segment,
        }
    }

    /// Whether the current segment exists.
    pub(super) fn is_current_ready(&self) -> bool {
        self.is_current_ready
    }

    /// How many segments are ready behind the current one.
    pub(super) fn ready_count(&self) -> usize {
        self.ready_count as usize
    }

    /// The seed of the current segment.
    pub(super) fn seed(&self) -> SegmentSeed {
        SegmentSeed::new(self.log_id, self.lane, self.current)
    }

    /// Takes in a ready segment: the current one if it was missing, else the one behind all that are ready.
    pub(super) fn add_ready(&mut self, segment: u64) {
        if self.is_current_ready {
            assert_eq!(segment, self.current + self.ready_count + 1, "segments have no gaps");
            self.ready_count += 1;
            self.last_requested = self.last_requested.max(segment);
        } else {
            assert_eq!(segment, self.current, "the current segment comes first");
            (self.is_current_ready, self.unrequested_current) = (true, None);
        }
        self.assert_order();
    }

    /// Moves on to the next segment, which must be ready. Returns the position of its first group.
    pub(super) fn roll_over(&mut self) -> Position {
        assert!(self.ready_count > 0, "the next segment is ready");
        self.ready_count -= 1;
        self.current += 1;
        self.assert_order();
        segment_start(self.current)
    }

    /// Makes the segment behind `segment` the current one, whether it is ready or not. Nothing was written to it, nor to
    /// those behind it. Returns the position of its first group.
    pub(super) fn continue_behind(&mut self, segment: u64, base_ordinal: u64) -> Position {
        let last_ready = self.current + self.ready_count;
        self.current = segment + 1;
        self.is_current_ready = last_ready >= self.current;
        self.ready_count = last_ready.saturating_sub(self.current);
        if self.last_requested < self.current {
            self.last_requested = self.current;
            self.unrequested_current = Some(self.header(self.current, 0, base_ordinal));
        }
        self.assert_order();
        segment_start(self.current)
    }

    /// The header of a segment that should be made now, if there is one. Each is returned once.
    pub(super) fn take_request(&mut self, base_number: u64, base_ordinal: u64) -> Option<SegmentHeader> {
        let ahead = if self.current == self.first { 1 } else { SEGMENTS_AHEAD as u64 };
        // Every append comes here, and nearly none has a request.
        if self.last_requested >= self.current + ahead && self.unrequested_current.is_none() {
            return None;
        }
        Some(self.make_request(base_number, base_ordinal))
    }

    #[cold]
    fn make_request(&mut self, base_number: u64, base_ordinal: u64) -> SegmentHeader {
        if let Some(current) = self.unrequested_current.take() {
            return SegmentHeader { base_number, ..current };
        }
        self.last_requested += 1;
        self.assert_order();
        self.header(self.last_requested, base_number, base_ordinal)
    }

    fn header(&self, segment: u64, base_number: u64, base_ordinal: u64) -> SegmentHeader {
        SegmentHeader {
            log_id: self.log_id,
            lane: self.lane,
            segment,
            segment_bytes: self.segment_bytes,
            base_number,
            base_ordinal,
            previous_unfinished_block: 0,
            zeroed: false,
        }
    }

    fn assert_order(&self) {
        assert!(
            self.first <= self.current && self.current + self.ready_count <= self.last_requested,
            "segments are requested before they are ready, and ready before they are current"
        );
    }
}
