//! Whether a checkpoint, a log and a database belong together: decided without I/O, for the drain and for `forebay
//! checkpoint`.

use super::row::Checkpoint;
use crate::state::{
    database_id::DatabaseId,
    incarnations::LogDirectory,
    mark::{LaneMark, Mark},
    place::Place,
};
use forebay_wal::position::{Position, segment_start};

/// A lane of the log, as a checkpoint is compared with it.
#[derive(Clone, Copy, Debug)]
pub struct LaneView {
    /// The lane's number.
    pub lane: u16,
    /// Where its oldest record is.
    pub oldest: Mark,
    /// How far it was known to be drained.
    pub drained: Mark,
    /// The furthest that a checkpoint of this log can be.
    pub reachable: Mark,
    /// Where the log was forked from another one, which has the records before; `None`: it was not.
    pub forked_at: Option<Mark>,
}

impl LaneView {
    /// The same lane for a checkpoint that nobody has moved past `ends`, one for each lane that there was. `None`: a checkpoint
    /// of the present incarnation.
    #[must_use]
    pub fn within(self, ends: Option<&[LaneMark]>) -> Self {
        let Some(ends) = ends else { return self };
        let before_all = Mark { position: segment_start(1), ordinal: 0 };
        let end = LaneMark::find(ends, self.lane).unwrap_or(before_all);
        let position = self.reachable.position.min(end.position);
        Self { reachable: Mark { position, ordinal: self.reachable.ordinal.min(end.ordinal) }, ..self }
    }

    /// Where it begins for a database that has no checkpoint of the log.
    #[must_use]
    pub fn start(&self) -> Mark {
        self.forked_at.filter(|forked| forked.position > self.oldest.position).unwrap_or(self.oldest)
    }
}

/// Why a checkpoint, a log and a database do not belong together. `docs/runbook.md`, `checkpoint_mismatch`, says for each what
/// to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointMismatch {
    /// The database has no checkpoint, and the log has released records that it did have.
    #[error(
        "the checkpoint's row is gone, so the database went back in time or was emptied, and the log has released the \
         records before record {oldest_ordinal} of lane {lane}"
    )]
    RowMissing {
        /// A lane that has released records.
        lane: u16,
        /// Ordinal of its oldest record.
        oldest_ordinal: u64,
    },
    /// The database has no checkpoint and has messages: somebody deleted the row, or it lost messages of others as well.
    #[error(
        "the checkpoint's row is gone, and the database has messages: those of the log that were delivered, up to record \
         {drained_ordinal} of lane {lane}, may be among them"
    )]
    RowDeleted {
        /// A lane that was drained.
        lane: u16,
        /// Ordinal behind the last record that was.
        drained_ordinal: u64,
    },
    /// The log has no such lane: it is older than the checkpoint, or lost a part.
    #[error("lane {lane}: the checkpoint has it ({position}), the log does not")]
    LaneMissing {
        /// The lane's number in the checkpoint.
        lane: i32,
        /// The checkpoint's position.
        position: Position,
    },
    /// The log is older than the checkpoint, or a copy of it moved the checkpoint.
    #[error(
        "lane {lane}: the checkpoint ({}, record {}) is ahead of the log as this data directory sent it ({}, record {}); if \
         another directory has a copy of the log, `forebay wal fork` gives this one an id of its own",
        mark.position, mark.ordinal, reachable.position, reachable.ordinal
    )]
    AheadOfLog {
        /// The lane.
        lane: u16,
        /// The checkpoint's mark.
        mark: Mark,
        /// The furthest that it can be.
        reachable: Mark,
    },
    /// No record of the log ends where the checkpoint is.
    #[error("lane {lane}: the checkpoint ({}, record {}) is not between two records of the log", mark.position, mark.ordinal)]
    NoBoundary {
        /// The lane.
        lane: u16,
        /// The checkpoint's mark.
        mark: Mark,
    },
    /// This data directory is a copy of another one, or was copied.
    #[error("the checkpoint belongs to another data directory with a copy of this log, {other}")]
    Copied {
        /// The directory that has the checkpoint.
        other: LogDirectory,
    },
    /// The database went back in time to before the log's oldest record.
    #[error(
        "lane {lane}: the checkpoint ({}, record {}) is behind the log's oldest record ({}, record {}): the database went \
         back in time, and the log has released the records between",
        mark.position, mark.ordinal, oldest.position, oldest.ordinal
    )]
    BehindLog {
        /// The lane.
        lane: u16,
        /// The checkpoint's mark.
        mark: Mark,
        /// Where the log's oldest record is.
        oldest: Mark,
    },
    /// The database went back in time to before what the log retains.
    #[error(
        "lane {lane}: the checkpoint ({position}) is behind what was drained and released ({drained}): the database went \
         back in time"
    )]
    BehindReleased {
        /// The lane.
        lane: u16,
        /// The checkpoint's position.
        position: Position,
        /// How far the lane was drained.
        drained: Position,
    },
    /// The log was drained into another database.
    #[error("this is another database: {found}, and the log was drained into {expected}")]
    OtherDatabase {
        /// The database that the log was drained into.
        expected: DatabaseId,
        /// The database that was found.
        found: DatabaseId,
    },
    /// Somebody deleted rows.
    #[error("the checkpoint's row of drainer {drainer} is gone, and that of a later drainer is not")]
    DrainerMissing {
        /// The first drainer without a row.
        drainer: usize,
    },
    /// The database went back in time to when there were other drainers, or somebody deleted rows.
    #[error("the database has {rows} checkpoints of the log, for {drainers} drain connections")]
    RowCount {
        /// Rows of the log in the database.
        rows: usize,
        /// Drainers of this process.
        drainers: usize,
    },
}

