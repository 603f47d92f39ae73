//! Whether a checkpoint stands between two records of the log.

use crate::state::mark::Mark;
use forebay_wal::{
    position::{Position, segment_start},
    reader::{Event, LaneReader},
    storage::Disk,
};

/// Whether `mark` stands between two records, in a lane that `reader_at` reads from a place and that ends at `end`: its ordinal is
/// not lower than the record before it tells, and not higher than the record behind it. Where the records before it cannot be read,
/// or some are damaged, only the record behind it counts. What cannot be read at all is taken for a boundary, and the drain reports
/// the damage.
pub fn is_boundary(reader_at: impl Fn(Position) -> LaneReader<Disk>, mark: Mark, end: Mark) -> bool {
    let Mark { position, ordinal } = mark;
    if position > end.position {
        return true;
    }
    let mut reader = reader_at(position);
    let (next, next_end) = match reader.next_event(end.position) {
        Ok(Some(Event::Record(header))) => (Some(header.ordinal), Some(reader.position())),
        Ok(Some(Event::Seal { ordinal })) => (Some(ordinal), Some(reader.position())),
        Ok(Some(Event::Damaged { .. })) => (None, None),
        Ok(None) => (Some(end.ordinal), None),
        Err(_) => return true,
    };
    if next.is_some_and(|next| ordinal > next) {
        return false;
    }
    let before = Before::read(reader_at(segment_with_records_before(position)), position, end.position);
    // A frame that begins before the mark and ends behind it is not the one that is found at the mark.
    let is_in_frame = before.crossing.is_some() && before.crossing != next_end;
    before.is_damaged || (!is_in_frame && before.next_ordinal.is_none_or(|least| ordinal >= least))
}

/// The start of the segment that has the records before `position`.
fn segment_with_records_before(position: Position) -> Position {
    let is_at_start = position == segment_start(position.segment);
    segment_start(if is_at_start { position.segment.saturating_sub(1).max(1) } else { position.segment })
}

/// What a lane has before a position.
#[derive(Default)]
struct Before {
    /// Ordinal behind the last record; `None` without one.
    next_ordinal: Option<u64>,
    /// Where the frame ends behind which the position was passed, unless a frame ends there.
    crossing: Option<Position>,
    /// Whether a part of it cannot be read.
    is_damaged: bool,
}

impl Before {
    /// Reads with `reader` up to `position`, in a lane that ends at `end`.
    fn read(mut reader: LaneReader<Disk>, position: Position, end: Position) -> Self {
        let mut before = Self::default();
        while reader.position() < position {
            let next_ordinal = match reader.next_event(end) {
                Ok(Some(Event::Record(header))) => header.ordinal + 1,
                Ok(Some(Event::Seal { ordinal })) => ordinal,
                Ok(Some(Event::Damaged { .. })) => {
                    before.is_damaged = true;
                    continue;
                }
                Ok(None) => return before,
                Err(_) => return Self { is_damaged: true, ..before },
            };
            if reader.position() > position {
                before.crossing = Some(reader.position());
            } else {
                before.next_ordinal = Some(next_ordinal);
            }
        }
        before
    }
}
