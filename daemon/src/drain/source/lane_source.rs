//! One lane of the log as a drainer reads it: records that were read ahead, lost records, and what happens when the lane
//! cannot be read.

use super::{
    log_record::{self, LogRecord},
    partition_share::PartitionShare,
    shared_slice::{SharedSlice, Slab},
};
use crate::{
    limits::{LANE_LOOK_INTERVAL, LOAD_BYTES, LOAD_ROWS, PASS_BYTES},
    state::{drain_view::DrainView, log_view::LogView, mark::Mark},
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

/// Numbers of damaged records that one log line names. Further records are counted by their ordinals all the same.
const NUMBERS_LOGGED_MAX: usize = 64;

/// Why no round can be taken from the log at present. Nothing is lost; the next call tries the same place again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// Reading any lane takes it.
    #[error("the process lacks descriptors or memory to read the log: {0}")]
    Process(LogError),
    /// Others wait for it, since it may be readable in a moment.
    #[error("a lane cannot be read; all lanes wait for it")]
    Lane,
}

/// How far a lane is durable.
#[derive(Clone, Copy)]
pub(crate) struct DurableEnd {
    position: Position,
    /// All records with a lower ordinal are before `position`.
    ordinal: u64,
}

impl DurableEnd {
    /// The durable end of `lane` now.
    pub(crate) fn of(lane: &LaneShared) -> Self {
        // The ordinal first: a reader who sees it may rely on the position that is read afterwards.
        let ordinal = lane.durable_ordinal();
        Self { position: lane.durable_end(), ordinal }
    }
}

/// Whether a lane can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Readability {
    #[default]
    Readable,
    /// It fails; all lanes wait for this one.
    Failing { since: Instant },
    /// It failed for too long: the others continue without it.
    LeftOut { next_try: Instant },
}

/// What is known of a lane, also after it was opened again.
#[derive(Default)]
pub(crate) struct LaneHistory {
    readability: Readability,
    /// Missing records below this ordinal were logged.
    lost_logged: u64,
}

/// The state of the daemon that reading a lane needs.
#[derive(Clone, Copy)]
pub(crate) struct LaneContext<'a> {
    /// The log.
    pub(crate) log: &'a LogView,
    /// The drain's counters.
    pub(crate) drain: &'a DrainView,
}

/// A lane, read from a mark on.
pub(crate) struct LaneSource {
    /// Index in the log's view.
    index: u16,
    share: PartitionShare,
    reader: LaneReader<Disk>,
    /// Records that were read ahead and that no round has taken.
    ahead: VecDeque<LogRecord>,
    ahead_bytes: usize,
    slab: Slab,
    /// Behind the last record that a round took.
    mark: Mark,
    /// Ordinal behind the last record read; `None` before the first.
    next_ordinal: Option<u64>,
    /// Number of the last record read.
    last_number: Option<u64>,
    /// Numbers of the records behind it that are damaged.
    damaged_numbers: Vec<u64>,
    /// Whether reading stopped before the end, and before a record of this drainer, so that another drainer has its turn.
    has_stopped_short: bool,
}

impl LaneSource {
    /// The lane of that index, from `mark` on, as far as it is in `share`.
    pub(crate) fn open(log: &LogView, layout: &Layout, share: PartitionShare, index: usize, mark: Mark) -> Self {
        let progress = &log.lanes[index];
        let reader = LaneReader::new(log.disk.clone(), layout.clone(), log.id, progress.lane.lane(), mark.position)
            .with_pending_tail(progress.pending_tail())
            .with_tail_cache(Arc::clone(progress.lane.tail_cache()));
        Self {
            index: index as u16,
            share,
            reader,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            slab: Slab::default(),
            mark,
            next_ordinal: None,
            last_number: None,
            damaged_numbers: Vec::new(),
            has_stopped_short: false,
        }
    }

    /// How far rounds have taken the lane.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// The next record, if it was read.
    pub(crate) fn head(&self) -> Option<&LogRecord> {
        self.ahead.front()
    }

