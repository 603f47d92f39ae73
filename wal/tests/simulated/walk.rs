//! A random walk: a log on the simulated disk lives, dies and is recovered, again and again, and a model says what must hold.
//!
//! After each recovery: **I1** every record that was durable and not drained is there, byte for byte, in order; **I2** nothing
//! is there that was not submitted; **I3** recovering twice is recovering once; **I4** nothing is reported as lost; a batch is
//! there whole or not at all.

use crate::{disk::SimulatedDisk, random::Random};
use forebay_wal::{
    frame::KIND_MESSAGE,
    group::{Group, GroupCommit, Operation, Record, Refused, Step, SyncMethod},
    layout::Layout,
    limits::BLOCK_BYTES,
    log::{LogOptions, Recovered, recover},
    position::Position,
    reader::{Event, LaneReader},
    segments::{PrepareError, Segments},
};
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

const SEGMENT_BYTES: u64 = 64 << 10;
const LANES_MAX: u64 = 3;
const LIVES: u64 = 6;
const STEPS: u64 = 120;
const CAPACITY_BYTES: usize = 40 * SEGMENT_BYTES as usize;

/// What the model knows of a record.
#[derive(Clone)]
struct Submitted {
    lane: u16,
    body: Vec<u8>,
    durable: bool,
}

/// One lane of a living log.
struct SimLane {
    lane: u16,
    commit: GroupCommit,
    in_flight: Option<Group>,
    /// Bytes that the write in flight will say it wrote.
    written: usize,
    /// Records appended in this life, by the ordinal behind them.
    appended: Vec<(u64, u64)>,
    reader: LaneReader<SimulatedDisk>,
}

pub struct Walk {
    random: Random,
    disk: SimulatedDisk,
    layout: Layout,
    /// By a number of the walk's own, which each record's payload starts with.
    submitted: HashMap<u64, Submitted>,
    batches: Vec<Vec<u64>>,
    /// What PostgreSQL would hold: record numbers of the walk, and how far each lane is drained.
    drained: Vec<u64>,
    marks: HashMap<u16, Position>,
    next_record: u64,
    next_number: u64,
}

/// The disk died under the log: the process ends.
struct Died;

