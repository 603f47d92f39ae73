//! A place in a lane of the log.

use forebay_wal::position::Position;

/// How far a lane is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Everything before this is done.
    pub position: Position,
    /// Ordinal behind the last record that is done.
    pub ordinal: u64,
}
