//! The log as a drainer reads it: rounds take records from all lanes, in the order of their numbers.
//!
//! A round reads the counter of numbers, **then** each lane's durable end, and takes only records below the counter. Suppose
//! that m2 was sent after m1 was answered, and that m2 is in the round. m2 was numbered before the counter was read, so m1
//! was durable before, so m1 is in this round or in an earlier one. Records with lower numbers that are still in flight were
//! not answered, so nothing was promised about them.

use super::{
    lane_source::{DurableEnd, LaneContext, LaneHistory, LaneSource, TakeError},
    log_record::LogRecord,
    partition_share::PartitionShare,
    snapshot::snapshot,
};
use crate::{
    limits::{ROUND_BYTES_MAX, ROUND_ROWS_FEW_PARTITIONS},
    state::{drain_view::DrainView, log_view::LogView, mark::Mark},
};
use forebay_wal::layout::Layout;
use std::{sync::Arc, time::Duration};

/// A drainer's share of the log.
pub(crate) struct LogSource {
    log: Arc<LogView>,
    drain: Arc<DrainView>,
    layout: Layout,
    share: PartitionShare,
    /// In the order of the log's view, and so are the histories.
    lanes: Vec<LaneSource>,
    histories: Vec<LaneHistory>,
    /// Records of the last round.
    last_count: usize,
}

/// Records that were taken for one round.
pub(crate) struct TakenRecords {
    /// In the order of their numbers.
    pub(crate) records: Vec<LogRecord>,
    /// Whether a limit of the round left records behind.
    pub(crate) is_more_left: bool,
}

impl LogSource {
    /// The records in `share` behind what is known to be drained.
    pub(crate) fn new(log: Arc<LogView>, drain: Arc<DrainView>, layout: Layout, share: PartitionShare) -> Self {
        let marks: Vec<Mark> = log.lanes.iter().map(|lane| lane.drained_by(share.drainer)).collect();
        let histories = marks.iter().map(|_| LaneHistory::default()).collect();
        let mut source = Self { log, drain, layout, share, lanes: Vec::new(), histories, last_count: 0 };
        source.go_to(&marks);
        source
    }

    /// From the next [`go_to`](Self::go_to) on only records in `share` are taken.
    pub(crate) fn set_share(&mut self, share: PartitionShare) {
        self.share = share;
    }

    /// Continues behind `marks`, one for each lane.
    pub(crate) fn go_to(&mut self, marks: &[Mark]) {
        let open = |(index, mark): (usize, &Mark)| LaneSource::open(&self.log, &self.layout, self.share, index, *mark);
        self.lanes = marks.iter().enumerate().map(open).collect();
    }

    /// How far rounds have taken each lane.
    pub(crate) fn marks(&self) -> Vec<Mark> {
        self.lanes.iter().map(LaneSource::mark).collect()
    }

    /// Takes up to `rows_max` records, at most [`ROUND_BYTES_MAX`] bytes of them but at least one, if there is one. A lane
    /// that cannot be read for `patience` is left out.
    pub(crate) fn take(&mut self, rows_max: usize, patience: Duration) -> Result<TakenRecords, TakeError> {
        let durable_ends =
            || -> Vec<DurableEnd> { self.log.lanes.iter().map(|progress| DurableEnd::of(&progress.lane)).collect() };
        let (below, ends) = snapshot(|| self.log.numbers.next(), durable_ends);
        for (index, &end) in ends.iter().enumerate() {
            self.refill(index, end, patience)?;
            self.lanes[index].pass_over();
        }
        if self.lanes.iter().any(LaneSource::is_short) {
            return Ok(TakenRecords { records: Vec::new(), is_more_left: true });
        }
        // Room for as many as the last time. If there are many, room for all that may come: a vector that grows by doubling
        // leaves as much memory behind, which the allocator keeps for a while. Unused room takes no memory.
        let room = if self.last_count >= ROUND_ROWS_FEW_PARTITIONS / 2 { rows_max } else { self.last_count };
        let mut records = Vec::with_capacity(room.min(rows_max));
        let is_more_left = self.take_into(&mut records, (below, &ends), rows_max, patience);
        Ok(TakenRecords { records, is_more_left })
    }

    /// Takes records with a number lower than `below`. Returns whether a limit left some behind.
    fn take_into(
        &mut self,
        records: &mut Vec<LogRecord>,
        (below, ends): (u64, &[DurableEnd]),
        rows_max: usize,
        patience: Duration,
    ) -> bool {
        let mut bytes = 0;
        while let Some((index, next_bytes)) = self.next_lane(below) {
            let is_too_large = bytes + next_bytes > ROUND_BYTES_MAX && !records.is_empty();
            if is_too_large || records.len() == rows_max {
                self.last_count = records.len();
                return true;
            }
            bytes += next_bytes;
            let lane = &mut self.lanes[index];
            records.extend(lane.pop());
            if lane.head().is_none() {
                // The order between lanes is known only while each lane shows its next record. If one cannot, the round ends.
                let refilled = self.refill(index, ends[index], patience);
                if refilled.is_ok() {
                    self.lanes[index].pass_over();
                }
                if refilled.is_err() || self.lanes[index].is_short() {
                    return true;
                }
            }
        }
        self.last_count = records.len();
        records.len() == rows_max || bytes >= ROUND_BYTES_MAX
    }

    /// The lane with the lowest next number below `below`, and the memory that the record takes.
    fn next_lane(&self, below: u64) -> Option<(usize, usize)> {
        let heads = self.lanes.iter().enumerate().filter_map(|(index, lane)| Some((lane.head()?, index)));
        let (head, index) = heads.min_by_key(|(head, _)| head.number()).filter(|(head, _)| head.number() < below)?;
        Some((index, head.held_bytes()))
    }

    fn refill(&mut self, index: usize, end: DurableEnd, patience: Duration) -> Result<(), TakeError> {
        let context = LaneContext { log: &self.log, drain: &self.drain };
        self.lanes[index].refill(context, &mut self.histories[index], end, patience)
    }

    /// Takes back the records of the last rounds, the last round first. `marks` is how far the lanes were taken before it.
    pub(crate) fn put_back(&mut self, records: Vec<LogRecord>, marks: &[Mark]) {
        for record in records.into_iter().rev() {
            self.lanes[record.lane()].put_back(record);
        }
        for (lane, mark) in self.lanes.iter_mut().zip(marks) {
            lane.set_mark(*mark);
        }
    }

    /// When the oldest message that no round has taken was accepted, in microseconds since 1970; 0 if there is none, or none
    /// that can be read at present.
    pub(crate) fn oldest_accepted_us(&mut self) -> u64 {
        let mut oldest = None;
        for index in 0..self.lanes.len() {
            let end = DurableEnd::of(&self.log.lanes[index].lane);
            // The next round reports an error.
            if self.refill(index, end, Duration::MAX).is_err() {
                continue;
            }
            if let Some(message) = self.lanes[index].head().and_then(LogRecord::message) {
                let accepted_us = message.accepted_us().max(0) as u64;
                oldest = Some(oldest.map_or(accepted_us, |oldest: u64| oldest.min(accepted_us)));
            }
        }
        oldest.unwrap_or(0)
    }
}
