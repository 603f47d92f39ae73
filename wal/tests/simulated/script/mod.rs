//! A log on the simulated disk, driven step by step, and the model beside it. The cases and the random walks share it.
//!
//! It checks after each recovery:
//! - **I1**: every record that was answered and not drained is there, byte by byte and in order. A segment that is released too
//!   early (I5) breaks this.
//! - **I2**: no record is there that was not submitted.
//! - **I3**: recovering twice is recovering once.
//! - No record is there whose refusal is certain.
//! - **I4**: exactly the records that damage took are reported as lost. A batch is there whole or not at all.

pub mod forge;
mod model;

use model::Submitted;
pub use model::{Loss, Model};

use crate::disk::{Fate, SimulatedDisk, faults::ENOSPC};
use forebay_wal::{
    error::LogError,
    frame::{FrameHeader, KIND_MESSAGE, frame_len},
    group::{AppendRefusal, Completion, Group, GroupCommit, Record, SyncMethod},
    layout::Layout,
    limits::BLOCK_BYTES,
    log::{LogOptions, Recovered, recover},
    position::{Position, segment_start},
    reader::{Event, LaneReader},
    recovery::RecoveredLane,
    segment::SegmentHeader,
    segments::{PrepareError, Segments},
};
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    io,
    path::{Path, PathBuf},
};

pub const SEGMENT_BYTES: u64 = 64 << 10;

/// The disk failed a write, and the lane takes nothing more.
#[derive(Debug)]
pub struct Died;

/// A record as a reader returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub record: u64,
    pub header: FrameHeader,
    /// Position of the frame.
    pub at: Position,
    /// Whether it belongs to a write that never finished.
    pub unfinished: bool,
}

impl Seen {
    /// The bytes of the file that hold its header and payload.
    pub fn bytes(&self) -> std::ops::Range<usize> {
        let start = self.at.offset as usize;
        start..start + forebay_wal::frame::HEADER_BYTES + self.header.payload_len as usize
    }
}

/// What a reader returned of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub records: Vec<Seen>,
    /// Segments and offsets where bytes did not verify.
    pub damaged: Vec<(u64, u32)>,
}

/// One lane of a running log.
pub struct SimLane {
    pub lane: u16,
    pub commit: GroupCommit,
    /// The group in flight, and the outcome that its completion will have.
    in_flight: Option<(Group, io::Result<usize>)>,
    /// Records appended since the last recovery, by the ordinal behind them.
    appended: Vec<(u64, u64)>,
    reader: LaneReader<SimulatedDisk>,
    /// Where the segment ends that the lane gave up, and whether that is durable, until there is room again.
    given_up: Option<(Position, bool)>,
}

pub struct Script {
    pub disk: SimulatedDisk,
    pub layout: Layout,
    pub options: LogOptions,
    pub model: Model,
    pub lanes: Vec<SimLane>,
    pub segments: Option<Segments<SimulatedDisk>>,
    /// Segments that are requested and not made yet.
    waiting: VecDeque<(usize, SegmentHeader)>,
}

impl Script {
    /// An empty disk of 64 segments, and a log of `lanes` lanes that is not open.
    pub fn new(lanes: u16) -> Self {
        let options = LogOptions {
            dir: PathBuf::new(),
            lanes,
            // Only the ring uses it, and the ring is not simulated.
            sync: SyncMethod::Direct,
            segment_bytes: SEGMENT_BYTES,
            quota_bytes: 64 * SEGMENT_BYTES,
        };
        Self {
            disk: SimulatedDisk::new(64 * SEGMENT_BYTES as usize),
            layout: Layout::new("/wal"),
            options,
            model: Model::default(),
            lanes: Vec::new(),
            segments: None,
            waiting: VecDeque::new(),
        }
    }

    /// The same with one lane, opened.
    pub fn opened() -> Self {
        let mut script = Self::new(1);
        script.open();
        script
    }

    /// Recovers without checks.
    pub fn recover(&self) -> Result<Recovered<SimulatedDisk>, LogError> {
        recover(self.disk.clone(), &self.layout, &self.options)
    }

    /// Recovers twice with all checks, then runs the log.
    pub fn open(&mut self) {
        let log = self.recover_and_check();
        self.live(log);
    }

