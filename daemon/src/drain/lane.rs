//! One lane as the drain reads it: what was read and not yet taken, what is lost, and how reading fares.

use super::{
    crew::Share,
    piece::{Chunks, Piece},
    source::Taken,
};
use crate::state::mark::Mark;
use crate::{
    limits::{LANE_LOOK_INTERVAL, LOAD_BYTES, LOAD_ROWS, PASS_BYTES},
    state::shared::Shared,
};
use forebay_wal::{
    error::LogError,
    frame::FrameHeader,
    lane::LaneShared,
    layout::Layout,
    position::Position,
    reader::{Event, LaneReader},
    storage::Disk,
};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Numbers of records that do not verify that one line names; more are counted by their ordinals all the same.
const NUMBERS_TOLD_MAX: usize = 64;

/// Why a round cannot begin.
#[derive(Debug)]
pub enum HeldUp {
    /// The process lacks something (descriptors, memory) that reading any lane takes.
    Process(LogError),
    /// A lane cannot be read, and may be in a moment.
    Lane,
}

/// How far a lane is durable.
#[derive(Clone, Copy)]
pub(crate) struct End {
    position: Position,
    /// All records below this stand before the position.
    ordinal: u64,
}

impl End {
    pub(crate) fn of(lane: &LaneShared) -> Self {
        // The ordinal first: whoever sees it may rely on the position.
        let ordinal = lane.durable_ordinal();
        Self { position: lane.durable_end(), ordinal }
    }
}

/// How reading a lane fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    Well,
    /// It fails; all lanes wait for this one.
    Failing { since: Instant },
    /// It failed for too long: the others go on without it.
    LeftOut { look_at: Instant },
}

/// What is known of a lane's reading however often it begins anew.
#[derive(Default)]
pub(crate) struct History {
    reading: Reading,
    /// Ordinal up to which missing records were told.
    lost_told: u64,
}

pub(crate) struct Lane {
    index: usize,
    share: Share,
    reader: LaneReader<Disk>,
    /// Read, and not yet taken by a round.
    pub(crate) loaded: VecDeque<Taken>,
    loaded_bytes: usize,
    chunks: Chunks,
    /// Behind the last record that a round took.
    pub(crate) taken: Mark,
    /// Ordinal behind the last record read; `None` before the first.
    next_ordinal: Option<u64>,
    /// Number of the last record read.
    last_number: Option<u64>,
    /// Numbers of the records since then whose payload does not verify.
    bad_numbers: Vec<u64>,
    /// Reading stopped before the end, and before a record that is the drainer's own.
    stopped_short: bool,
}

impl Lane {
    /// The lane of that index among [`Shared::lanes`], from `mark` on, as far as it is a drainer's.
    pub(crate) fn open(shared: &Shared, layout: &Layout, share: Share, index: usize, mark: Mark) -> Self {
        let progress = &shared.log.lanes[index];
        let reader = LaneReader::new(Disk, layout.clone(), shared.log.id, progress.lane.lane(), mark.position)
            .with_pending_tail(progress.pending_tail())
            .with_tail_cache(Arc::clone(progress.lane.tail_cache()));
        Self {
            index,
            share,
            reader,
            loaded: VecDeque::new(),
            loaded_bytes: 0,
            chunks: Chunks::default(),
            taken: mark,
            next_ordinal: None,
            last_number: None,
            bad_numbers: Vec::new(),
            stopped_short: false,
        }
    }

    /// Whether it does not show its next record although there may be one.
    pub(crate) fn is_short(&self) -> bool {
        self.loaded.is_empty() && self.stopped_short
    }

    /// Takes the next record that is loaded.
    pub(crate) fn pop(&mut self) -> Option<Taken> {
        let next = self.loaded.pop_front()?;
        self.loaded_bytes -= next.payload.len();
        self.taken = Mark { position: next.end, ordinal: next.ordinal + 1 };
        Some(next)
    }

    /// Puts a record back in front of those that are loaded.
    pub(crate) fn give_back(&mut self, record: Taken) {
        self.loaded_bytes += record.payload.len();
        self.loaded.push_front(record);
    }

    /// Notes, where nothing more is loaded, that all before the reader's position is taken: behind the last record of a
    /// segment there may be nothing but the next segment, and records that are lost.
    pub(crate) fn pass_over(&mut self) {
        if self.loaded.is_empty() {
            self.taken.position = self.reader.position();
            self.taken.ordinal = self.next_ordinal.unwrap_or(0).max(self.taken.ordinal);
        }
    }

