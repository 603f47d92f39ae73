//! What a round takes from the log: all lanes, in the order of their numbers.
//!
//! A round reads the counter of numbers, **then** each lane's durable end, and takes records below the counter only. If m2
//! was sent after m1 was answered and m2 is in the round, m2 was numbered before the counter was read, so m1 was durable
//! before, so m1 is in the round or in an earlier one. Records still in flight with lower numbers were not answered, so
//! nothing was promised about them.

use crate::{
    limits::{LOAD_BYTES, LOAD_ROWS, ROUND_BYTES_MAX},
    message::Message,
    shared::Shared,
};
use forebay_wal::{
    error::LogError,
    frame::KIND_MESSAGE,
    lane::LaneShared,
    layout::Layout,
    position::Position,
    reader::{Event, LaneReader},
    storage::Disk,
};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

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
    pub bytes: Box<[u8]>,
}

impl Taken {
    /// The message that it is; `None` for a record that another release wrote.
    #[must_use]
    pub fn message(&self) -> Option<Message<'_>> {
        (self.kind == KIND_MESSAGE).then(|| Message::decode(&self.bytes).ok()).flatten()
    }
}

/// How far a lane is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Everything before this is done.
    pub position: Position,
    /// Ordinal behind the last record that is done.
    pub ordinal: u64,
}

struct Lane {
    reader: LaneReader<Disk>,
    /// Read, and not yet taken by a round.
    loaded: VecDeque<Taken>,
    loaded_bytes: usize,
    /// Behind the last record that a round took.
    taken: Mark,
    /// Ordinal behind the last record read; `None` before the first.
    next_ordinal: Option<u64>,
}

/// The lanes as the drain reads them.
pub struct Sources {
    shared: Arc<Shared>,
    layout: Layout,
    lanes: Vec<Lane>,
    /// Ordinal of each lane up to which missing records were told.
    lost_told: Vec<u64>,
}

