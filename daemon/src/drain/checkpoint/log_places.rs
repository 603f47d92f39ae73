//! The places of a log at which the drain can continue.

use super::{
    boundary::is_boundary,
    checkpoint_match::{CheckpointMatch, CheckpointMismatch, LaneView},
    database_state::DatabaseState,
    lane_views::views,
    owner::Owner,
    row::{Checkpoint, CheckpointRow},
};
use crate::state::{
    drain_point::DrainPoint,
    drain_view::DrainView,
    incarnations::{Incarnations, LogDirectory},
    lane_progress::LaneProgress,
    log_identity::LogIdentity,
    log_view::LogView,
    mark::{LaneMark, Mark},
};
use forebay_wal::{
    error::LogError,
    layout::Layout,
    position::{Position, segment_start},
    reader::LaneReader,
    segment::{SegmentHeader, parse_file_name},
    storage::{Disk, Storage},
};
use std::{path::Path, sync::atomic::Ordering};
use uuid::Uuid;

/// A log, as a decision needs it.
pub struct LogPlaces {
    /// Its ids and incarnations. The last one is that of whoever decides.
    pub incarnations: Incarnations,
    /// The data directory, as others are told of it.
    pub directory: LogDirectory,
    /// Its lanes, in order of their numbers.
    pub lanes: Vec<LaneView>,
    /// Behind the newest record of each lane.
    pub ends: Vec<Mark>,
    /// How far the drain was when it found that log and database do not fit, as far as that is known.
    pub mismatch_point: Option<DrainPoint>,
    /// Whether this process drained up to that point, so that it is not what an earlier one wrote down.
    pub is_point_exact: bool,
    /// Whether the log is known to have had a checkpoint.
    pub is_known: bool,
    /// The log's directory.
    pub disk: Disk,
    /// The log's files.
    pub layout: Layout,
    /// The header of each lane's last segment, where that is not made yet.
    pub tail_headers: Vec<Option<SegmentHeader>>,
}

impl LogPlaces {
    /// The log of this daemon, while no drainer is at work.
    ///
    /// # Errors
    /// When a lane's directory or its oldest segment cannot be read.
    pub(crate) fn of(
        log: &LogView,
        drain: &DrainView,
        identity: &LogIdentity,
        layout: &Layout,
    ) -> Result<Self, LogError> {
        let mut lanes = views(log, identity, 0);
        for view in &mut lanes {
            view.oldest = oldest(&log.disk, layout, view.lane)?.unwrap_or(view.oldest);
        }
        // The position first: a record that becomes durable meanwhile is behind it.
        let end = |progress: &LaneProgress| {
            let position = progress.lane.durable_end();
            Mark { position, ordinal: progress.lane.durable_ordinal() }
        };
        Ok(Self {
            incarnations: identity.content(),
            directory: identity.own().clone(),
            lanes,
            ends: log.lanes.iter().map(end).collect(),
            mismatch_point: drain.delivery.mismatch_point(),
            is_point_exact: drain.has_checkpoint.load(Ordering::Relaxed),
            is_known: drain.is_checkpoint_known(),
            disk: log.disk.clone(),
            layout: layout.clone(),
            tail_headers: log.lanes.iter().map(LaneProgress::pending_tail).collect(),
        })
    }

    /// The id under which PostgreSQL knows the log.
    #[must_use]
    pub fn log_id(&self) -> Uuid {
        self.incarnations.log_id
    }

    /// Whoever decides, as the one who has the checkpoints then.
    ///
    /// # Panics
    /// If the directory has no incarnation: whoever decides begins one first.
    #[must_use]
    pub fn owner(&self) -> Owner {
        let Incarnations { origin, log_id, list, .. } = &self.incarnations;
        let Some(present) = list.last() else { unreachable!("whoever decides begins an incarnation first") };
        let directory = self.directory.clone();
        Owner { log_id: *log_id, origin: *origin, directory, incarnation: present.id, incarnations: list.clone() }
    }

