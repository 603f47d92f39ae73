//! The segments of one lane, and which of them can be released.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The segments of one lane.
#[derive(Default)]
pub(super) struct LaneSegments {
    segments: BTreeMap<u64, SegmentState>,
    /// Segments below this number are drained.
    drained_below: u64,
    /// Segments from this number on stay until the lane has a later one: they hold the last record that verifies.
    pinned_from: Option<u64>,
}

/// A segment of a lane.
#[derive(Clone, Copy)]
pub(super) struct SegmentState {
    pub(super) length_bytes: u64,
    /// Whether something in the segment does not verify.
    pub(super) is_damaged: bool,
    /// When the segment was drained, if it is retained.
    drained_at: Option<Instant>,
}

impl SegmentState {
    pub(super) fn new(length_bytes: u64, is_damaged: bool) -> Self {
        Self { length_bytes, is_damaged, drained_at: None }
    }
}

impl LaneSegments {
    pub(super) fn get(&self, segment: u64) -> Option<SegmentState> {
        self.segments.get(&segment).copied()
    }

    pub(super) fn insert(&mut self, segment: u64, state: SegmentState) {
        self.segments.insert(segment, state);
    }

    /// Inserts a segment that was just made. It is the one that pinned segments wait for.
    pub(super) fn insert_made(&mut self, segment: u64, state: SegmentState) {
        self.insert(segment, state);
        self.pinned_from = None;
    }

    pub(super) fn remove(&mut self, segment: u64) {
        self.segments.remove(&segment);
    }

    /// Keeps the segments from `segment` on until the lane has a later one.
    pub(super) fn pin_from(&mut self, segment: Option<u64>) {
        self.pinned_from = segment;
    }

    /// Marks a segment as damaged, if the lane has it: the drain also reports segments that are missing.
    pub(super) fn mark_damaged(&mut self, segment: u64) {
        if let Some(state) = self.segments.get_mut(&segment) {
            state.is_damaged = true;
        }
    }

    /// Takes the segments below `before` as drained. With a retention they count as retained from `now` on.
    pub(super) fn mark_drained(&mut self, before: u64, retention: Duration, now: Instant) {
        self.drained_below = self.drained_below.max(before);
        if !retention.is_zero() {
            for (_, state) in self.segments.range_mut(..self.drained_below) {
                state.drained_at.get_or_insert(now);
            }
        }
    }

    /// Takes the segments from `from` on as not drained. Returns whether all of them still exist; if not, nothing changes.
    pub(super) fn revoke_drained(&mut self, from: u64) -> bool {
        if self.segments.first_key_value().is_none_or(|(&first, _)| first > from) {
            return false;
        }
        self.drained_below = self.drained_below.min(from);
        self.segments.range_mut(from..).for_each(|(_, state)| state.drained_at = None);
        true
    }

    /// The oldest segment, if it can be released, and since when it is retained.
    ///
    /// A segment can be released once it is drained, unless recovery needs it. The last segment tells where numbers and
    /// ordinals continue. Behind a write that never finished, the segments with the last record tell so too.
    pub(super) fn oldest_releasable(&self) -> Option<(u64, Option<Instant>)> {
        let (&first, state) = self.segments.first_key_value()?;
        (first < self.releasable_below()).then_some((first, state.drained_at))
    }

    fn releasable_below(&self) -> u64 {
        let last = self.segments.last_key_value().map_or(0, |(&last, _)| last);
        self.drained_below.min(self.pinned_from.unwrap_or(last).min(last))
    }

    /// Bytes of the drained segments that stay only for their retention.
    pub(super) fn retained_bytes(&self) -> u64 {
        self.drained_bytes(true)
    }

    /// Bytes of the drained segments that go as soon as the lane has a later one.
    pub(super) fn superseded_bytes(&self) -> u64 {
        self.drained_bytes(false)
    }

    fn drained_bytes(&self, is_retained: bool) -> u64 {
        let below = self.releasable_below();
        let drained = self.segments.range(..self.drained_below);
        drained
            .filter(|(segment, state)| (**segment < below && state.drained_at.is_some()) == is_retained)
            .map(|(_, state)| state.length_bytes)
            .sum()
    }
}
