//! Whether a checkpoint and a log belong together: without I/O, for the drain and for whoever is asked to decide.

use super::checkpoint::Checkpoint;
use crate::state::{database_id::DatabaseId, mark::Mark};
use forebay_wal::position::Position;

/// What is known of a lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneView {
    /// The lane.
    pub lane: u16,
    /// Where its oldest record stands.
    pub oldest: Mark,
    /// How far it was known to be drained.
    pub drained: Mark,
    /// How far a checkpoint of this log can be.
    pub reachable: Position,
}

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// One for each lane.
    pub marks: Vec<Mark>,
    /// Indices of the lanes that go back behind what was drained: the database has lost it, and the log may have it still.
    pub back: Vec<usize>,
}

/// Judges the checkpoint `row` of the log with these `lanes`; `is_known` says that it had one.
///
/// # Errors
/// In words: what does not fit.
pub fn judge(row: Option<&Checkpoint>, lanes: &[LaneView], is_known: bool) -> Result<Judgement, String> {
    let mut judgement = Judgement { marks: lanes.iter().map(|lane| lane.oldest).collect(), back: Vec::new() };
    let Some(row) = row else {
        if is_known && let Some(lane) = lanes.iter().find(|lane| lane.oldest.ordinal > 0) {
            return Err(format!(
                "the checkpoint's row is gone, so the database went back in time, or was emptied; the log has let go of \
                 what came before record {} of lane {}",
                lane.oldest.ordinal, lane.lane
            ));
        }
        let gone = lanes.iter().enumerate().filter(|(_, lane)| lane.drained.ordinal > lane.oldest.ordinal);
        judgement.back = gone.map(|(index, _)| index).collect();
        return Ok(judgement);
    };
    for ((lane, position), ordinal) in row.lanes.iter().zip(&row.positions).zip(&row.ordinals) {
        let mark = Mark { position: Position::unpack(*position as u64), ordinal: *ordinal as u64 };
        let Some(index) = lanes.iter().position(|view| i32::from(view.lane) == *lane) else {
            return Err(format!("lane {lane}: the checkpoint knows it ({}), the log does not", mark.position));
        };
        let view = &lanes[index];
        if mark.position > view.reachable {
            return Err(format!(
                "lane {lane}: the checkpoint ({}) is ahead of the log ({})",
                mark.position, view.reachable
            ));
        }
        if mark.ordinal < view.oldest.ordinal && mark.position < view.oldest.position {
            return Err(format!(
                "lane {lane}: the checkpoint ({}, record {}) is behind the log's oldest record ({}, record {}): the \
                 database went back in time, and the log has let go of what came between",
                mark.position, mark.ordinal, view.oldest.position, view.oldest.ordinal
            ));
        }
        // The ordinal alone may lag: records that are lost are passed over with the next transaction.
        if mark.ordinal < view.drained.ordinal && mark.position < view.drained.position {
            judgement.back.push(index);
        }
        judgement.marks[index] = Mark { position: mark.position.max(view.oldest.position), ordinal: mark.ordinal };
    }
    Ok(judgement)
}

/// Whether the database is the one that the log was drained into, as far as both are known.
///
/// # Errors
/// In words: which it is, and which it should be.
pub fn same_database(expected: Option<DatabaseId>, found: Option<DatabaseId>) -> Result<(), String> {
    match (expected, found) {
        (Some(expected), Some(found)) if expected != found => {
            Err(format!("this is another database: {found}, and the log was drained into {expected}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(segment: u64, ordinal: u64) -> Mark {
        Mark { position: Position { segment, offset: 4096 }, ordinal }
    }

    fn row(marks: &[Mark]) -> Checkpoint {
        Checkpoint {
            lanes: (0..marks.len() as i32).collect(),
            positions: marks.iter().map(|mark| mark.position.pack() as i64).collect(),
            ordinals: marks.iter().map(|mark| mark.ordinal as i64).collect(),
        }
    }

    fn view(lane: u16, oldest: Mark, drained: Mark) -> LaneView {
        LaneView { lane, oldest, drained, reachable: mark(9, 0).position }
    }

    #[test]
    fn a_checkpoint_is_followed_where_the_log_has_all_behind_it_and_refused_where_not() {
        let lanes = [view(0, mark(3, 30), mark(5, 50)), view(1, mark(1, 0), mark(1, 0))];
        let judged = |marks: &[Mark]| judge(Some(&row(marks)), &lanes, true);
        let ahead = judged(&[mark(5, 50), mark(4, 40)]).unwrap();
        assert_eq!((ahead.marks, ahead.back), (vec![mark(5, 50), mark(4, 40)], vec![]));
        let back = judged(&[mark(3, 31), mark(1, 0)]).unwrap();
        assert_eq!((back.marks, back.back), (vec![mark(3, 31), mark(1, 0)], vec![0]));
        assert!(judged(&[mark(2, 29), mark(1, 0)]).unwrap_err().contains("behind the log's oldest record"));
        assert!(judged(&[mark(10, 90), mark(1, 0)]).unwrap_err().contains("ahead of the log"));
        assert!(judged(&[mark(5, 50), mark(1, 0), mark(1, 0)]).unwrap_err().contains("lane 2"));
        // A lane that the row does not know begins with its oldest record.
        assert_eq!(judged(&[mark(5, 50)]).unwrap().marks[1], mark(1, 0));
    }

    #[test]
    fn without_a_row_all_is_delivered_unless_something_is_known_to_be_missing() {
        let whole = [view(0, mark(1, 0), mark(4, 40)), view(1, mark(1, 0), mark(1, 0))];
        let judgement = judge(None, &whole, true).unwrap();
        assert_eq!((judgement.marks, judgement.back), (vec![mark(1, 0), mark(1, 0)], vec![0]));
        let cut = [view(0, mark(3, 30), mark(4, 40))];
        assert!(judge(None, &cut, true).unwrap_err().contains("record 30 of lane 0"));
        assert!(judge(None, &cut, false).is_ok(), "nothing is known of an earlier one");
    }

    #[test]
    fn another_database_is_told_where_both_are_known() {
        let id = |system_identifier| Some(DatabaseId { system_identifier, oid: 5 });
        assert!(same_database(id(1), id(1)).is_ok() && same_database(id(1), None).is_ok());
        assert!(same_database(None, id(1)).is_ok());
        assert!(same_database(id(1), id(2)).unwrap_err().contains("another database"));
    }
}
