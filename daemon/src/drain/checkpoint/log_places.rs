//! The places of a log at which the drain can continue.

use super::{
    checkpoint_match::{CheckpointMatch, CheckpointMismatch, LaneView},
    database_state::DatabaseState,
    lane_views::views,
};
use crate::state::{
    drain_point::DrainPoint, drain_view::DrainView, lane_progress::LaneProgress, log_view::LogView, mark::Mark,
};
use forebay_wal::{
    error::LogError,
    layout::Layout,
    position::segment_start,
    segment::{SegmentHeader, parse_file_name},
    storage::{Disk, Storage},
};
use std::path::Path;

/// A log, as a decision needs it.
pub struct LogPlaces {
    /// The log's id.
    pub id: [u8; 16],
    /// Its lanes, in order of their numbers.
    pub lanes: Vec<LaneView>,
    /// Behind the newest record of each lane.
    pub ends: Vec<Mark>,
    /// How far the drain was when it found that log and database do not fit, as far as that is known.
    pub mismatch_point: Option<DrainPoint>,
    /// Whether the log is known to have had a checkpoint.
    pub is_known: bool,
}

impl LogPlaces {
    /// The log of this daemon, while no drainer is at work.
    ///
    /// # Errors
    /// When a lane's directory or its oldest segment cannot be read.
    pub(crate) fn of(log: &LogView, drain: &DrainView, layout: &Layout) -> Result<Self, LogError> {
        let mut lanes = views(log, 0);
        for view in &mut lanes {
            view.oldest = oldest(layout, view.lane)?.unwrap_or(view.oldest);
        }
        // The position first: a record that becomes durable meanwhile is behind it.
        let end = |progress: &LaneProgress| {
            let position = progress.lane.durable_end();
            Mark { position, ordinal: progress.lane.durable_ordinal() }
        };
        Ok(Self {
            id: log.id,
            lanes,
            ends: log.lanes.iter().map(end).collect(),
            mismatch_point: drain.delivery.mismatch_point(),
            is_known: drain.is_checkpoint_known(),
        })
    }

    /// Whether the checkpoints in `database` fit the log, whichever database it is.
    ///
    /// # Errors
    /// [`CheckpointMismatch`] of the first one that does not.
    pub fn judge(&self, database: &DatabaseState) -> Result<(), CheckpointMismatch> {
        let rows = &database.rows;
        if rows.is_empty() {
            let found = CheckpointMatch::find(None, &self.lanes, self.is_known)?;
            return found.check_emptied(&self.lanes, database.has_messages);
        }
        if let Some(drainer) = (0..rows.len()).find(|drainer| rows[*drainer].0 != *drainer as i32) {
            return Err(CheckpointMismatch::DrainerMissing { drainer });
        }
        rows.iter().try_for_each(|(_, row)| CheckpointMatch::find(Some(row), &self.lanes, true).map(drop))
    }
}

/// Where a lane begins on the disk: segments are released while the daemon runs, or retained. `None` without a segment.
fn oldest(layout: &Layout, lane: u16) -> Result<Option<Mark>, LogError> {
    let dir = layout.lane(lane);
    let io = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| LogError::Io { action, path, source }
    };
    let names = Disk.list(&dir).map_err(io("list", &dir))?;
    let Some(segment) = names.iter().filter_map(|name| parse_file_name(name)).min() else { return Ok(None) };
    let path = layout.segment(lane, segment);
    let block = Disk.read_small(&path).map_err(io("read", &path))?;
    // A header that does not verify is damage, which recovery has reported; its segment has no ordinal to begin with.
    let header = SegmentHeader::decode(&block).ok();
    Ok(header.map(|header| Mark { position: segment_start(segment), ordinal: header.base_ordinal }))
}