impl Walk {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            disk: SimulatedDisk::new(CAPACITY_BYTES),
            layout: Layout::new(PathBuf::from("/wal")),
            submitted: HashMap::new(),
            batches: Vec::new(),
            drained: Vec::new(),
            marks: HashMap::new(),
            next_record: 0,
            next_number: 0,
        }
    }

    /// Walks to the end; panics where an invariant is broken.
    pub fn run(mut self) {
        for _ in 0..LIVES {
            let options = LogOptions {
                dir: PathBuf::new(),
                lanes: 1 + self.random.below(LANES_MAX) as u16,
                sync: if self.random.once_in(2) { SyncMethod::Direct } else { SyncMethod::Fdatasync },
                segment_bytes: SEGMENT_BYTES,
                quota_bytes: (6 + self.random.below(20)) * SEGMENT_BYTES,
            };
            // A crash in the midst of recovery, now and then twice.
            while self.random.once_in(3) {
                self.disk.die_after(Some(1 + self.random.below(60)));
                let survived = recover(self.disk.clone(), &self.layout, &options).is_ok();
                self.disk.crash(&mut self.random);
                if survived {
                    break;
                }
            }
            self.disk.die_after(None);
            let recovered = self.recover_and_check(&options);
            self.live(recovered, &options);
            // Killed, the process leaves everything to the kernel; with the machine, what is not synced may go.
            if self.random.once_in(3) {
                self.disk.die_after(None);
            } else {
                self.disk.crash(&mut self.random);
            }
        }
        let options = LogOptions {
            dir: PathBuf::new(),
            lanes: 1,
            sync: SyncMethod::Direct,
            segment_bytes: SEGMENT_BYTES,
            quota_bytes: u64::MAX,
        };
        self.recover_and_check(&options);
    }

    fn recover_and_check(&mut self, options: &LogOptions) -> Recovered<SimulatedDisk> {
        let first = recover(self.disk.clone(), &self.layout, options).unwrap();
        let seen = self.read_all(&first);
        self.check(&first, &seen);
        let second = recover(self.disk.clone(), &self.layout, options).unwrap();
        assert_eq!(self.read_all(&second), seen, "I3: recovering twice is recovering once");
        self.next_number = second.next_number;
        second
    }

    /// Records of the walk that stand behind what is drained, by lane, in order.
    fn read_all(&self, log: &Recovered<SimulatedDisk>) -> HashMap<u16, Vec<u64>> {
        let mut numbers = HashSet::new();
        let mut read = |lane: &forebay_wal::recovery::RecoveredLane| {
            let first = lane.segments.first().map_or(lane.tail.segment, |found| found.segment);
            let start = forebay_wal::position::segment_start(first);
            let from = self.marks.get(&lane.lane).copied().unwrap_or(start).max(start);
            let mut reader = LaneReader::new(self.disk.clone(), self.layout.clone(), log.id, lane.lane, from)
                .with_pending_tail(lane.tail_header);
            let mut records = Vec::new();
            while let Some(event) = reader.next_event(lane.tail).unwrap() {
                let Event::Record(header) = event else { panic!("{event:?} without damage") };
                assert!(header.number < log.next_number, "the number {} would be given again", header.number);
                assert!(numbers.insert(header.number), "the number {} was given twice", header.number);
                records.push(self.identify(reader.payload(), lane.lane));
            }
            (lane.lane, records)
        };
        log.lanes.iter().map(&mut read).collect()
    }

    /// Which record a payload is, checked byte for byte.
    fn identify(&self, payload: &[u8], lane: u16) -> u64 {
        let (number, body) = payload.split_first_chunk::<8>().expect("I2: a payload of ours");
        let record = u64::from_le_bytes(*number);
        let submitted = self.submitted.get(&record).expect("I2: nothing is there that was not submitted");
        assert_eq!((submitted.lane, &submitted.body[..]), (lane, body), "I1: byte for byte");
        record
    }

    fn check(&self, log: &Recovered<SimulatedDisk>, seen: &HashMap<u16, Vec<u64>>) {
        for lane in &log.lanes {
            let damage: Vec<_> = lane.findings.iter().filter(|finding| finding.is_damage()).collect();
            assert!(damage.is_empty(), "I4: nothing was damaged: {damage:?}");
            let records = &seen[&lane.lane];
            assert!(records.is_sorted_by(|a, b| a < b), "in order: {records:?}");
        }
        for (record, submitted) in &self.submitted {
            let there = self.drained.contains(record) || seen.get(&submitted.lane).is_some_and(|r| r.contains(record));
            assert!(!submitted.durable || there, "I1: record {record} was durable and is gone");
        }
        for members in &self.batches {
            let there = |record: &&u64| {
                let lane = self.submitted[*record].lane;
                self.drained.contains(*record) || seen.get(&lane).is_some_and(|records| records.contains(*record))
            };
            let count = members.iter().filter(there).count();
            assert!(count == 0 || count == members.len(), "a batch is whole or not at all: {members:?}");
        }
    }

    fn live(&mut self, mut log: Recovered<SimulatedDisk>, options: &LogOptions) {
        let mut lanes: Vec<SimLane> = Vec::new();
        for recovered in &log.lanes {
            let mut commit = GroupCommit::new(recovered.start(log.id, SEGMENT_BYTES), options.sync);
            for ahead in 0..recovered.ready_count as u64 {
                commit.segment_ready(recovered.tail.segment + 1 + ahead);
            }
            let first = recovered.segments.first().map_or(recovered.tail.segment, |found| found.segment);
            let start = forebay_wal::position::segment_start(first);
            let from = self.marks.get(&recovered.lane).copied().unwrap_or(start).max(start);
            let reader = LaneReader::new(self.disk.clone(), self.layout.clone(), log.id, recovered.lane, from)
                .with_pending_tail(recovered.tail_header);
            lanes.push(SimLane {
                lane: recovered.lane,
                commit,
                in_flight: None,
                written: 0,
                appended: Vec::new(),
                reader,
            });
        }
        if self.random.once_in(2) {
            self.disk.die_after(Some(1 + self.random.below(400)));
        }
        let mut waiting = Vec::new();
        for _ in 0..STEPS {
            if self.random.once_in(400) {
                self.disk.fail_next_sync();
            }
            let index = self.random.below(lanes.len() as u64) as usize;
            let lane = &mut lanes[index];
            let writable = lane.lane < options.lanes;
            let outcome = match self.random.below(10) {
                0..=3 if writable => {
                    self.append(lane);
                    Ok(())
                }
                4..=6 => self.write(lane, options.sync),
                7 => {
                    while let Some(header) = lane.commit.wanted_segment(self.next_number) {
                        waiting.push((index, header));
                    }
                    self.keep(&mut waiting, &mut lanes, &mut log.segments)
                }
                8 => self.drain(lane, &mut log.segments),
                _ if self.random.once_in(40) => return,
                _ => Ok(()),
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    fn append(&mut self, lane: &mut SimLane) {
        let count = 1 + if self.random.once_in(3) { self.random.below(8) } else { 0 };
        let sizes = [10, 300, 5_000, 20_000];
        let bodies: Vec<(u64, Vec<u8>)> = (0..count)
            .map(|_| {
                let bound = sizes[self.random.below(4) as usize];
                let body = vec![self.random.next() as u8; self.random.below(bound) as usize];
                self.next_record += 1;
                (self.next_record, body)
            })
            .collect();
        let heads: Vec<[u8; 8]> = bodies.iter().map(|(record, _)| record.to_le_bytes()).collect();
        let records: Vec<Record<'_>> =
            heads.iter().zip(&bodies).map(|(head, (_, body))| Record { kind: KIND_MESSAGE, head, body }).collect();
        let numbers = &mut self.next_number;
        let appended = lane.commit.append(&records, |count| {
            *numbers += count;
            *numbers - count
        });
        let appended = match appended {
            Ok(appended) => appended,
            Err(Refused::Busy | Refused::TooLarge { .. }) => return,
            Err(Refused::Poisoned) => unreachable!("a poisoned lane ends the life"),
        };
        self.batches.push(bodies.iter().map(|(record, _)| *record).collect());
        let first_ordinal = appended.end_ordinal - bodies.len() as u64;
        for (index, (record, body)) in bodies.into_iter().enumerate() {
            self.submitted.insert(record, Submitted { lane: lane.lane, body, durable: false });
            lane.appended.push((first_ordinal + index as u64 + 1, record));
        }
    }

    /// Starts an operation of the lane, or completes the one under way.
    fn write(&mut self, lane: &mut SimLane, sync: SyncMethod) -> Result<(), Died> {
        let Some(group) = lane.in_flight.take() else {
            return match lane.commit.next_group() {
                Some(group) => self.start(lane, group),
                None => Ok(()),
            };
        };
        let (Operation::Write { segment, .. } | Operation::Sync { segment }) = group.operation();
        let path = self.layout.segment(lane.lane, segment);
        let outcome = match (group.operation(), sync) {
            (Operation::Write { .. }, SyncMethod::Fdatasync) => Ok(lane.written),
            (Operation::Write { .. }, _) => self.disk.sync_path(&path).map(|()| lane.written),
            (Operation::Sync { .. }, _) => self.disk.sync_path(&path).map(|()| 0),
        };
        match lane.commit.completed(group, outcome).map_err(|_| Died)? {
            Step::Again(group) => self.start(lane, group)?,
            Step::Durable => {
                let durable = lane.commit.durable_ordinal();
                for (_, record) in lane.appended.extract_if(.., |(end_ordinal, _)| *end_ordinal <= durable) {
                    if let Some(submitted) = self.submitted.get_mut(&record) {
                        submitted.durable = true;
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts an operation on its way: a crash before its completion finds any part of it. Now and then a write is short.
    fn start(&mut self, lane: &mut SimLane, group: Group) -> Result<(), Died> {
        if let Operation::Write { segment, offset } = group.operation() {
            let bytes: Vec<u8> = group.unwritten().flatten().copied().collect();
            let blocks = bytes.len() / BLOCK_BYTES;
            let written = if self.random.once_in(8) { 1 + self.random.below(blocks as u64) as usize } else { blocks };
            lane.written = written * BLOCK_BYTES;
            let path = self.layout.segment(lane.lane, segment);
            self.disk.write(&path, &bytes[..lane.written], offset).map_err(|_| Died)?;
        }
        lane.in_flight = Some(group);
        Ok(())
    }

    fn keep(
        &mut self,
        waiting: &mut Vec<(usize, forebay_wal::segment::SegmentHeader)>,
        lanes: &mut [SimLane],
        segments: &mut Segments<SimulatedDisk>,
    ) -> Result<(), Died> {
        while let Some((index, header)) = waiting.first().copied() {
            match segments.prepare(header) {
                Ok(()) => lanes[index].commit.segment_ready(header.segment),
                // A full disk is no end: what waits goes on waiting.
                Err(PrepareError::Quota) => return Ok(()),
                Err(PrepareError::Failed(_)) => return if self.is_dead() { Err(Died) } else { Ok(()) },
            }
            waiting.remove(0);
        }
        Ok(())
    }

    fn is_dead(&self) -> bool {
        use forebay_wal::storage::Storage;
        self.disk.list(self.layout.root()).is_err()
    }

    /// Takes some records into the model of PostgreSQL, whose commits are always durable, and releases what is behind them.
    fn drain(&mut self, lane: &mut SimLane, segments: &mut Segments<SimulatedDisk>) -> Result<(), Died> {
        for _ in 0..self.random.below(20) {
            match lane.reader.next_event(lane.commit.durable()) {
                Ok(Some(Event::Record(_))) => {
                    let record = self.identify(lane.reader.payload(), lane.lane);
                    self.drained.push(record);
                }
                Ok(Some(event)) => panic!("{event:?} without damage"),
                Ok(None) => break,
                Err(_) => return Err(Died),
            }
        }
        let mark = lane.reader.position();
        self.marks.insert(lane.lane, mark);
        segments.release(lane.lane, mark.segment).map_err(|_| Died)?;
        Ok(())
    }
}
