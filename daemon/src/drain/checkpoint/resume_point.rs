//! Where the drain continues after a mismatch: as far as it was, as the data directory and the checkpoint in PostgreSQL tell.
//!
//! What this process drained it knows exactly. `wal/drained`, from before it started, lags behind. A checkpoint tells more if it names
//! one of this directory's earlier incarnations: all that the log had when the next one began was numbered before, so a checkpoint
//! that is further on has passed it. That is so where an older snapshot of the directory was put back.

use super::{boundary::is_boundary, database_state::DatabaseState, log_places::LogPlaces, row::CheckpointRow};
use crate::state::{
    drain_point::DrainPoint,
    mark::{LaneMark, Mark},
};

/// Where the drain continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResumePoint {
    /// The marks of each drainer.
    pub(super) point: DrainPoint,
    /// Records behind it that may be in PostgreSQL already, at most.
    pub(super) doubtful: u64,
}

impl ResumePoint {
    /// How far the drain was, in the database with that `state`; `None`: nothing is known of it.
    pub(super) fn find(log: &LogPlaces, state: &DatabaseState) -> Option<Self> {
        let known = log.mismatch_point.as_ref()?;
        let rows: Vec<&CheckpointRow> = state.rows.iter().map(|(_, row)| row).collect();
        // A drainer whose row is gone may have been behind all others.
        let are_all_there = state.rows.iter().enumerate().all(|(index, (drainer, _))| *drainer == index as i32);
        let proven: Vec<Vec<Option<Mark>>> = match are_all_there {
            true => rows.iter().map(|row| (0..log.lanes.len()).map(|lane| proven(log, row, lane)).collect()).collect(),
            false => Vec::new(),
        };
        let known = known.drainers();
        let drainers: Vec<Vec<Mark>> = if known.len() == proven.len() {
            known.iter().zip(&proven).map(|(known, proven)| later_of_each(known, proven)).collect()
        } else if known.len() == 1 && !proven.is_empty() {
            proven.iter().map(|proven| later_of_each(&known[0], proven)).collect()
        } else {
            // Which partitions a drainer has depends on their number, so only what all of them have passed counts.
            vec![later_of_each(&DrainPoint::new(known.to_vec()).least(), &least(log.lanes.len(), &proven))]
        };
        let point = DrainPoint::new(drainers);
        let doubtful = if log.is_point_exact { 0 } else { doubtful(log, &point, &least(log.lanes.len(), &proven)) };
        Some(Self { point, doubtful })
    }
}

/// How far `row` proves the lane with that index to be drained.
fn proven(log: &LogPlaces, row: &CheckpointRow, index: usize) -> Option<Mark> {
    let named = log.incarnations.named(Some(row.incarnation?))?;
    let lane = log.lanes[index].lane;
    let end = LaneMark::find(&named.end?, lane)?;
    let (_, mark) = row.checkpoint.marks().find(|(of, _)| *of == i32::from(lane))?;
    let is_in_log = mark.ordinal <= end.ordinal
        && (log.lanes[index].oldest.position..=end.position).contains(&mark.position)
        && is_boundary(|position| log.reader_at(index, position), mark, log.ends[index]);
    match (mark.ordinal, mark.position) {
        (ordinal, position) if ordinal >= end.ordinal && position >= end.position => Some(end),
        _ => is_in_log.then_some(mark),
    }
}

/// The least of the marks of each lane, where all are known.
fn least(lanes: usize, of_drainers: &[Vec<Option<Mark>>]) -> Vec<Option<Mark>> {
    let of_lane = |lane: usize| {
        let marks: Option<Vec<Mark>> = of_drainers.iter().map(|marks| marks[lane]).collect();
        marks?.into_iter().min_by_key(|mark| mark.ordinal)
    };
    (0..lanes).map(of_lane).collect()
}

fn later_of_each(known: &[Mark], proven: &[Option<Mark>]) -> Vec<Mark> {
    let later = |(known, proven): (&Mark, &Option<Mark>)| match proven {
        Some(proven) if proven.ordinal > known.ordinal => *proven,
        _ => *known,
    };
    known.iter().zip(proven).map(later).collect()
}

/// Records behind `point` that were in the log when the last incarnation began, in the lanes of which nothing is proven.
fn doubtful(log: &LogPlaces, point: &DrainPoint, proven: &[Option<Mark>]) -> u64 {
    let began = |lane: u16| log.incarnations.list.last().map_or(0, |last| last.records(lane));
    let of_lane = |((view, mark), proven): ((&super::checkpoint_match::LaneView, Mark), &Option<Mark>)| match proven {
        Some(_) => 0,
        None => began(view.lane).saturating_sub(mark.ordinal),
    };
    log.lanes.iter().zip(point.least()).zip(proven).map(of_lane).sum()
}
