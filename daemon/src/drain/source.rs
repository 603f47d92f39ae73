//! What a round takes from the log: all lanes, in the order of their numbers.
//!
//! A round reads the counter of numbers, **then** each lane's durable end, and takes records below the counter only. If m2
//! was sent after m1 was answered and m2 is in the round, m2 was numbered before the counter was read, so m1 was durable
//! before, so m1 is in the round or in an earlier one. Records still in flight with lower numbers were not answered, so
//! nothing was promised about them.

use super::{
    batch::Verdict,
    crew::Share,
    lane::{End, HeldUp, History, Lane},
    piece::Piece,
    snapshot::snapshot,
};
use crate::{
    limits::{ROUND_BYTES_MAX, ROUND_ROWS_FEW_PARTITIONS},
    message::Message,
    state::mark::Mark,
    state::shared::Shared,
};
use forebay_wal::{frame::KIND_MESSAGE, layout::Layout, position::Position};
use std::{sync::Arc, time::Duration};

/// A record taken from the log.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its number.
    pub number: u64,
    /// Its ordinal in its lane.
    pub ordinal: u64,
    /// Index of its lane among [`Shared::lanes`].
    pub lane: usize,
    /// Position behind it.
    pub end: Position,
    /// What its payload is.
    pub kind: u16,
    /// Its payload.
    pub payload: Piece,
}

impl Taken {
    /// Bytes that a round holds for it, besides those of its partition.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.payload.len() + size_of::<Self>() + size_of::<Verdict>()
    }

    /// The message that it is; `None` for a record that another release wrote.
    #[must_use]
    pub fn message(&self) -> Option<Message<'_>> {
        (self.kind == KIND_MESSAGE).then(|| Message::decode(&self.payload).ok()).flatten()
    }
}

/// The lanes as the drain reads them.
pub struct Sources {
    shared: Arc<Shared>,
    layout: Layout,
    share: Share,
    lanes: Vec<Lane>,
    /// Records of the last round.
    taken_before: usize,
    histories: Vec<History>,
}

impl Sources {
    /// What is a drainer's of the lanes of `shared`, behind what is known to be drained.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, layout: &Layout, share: Share) -> Self {
        let marks: Vec<Mark> = shared.log.lanes.iter().map(|lane| lane.drained_by(share.drainer)).collect();
        let mut sources = Self {
            shared: Arc::clone(shared),
            layout: layout.clone(),
            share,
            lanes: Vec::new(),
            taken_before: 0,
            histories: marks.iter().map(|_| History::default()).collect(),
        };
        sources.go_to(&marks);
        sources
    }

    /// From the next [`go_to`](Self::go_to) on only what is in `share` is taken.
    pub(crate) fn set_share(&mut self, share: Share) {
        self.share = share;
    }

    /// Goes on behind `marks`, one a lane.
    pub fn go_to(&mut self, marks: &[Mark]) {
        let open = |(index, mark): (usize, &Mark)| Lane::open(&self.shared, &self.layout, self.share, index, *mark);
        self.lanes = marks.iter().enumerate().map(open).collect();
    }

    /// How far each lane is taken.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        self.lanes.iter().map(|lane| lane.taken).collect()
    }

    /// Takes up to `rows_max` records, at most [`ROUND_BYTES_MAX`] bytes of them (but at least one, if there is one). Also
    /// tells whether one of these limits left some behind. A lane that cannot be read for `patience` is left out.
    ///
    /// # Errors
    /// See [`HeldUp`]; nothing is lost by it.
    pub fn take(&mut self, rows_max: usize, patience: Duration) -> Result<(Vec<Taken>, bool), HeldUp> {
        let end_of_each = || -> Vec<End> { self.shared.log.lanes.iter().map(|lane| End::of(&lane.lane)).collect() };
        let (below, ends) = snapshot(|| self.shared.log.numbers.next(), end_of_each);
        for (index, &end) in ends.iter().enumerate() {
            self.refill(index, end, patience)?;
            self.lanes[index].pass_over();
        }
        if self.lanes.iter().any(Lane::is_short) {
            return Ok((Vec::new(), true));
        }
        // As many as the last time, or as there may be while there are many: growing by doubling would leave as much behind,
        // which the allocator keeps for a while. Room that is not used takes no memory.
        let room = if self.taken_before >= ROUND_ROWS_FEW_PARTITIONS / 2 { rows_max } else { self.taken_before };
        let mut taken = Vec::with_capacity(room.min(rows_max));
        let mut bytes = 0;
        while let Some(index) = self.next_lane(below) {
            let lane = &mut self.lanes[index];
            let Some(next) = lane.loaded.front() else { break };
            let too_much = bytes + next.held_bytes() > ROUND_BYTES_MAX && !taken.is_empty();
            if too_much || taken.len() == rows_max {
                self.taken_before = taken.len();
                return Ok((taken, true));
            }
            bytes += next.held_bytes();
            let Some(next) = lane.pop() else { break };
            taken.push(next);
            if lane.loaded.is_empty() {
                // Each lane shows its next record, or the order between lanes would be lost: where one cannot, the round ends.
                let refilled = self.refill(index, ends[index], patience);
                if refilled.is_ok() {
                    self.lanes[index].pass_over();
                }
                if refilled.is_err() || self.lanes[index].is_short() {
                    return Ok((taken, true));
                }
            }
        }
        self.taken_before = taken.len();
        let full = taken.len() == rows_max || bytes >= ROUND_BYTES_MAX;
        Ok((taken, full))
    }

    fn refill(&mut self, index: usize, end: End, patience: Duration) -> Result<(), HeldUp> {
        self.lanes[index].refill(&self.shared, &mut self.histories[index], end, patience)
    }

    /// Gives back the records of a round that was cut short, which are the last ones taken, in their order.
    pub fn give_back(&mut self, records: Vec<Taken>, marks: &[Mark]) {
        for record in records.into_iter().rev() {
            self.lanes[record.lane].give_back(record);
        }
        for (lane, mark) in self.lanes.iter_mut().zip(marks) {
            lane.taken = *mark;
        }
    }

    /// When the oldest message not taken yet was accepted, in microseconds since 1970; 0 if there is none, or none that can
    /// be read now.
    pub fn oldest_accepted_us(&mut self) -> u64 {
        let mut oldest = u64::MAX;
        for index in 0..self.lanes.len() {
            let end = End::of(&self.shared.log.lanes[index].lane);
            // The next round says more of what is wrong.
            if self.refill(index, end, Duration::MAX).is_err() {
                continue;
            }
            if let Some(first) = self.lanes[index].loaded.front()
                && let Some(message) = first.message()
            {
                oldest = oldest.min(message.accepted_us.max(0) as u64);
            }
        }
        if oldest == u64::MAX { 0 } else { oldest }
    }

    fn next_lane(&self, below: u64) -> Option<usize> {
        let heads =
            self.lanes.iter().enumerate().filter_map(|(index, lane)| Some((lane.loaded.front()?.number, index)));
        heads.filter(|(number, _)| *number < below).min().map(|(_, index)| index)
    }
}