    /// Whether it has no next record to show although there may be one.
    pub(crate) fn is_short(&self) -> bool {
        self.ahead.is_empty() && self.has_stopped_short
    }

    /// Takes the next record that was read.
    pub(crate) fn pop(&mut self) -> Option<LogRecord> {
        let next = self.ahead.pop_front()?;
        self.ahead_bytes -= next.payload().len();
        self.mark = next.mark();
        Some(next)
    }

    /// Puts a record back in front of the next one.
    pub(crate) fn put_back(&mut self, record: LogRecord) {
        self.ahead_bytes += record.payload().len();
        self.ahead.push_front(record);
    }

    /// Goes back to `mark`, once the records behind it were put back.
    pub(crate) fn set_mark(&mut self, mark: Mark) {
        self.mark = mark;
    }

    /// Moves the mark to where the reader is, if all records before that are taken: behind the last record of a segment there
    /// may be only the next segment, lost records and other drainers' records.
    pub(crate) fn pass_over(&mut self) {
        if self.ahead.is_empty() {
            self.mark.position = self.reader.position();
            self.mark.ordinal = self.next_ordinal.unwrap_or(0).max(self.mark.ordinal);
        }
    }

    /// Reads on to `end`, at most until enough records are read ahead. Logs what is lost.
    ///
    /// All lanes wait for one that cannot be read. Numbers order the records across lanes, and a record of another lane may
    /// have been sent after the answer to a record of this one. After `patience` the others continue without it, which costs
    /// that order: its records follow once it can be read again, or never. Otherwise a disk that does not come back would keep
    /// the records of healthy disks from PostgreSQL until the log is full. Each message is still delivered exactly once,
    /// since the checkpoint has a mark for each lane.
    pub(crate) fn refill(
        &mut self,
        context: LaneContext<'_>,
        history: &mut LaneHistory,
        end: DurableEnd,
        patience: Duration,
    ) -> Result<(), TakeError> {
        if matches!(history.readability, Readability::LeftOut { next_try } if Instant::now() < next_try) {
            return Ok(());
        }
        let progress = &context.log.lanes[usize::from(self.index)];
        let lane = progress.lane.lane();
        let error = match self.load(context, history, end) {
            Ok(()) => {
                if matches!(history.readability, Readability::LeftOut { .. }) {
                    tracing::info!(lane, "the lane can be read again; its records are delivered now");
                    progress.set_left_out(false);
                }
                history.readability = Readability::Readable;
                return Ok(());
            }
            // The records that were read are delivered first.
            Err(_) if !self.ahead.is_empty() => return Ok(()),
            Err(error) if is_of_the_process(&error) => return Err(TakeError::Process(error)),
            Err(error) => error,
        };
        match history.readability {
            Readability::Readable => {
                tracing::warn!(lane, %error, "a lane cannot be read; all lanes wait for it for a moment");
                history.readability = Readability::Failing { since: Instant::now() };
                return Err(TakeError::Lane);
            }
            Readability::Failing { since } if since.elapsed() < patience => return Err(TakeError::Lane),
            Readability::Failing { .. } => {
                tracing::error!(
                    code = "lane_unreadable",
                    lane,
                    %error,
                    "a lane cannot be read; the others are drained without it"
                );
                progress.set_left_out(true);
            }
            Readability::LeftOut { .. } => tracing::debug!(lane, %error, "the lane still cannot be read"),
        }
        history.readability = Readability::LeftOut { next_try: Instant::now() + LANE_LOOK_INTERVAL };
        Ok(())
    }

    fn load(&mut self, context: LaneContext<'_>, history: &mut LaneHistory, end: DurableEnd) -> Result<(), LogError> {
        let mut loaded = Loaded { chunk: self.slab.take(), records: Vec::new() };
        let outcome = self.read_into(&mut loaded, context, history, end);
        // Also the records before an error: the reader is behind them.
        let chunk = self.slab.lend(loaded.chunk);
        let mut start = 0;
        self.ahead.extend(loaded.records.into_iter().map(|LoadedRecord { header, end, is_message }| {
            let payload = SharedSlice::new(&chunk, start, header.payload_len as usize);
            start += header.payload_len as usize;
            LogRecord::new(&header, self.index, end, payload, is_message)
        }));
        outcome
    }

