//! Whether a checkpoint stands between two records of the log.

use crate::state::mark::Mark;
use forebay_wal::{
    position::{Position, segment_start},
    reader::{Event, LaneReader},
    storage::Disk,
};

/// Whether `mark` stands behind the record before its ordinal, in a lane that `reader_at` reads from a place and that ends at
/// `end`. What cannot be read, or is damaged, does not tell: then it is taken for a boundary, and the drain reports the damage.
pub fn is_boundary(reader_at: impl Fn(Position) -> LaneReader<Disk>, mark: Mark, end: Position) -> bool {
    let Mark { position, ordinal } = mark;
    if position >= end || position == segment_start(position.segment) {
        return true;
    }
    match reader_at(position).next_event(end) {
        // Records between may be lost.
        Ok(Some(Event::Record(header))) => header.ordinal >= ordinal,
        Ok(Some(Event::Seal { ordinal: next })) => next >= ordinal,
        Ok(Some(Event::Damaged { .. })) => ends_there(reader_at(segment_start(position.segment)), position, end),
        Ok(None) | Err(_) => true,
    }
}

/// Whether a frame that `reader` returns ends at `position`, or damage before it hides whether one does.
fn ends_there(mut reader: LaneReader<Disk>, position: Position, end: Position) -> bool {
    while reader.position() < position {
        match reader.next_event(end) {
            Ok(Some(Event::Record(_) | Event::Seal { .. })) => {}
            Ok(Some(Event::Damaged { .. }) | None) | Err(_) => return true,
        }
    }
    reader.position() == position
}
