//! A place in a lane of the log.

use forebay_wal::position::Position;
use serde::{Deserialize, Serialize};

/// How far a lane is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Everything before this is done.
    pub position: Position,
    /// Ordinal behind the last record that is done.
    pub ordinal: u64,
}

/// A mark with its lane, as files and PostgreSQL hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneMark {
    /// The lane.
    pub lane: u16,
    /// Segment of the position …
    pub segment: u64,
    /// … and its offset in bytes.
    pub offset: u32,
    /// The ordinal.
    pub ordinal: u64,
}

impl LaneMark {
    /// `mark` in `lane`.
    #[must_use]
    pub fn new(lane: u16, mark: Mark) -> Self {
        let Mark { position: Position { segment, offset }, ordinal } = mark;
        Self { lane, segment, offset, ordinal }
    }

    /// Without its lane.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { position: Position { segment: self.segment, offset: self.offset }, ordinal: self.ordinal }
    }

    /// The mark of `lane` among `marks`.
    #[must_use]
    pub fn find(marks: &[Self], lane: u16) -> Option<Mark> {
        marks.iter().find(|mark| mark.lane == lane).map(Self::mark)
    }
}
