//! Group commit as a state machine without I/O: records in, groups to write out, completions in, durable ordinals out.
//!
//! While one group is being written the next one collects. It closes when whoever drives this asks for it, which is not
//! before the previous write returned. At most one group is in flight, hence a valid group proves that all before it were
//! durable: recovery stands on that.

mod in_flight;

pub use in_flight::Group;

use crate::{
    buffer::ChunkPool,
    frame::{self, FLAG_BATCH_START, FrameHeader, HEADER_BYTES, KIND_SEAL, SegmentSeed},
    limits::{
        BLOCK_BYTES, FRAME_ALIGN_BYTES, GROUP_BYTES_MAX, QUEUED_BYTES_MAX, SEGMENT_HEADER_BYTES, SEGMENTS_AHEAD,
        record_bytes_max,
    },
    position::Position,
    segment::SegmentHeader,
};
use std::{collections::VecDeque, io};

/// How a group becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMethod {
    /// `O_DIRECT`, each write with `RWF_DSYNC`.
    Direct,
    /// A buffered write and what `fdatasync` does of its bytes, as one operation (`RWF_DSYNC`): two would each be handed to
    /// another thread of the kernel.
    Fdatasync,
    /// A buffered write only: survives a crash of the process, not of the machine.
    None,
}

/// One record to append; its payload is `head` followed by `body`.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What the payload is, not 0.
    pub kind: u16,
    /// First part of the payload.
    pub head: &'a [u8],
    /// Second part of the payload.
    pub body: &'a [u8],
}

/// Where a batch of records went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Number of its first record; the others follow without gaps.
    pub first_number: u64,
    /// The batch is durable once the lane's durable ordinal reached this.
    pub end_ordinal: u64,
}

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It can never fit: a batch lies within one segment.
    TooLarge {
        /// Bytes that a batch may take, frames' headers included.
        max: usize,
    },
    /// Too much waits for the disk, or the segment to go on with is not ready: try again after the next completion.
    Busy,
    /// A write failed earlier. Nothing more is taken.
    Poisoned,
}

/// What follows from a completion.
pub enum Step {
    /// The group is not done: write the rest at [`Group::next_write`].
    Again(Group),
    /// All up to here is durable.
    Durable,
}

/// A write or a sync failed; the lane takes nothing more.
#[derive(Debug)]
pub struct WriteFailed {
    /// Where.
    pub at: Position,
    /// What the operating system said.
    pub source: io::Error,
}

/// Where a lane goes on writing.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The log.
    pub log_id: [u8; 16],
    /// The lane.
    pub lane: u16,
    /// Size of its segments in bytes.
    pub segment_bytes: u64,
    /// Start of the next group.
    pub tail: Position,
    /// Ordinal of the next record.
    pub next_ordinal: u64,
    /// The tail's segment, if it is not there yet: nothing is taken before it is.
    pub pending_tail: Option<SegmentHeader>,
    /// Whether something proves already that all before was durable.
    pub sealed: bool,
}

/// The state of one lane's group commit.
pub struct GroupCommit {
    log_id: [u8; 16],
    lane: u16,
    segment_bytes: u64,
    pool: ChunkPool,
    /// Segments that are ready behind the current one, in order.
    ready: VecDeque<u64>,
    /// Whether the current segment is there: a lane may start on a full disk.
    tail_is_ready: bool,
    /// The current segment's header, until it was asked for.
    pending_tail: Option<SegmentHeader>,
    /// The segment that it went on with when it was made.
    first_segment: u64,
    /// The last segment that was asked for.
    wanted: u64,
    seed: SegmentSeed,
    /// Where the open group starts, or will.
    tail: Position,
    open: Option<Group>,
    closed: VecDeque<Group>,
    in_flight: bool,
    /// Bytes of the closed groups and of the one in flight.
    closed_bytes: usize,
    next_ordinal: u64,
    durable: Position,
    durable_ordinal: u64,
    /// Whether nothing was appended since the last seal.
    sealed: bool,
    poisoned: bool,
}

impl GroupCommit {
    /// A lane that goes on at `start`.
    #[must_use]
    pub fn new(start: Start) -> Self {
        assert!(
            (start.tail.offset as usize).is_multiple_of(BLOCK_BYTES)
                && start.tail.offset as usize >= SEGMENT_HEADER_BYTES,
            "a group starts on a block behind the header"
        );
        Self {
            log_id: start.log_id,
            lane: start.lane,
            segment_bytes: start.segment_bytes,
            pool: ChunkPool::default(),
            ready: VecDeque::new(),
            tail_is_ready: start.pending_tail.is_none(),
            pending_tail: start.pending_tail,
            first_segment: start.tail.segment,
            wanted: start.tail.segment,
            seed: SegmentSeed::new(start.log_id, start.lane, start.tail.segment),
            tail: start.tail,
            open: None,
            closed: VecDeque::new(),
            in_flight: false,
            closed_bytes: 0,
            next_ordinal: start.next_ordinal,
            durable: start.tail,
            durable_ordinal: start.next_ordinal,
            sealed: start.sealed,
            poisoned: false,
        }
    }

