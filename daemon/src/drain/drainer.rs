//! The drain's loop: waits until something is due, takes a round, commits it, tells who waits; through any outage.
//!
//! `waiting`: for what is due, for PostgreSQL. `connecting`: to a session, and on from its checkpoint. `trouble`: after a round
//! that failed.

mod connecting;
mod trouble;
mod waiting;

use super::{
    batch::{Batch, Verdict},
    crew::{Crew, Share},
    lane::HeldUp,
    plan::set_drained,
    round::RoundError,
    session::Session,
    source::Sources,
    thread::DrainFailed,
};
use crate::state::mark::Mark;
use crate::{
    config::ProbeDuplicates,
    limits::{
        BACKOFF_MIN, LANE_PATIENCE, LANE_PATIENCE_AT_END, LANE_RETRY_INTERVAL, PAUSE_INTERVAL,
        ROUND_ROWS_FEW_PARTITIONS, ROUND_ROWS_MAX, ROUND_ROWS_PER_PARTITION,
    },
    rt,
    rt::Notify,
    state::{mailbox::Letter, shared::Shared},
};
use forebay_pgwire::{Error, PassFileWarning, SqlState};
use std::{
    collections::VecDeque,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// How long the drain sleeps at most before it looks whether PostgreSQL is still there.
const IDLE_CHECK: Duration = Duration::from_secs(1);

pub(crate) struct Drainer {
    shared: Arc<Shared>,
    crew: Rc<Crew>,
    /// Its number in the crew.
    index: usize,
    sources: Sources,
    session: Option<Session>,
    /// How far its checkpoint is known to be.
    committed: Vec<Mark>,
    /// Why there is none, as it was told last: the code, and PostgreSQL's own.
    held_up_by: Option<(&'static str, Option<SqlState>)>,
    /// The file of passwords that was not used, as it was told last.
    pass_file_told: Option<PassFileWarning>,
    /// A round that needs nothing but the answer to its COMMIT.
    committing: Option<Batch>,
    /// Rounds that were taken and are not committed, in order; the first one is tried, the next one was taken meanwhile.
    taken: VecDeque<Batch>,
    /// The last round's limits left records behind that were due as well.
    left_some: bool,
    /// Partitions of the last round.
    partitions_before: usize,
    /// Rows of the next rounds at most: fewer while a refused row is being looked for.
    rows_max: usize,
    /// Rounds that look for duplicates first.
    probes_left: u32,
    /// Attempts in a row that were rolled back through nobody's fault.
    repeats: u32,
    backoff: Duration,
    /// Messages pushed when the last back-off began.
    pushed_before: u64,
    notify: Rc<Notify>,
    last_used: Instant,
}

/// What to do after a step.
enum Next {
    /// Something more may be due at once.
    Now,
    /// Wait for a signal.
    Wait,
    /// The same, and there was nothing to take.
    Idle,
    /// Connect again, after the back-off.
    Reconnect,
    /// Look again after a while: a person must see to something.
    Pause,
    /// A lane cannot be read, and may be in a moment.
    Retry,
}

impl Drainer {
    /// The one that `share` is of, which `notify` wakes.
    pub(crate) fn new(crew: Rc<Crew>, share: Share, notify: Rc<Notify>) -> Self {
        Self {
            shared: Arc::clone(&crew.shared),
            sources: Sources::new(&crew.shared, &crew.layout, share),
            crew,
            index: share.drainer,
            session: None,
            committed: Vec::new(),
            held_up_by: None,
            pass_file_told: None,
            committing: None,
            taken: VecDeque::new(),
            left_some: false,
            partitions_before: 0,
            rows_max: ROUND_ROWS_MAX,
            probes_left: 0,
            repeats: 0,
            backoff: BACKOFF_MIN,
            pushed_before: 0,
            notify,
            last_used: Instant::now(),
        }
    }

    pub(crate) async fn run(mut self) -> Result<(), DrainFailed> {
        let mut next = Next::Now;
        loop {
            if let Some(finish_by) = self.crew.finish_by() {
                // Nothing to take although something is pending: it is lost, and was reported.
                let is_idle = matches!(next, Next::Idle) || (self.crew.is_alone() && self.shared.log.pending() == 0);
                let nothing_left = !self.has_rounds() && is_idle;
                // Without PostgreSQL waiting brings nothing: the log keeps what there is.
                let hopeless = matches!(next, Next::Reconnect | Next::Pause);
                if nothing_left || hopeless || Instant::now() >= finish_by {
                    self.remember(true).await;
                    return Ok(());
                }
                if !matches!(next, Next::Retry) {
                    next = Next::Now;
                }
            }
            match next {
                Next::Now => {}
                Next::Wait | Next::Idle => self.wait_until_due().await,
                Next::Reconnect => self.back_off().await,
                Next::Pause => self.sleep(PAUSE_INTERVAL).await,
                Next::Retry => rt::sleep(LANE_RETRY_INTERVAL).await,
            }
            next = match self.step().await {
                Ok(next) => next,
                Err(fatal) => return Err(fatal),
            };
        }
    }

    async fn step(&mut self) -> Result<Next, DrainFailed> {
        if self.session.is_none() {
            match self.connect().await? {
                Next::Now => {}
                next => return Ok(next),
            }
        }
        self.round().await
    }

    async fn round(&mut self) -> Result<Next, DrainFailed> {
        if self.taken.is_empty() {
            match self.take() {
                Ok(Some(batch)) => self.taken.push_back(batch),
                Ok(None) if self.left_some => {
                    // Only others' records were passed so far. They have their turn too: the timer's step is the least that
                    // lets the ring be looked at.
                    rt::sleep(Duration::from_millis(1)).await;
                    return Ok(Next::Now);
                }
                Ok(None) => return Ok(self.idle().await),
                Err(HeldUp::Process(error)) => {
                    self.away("log_unreadable", None, &error.to_string());
                    return Ok(Next::Pause);
                }
                Err(HeldUp::Lane) => return Ok(Next::Retry),
            }
        }
        match self.attempt().await {
            Ok(()) => Ok(if self.left_some || self.has_rounds() { Next::Now } else { Next::Wait }),
            Err(error) => Ok(self.failed(error)),
        }
    }

    /// Puts the round whose COMMIT is not known to have worked in front of those that follow it.
    fn commit_again(&mut self) {
        if let Some(batch) = self.committing.take() {
            self.taken.push_front(batch);
        }
    }

    fn has_rounds(&self) -> bool {
        self.committing.is_some() || !self.taken.is_empty()
    }

    /// Takes what is due; `None`: nothing is.
    fn take(&mut self) -> Result<Option<Batch>, HeldUp> {
        // Before the log is looked at: what is signalled later may not be in this round.
        self.crew.reset_due(self.index);
        let before = self.sources.marks();
        let patience = if self.crew.finish_by().is_some() { LANE_PATIENCE_AT_END } else { LANE_PATIENCE };
        let worth_taking = self.partitions_before.saturating_mul(ROUND_ROWS_PER_PARTITION);
        let rows_max = worth_taking.clamp(ROUND_ROWS_FEW_PARTITIONS, ROUND_ROWS_MAX).min(self.rows_max);
        let (records, left_some) = self.sources.take(rows_max, patience)?;
        self.left_some = left_some;
        if records.is_empty() && !self.is_mark_due() {
            return Ok(None);
        }
        let batch = Batch::new(records, before, self.sources.marks());
        self.partitions_before = batch.partitions.len();
        Ok(Some(batch))
    }

    /// Whether the checkpoint should pass what is others': it holds segments, is where the next start begins to read, and all
    /// must be equally far for their number to change.
    fn is_mark_due(&self) -> bool {
        if self.crew.is_alone() || self.has_rounds() {
            return false;
        }
        let marks = self.sources.marks();
        let mut both = self.committed.iter().zip(&marks);
        let is_quiet = self.crew.finish_by().is_some() || self.last_used.elapsed() >= IDLE_CHECK;
        both.any(|(done, passed)| {
            passed.position.segment > done.position.segment || (is_quiet && passed.ordinal > done.ordinal)
        })
    }

    /// Nothing is due.
    async fn idle(&mut self) -> Next {
        self.crew.note_oldest(self.index, 0);
        // Records that are lost, or others', are no longer pending; the checkpoint passes them with the next ones.
        for (progress, mark) in self.shared.log.lanes.iter().zip(self.sources.marks()) {
            let done = progress.drained_by(self.index);
            if mark.ordinal > done.ordinal {
                progress.set_drained(self.index, Mark { ordinal: mark.ordinal, ..done });
            }
        }
        if self.last_used.elapsed() >= IDLE_CHECK
            && let Some(session) = &mut self.session
        {
            self.last_used = Instant::now();
            if let Err(error) = session.check().await {
                return self.unreachable(&error);
            }
            self.crew.answered(self.index);
            self.remember(true).await;
        }
        Next::Idle
    }

    /// Brings the first of the rounds to its COMMIT, and the one before it to its end. Where more wait, they are taken while
    /// PostgreSQL is at work, and the COMMIT travels with them.
    async fn attempt(&mut self) -> Result<(), RoundError> {
        let Some(session) = &mut self.session else { return Err(RoundError::Postgres(Error::Closed)) };
        self.last_used = Instant::now();
        if let Some(batch) = self.taken.front_mut() {
            if session.must_wait(batch) {
                if self.committing.is_some() {
                    session.flush().await?;
                    self.settle_commit().await?;
                }
                self.remember(false).await;
            }
            let (Some(session), Some(batch)) = (&mut self.session, self.taken.front_mut()) else { return Ok(()) };
            let probe = self.probes_left > 0 || self.shared.config.probe_duplicates == ProbeDuplicates::Always;
            session.send(batch, probe).await?;
        }
        self.settle_commit().await?;
        if self.left_some && self.taken.len() == 1 {
            // What hinders it is met again by the next round.
            if let Ok(Some(ahead)) = self.take() {
                self.taken.push_back(ahead);
            }
        }
        let (Some(session), Some(batch)) = (&mut self.session, self.taken.front_mut()) else { return Ok(()) };
        session.settle(batch).await?;
        session.add_commit()?;
        self.committing = self.taken.pop_front();
        if self.taken.is_empty() {
            session.flush().await?;
            self.settle_commit().await?;
            self.remember(false).await;
        }
        Ok(())
    }

    /// Waits for the answer to the COMMIT that was sent, if one was.
    async fn settle_commit(&mut self) -> Result<(), RoundError> {
        let (Some(session), Some(batch)) = (&mut self.session, &mut self.committing) else { return Ok(()) };
        session.committed(batch).await?;
        self.probes_left = self.probes_left.saturating_sub(1);
        self.repeats = 0;
        self.backoff = BACKOFF_MIN;
        self.rows_max = (self.rows_max * 2).min(ROUND_ROWS_MAX);
        if let Some(batch) = self.committing.take() {
            self.note_rate(&batch);
            self.committed(&batch);
        }
        self.note_oldest();
        Ok(())
    }

    /// Everything in `batch` is in PostgreSQL.
    fn committed(&mut self, batch: &Batch) {
        let counters = &self.shared.drain.counters;
        let refused = batch.refused().count() as u64;
        let duplicates =
            batch.verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Duplicate { .. })).count() as u64;
        let rows = batch.records.len() as u64 - refused - duplicates;
        counters.drain_transactions.fetch_add(1, Ordering::Relaxed);
        self.crew.answered(self.index);
        counters.drained_messages.fetch_add(rows, Ordering::Relaxed);
        counters.duplicate_messages.fetch_add(duplicates, Ordering::Relaxed);
        self.shared.drain.dead_letters.fetch_add(refused, Ordering::Relaxed);
        self.note_committed(&batch.after);
        let deliveries = batch.deliveries(self.shared.log.lanes.len());
        for (progress, deliveries) in self.shared.log.lanes.iter().zip(deliveries) {
            // A lane without a core was written in an earlier life of the process.
            if let Some(mailbox) = self.shared.mailboxes.get(progress.lane.lane())
                && !deliveries.is_empty()
            {
                mailbox.send(Letter::Committed(deliveries));
            }
        }
    }

    /// The checkpoint is at `marks`.
    fn note_committed(&mut self, marks: &[Mark]) {
        self.committed = marks.to_vec();
        set_drained(&self.shared, self.index, marks);
        self.shared.log.lanes.iter().for_each(|progress| self.shared.log.release(progress));
    }

    fn note_rate(&self, batch: &Batch) {
        if batch.records.is_empty() {
            return;
        }
        let bytes: usize = batch.records.iter().map(|record| record.payload.len()).sum();
        let rate = (bytes as f64 / batch.taken_at.elapsed().as_secs_f64().max(1e-6)) as u64;
        self.crew.note_rate(self.index, rate);
    }

    /// Keeps the age of the oldest message true.
    fn note_oldest(&mut self) {
        let first = self.committing.iter().chain(&self.taken).next();
        let in_batch = first.and_then(|batch| batch.message(0)).map(|message| message.accepted_us as u64);
        let oldest_us = in_batch.unwrap_or_else(|| self.sources.oldest_accepted_us());
        self.crew.note_oldest(self.index, oldest_us);
    }
}
