//! Group commit as a state machine without I/O. Records go in, groups to write come out, completions go in, and the durable
//! end moves on.
//!
//! While one group is being written, the next one collects records. It closes when the driver takes it, which is not before
//! the previous write returned. At most one group is in flight, so a group that verifies proves that all groups before it
//! were durable. Recovery depends on that.

mod batch;
mod pending;
mod supply;

pub use batch::{AppendRefusal, Appended, Record};
pub use pending::Group;

use crate::{
    buffer::ChunkPool,
    error::is_no_room,
    frame::{self, FLAG_BATCH_START, FrameHeader, HEADER_BYTES, KIND_SEAL, SegmentSeed},
    limits::{
        BLOCK_BYTES, FRAME_ALIGN_BYTES, GROUP_BYTES_MAX, NUMBER_END, QUEUED_BYTES_MAX, SEGMENT_HEADER_BYTES,
        record_bytes_max,
    },
    position::Position,
    segment::SegmentHeader,
};
use std::{collections::VecDeque, io};
use supply::SegmentSupply;

/// How a group becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMethod {
    /// `O_DIRECT`, and `RWF_DSYNC` with each write.
    Direct,
    /// A buffered write with `RWF_DSYNC`, which syncs its bytes as `fdatasync` does. It is one operation: the kernel would
    /// hand a separate `fdatasync` to another of its threads.
    Fdatasync,
    /// A buffered write only. It survives a crash of the process, not of the machine.
    None,
}

/// What a successful write led to.
pub enum Completion {
    /// A short write: write the rest of the group, from [`Group::next_write`] on.
    ShortWrite(Group),
    /// The group is durable.
    Durable,
    /// There was no room for the group. The lane has given its segment up.
    NoRoom(WriteError),
}

/// A write or its sync failed. The lane takes nothing more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the group at {at}: {source}")]
pub struct WriteError {
    /// Position of the group.
    pub at: Position,
    /// The error of the operating system.
    pub source: io::Error,
}

/// Where a lane starts to write.
#[derive(Clone, Copy, Debug)]
pub struct LaneStart {
    /// The log's id.
    pub log_id: [u8; 16],
    /// The lane.
    pub lane: u16,
    /// Size of the lane's segments in bytes.
    pub segment_bytes: u64,
    /// Position of the next group.
    pub tail: Position,
    /// Ordinal of the next record.
    pub next_ordinal: u64,
    /// Header of the tail's segment, if that segment does not exist yet. The lane takes nothing before it does.
    pub pending_tail: Option<SegmentHeader>,
    /// Whether something already proves that everything before the tail was durable.
    pub is_sealed: bool,
}

/// The state of one lane's group commit.
///
/// Invariant:
///
/// ```text
/// durable_end     <= in_flight_end     <= tail
/// durable_ordinal <= in_flight_ordinal <= closed_ordinal <= next_ordinal
/// ```
///
/// - Groups before `durable_end` are durable, and their records may be answered.
/// - The group from `durable_end` to `in_flight_end` is in flight. The two are equal if no group is.
/// - Groups from `in_flight_end` to `tail` are closed: they wait for their write.
/// - The open group collects records at `tail`.
///
/// Each ordinal is the one behind the last record before the position of that name; `next_ordinal` is behind the open group.
/// Nothing of it goes back, but what is not durable when the lane gives a segment up.
/// `assert_order` checks the invariant after each change. The test
/// `durable_stays_behind_in_flight_behind_closed_behind_appended_whatever_happens` holds it for random operations.
pub struct GroupCommit {
    segment_bytes: u64,
    segments: SegmentSupply,
    /// The seed of the tail's segment.
    seed: SegmentSeed,
    pool: ChunkPool,
    open_group: Option<Group>,
    closed_groups: VecDeque<Group>,
    /// Bytes of the closed groups and of the one in flight.
    closed_bytes: usize,
    /// Position behind the last durable group.
    durable_end: Position,
    /// Position behind the group in flight.
    in_flight_end: Position,
    /// Position behind the last closed group, where the open group starts.
    tail: Position,
    /// Ordinal behind the last durable record.
    durable_ordinal: u64,
    /// Ordinal behind the last record in flight.
    in_flight_ordinal: u64,
    /// Ordinal behind the last record of a closed group.
    closed_ordinal: u64,
    /// Ordinal of the next record.
    next_ordinal: u64,
    /// Whether no record was appended since the last seal.
    is_sealed: bool,
    is_poisoned: bool,
}