impl CheckpointMismatch {
    /// Where the drain loses and repeats least if neither database nor log can be brought back to where it was. `None`: it cannot
    /// continue anywhere before the log has an id of its own.
    #[must_use]
    pub fn choice(&self) -> Option<Place> {
        match self {
            // What the log still has is missing in the database.
            Self::BehindLog { .. } | Self::BehindReleased { .. } => Some(Place::LogOldest),
            Self::Copied { .. } => None,
            _ => Some(Place::Mismatch),
        }
    }
}

/// A checkpoint that fits the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointMatch {
    /// Where each lane continues.
    pub marks: Vec<Mark>,
    /// Indices of the lanes that go back to before what was drained: the database lost it, and the log may still have it.
    pub rewound: Vec<usize>,
}

impl CheckpointMatch {
    /// Compares the checkpoint `row` with the log that has these `lanes`. `is_known` says that the log had a checkpoint before.
    ///
    /// # Errors
    /// [`CheckpointMismatch`] if records are missing on either side.
    pub fn find(row: Option<&Checkpoint>, lanes: &[LaneView], is_known: bool) -> Result<Self, CheckpointMismatch> {
        let mut found = Self { marks: lanes.iter().map(LaneView::start).collect(), rewound: Vec::new() };
        let Some(row) = row else {
            let begins = |lane: &LaneView| lane.forked_at.map_or(0, |forked| forked.ordinal);
            let has_released = |lane: &&LaneView| lane.oldest.ordinal > begins(lane);
            if is_known && let Some(LaneView { lane, oldest, .. }) = lanes.iter().find(has_released) {
                return Err(CheckpointMismatch::RowMissing { lane: *lane, oldest_ordinal: oldest.ordinal });
            }
            let lost = lanes.iter().enumerate().filter(|(_, lane)| lane.drained.ordinal > lane.start().ordinal);
            found.rewound = lost.map(|(index, _)| index).collect();
            return Ok(found);
        };
        for (lane, mark) in row.marks() {
            let Some(index) = lanes.iter().position(|view| i32::from(view.lane) == lane) else {
                return Err(CheckpointMismatch::LaneMissing { lane, position: mark.position });
            };
            let LaneView { lane, oldest, drained, reachable, .. } = lanes[index];
            if mark.position > reachable.position || mark.ordinal > reachable.ordinal {
                return Err(CheckpointMismatch::AheadOfLog { lane, mark, reachable });
            }
            if mark.ordinal < oldest.ordinal && mark.position < oldest.position {
                return Err(CheckpointMismatch::BehindLog { lane, mark, oldest });
            }
            // The ordinal alone may be lower: the next transaction passes over records that are lost.
            if mark.ordinal < drained.ordinal && mark.position < drained.position {
                found.rewound.push(index);
            }
            found.marks[index] = Mark { position: mark.position.max(oldest.position), ordinal: mark.ordinal };
        }
        Ok(found)
    }