    /// Segment `segment` is ready; it is the one behind all that were ready before, or the tail's if that was missing.
    pub fn segment_ready(&mut self, segment: u64) {
        if !self.tail_is_ready {
            assert_eq!(segment, self.tail.segment, "the tail's segment comes first");
            (self.tail_is_ready, self.pending_tail) = (true, None);
            return;
        }
        let last = self.ready.back().copied().unwrap_or(self.tail.segment);
        assert_eq!(segment, last + 1, "segments follow each other without gaps");
        self.ready.push_back(segment);
        self.wanted = self.wanted.max(segment);
    }

    /// The header of the next segment that should be made now, if one should; each is asked for once. `base_number` is the
    /// counter's value.
    pub fn wanted_segment(&mut self, base_number: u64) -> Option<SegmentHeader> {
        if let Some(tail) = self.pending_tail.take() {
            return Some(SegmentHeader { base_number, ..tail });
        }
        let ahead = if self.tail.segment == self.first_segment { 1 } else { SEGMENTS_AHEAD as u64 };
        if self.wanted >= self.tail.segment + ahead {
            return None;
        }
        self.wanted += 1;
        Some(SegmentHeader {
            log_id: self.log_id,
            lane: self.lane,
            segment: self.wanted,
            segment_bytes: self.segment_bytes,
            base_number,
            // Exact ordinals follow from the segments before, which stay as long as this one has no records.
            base_ordinal: self.durable_ordinal,
            previous_unfinished_block: 0,
            zeroed: false,
        })
    }

    /// How many segments are ready behind the current one, which may be missing itself.
    #[must_use]
    pub fn segments_ready(&self) -> usize {
        self.ready.len()
    }

    /// Position behind the last durable group.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// Ordinal behind the last durable record.
    #[must_use]
    pub fn durable_ordinal(&self) -> u64 {
        self.durable_ordinal
    }