impl GroupCommit {
    /// The state of a lane that starts at `start`.
    #[must_use]
    pub fn new(start: LaneStart) -> Self {
        assert!(
            (start.tail.offset as usize).is_multiple_of(BLOCK_BYTES)
                && start.tail.offset as usize >= SEGMENT_HEADER_BYTES,
            "a group starts on a block behind the header"
        );
        let segments = SegmentSupply::new(&start);
        Self {
            segment_bytes: start.segment_bytes,
            seed: segments.seed(),
            segments,
            pool: ChunkPool::default(),
            open_group: None,
            closed_groups: VecDeque::new(),
            closed_bytes: 0,
            durable_end: start.tail,
            in_flight_end: start.tail,
            tail: start.tail,
            durable_ordinal: start.next_ordinal,
            in_flight_ordinal: start.next_ordinal,
            closed_ordinal: start.next_ordinal,
            next_ordinal: start.next_ordinal,
            is_sealed: start.is_sealed,
            is_poisoned: false,
        }
    }

    /// Takes in a segment that is ready: the tail's if it was missing, else the one behind all that are ready.
    ///
    /// # Panics
    /// If `segment` is another one.
    pub fn add_ready_segment(&mut self, segment: u64) {
        self.segments.add_ready(segment);
    }

    /// The header of a segment that should be made now, if there is one. Each is returned once. `base_number` is the value
    /// of the sequence counter.
    pub fn take_segment_request(&mut self, base_number: u64) -> Option<SegmentHeader> {
        // A lower bound is enough for the base ordinal: while the segment has no records, those before it stay.
        self.segments.take_request(base_number, self.durable_ordinal)
    }

    /// How many segments are ready behind the current one. The current one may be missing.
    #[must_use]
    pub fn ready_segments(&self) -> usize {
        self.segments.ready_count()
    }

    /// Position behind the last durable group.
    #[must_use]
    pub fn durable_end(&self) -> Position {
        self.durable_end
    }

    /// Ordinal behind the last durable record.
    #[must_use]
    pub fn durable_ordinal(&self) -> u64 {
        self.durable_ordinal
    }

