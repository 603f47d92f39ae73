//! A position in a lane.

/// A position in a lane: a segment and an offset in it. Positions are ordered as the lane was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment's number, from 1.
    pub segment: u64,
    /// The offset in the segment's file, in bytes.
    pub offset: u32,
}

impl Position {
    /// The largest segment number that a packed position holds. At one segment a second it lasts 68 years.
    pub const SEGMENT_MAX: u64 = i32::MAX as u64;

    /// Packs the position into one word, which keeps the order. It is not negative as an `i64`, which is PostgreSQL's
    /// `bigint`.
    ///
    /// # Panics
    /// If the segment's number is above [`SEGMENT_MAX`](Self::SEGMENT_MAX).
    #[must_use]
    pub fn pack(self) -> u64 {
        assert!(self.segment <= Self::SEGMENT_MAX, "segment number {} is beyond the format", self.segment);
        self.segment << 32 | u64::from(self.offset)
    }

    /// The position that [`pack`](Self::pack) packed into `packed`.
    #[must_use]
    pub fn unpack(packed: u64) -> Self {
        Self { segment: packed >> 32, offset: packed as u32 }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment {} offset {}", self.segment, self.offset)
    }
}

/// The position of a segment's first group.
#[must_use]
pub fn segment_start(segment: u64) -> Position {
    Position { segment, offset: crate::limits::SEGMENT_HEADER_BYTES as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_positions_are_ordered_as_positions_are() {
        let positions = [(1, 4096), (1, u32::MAX), (2, 0), (Position::SEGMENT_MAX, 1)];
        let positions = positions.map(|(segment, offset)| Position { segment, offset });
        assert!(positions.is_sorted());
        assert!(positions.map(Position::pack).is_sorted());
        assert!(positions.iter().all(|p| Position::unpack(p.pack()) == *p && p.pack() <= i64::MAX as u64));
    }
}