    /// Recovers twice, reads and checks both results. Returns the second.
    pub fn recover_and_check(&self) -> Recovered<SimulatedDisk> {
        let first = self.recover().unwrap();
        let seen = self.read_all(&first);
        self.model.check(&first, &seen);
        let second = self.recover().unwrap();
        let again = self.read_all(&second);
        assert_eq!(again, seen, "I3: recovering twice is recovering once");
        self.model.check(&second, &again);
        second
    }

    /// Runs a recovered log.
    pub fn live(&mut self, log: Recovered<SimulatedDisk>) {
        self.lanes.clear();
        self.waiting.clear();
        for recovered in &log.lanes {
            let mut commit = GroupCommit::new(recovered.start(log.id, self.options.segment_bytes));
            for ahead in 0..recovered.ready_count as u64 {
                commit.add_ready_segment(recovered.tail.segment + 1 + ahead);
            }
            let reader = self.reader(log.id, recovered);
            let lane = recovered.lane;
            self.lanes.push(SimLane { lane, commit, in_flight: None, appended: Vec::new(), reader, given_up: None });
        }
        self.model.next_number = log.next_number;
        self.segments = Some(log.segments);
    }

    /// A reader of a lane that starts where the drain ended.
    fn reader(&self, log_id: [u8; 16], lane: &RecoveredLane) -> LaneReader<SimulatedDisk> {
        let first = lane.segments.first().map_or(lane.tail.segment, |found| found.segment);
        let start = segment_start(first);
        let from = self.model.marks.get(&lane.lane).copied().unwrap_or(start).max(start);
        LaneReader::new(self.disk.clone(), self.layout.clone(), log_id, lane.lane, from)
            .with_pending_tail(lane.tail_header)
    }

    /// Reads what is not drained, by lane.
    pub fn read_all(&self, log: &Recovered<SimulatedDisk>) -> BTreeMap<u16, Read> {
        let mut numbers = HashSet::new();
        let mut read_lane = |lane: &RecoveredLane| {
            let mut reader = self.reader(log.id, lane);
            let mut read = Read::default();
            // A call that failed is repeated.
            while let Some(event) = reader.next_event(lane.tail).or_else(|_| reader.next_event(lane.tail)).unwrap() {
                match event {
                    Event::Record(header) => {
                        let number = header.number;
                        assert!(number < log.next_number, "the number {number} would be given again");
                        let is_new = numbers.insert(number) || self.model.is_damaged;
                        assert!(is_new, "the number {number} was given twice");
                        read.records.push(self.seen(&reader, header));
                    }
                    Event::Seal { .. } => {}
                    Event::Damaged { segment, at, .. } => read.damaged.push((segment, at)),
                }
            }
            (lane.lane, read)
        };
        log.lanes.iter().map(&mut read_lane).collect()
    }

    fn seen(&self, reader: &LaneReader<SimulatedDisk>, header: FrameHeader) -> Seen {
        let end = reader.position();
        // The end of a file may cut off the padding of its last frame.
        let frame_bytes = frame_len(header.payload_len as usize) as u32;
        let at = Position { offset: end.offset.next_multiple_of(8) - frame_bytes, ..end };
        let record = self.model.identify(reader.payload(), reader.lane());
        Seen { record, header, at, unfinished: reader.in_unfinished_group() }
    }

    /// Appends a batch of records with bodies of these sizes in bytes. Returns the model's numbers of the records.
    pub fn append(&mut self, lane: usize, sizes: &[usize]) -> Result<Vec<u64>, AppendRefusal> {
        let lane = &mut self.lanes[lane];
        if lane.given_up.is_some() {
            return Err(AppendRefusal::Busy);
        }
        let next = self.model.next_record + 1;
        let bodies: Vec<(u64, Vec<u8>)> =
            (next..).zip(sizes).map(|(record, size)| (record, vec![record as u8 | 1; *size])).collect();
        let heads: Vec<[u8; 8]> = bodies.iter().map(|(record, _)| record.to_le_bytes()).collect();
        let records: Vec<Record<'_>> =
            heads.iter().zip(&bodies).map(|(head, (_, body))| Record { kind: KIND_MESSAGE, head, body }).collect();
        let numbers = &mut self.model.next_number;
        let appended = lane.commit.append(&records, |count| {
            *numbers += count;
            *numbers - count
        })?;
        let members: Vec<u64> = bodies.iter().map(|(record, _)| *record).collect();
        self.model.next_record += members.len() as u64;
        let first_ordinal = appended.end_ordinal - members.len() as u64;
        for (index, (record, body)) in (0..).zip(bodies) {
            let (number, ordinal) = (appended.first_number + index, first_ordinal + index);
            let submitted = Submitted { lane: lane.lane, body, answered: false, number, ordinal };
            self.model.submitted.insert(record, submitted);
            lane.appended.push((ordinal + 1, record));
        }
        self.model.batches.push(members.clone());
        Ok(members)
    }