    /// For a match without a row: what was drained may be delivered again only into a database that has no message.
    ///
    /// # Errors
    /// [`CheckpointMismatch::RowDeleted`].
    pub fn check_emptied(&self, lanes: &[LaneView], has_messages: bool) -> Result<(), CheckpointMismatch> {
        match self.rewound.first() {
            Some(&index) if has_messages => {
                let LaneView { lane, drained, .. } = lanes[index];
                Err(CheckpointMismatch::RowDeleted { lane, drained_ordinal: drained.ordinal })
            }
            _ => Ok(()),
        }
    }
}

/// Whether the database is the one that the log was drained into, as far as both are known.
///
/// # Errors
/// [`CheckpointMismatch::OtherDatabase`].
pub fn same_database(expected: Option<DatabaseId>, found: Option<DatabaseId>) -> Result<(), CheckpointMismatch> {
    match (expected, found) {
        (Some(expected), Some(found)) if expected != found => {
            Err(CheckpointMismatch::OtherDatabase { expected, found })
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
        LaneView { lane, oldest, drained, reachable: mark(9, 90), forked_at: None }
    }

    #[test]
    fn a_checkpoint_is_followed_where_the_log_has_all_behind_it_and_refused_where_not() {
        let lanes = [view(0, mark(3, 30), mark(5, 50)), view(1, mark(1, 0), mark(1, 0))];
        let find = |marks: &[Mark]| CheckpointMatch::find(Some(&row(marks)), &lanes, true);
        let ahead = find(&[mark(5, 50), mark(4, 40)]).unwrap();
        assert_eq!((ahead.marks, ahead.rewound), (vec![mark(5, 50), mark(4, 40)], vec![]));
        let back = find(&[mark(3, 31), mark(1, 0)]).unwrap();
        assert_eq!((back.marks, back.rewound), (vec![mark(3, 31), mark(1, 0)], vec![0]));
        let mismatch = |marks: &[Mark]| find(marks).unwrap_err();
        let behind = CheckpointMismatch::BehindLog { lane: 0, mark: mark(2, 29), oldest: mark(3, 30) };
        assert_eq!(mismatch(&[mark(2, 29), mark(1, 0)]), behind);
        for ahead in [mark(10, 90), mark(9, 91)] {
            let expected = CheckpointMismatch::AheadOfLog { lane: 0, mark: ahead, reachable: mark(9, 90) };
            assert_eq!(mismatch(&[ahead, mark(1, 0)]), expected);
        }
        let missing = CheckpointMismatch::LaneMissing { lane: 2, position: mark(1, 0).position };
        assert_eq!(mismatch(&[mark(5, 50), mark(1, 0), mark(1, 0)]), missing);
        assert_eq!(
            find(&[mark(5, 50)]).unwrap().marks[1],
            mark(1, 0),
            "a lane without an entry begins with its oldest record"
        );
    }

    #[test]
    fn without_a_row_all_is_delivered_unless_something_is_known_to_be_missing() {
        let whole = [view(0, mark(1, 0), mark(4, 40)), view(1, mark(1, 0), mark(1, 0))];
        let found = CheckpointMatch::find(None, &whole, true).unwrap();
        assert_eq!((&found.marks, &found.rewound), (&vec![mark(1, 0), mark(1, 0)], &vec![0]));
        assert_eq!(found.check_emptied(&whole, false), Ok(()));
        let deleted = CheckpointMismatch::RowDeleted { lane: 0, drained_ordinal: 40 };
        assert_eq!(found.check_emptied(&whole, true), Err(deleted), "they may come twice");
        let cut = [view(0, mark(3, 30), mark(4, 40))];
        let missing = CheckpointMismatch::RowMissing { lane: 0, oldest_ordinal: 30 };
        assert_eq!(CheckpointMatch::find(None, &cut, true), Err(missing));
        assert!(CheckpointMatch::find(None, &cut, false).is_ok(), "nothing is known of an earlier checkpoint");
    }

    #[test]
    fn another_database_is_told_where_both_are_known() {
        let id = |system_identifier| Some(DatabaseId { system_identifier, oid: 5 });
        assert!(same_database(id(1), id(1)).is_ok() && same_database(id(1), None).is_ok());
        assert!(same_database(None, id(1)).is_ok());
        assert!(same_database(id(1), id(2)).unwrap_err().to_string().contains("another database"));
    }
}