    /// Bytes that wait for the disk, those in flight included.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.closed_bytes + self.open.as_ref().map_or(0, |group| group.buffer.len())
    }

    /// Whether everything appended is durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.in_flight && self.open.is_none() && self.closed.is_empty()
    }

    /// Appends a batch: all of `records` or none, in one group. `number` is called once, with how many numbers are needed,
    /// after the place is certain, and returns the first.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn append(&mut self, records: &[Record<'_>], number: impl FnOnce(u64) -> u64) -> Result<Appended, Refused> {
        assert!(!records.is_empty(), "a batch has a record");
        if self.poisoned {
            return Err(Refused::Poisoned);
        }
        let batch_bytes: usize = records.iter().map(|r| frame::frame_len(r.head.len() + r.body.len())).sum();
        let max = record_bytes_max(self.segment_bytes) + HEADER_BYTES;
        if batch_bytes > max {
            return Err(Refused::TooLarge { max });
        }
        let queued_bytes = self.queued_bytes();
        // A batch larger than that must not wait for a queue that is never empty.
        if queued_bytes > GROUP_BYTES_MAX && queued_bytes + batch_bytes > QUEUED_BYTES_MAX {
            return Err(Refused::Busy);
        }
        self.make_room(batch_bytes)?;
        let first_number = number(records.len() as u64);
        self.write_frames(records, first_number);
        self.sealed = false;
        Ok(Appended { first_number, end_ordinal: self.next_ordinal })
    }

    /// Whether something proves that all that was appended was durable.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Appends a seal, a group of its own, unless there is one, or something is on its way to the disk, or there is no room.
    /// Without it nobody could tell damage to the last group from a write that never finished. `next_number` is the
    /// counter's value. Returns whether it was appended.
    pub fn seal(&mut self, next_number: u64) -> bool {
        if self.sealed || self.poisoned || !self.is_idle() || self.make_room(frame::frame_len(0)).is_err() {
            return false;
        }
        let group = self.open.insert(Group::new(self.tail));
        let header = FrameHeader {
            number: next_number,
            ordinal: self.next_ordinal,
            payload_len: 0,
            kind: KIND_SEAL,
            flags: FLAG_BATCH_START,
            batch_remaining: 0,
            group_block: group.block(),
        };
        group.buffer.extend(&frame::encode_header(self.seed, &header, &[]), &mut self.pool);
        self.close_open();
        self.sealed = true;
        true
    }

    /// Sees to it that the open group, or one to be opened at `tail`, takes `batch_bytes`.
    fn make_room(&mut self, batch_bytes: usize) -> Result<(), Refused> {
        if !self.tail_is_ready {
            return Err(Refused::Busy);
        }
        let fits = |start: Position, used: usize| {
            start.offset as usize + (used + batch_bytes).next_multiple_of(BLOCK_BYTES) <= self.segment_bytes as usize
        };
        let start_next = match &self.open {
            Some(open) => {
                let used = open.buffer.len();
                if used + batch_bytes <= GROUP_BYTES_MAX && fits(open.start, used) {
                    return Ok(());
                }
                let end = open.start.offset as usize + used.next_multiple_of(BLOCK_BYTES);
                Position { segment: open.start.segment, offset: end as u32 }
            }
            None => self.tail,
        };
        let roll = !fits(start_next, 0);
        if roll && self.ready.is_empty() {
            return Err(Refused::Busy);
        }
        self.close_open();
        if roll && let Some(segment) = self.ready.pop_front() {
            self.tail = Position { segment, offset: SEGMENT_HEADER_BYTES as u32 };
            self.seed = SegmentSeed::new(self.log_id, self.lane, segment);
        }
        Ok(())
    }

    /// Closes the open group, if there is one: it waits for its turn.
    fn close_open(&mut self) {
        let Some(mut group) = self.open.take() else { return };
        group.buffer.pad_to(BLOCK_BYTES);
        group.end_ordinal = self.next_ordinal;
        self.tail = group.end();
        self.closed_bytes += group.buffer.len();
        self.closed.push_back(group);
    }

    fn write_frames(&mut self, records: &[Record<'_>], first_number: u64) {
        let start = self.tail;
        let group = self.open.get_or_insert_with(|| Group::new(start));
        for (index, record) in records.iter().enumerate() {
            let header = FrameHeader {
                number: first_number + index as u64,
                ordinal: self.next_ordinal,
                payload_len: (record.head.len() + record.body.len()) as u32,
                kind: record.kind,
                flags: if index == 0 { FLAG_BATCH_START } else { 0 },
                batch_remaining: (records.len() - 1 - index) as u32,
                group_block: group.block(),
            };
            let header = frame::encode_header(self.seed, &header, &[record.head, record.body]);
            for bytes in [&header, record.head, record.body] {
                group.buffer.extend(bytes, &mut self.pool);
            }
            group.buffer.pad_to(FRAME_ALIGN_BYTES);
            self.next_ordinal += 1;
        }
    }

    /// The next group to carry out, unless one is in flight or nothing waits.
    pub fn next_group(&mut self) -> Option<Group> {
        if self.in_flight || self.poisoned {
            return None;
        }
        if self.closed.is_empty() {
            self.close_open();
        }
        let group = self.closed.pop_front()?;
        self.in_flight = true;
        Some(group)
    }

    /// Takes the outcome of a group's write, its sync included: the number of bytes written.
    ///
    /// # Errors
    /// [`WriteFailed`] poisons the lane: after a failed sync the kernel may have dropped what it could not write and call
    /// the next sync a success, so nothing after it can be believed.
    pub fn completed(&mut self, mut group: Group, outcome: io::Result<usize>) -> Result<Step, WriteFailed> {
        let length = group.buffer.len();
        let written = match outcome {
            // A write that makes no progress would be repeated for ever; one that ends within a block cannot go on direct.
            Ok(bytes) if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) => {
                let source = io::Error::new(io::ErrorKind::WriteZero, format!("{bytes} bytes of a write of {length}"));
                return Err(self.poison(&group, source));
            }
            Ok(bytes) => bytes,
            Err(source) => return Err(self.poison(&group, source)),
        };
        group.written += written;
        assert!(group.written <= length, "the disk cannot write more than it was given");
        if group.written < length {
            return Ok(Step::Again(group));
        }
        self.in_flight = false;
        self.durable = group.end();
        assert!(self.durable_ordinal <= group.end_ordinal, "groups become durable in order");
        self.durable_ordinal = group.end_ordinal;
        self.closed_bytes -= length;
        group.buffer.recycle(&mut self.pool);
        Ok(Step::Durable)
    }

    fn poison(&mut self, group: &Group, source: io::Error) -> WriteFailed {
        self.poisoned = true;
        WriteFailed { at: group.start, source }
    }
}

#[cfg(test)]
mod tests;