    /// Reads on to `end` until a piece of it is loaded; tells what is lost.
    ///
    /// A lane that cannot be read holds up all others at first, for numbers order records across lanes: what would be
    /// delivered without it may have been sent after the answer to something that stands in it. After `patience` the others
    /// go on without it all the same. What it holds is then delivered once it can be read again, behind what was sent later,
    /// or never: a disk that does not come back would otherwise keep from PostgreSQL what the healthy ones hold, until the
    /// log is full. Exactly once holds either way: each lane has a mark of its own in the checkpoint.
    ///
    /// # Errors
    /// See [`HeldUp`]; the same place is tried again with the next call.
    pub(crate) fn refill(
        &mut self,
        shared: &Shared,
        history: &mut History,
        end: End,
        patience: Duration,
    ) -> Result<(), HeldUp> {
        if matches!(history.reading, Reading::LeftOut { look_at } if Instant::now() < look_at) {
            return Ok(());
        }
        let progress = &shared.log.lanes[self.index];
        let lane = progress.lane.lane();
        match self.load(shared, history, end) {
            Ok(()) => {
                if matches!(history.reading, Reading::LeftOut { .. }) {
                    tracing::info!(lane, "the lane can be read again; what it holds is delivered now");
                    progress.set_left_out(false);
                }
                history.reading = Reading::Well;
                Ok(())
            }
            // What is at hand goes first.
            Err(_) if !self.loaded.is_empty() => Ok(()),
            Err(error) if is_of_the_process(&error) => Err(HeldUp::Process(error)),
            Err(error) => match history.reading {
                Reading::Well => {
                    tracing::warn!(lane, %error, "a lane cannot be read; all lanes wait for it for a moment");
                    history.reading = Reading::Failing { since: Instant::now() };
                    Err(HeldUp::Lane)
                }
                Reading::Failing { since } if since.elapsed() < patience => Err(HeldUp::Lane),
                Reading::Failing { .. } => {
                    tracing::error!(
                        code = "lane_unreadable",
                        lane,
                        %error,
                        "a lane cannot be read; the others are drained without it"
                    );
                    history.reading = Reading::LeftOut { look_at: Instant::now() + LANE_LOOK_INTERVAL };
                    progress.set_left_out(true);
                    Ok(())
                }
                Reading::LeftOut { .. } => {
                    tracing::debug!(lane, %error, "the lane still cannot be read");
                    history.reading = Reading::LeftOut { look_at: Instant::now() + LANE_LOOK_INTERVAL };
                    Ok(())
                }
            },
        }
    }

    fn load(&mut self, shared: &Shared, history: &mut History, end: End) -> Result<(), LogError> {
        let mut read = self.chunks.take();
        let mut headers = Vec::new();
        let outcome = self.read_on(shared, history, end, (&mut read, &mut headers));
        // Also what was read before an error: the reader is behind it.
        let read = self.chunks.lend(read);
        let mut at = 0;
        self.loaded.extend(headers.into_iter().map(|(header, end): (FrameHeader, Position)| {
            let length = header.payload_len as usize;
            let payload = Piece::new(&read, at, length);
            at += length;
            let (number, ordinal, kind) = (header.number, header.ordinal, header.kind);
            Taken { number, ordinal, kind, lane: self.index, end, payload }
        }));
        outcome
    }

    fn read_on(
        &mut self,
        shared: &Shared,
        history: &mut History,
        end: End,
        (read, headers): (&mut Vec<u8>, &mut Vec<(FrameHeader, Position)>),
    ) -> Result<(), LogError> {
        self.stopped_short = false;
        let mut passed_bytes = 0;
        while self.loaded.len() + headers.len() < LOAD_ROWS && self.loaded_bytes < LOAD_BYTES {
            if passed_bytes > PASS_BYTES {
                self.stopped_short = true;
                break;
            }
            match self.reader.next_event(end.position)? {
                None => {
                    // What was durable and has no record behind it.
                    self.tell_lost(shared, history, end.ordinal, None);
                    self.next_ordinal = Some(self.expected_ordinal().max(end.ordinal));
                    break;
                }
                Some(Event::Damaged { segment, at, number }) => {
                    if self.share.tells() {
                        tracing::error!(
                            code = "log_damaged",
                            lane = self.reader.lane(),
                            segment,
                            offset = at,
                            number,
                            "bytes of the log do not verify; what follows does, the segment will be set aside"
                        );
                    }
                    if self.bad_numbers.len() < NUMBERS_TOLD_MAX {
                        self.bad_numbers.extend(number);
                    }
                    shared.log.keeper.mark_damaged(self.reader.lane(), segment);
                }
                Some(Event::Seal { ordinal }) => {
                    self.tell_lost(shared, history, ordinal, None);
                    self.next_ordinal = Some(ordinal);
                }
                Some(Event::Record(header)) => {
                    if !self.reader.in_unfinished_group() {
                        self.tell_lost(shared, history, header.ordinal, Some(header.number));
                    }
                    self.next_ordinal = Some(header.ordinal + 1);
                    self.last_number = Some(header.number);
                    self.bad_numbers.clear();
                    if !self.share.has(header.kind, self.reader.payload()) {
                        passed_bytes += self.reader.payload().len();
                        continue;
                    }
                    self.loaded_bytes += self.reader.payload().len();
                    read.extend_from_slice(self.reader.payload());
                    headers.push((header, self.reader.position()));
                }
            }
        }
        Ok(())
    }

    fn expected_ordinal(&self) -> u64 {
        self.next_ordinal.unwrap_or(self.taken.ordinal)
    }

    /// Tells which records are missing before the one of that ordinal and number, unless that was told before.
    fn tell_lost(&self, shared: &Shared, history: &mut History, ordinal: u64, number: Option<u64>) {
        let expected = self.expected_ordinal();
        if ordinal <= expected || expected < history.lost_told {
            return;
        }
        history.lost_told = ordinal;
        if !self.share.tells() {
            return;
        }
        let records = ordinal - expected;
        shared.drain.counters.lost_records.fetch_add(records, Ordering::Relaxed);
        tracing::error!(
            code = "records_missing",
            lane = self.reader.lane(),
            records,
            first_ordinal = expected,
            numbers = ?self.bad_numbers,
            after_number = self.last_number,
            before_number = number,
            "records of the log are missing (see the segments set aside)"
        );
    }
}

/// Whether an error says that the process, or the machine, lacks what reading takes, whatever is to be read.
fn is_of_the_process(error: &LogError) -> bool {
    let LogError::Io { source, .. } = error else { return false };
    matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}