impl Sources {
    /// The lanes of `shared`, each from its oldest record on.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, layout: &Layout) -> Self {
        let marks: Vec<Mark> = shared
            .lanes
            .iter()
            .map(|lane| Mark { position: lane.drained(), ordinal: lane.drained_ordinal() })
            .collect();
        let mut sources = Self {
            shared: Arc::clone(shared),
            layout: layout.clone(),
            lanes: Vec::new(),
            lost_told: vec![0; marks.len()],
        };
        sources.go_to(&marks);
        sources
    }

    /// Goes on behind `marks`, one a lane.
    pub fn go_to(&mut self, marks: &[Mark]) {
        let reader = |mark: &Mark, lane: &LaneShared| {
            LaneReader::new(Disk, self.layout.clone(), self.shared.log_id, lane.lane(), mark.position)
                .with_recent(Arc::clone(lane.recent()))
        };
        let open = |(mark, progress): (&Mark, &crate::shared::LaneProgress)| Lane {
            reader: reader(mark, &progress.lane),
            loaded: VecDeque::new(),
            loaded_bytes: 0,
            taken: *mark,
            next_ordinal: None,
        };
        self.lanes = marks.iter().zip(&self.shared.lanes).map(open).collect();
    }

    /// How far each lane is taken.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        self.lanes.iter().map(|lane| lane.taken).collect()
    }

    /// Takes up to `rows_max` records, at most [`ROUND_BYTES_MAX`] bytes of them (but at least one, if there is one). Also
    /// tells whether one of these limits left some behind.
    ///
    /// # Errors
    /// [`LogError::Io`]; nothing is lost by it.
    pub fn take(&mut self, rows_max: usize) -> Result<(Vec<Taken>, bool), LogError> {
        // In this order: see the module's comment.
        let below = self.shared.numbers.next();
        let ends: Vec<Position> = self.shared.lanes.iter().map(|lane| lane.lane.durable()).collect();
        for (index, &end) in ends.iter().enumerate() {
            self.load(index, end)?;
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(index) = self.next_lane(below) {
            let lane = &mut self.lanes[index];
            let Some(next) = lane.loaded.front() else { break };
            let too_much = bytes + next.bytes.len() > ROUND_BYTES_MAX && !taken.is_empty();
            if too_much || taken.len() == rows_max {
                return Ok((taken, true));
            }
            bytes += next.bytes.len();
            let Some(next) = lane.loaded.pop_front() else { break };
            lane.loaded_bytes -= next.bytes.len();
            lane.taken = Mark { position: next.end, ordinal: next.ordinal + 1 };
            taken.push(next);
            if lane.loaded.is_empty() {
                // Each lane shows its next record, or the order between lanes would be lost.
                self.load(index, ends[index])?;
                let lane = &mut self.lanes[index];
                if lane.loaded.is_empty() {
                    // Behind the last record of a segment there may be nothing but the next segment.
                    lane.taken.position = lane.reader.position();
                }
            }
        }
        let full = taken.len() == rows_max || bytes >= ROUND_BYTES_MAX;
        Ok((taken, full))
    }

    /// Gives back the records of a round that was cut short, which are the last ones taken, in their order.
    pub fn give_back(&mut self, records: Vec<Taken>, marks: &[Mark]) {
        for record in records.into_iter().rev() {
            let lane = &mut self.lanes[record.lane];
            lane.loaded_bytes += record.bytes.len();
            lane.loaded.push_front(record);
        }
        for (lane, mark) in self.lanes.iter_mut().zip(marks) {
            lane.taken = *mark;
        }
    }

    /// When the oldest message not taken yet was accepted, in microseconds since 1970; 0 if there is none.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn oldest_accepted_us(&mut self) -> Result<u64, LogError> {
        let mut oldest = u64::MAX;
        for index in 0..self.lanes.len() {
            let end = self.shared.lanes[index].lane.durable();
            self.load(index, end)?;
            if let Some(first) = self.lanes[index].loaded.front()
                && let Some(message) = first.message()
            {
                oldest = oldest.min(message.accepted_us.max(0) as u64);
            }
        }
        Ok(if oldest == u64::MAX { 0 } else { oldest })
    }

    fn next_lane(&self, below: u64) -> Option<usize> {
        let heads =
            self.lanes.iter().enumerate().filter_map(|(index, lane)| Some((lane.loaded.front()?.number, index)));
        heads.filter(|(number, _)| *number < below).min().map(|(_, index)| index)
    }

    /// Reads on in a lane until a piece of it is loaded.
    fn load(&mut self, index: usize, end: Position) -> Result<(), LogError> {
        loop {
            let lane = &mut self.lanes[index];
            if lane.loaded.len() >= LOAD_ROWS || lane.loaded_bytes >= LOAD_BYTES {
                return Ok(());
            }
            match lane.reader.next_event(end)? {
                None => return Ok(()),
                Some(Event::Damaged { segment, at, .. }) => {
                    tracing::error!(
                        code = "log_damaged",
                        lane = lane.reader.lane(),
                        segment,
                        offset = at,
                        "bytes of the log do not verify; what follows does, the segment will be set aside"
                    );
                    self.shared.keeper.mark_damaged(lane.reader.lane(), segment);
                }
                Some(Event::Sealed { ordinal }) => self.expect(index, ordinal),
                Some(Event::Record(header)) => {
                    self.expect(index, header.ordinal);
                    let lane = &mut self.lanes[index];
                    lane.next_ordinal = Some(header.ordinal + 1);
                    let bytes: Box<[u8]> = lane.reader.payload().into();
                    lane.loaded_bytes += bytes.len();
                    lane.loaded.push_back(Taken {
                        number: header.number,
                        ordinal: header.ordinal,
                        kind: header.kind,
                        lane: index,
                        end: lane.reader.position(),
                        bytes,
                    });
                }
            }
        }
    }

    /// The next record of a lane has `ordinal`: those between what was read and that are missing.
    fn expect(&mut self, index: usize, ordinal: u64) {
        let lane = &mut self.lanes[index];
        let expected = lane.next_ordinal.unwrap_or(lane.taken.ordinal);
        lane.next_ordinal = Some(ordinal);
        let is_new = expected >= self.lost_told[index];
        if ordinal > expected && is_new && !lane.reader.in_unfinished_group() {
            self.lost_told[index] = ordinal;
            let lost = ordinal - expected;
            self.shared.counters.lost_records.fetch_add(lost, Ordering::Relaxed);
            tracing::error!(
                code = "records_missing",
                lane = lane.reader.lane(),
                records = lost,
                first_ordinal = expected,
                "records of the log are missing (see the segments set aside)"
            );
        }
    }
}