    /// The checkpoint at `marks`, one for each lane, that `owner` has after `round`.
    #[must_use]
    pub fn row(&self, owner: &Owner, marks: &[Mark], round: Uuid) -> CheckpointRow {
        let checkpoint = Checkpoint {
            lanes: self.lanes.iter().map(|view| view.lane.into()).collect(),
            positions: marks.iter().map(|mark| mark.position.pack() as i64).collect(),
            ordinals: marks.iter().map(|mark| mark.ordinal as i64).collect(),
        };
        CheckpointRow { checkpoint, incarnation: Some(owner.incarnation), round: Some(round) }
    }

    /// Where each lane ends.
    #[must_use]
    pub fn end_marks(&self) -> Vec<LaneMark> {
        self.lanes.iter().zip(&self.ends).map(|(view, end)| LaneMark::new(view.lane, *end)).collect()
    }

    /// A reader of the lane with that index.
    #[must_use]
    pub fn reader_at(&self, index: usize, position: Position) -> LaneReader<Disk> {
        let (lane, origin) = (self.lanes[index].lane, self.incarnations.origin.into_bytes());
        LaneReader::new(self.disk.clone(), self.layout.clone(), origin, lane, position)
            .with_pending_tail(self.tail_headers[index])
    }

    /// Whether the checkpoints of the log are this data directory's, and not those of one with a copy.
    ///
    /// # Errors
    /// [`CheckpointMismatch::Copied`].
    pub fn judge_owner(&self, database: &DatabaseState) -> Result<(), CheckpointMismatch> {
        let copied = |other: LogDirectory| Err(CheckpointMismatch::Copied { other });
        if let Some(other) = &self.incarnations.copy_of {
            return copied(other.clone());
        }
        match database.rows.iter().find(|(_, row)| self.incarnations.named(row.incarnation).is_none()) {
            Some(_) => copied(database.owner.clone().unwrap_or_else(LogDirectory::unknown)),
            None => Ok(()),
        }
    }

    /// Whether the checkpoints in `database` fit the log, whichever database it is.
    ///
    /// # Errors
    /// [`CheckpointMismatch`] of the first one that does not.
    pub fn judge(&self, database: &DatabaseState) -> Result<(), CheckpointMismatch> {
        self.judge_owner(database)?;
        let rows = &database.rows;
        if rows.is_empty() {
            let found = CheckpointMatch::find(None, &self.lanes, self.is_known)?;
            return found.check_emptied(&self.lanes, database.has_messages);
        }
        if let Some(drainer) = (0..rows.len()).find(|drainer| rows[*drainer].0 != *drainer as i32) {
            return Err(CheckpointMismatch::DrainerMissing { drainer });
        }
        rows.iter().try_for_each(|(_, row)| self.judge_row(row))
    }

    fn judge_row(&self, row: &CheckpointRow) -> Result<(), CheckpointMismatch> {
        let ends = self.incarnations.named(row.incarnation).and_then(|named| named.end);
        let lanes: Vec<LaneView> = self.lanes.iter().map(|view| view.within(ends.as_deref())).collect();
        let found = CheckpointMatch::find(Some(&row.checkpoint), &lanes, true)?;
        for (index, mark) in found.marks.iter().enumerate() {
            if !is_boundary(|position| self.reader_at(index, position), *mark, self.ends[index]) {
                return Err(CheckpointMismatch::NoBoundary { lane: lanes[index].lane, mark: *mark });
            }
        }
        Ok(())
    }
}

/// Where a lane begins on the disk: segments are released while the daemon runs, or retained. `None` without a segment.
fn oldest(disk: &Disk, layout: &Layout, lane: u16) -> Result<Option<Mark>, LogError> {
    let dir = layout.lane(lane);
    let io = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| LogError::Io { action, path, source }
    };
    let names = disk.list(&dir).map_err(io("list", &dir))?;
    let Some(segment) = names.iter().filter_map(|name| parse_file_name(name)).min() else { return Ok(None) };
    let path = layout.segment(lane, segment);
    let block = disk.read_small(&path).map_err(io("read", &path))?;
    // A header that does not verify is damage, which recovery has reported; its segment has no ordinal to begin with.
    let header = SegmentHeader::decode(&block).ok();
    Ok(header.map(|header| Mark { position: segment_start(segment), ordinal: header.base_ordinal }))
}
