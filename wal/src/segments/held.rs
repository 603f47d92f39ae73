//! What a lane has of segments, and which of them nothing is to be known by any more.

use std::{collections::BTreeMap, time::Instant};

/// What a lane has.
#[derive(Default)]
pub(super) struct Held {
    pub(super) segments: BTreeMap<u64, HeldSegment>,
    /// Segments below this one were drained.
    pub(super) drained_below: u64,
    /// The segments from this one on stay until there is a newer one: here stands the last record that verifies.
    pub(super) kept_from: Option<u64>,
}

/// A segment that a lane has.
#[derive(Clone, Copy)]
pub(super) struct HeldSegment {
    pub(super) length_bytes: u64,
    pub(super) damaged: bool,
    /// When it was drained, if it is retained.
    pub(super) drained_at: Option<Instant>,
}

impl Held {
    /// The oldest segment and since when it is retained, if it was drained and nothing is to be known by it any more. Where
    /// numbers and ordinals go on stands in the last segment's header and records, and behind a write that never finished in
    /// the records before it.
    pub(super) fn dispensable(&self) -> Option<(u64, Option<Instant>)> {
        let (&first, held) = self.segments.first_key_value()?;
        (first < self.dispensable_below()).then_some((first, held.drained_at))
    }

    fn dispensable_below(&self) -> u64 {
        let last = self.segments.last_key_value().map_or(0, |(&last, _)| last);
        self.drained_below.min(self.kept_from.unwrap_or(last).min(last))
    }

    /// Bytes of drained segments; `retained`: of those that are kept for the time that was asked for, else of those that go
    /// as soon as there is a newer one.
    pub(super) fn drained_bytes(&self, retained: bool) -> u64 {
        let below = self.dispensable_below();
        let is_retained = |segment: u64, held: &HeldSegment| segment < below && held.drained_at.is_some();
        let drained = self.segments.range(..self.drained_below);
        drained
            .filter(|(segment, held)| is_retained(**segment, held) == retained)
            .map(|(_, held)| held.length_bytes)
            .sum()
    }
}