    fn read_into(
        &mut self,
        loaded: &mut Loaded,
        context: LaneContext<'_>,
        history: &mut LaneHistory,
        end: DurableEnd,
    ) -> Result<(), LogError> {
        self.has_stopped_short = false;
        let mut passed_bytes = 0;
        while self.ahead.len() + loaded.records.len() < LOAD_ROWS && self.ahead_bytes < LOAD_BYTES {
            if passed_bytes > PASS_BYTES {
                self.has_stopped_short = true;
                break;
            }
            match self.reader.next_event(end.position)? {
                None => {
                    // Ordinals that were durable and have no record.
                    self.report_lost(context.drain, history, end.ordinal, None);
                    self.next_ordinal = Some(self.expected_ordinal().max(end.ordinal));
                    break;
                }
                Some(Event::Damaged { segment, at, number }) => {
                    self.report_damaged(segment, at, number);
                    context.log.keeper.mark_damaged(self.reader.lane(), segment);
                }
                Some(Event::Seal { ordinal }) => {
                    self.report_lost(context.drain, history, ordinal, None);
                    self.next_ordinal = Some(ordinal);
                }
                Some(Event::Record(header)) => {
                    if !self.reader.in_unfinished_group() {
                        self.report_lost(context.drain, history, header.ordinal, Some(header.number));
                    }
                    self.next_ordinal = Some(header.ordinal + 1);
                    self.last_number = Some(header.number);
                    self.damaged_numbers.clear();
                    let payload = self.reader.payload();
                    let message = log_record::check(header.kind, payload);
                    if !self.share.has(message) {
                        passed_bytes += payload.len();
                        continue;
                    }
                    self.ahead_bytes += payload.len();
                    loaded.chunk.extend_from_slice(payload);
                    let (end, is_message) = (self.reader.position(), message.is_some());
                    loaded.records.push(LoadedRecord { header, end, is_message });
                }
            }
        }
        Ok(())
    }

    fn expected_ordinal(&self) -> u64 {
        self.next_ordinal.unwrap_or(self.mark.ordinal)
    }

    fn report_damaged(&mut self, segment: u64, offset: u32, number: Option<u64>) {
        if self.share.reports() {
            tracing::error!(
                code = "log_damaged",
                lane = self.reader.lane(),
                segment,
                offset,
                number,
                "the log is damaged here; records behind the damage are delivered, the segment will be set aside"
            );
        }
        if self.damaged_numbers.len() < NUMBERS_LOGGED_MAX {
            self.damaged_numbers.extend(number);
        }
    }

    /// Counts and logs the records that are missing before the one of `ordinal` and `number`, unless that was done before.
    fn report_lost(&self, drain: &DrainView, history: &mut LaneHistory, ordinal: u64, number: Option<u64>) {
        let expected = self.expected_ordinal();
        if ordinal <= expected || expected < history.lost_logged {
            return;
        }
        history.lost_logged = ordinal;
        if !self.share.reports() {
            return;
        }
        let records = ordinal - expected;
        drain.counters.lost_records.fetch_add(records, Ordering::Relaxed);
        tracing::error!(
            code = "records_missing",
            lane = self.reader.lane(),
            records,
            first_ordinal = expected,
            numbers = ?self.damaged_numbers,
            after_number = self.last_number,
            before_number = number,
            "records of the log are missing (see the segments set aside)"
        );
    }
}

/// Records that one call reads: their payloads, one behind the other.
struct Loaded {
    chunk: Vec<u8>,
    records: Vec<LoadedRecord>,
}

struct LoadedRecord {
    header: FrameHeader,
    end: Position,
    is_message: bool,
}

/// Whether the process or the machine lacks something that reading any lane takes.
fn is_of_the_process(error: &LogError) -> bool {
    let LogError::Io { source, .. } = error else { return false };
    matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}