    /// Bytes that wait for the disk, including those in flight.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.closed_bytes + self.open_group.as_ref().map_or(0, |group| group.buffer.len())
    }

    /// Whether everything appended is durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.is_in_flight() && self.open_group.is_none() && self.closed_groups.is_empty()
    }

    /// Whether a group is in flight.
    fn is_in_flight(&self) -> bool {
        self.durable_end < self.in_flight_end
    }

    /// Appends a batch: all of `records` or none of them, in one group. Once the batch has a place, `take_numbers` is called
    /// with the number of records and returns the first of so many consecutive numbers.
    ///
    /// # Errors
    /// See [`AppendRefusal`].
    ///
    /// # Panics
    /// If `records` is empty, or a number is beyond [`NUMBER_END`].
    pub fn append(
        &mut self,
        records: &[Record<'_>],
        take_numbers: impl FnOnce(u64) -> u64,
    ) -> Result<Appended, AppendRefusal> {
        assert!(!records.is_empty(), "a batch has a record");
        if self.is_poisoned {
            return Err(AppendRefusal::Poisoned);
        }
        let batch_bytes: usize = records.iter().map(|r| frame::frame_len(r.head.len() + r.body.len())).sum();
        let max_bytes = record_bytes_max(self.segment_bytes) + HEADER_BYTES;
        if batch_bytes > max_bytes {
            return Err(AppendRefusal::TooLarge { max_bytes });
        }
        let queued_bytes = self.queued_bytes();
        // While little is queued, even a batch larger than the bound is taken: the queue may never be empty.
        if queued_bytes > GROUP_BYTES_MAX && queued_bytes + batch_bytes > QUEUED_BYTES_MAX {
            return Err(AppendRefusal::Busy);
        }
        self.make_room(batch_bytes)?;
        let record_count = records.len() as u64;
        let first_number = take_numbers(record_count);
        assert!(first_number + record_count <= NUMBER_END && self.next_ordinal + record_count <= NUMBER_END);
        self.write_frames(records, first_number);
        self.is_sealed = false;
        Ok(Appended { first_number, end_ordinal: self.next_ordinal })
    }

    /// Whether something proves that everything appended was durable.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Appends a seal as a group of its own. `next_number` is the value of the sequence counter. Returns whether it did: a
    /// lane that is sealed, poisoned, not idle or without room takes no seal.
    ///
    /// Without a seal, damage to the last group would look like a write that never finished.
    pub fn seal(&mut self, next_number: u64) -> bool {
        if self.is_sealed || self.is_poisoned || !self.is_idle() || self.make_room(frame::frame_len(0)).is_err() {
            return false;
        }
        let group = self.open_group.insert(Group::new(self.tail));
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
        self.close_open_group();
        self.is_sealed = true;
        true
    }

    /// Makes room for a batch: in the open group, or in a later one at the tail.
    fn make_room(&mut self, batch_bytes: usize) -> Result<(), AppendRefusal> {
        if !self.segments.is_current_ready() {
            return Err(AppendRefusal::Busy);
        }
        let fits = |start: Position, used_bytes: usize| {
            let end = start.offset as usize + (used_bytes + batch_bytes).next_multiple_of(BLOCK_BYTES);
            end <= self.segment_bytes as usize
        };
        let next_start = match &self.open_group {
            Some(group) => {
                let used_bytes = group.buffer.len();
                if used_bytes + batch_bytes <= GROUP_BYTES_MAX && fits(group.start, used_bytes) {
                    return Ok(());
                }
                let end = group.start.offset as usize + used_bytes.next_multiple_of(BLOCK_BYTES);
                Position { segment: group.start.segment, offset: end as u32 }
            }
            None => self.tail,
        };
        let rolls_over = !fits(next_start, 0);
        if rolls_over && self.segments.ready_count() == 0 {
            return Err(AppendRefusal::Busy);
        }
        self.close_open_group();
        if rolls_over {
            self.tail = self.segments.roll_over();
            self.seed = self.segments.seed();
        }
        Ok(())
    }

    /// Closes the open group, if there is one. It then waits for its write.
    fn close_open_group(&mut self) {
        let Some(mut group) = self.open_group.take() else { return };
        group.buffer.pad_to(BLOCK_BYTES);
        group.end_ordinal = self.next_ordinal;
        (self.tail, self.closed_ordinal) = (group.end(), group.end_ordinal);
        self.closed_bytes += group.buffer.len();
        self.closed_groups.push_back(group);
        self.assert_order();
    }

    /// Encodes records into the open group, which has room for them.
    fn write_frames(&mut self, records: &[Record<'_>], first_number: u64) {
        let start = self.tail;
        let group = self.open_group.get_or_insert_with(|| Group::new(start));
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

    /// The next group to write, which is in flight from now on. `None` if one is in flight already, nothing is appended, or
    /// the lane is poisoned.
    pub fn take_next_group(&mut self) -> Option<Group> {
        if self.is_in_flight() || self.is_poisoned {
            return None;
        }
        if self.closed_groups.is_empty() {
            self.close_open_group();
        }
        let group = self.closed_groups.pop_front()?;
        (self.in_flight_end, self.in_flight_ordinal) = (group.end(), group.end_ordinal);
        self.assert_order();
        Some(group)
    }

    /// Takes the outcome of a write and its sync: the number of bytes written.
    ///
    /// If there was no room, the lane gives the segment up: see [`Completion::NoRoom`].
    ///
    /// # Errors
    /// [`WriteError`] poisons the lane. After a failed sync the kernel may drop what it could not write, and the next sync
    /// may succeed all the same: no later success proves anything.
    ///
    /// # Panics
    /// If `group` is not the one in flight.
    pub fn complete(&mut self, mut group: Group, outcome: io::Result<usize>) -> Result<Completion, WriteError> {
        assert!(self.is_in_flight() && group.end() == self.in_flight_end, "the group is in flight");
        let length = group.buffer.len();
        let written_bytes = match outcome {
            // A write ends within its first block only where room ends. It would be repeated for ever.
            Ok(bytes) if bytes < BLOCK_BYTES => {
                let source =
                    io::Error::new(io::ErrorKind::StorageFull, format!("{bytes} bytes of a write of {length}"));
                return Ok(Completion::NoRoom(self.give_up_segment(group, source)));
            }
            // A direct write cannot continue within a block.
            Ok(bytes) => bytes / BLOCK_BYTES * BLOCK_BYTES,
            Err(source) if is_no_room(&source) => return Ok(Completion::NoRoom(self.give_up_segment(group, source))),
            Err(source) => return Err(self.poison(&group, source)),
        };
        group.written_bytes += written_bytes;
        assert!(group.written_bytes <= length, "the disk cannot write more than it was given");
        if group.written_bytes < length {
            return Ok(Completion::ShortWrite(group));
        }
        (self.durable_end, self.durable_ordinal) = (group.end(), group.end_ordinal);
        self.closed_bytes -= length;
        group.buffer.recycle(&mut self.pool);
        self.assert_order();
        Ok(Completion::Durable)
    }

    /// Drops everything that is not durable, and continues at the start of the segment behind that of `group`, whose write
    /// failed. A part of `group` may be on the disk. Its records are refused, and their ordinals given again.
    ///
    /// Before their refusal is answered, [`end_segment`](crate::segments::Segments::end_segment) must have made it durable
    /// that the segment ends before the group. That also proves that everything before it was durable, so no seal is needed.
    fn give_up_segment(&mut self, group: Group, source: io::Error) -> WriteError {
        let at = group.start;
        let dropped = [group].into_iter().chain(self.closed_groups.drain(..)).chain(self.open_group.take());
        dropped.for_each(|group| group.buffer.recycle(&mut self.pool));
        self.closed_bytes = 0;
        self.tail = self.segments.continue_behind(at.segment, self.durable_ordinal);
        self.seed = self.segments.seed();
        self.in_flight_end = self.durable_end;
        (self.in_flight_ordinal, self.closed_ordinal) = (self.durable_ordinal, self.durable_ordinal);
        self.next_ordinal = self.durable_ordinal;
        self.is_sealed = true;
        self.assert_order();
        WriteError { at, source }
    }

    fn poison(&mut self, group: &Group, source: io::Error) -> WriteError {
        self.is_poisoned = true;
        WriteError { at: group.start, source }
    }

    /// Panics if the invariant of the type does not hold. It runs for each group, not for each record.
    fn assert_order(&self) {
        assert!(
            self.durable_end <= self.in_flight_end && self.in_flight_end <= self.tail,
            "groups become durable in the order in which they were closed"
        );
        assert!(
            self.durable_ordinal <= self.in_flight_ordinal
                && self.in_flight_ordinal <= self.closed_ordinal
                && self.closed_ordinal <= self.next_ordinal,
            "records become durable in the order in which they were appended"
        );
        debug_assert!(self.open_group.as_ref().is_none_or(|group| group.start == self.tail));
    }
}

#[cfg(test)]
mod tests;
