//! The checkpoint: how far the log is drained, as the row in PostgreSQL says it, and whether that fits the log.

use super::{
    session::{Session, SessionError},
    source::Mark,
};
use crate::shared::LaneProgress;
use forebay_pgwire::{Error, Param};
use forebay_wal::position::Position;
use std::sync::{Arc, atomic::Ordering};

/// The one drainer there is.
pub(super) const DRAINER: i32 = 0;

/// The checkpoint's arrays as they stand in their row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) lanes: Vec<i32>,
    pub(super) positions: Vec<i64>,
    pub(super) ordinals: Vec<i64>,
}

impl Checkpoint {
    /// The row that says `marks`, one for each of `lanes`.
    pub(super) fn of(lanes: &[LaneProgress], marks: &[Mark]) -> Self {
        Self {
            lanes: lanes.iter().map(|lane| lane.lane.lane().into()).collect(),
            positions: marks.iter().map(|mark| mark.position.pack() as i64).collect(),
            ordinals: marks.iter().map(|mark| mark.ordinal as i64).collect(),
        }
    }

    pub(super) fn read(row: &forebay_pgwire::Row) -> Result<Self, Error> {
        Ok(Self { lanes: row.get_i32_array(0)?, positions: row.get_i64_array(1)?, ordinals: row.get_i64_array(2)? })
    }
}

impl Session {
    /// Reads the checkpoint, or makes it if there is none.
    pub(super) async fn read_checkpoint(&mut self) -> Result<(), SessionError> {
        let shared = Arc::clone(&self.shared);
        let key = [Param::Uuid(shared.log_id), Param::I32(DRAINER)];
        let rows = self.conn.query(&self.statements.lock_checkpoint, &key).await?;
        if let Some(row) = rows.first() {
            self.checkpoint = Checkpoint::read(row)?;
            shared.has_checkpoint.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if shared.has_checkpoint.load(Ordering::Relaxed) {
            let what = "the checkpoint's row is gone: this is another database, or one that went back in time";
            return Err(SessionError::Checkpoint(what.to_owned()));
        }
        let marks: Vec<Mark> = shared
            .lanes
            .iter()
            .map(|lane| Mark { position: lane.drained(), ordinal: lane.drained_ordinal() })
            .collect();
        let fresh = Checkpoint::of(&shared.lanes, &marks);
        if marks.iter().any(|mark| mark.ordinal > 0) {
            tracing::warn!("this database knows nothing of the log, of which a part was drained elsewhere before");
        }
        let sql = format!(
            "INSERT INTO {}.drain_checkpoints (log_id, drainer, lanes, positions, ordinals) VALUES ($1, $2, $3, $4, $5)",
            self.schema
        );
        let [log_id, drainer] = key;
        let params = [
            log_id,
            drainer,
            Param::I32Array(&fresh.lanes),
            Param::I64Array(&fresh.positions),
            Param::I64Array(&fresh.ordinals),
        ];
        self.conn.execute_once(&sql, &params).await?;
        shared.has_checkpoint.store(true, Ordering::Relaxed);
        self.checkpoint = fresh;
        Ok(())
    }

    /// Where to begin by what the checkpoint says, and what that makes of dead letters whose transaction ended unseen.
    ///
    /// # Errors
    /// Those of [`marks`](Self::marks), and of PostgreSQL.
    pub async fn begin(&mut self) -> Result<Vec<Mark>, SessionError> {
        let marks = self.marks()?;
        self.settle_letters();
        self.count_dead_letters().await?;
        Ok(marks)
    }

    /// What the checkpoint says of each of the log's lanes.
    ///
    /// # Errors
    /// [`SessionError::Checkpoint`] when it is ahead of the log, or behind its oldest record.
    fn marks(&self) -> Result<Vec<Mark>, SessionError> {
        let refuse = |lane: i32, what: String| Err(SessionError::Checkpoint(format!("lane {lane}: {what}")));
        let mut marks: Vec<Mark> = self
            .shared
            .lanes
            .iter()
            .map(|lane| Mark { position: lane.oldest(), ordinal: lane.oldest_ordinal() })
            .collect();
        let row = &self.checkpoint;
        for ((lane, position), ordinal) in row.lanes.iter().zip(&row.positions).zip(&row.ordinals) {
            let position = Position::unpack(*position as u64);
            let ordinal = *ordinal as u64;
            let Some(index) = self.shared.lanes.iter().position(|progress| i32::from(progress.lane.lane()) == *lane)
            else {
                return refuse(*lane, format!("the checkpoint knows it ({position}), the log does not"));
            };
            let progress = &self.shared.lanes[index];
            // Not the durable end of now: pushes since the start may have lifted a log that went back in time past it.
            let reachable = progress.reachable();
            if position > reachable {
                return refuse(*lane, format!("the checkpoint ({position}) is ahead of the log ({reachable})"));
            }
            if position.segment < progress.released_below() && ordinal < progress.drained_ordinal() {
                let drained = progress.drained();
                return refuse(
                    *lane,
                    format!(
                        "the checkpoint ({position}) is behind what was drained and let go ({drained}): the database went back in time"
                    ),
                );
            }
            if ordinal < progress.oldest_ordinal() && position < progress.oldest() {
                let oldest = progress.oldest();
                return refuse(
                    *lane,
                    format!("the checkpoint ({position}) is behind the log's oldest record ({oldest})"),
                );
            }
            marks[index] = Mark { position: position.max(progress.oldest()), ordinal };
        }
        Ok(marks)
    }

    /// Whether the checkpoint's row says that everything up to `marks` is done: what a COMMIT without an answer came to.
    #[must_use]
    pub fn has_reached(&self, marks: &[Mark]) -> bool {
        self.checkpoint == Checkpoint::of(&self.shared.lanes, marks)
    }

    /// Key of the checkpoint's row.
    pub(super) fn checkpoint_key(&self) -> [Param<'static>; 2] {
        [Param::Uuid(self.shared.log_id), Param::I32(DRAINER)]
    }
}