    /// Starts the lane's next write unless one is in flight. It writes at most `blocks`. A crash before its completion leaves
    /// any part of it. Returns the position of the write.
    pub fn begin(&mut self, lane: usize, blocks: usize) -> Option<Position> {
        let lane = &mut self.lanes[lane];
        if lane.in_flight.is_some() {
            return None;
        }
        let group = lane.commit.take_next_group()?;
        let position = group.next_write();
        start(&self.disk, &self.layout, lane, group, blocks);
        Some(position)
    }

    /// Completes the write in flight, if there is one, and continues after a short write. Returns whether one was in flight.
    pub fn complete(&mut self, lane: usize, blocks: usize) -> Result<bool, Died> {
        let lane = &mut self.lanes[lane];
        let Some((group, written)) = lane.in_flight.take() else { return Ok(false) };
        let path = self.layout.segment(lane.lane, group.start().segment);
        let outcome = written.and_then(|bytes| self.disk.sync_path(&path).map(|()| bytes));
        match lane.commit.complete(group, outcome).map_err(|_| Died)? {
            Completion::ShortWrite(group) => start(&self.disk, &self.layout, lane, group, blocks),
            Completion::Durable => {
                let durable = lane.commit.durable_ordinal();
                for (_, record) in lane.appended.extract_if(.., |(end_ordinal, _)| *end_ordinal <= durable) {
                    self.model.mark_answered(record);
                }
            }
            Completion::NoRoom(error) => lane.given_up = Some((error.at, false)),
        }
        Ok(true)
    }

    /// Makes it durable where the segment ends that a lane gave up, if it did, and lets it go on if there is room.
    ///
    /// # Errors
    /// Why one of the two did not work. The next call tries again.
    pub fn settle(&mut self, lane: usize) -> Result<(), LogError> {
        let lane = &mut self.lanes[lane];
        let segments = self.segments.as_mut().expect("the log lives");
        if let Some((at, is_ended)) = &mut lane.given_up {
            if !*is_ended {
                segments.end_segment(lane.lane, *at)?;
                *is_ended = true;
                self.model.refuse(lane.appended.drain(..).map(|(_, record)| record));
            }
            segments.probe_room()?;
            lane.given_up = None;
        }
        Ok(())
    }

    /// Whether a lane gave a segment up and has not gone on since.
    pub fn has_given_up(&self, lane: usize) -> bool {
        self.lanes[lane].given_up.is_some()
    }

    /// Writes until everything appended is durable.
    pub fn write(&mut self, lane: usize) -> Result<(), Died> {
        while self.begin(lane, usize::MAX).is_some() || self.complete(lane, usize::MAX)? {}
        Ok(())
    }

    /// Seals the lane if it is idle and there is room, and writes the seal.
    pub fn seal(&mut self, lane: usize) -> Result<bool, Died> {
        let is_sealed = self.lanes[lane].commit.seal(self.model.next_number);
        self.write(lane)?;
        Ok(is_sealed)
    }

    /// Makes the segments that the lanes request.
    ///
    /// # Errors
    /// Why one could not be made. It waits for the next call.
    pub fn keep(&mut self) -> Result<(), PrepareError> {
        for (index, lane) in self.lanes.iter_mut().enumerate().take(usize::from(self.options.lanes)) {
            while let Some(header) = lane.commit.take_segment_request(self.model.next_number) {
                self.waiting.push_back((index, header));
            }
        }
        let segments = self.segments.as_mut().expect("the log lives");
        while let Some((index, header)) = self.waiting.front().copied() {
            segments.prepare(header)?;
            self.lanes[index].commit.add_ready_segment(header.segment);
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Appends a batch and writes until it is answered. The disk must have no fault.
    pub fn answer(&mut self, lane: usize, sizes: &[usize]) -> Vec<u64> {
        let records = loop {
            match self.append(lane, sizes) {
                Ok(records) => break records,
                Err(AppendRefusal::Busy) if !self.has_given_up(lane) => {
                    self.write(lane).unwrap();
                    self.keep().unwrap();
                }
                Err(refused) => panic!("{refused:?}"),
            }
        };
        self.write(lane).unwrap();
        records
    }

    /// Drains up to `count` records and releases nothing. Returns how many there were.
    pub fn drain(&mut self, lane: usize, count: usize) -> Result<usize, LogError> {
        let mut drained = 0;
        while drained < count {
            let (durable, number) = (self.lanes[lane].commit.durable_end(), self.lanes[lane].lane);
            let event = self.lanes[lane].reader.next_event(durable);
            self.model.marks.insert(number, self.lanes[lane].reader.position());
            match event? {
                Some(Event::Record(header)) => {
                    let record = self.seen(&self.lanes[lane].reader, header).record;
                    self.model.drain(record, number);
                    drained += 1;
                }
                Some(Event::Seal { .. }) => {}
                Some(Event::Damaged { segment, at, .. }) => {
                    assert!(self.model.is_damaged, "segment {segment} offset {at} is damaged, and nothing was");
                    if let Some(segments) = &mut self.segments {
                        segments.mark_damaged(number, segment);
                    }
                }
                None => break,
            }
        }
        Ok(drained)
    }

    /// Releases the segments whose records are all drained.
    pub fn release(&mut self, lane: usize) -> Result<usize, LogError> {
        let number = self.lanes[lane].lane;
        let Some(mark) = self.model.marks.get(&number) else { return Ok(0) };
        self.segments.as_mut().expect("the log lives").release(number, mark.segment)
    }

    /// Drains and releases everything. The disk must have no fault.
    pub fn drain_all(&mut self) {
        for lane in 0..self.lanes.len() {
            self.drain(lane, usize::MAX).unwrap();
            self.release(lane).unwrap();
        }
    }

    /// `kill -9`: the kernel keeps what was written.
    pub fn kill(&mut self) {
        self.lanes.clear();
        self.segments = None;
        self.disk.heal();
    }

    /// Crashes the machine: see [`SimulatedDisk::crash`].
    pub fn crash(&mut self, names_kept: usize, fate: impl FnMut(&Path, usize) -> Fate) {
        self.kill();
        self.disk.crash(names_kept, fate);
    }

    /// Crashes the machine with one fate for all pending sectors and names.
    pub fn crash_all(&mut self, fate: Fate) {
        self.crash(if fate == Fate::Kept { usize::MAX } else { 0 }, |_, _| fate);
    }

    /// A record in the model.
    pub fn submitted(&self, record: u64) -> &Submitted {
        &self.model.submitted[&record]
    }

    /// Path of a segment of lane 0.
    pub fn segment(&self, segment: u64) -> PathBuf {
        self.layout.segment(0, segment)
    }
}

/// Takes a result that may be an error, for the disk may have a fault. The model does not count what failed.
pub fn may_fail<T, E>(result: Result<T, E>) {
    drop(result);
}

fn no_room() -> io::Error {
    io::Error::from_raw_os_error(ENOSPC)
}

/// Starts a write of at most `blocks`. If there is room for less, it is a short one, and if there is none, it fails.
fn start(disk: &SimulatedDisk, layout: &Layout, lane: &mut SimLane, group: Group, blocks: usize) {
    let Position { segment, offset } = group.next_write();
    let bytes: Vec<u8> = group.unwritten().flatten().copied().collect();
    let wanted = bytes.len().min(blocks.saturating_mul(BLOCK_BYTES));
    let written = disk.take_room(wanted, BLOCK_BYTES);
    let outcome = match written {
        // What a failed write leaves is not certain: here all of it, which is the worst.
        0 => disk.write(&layout.segment(lane.lane, segment), &bytes[..wanted], offset.into()).and(Err(no_room())),
        _ => disk.write(&layout.segment(lane.lane, segment), &bytes[..written], offset.into()).map(|()| written),
    };
    lane.in_flight = Some((group, outcome));
}
