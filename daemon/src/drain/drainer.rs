//! The drain's loop: waits until something is due, takes a round, commits it, tells who waits; through any outage.

use super::{
    batch::{Batch, Verdict},
    class::{Remedy, remedy},
    lane::HeldUp,
    round::RoundError,
    session::{Session, SessionError},
    source::Sources,
    thread::{DrainFailed, TargetSource},
};
use crate::{
    limits::{
        BACKOFF_MAX, BACKOFF_MIN, LANE_PATIENCE, LANE_PATIENCE_AT_END, LANE_RETRY_INTERVAL, PAUSE_INTERVAL,
        PROBE_ROUNDS, REPEATS_AT_ONCE, ROUND_ROWS_MAX,
    },
    mailbox::Letter,
    rt::{self, Notify},
    schema::SchemaError,
    shared::{DatabaseHealth, Shared},
};
use forebay_pgwire::{Error, SqlState};
use forebay_wal::layout::Layout;
use std::{
    io,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

/// How long the drain sleeps at most before it looks whether PostgreSQL is still there.
const IDLE_CHECK: Duration = Duration::from_secs(1);

pub(super) struct Drainer {
    shared: Arc<Shared>,
    target: TargetSource,
    sources: Sources,
    session: Option<Session>,
    /// A round that is not committed yet.
    batch: Option<Batch>,
    /// The last round's limits left records behind that were due as well.
    left_some: bool,
    /// Rows of the next rounds at most: fewer while a refused row is being looked for.
    rows_max: usize,
    /// Rounds that look for duplicates first.
    probes_left: u32,
    /// Attempts in a row that were rolled back through nobody's fault.
    repeats: u32,
    backoff: Duration,
    notify: Rc<Notify>,
    finish_by: Arc<Mutex<Option<Instant>>>,
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
    pub(super) fn new(
        shared: Arc<Shared>,
        layout: &Layout,
        target: TargetSource,
        finish_by: Arc<Mutex<Option<Instant>>>,
    ) -> io::Result<Self> {
        let notify = Rc::new(Notify::default());
        let notified = Rc::clone(&notify);
        rt::spawn_on_event(shared.drain.event(), move || {
            notified.notify();
            true
        })?;
        Ok(Self {
            sources: Sources::new(&shared, layout),
            shared,
            target,
            session: None,
            batch: None,
            left_some: false,
            rows_max: ROUND_ROWS_MAX,
            probes_left: 0,
            repeats: 0,
            backoff: BACKOFF_MIN,
            notify,
            finish_by,
            last_used: Instant::now(),
        })
    }

    pub(super) async fn run(mut self) -> Result<(), DrainFailed> {
        let mut next = Next::Now;
        loop {
            if let Some(finish_by) = self.finish_by() {
                // Nothing to take although something is pending: it is lost, and was reported.
                let nothing_left = self.batch.is_none() && (self.shared.pending() == 0 || matches!(next, Next::Idle));
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

    fn finish_by(&self) -> Option<Instant> {
        *self.finish_by.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Sleeps until a round is due, or it is time to see whether PostgreSQL is still there.
    async fn wait_until_due(&mut self) {
        loop {
            self.shared.drain.arm();
            let now = Instant::now();
            let due = self.shared.drain.due();
            if due.is_some_and(|due| due <= now) || self.finish_by().is_some() {
                return;
            }
            let check_at = self.last_used + IDLE_CHECK;
            if check_at <= now {
                return;
            }
            self.notify.notified_until(Some(due.map_or(check_at, |due| due.min(check_at)))).await;
        }
    }

    async fn sleep(&mut self, duration: Duration) {
        self.note_oldest();
        let until = Instant::now() + duration;
        // Not armed: pushes do not wake it, only the end of the daemon does.
        while Instant::now() < until && self.finish_by().is_none() {
            self.notify.notified_until(Some(until)).await;
        }
    }

    async fn back_off(&mut self) {
        // Between half of it and all of it, so that daemons which lost the same server do not return as one.
        let jitter = u64::from(crate::ids::unix_now().subsec_nanos()) % 512;
        let pause = self.backoff.mul_f64(0.5 + jitter as f64 / 1024.0);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        self.sleep(pause).await;
    }

    async fn connect(&mut self) -> Result<Next, DrainFailed> {
        let Some(config) = (self.target)() else {
            // The private server is being made.
            return Ok(Next::Reconnect);
        };
        let opened = match Session::open(&config, &self.shared).await {
            Ok(mut session) => session.begin().await.map(|marks| (session, marks)),
            Err(error) => Err(error),
        };
        let (session, marks) = match opened {
            Ok(opened) => opened,
            Err(SessionError::Checkpoint(what)) => {
                tracing::error!(
                    code = "checkpoint_mismatch",
                    what,
                    "the database and the log do not belong together; the daemon ends"
                );
                return Err(DrainFailed(what));
            }
            Err(error @ SessionError::Encoding(_)) => {
                self.away("postgres_refuses", &error.to_string());
                return Ok(Next::Pause);
            }
            Err(SessionError::Schema(error @ (SchemaError::TooNew { .. } | SchemaError::NeedsMigration { .. }))) => {
                self.away("schema_mismatch", &error.to_string());
                return Ok(Next::Pause);
            }
            Err(SessionError::Schema(SchemaError::Postgres(error)) | SessionError::Postgres(error)) => {
                return Ok(self.unreachable(&error));
            }
        };
        self.adopt(session, &marks);
        self.remember(true).await;
        Ok(Next::Now)
    }

    /// Lets the data directory remember how far the drain is.
    async fn remember(&mut self, quiet: bool) {
        if let Some(session) = &mut self.session
            && let Err(error) = session.remember(quiet).await
        {
            // The next transaction finds out what that means.
            tracing::debug!(%error, "PostgreSQL could not be asked where it stands");
        }
    }

    /// Goes on from what the checkpoint says.
    fn adopt(&mut self, session: Session, marks: &[super::source::Mark]) {
        match self.batch.take() {
            Some(batch) if session.has_reached(&batch.after) => {
                tracing::info!("the transaction whose answer was lost had committed");
                self.committed(&batch);
            }
            Some(batch) if batch.before == marks => self.batch = Some(batch),
            _ => self.sources.go_to(marks),
        }
        for (progress, mark) in self.shared.lanes.iter().zip(marks) {
            progress.set_drained(mark.position, mark.ordinal);
            self.shared.release(progress, mark.position);
        }
        if self.shared.health() != DatabaseHealth::Connected {
            tracing::info!(pending = self.shared.pending(), "connected to PostgreSQL");
        }
        self.backoff = BACKOFF_MIN;
        self.last_used = Instant::now();
        self.session = Some(session);
        self.shared.set_health(DatabaseHealth::Connected);
    }

    fn away(&mut self, code: &'static str, error: &str) {
        self.session = None;
        if self.shared.health() != DatabaseHealth::Disconnected {
            tracing::error!(code, error, "the drain is held up; pushes are kept in the log");
        } else {
            tracing::debug!(code, error, "the drain is still held up");
        }
        self.shared.set_health(DatabaseHealth::Disconnected);
    }

    fn unreachable(&mut self, error: &Error) -> Next {
        match remedy(error) {
            // A refusal that names no row, such as that of a trigger on another table, is as good as a missing right.
            Remedy::Pause | Remedy::SetAside | Remedy::Probe => {
                self.away("postgres_refuses", &error.to_string());
                Next::Pause
            }
            _ => {
                self.away("postgres_away", &error.to_string());
                Next::Reconnect
            }
        }
    }

    async fn round(&mut self) -> Result<Next, DrainFailed> {
        let batch = match self.batch.take() {
            Some(batch) => batch,
            None => {
                // Before the log is looked at: what is signalled later may not be in this round.
                self.shared.drain.reset();
                let before = self.sources.marks();
                let patience = if self.finish_by().is_some() { LANE_PATIENCE_AT_END } else { LANE_PATIENCE };
                let (records, left_some) = match self.sources.take(self.rows_max, patience) {
                    Ok(taken) => taken,
                    Err(HeldUp::Process(error)) => {
                        self.away("log_unreadable", &error.to_string());
                        return Ok(Next::Pause);
                    }
                    Err(HeldUp::Lane) => return Ok(Next::Retry),
                };
                self.left_some = left_some;
                if records.is_empty() {
                    return Ok(self.idle().await);
                }
                Batch::new(records, before, self.sources.marks())
            }
        };
        self.attempt(batch).await
    }

    /// Nothing is due.
    async fn idle(&mut self) -> Next {
        self.shared.oldest_pending_us.store(0, Ordering::Relaxed);
        // Records that are lost are behind the others, and no longer pending; the checkpoint passes them with the next ones.
        for (progress, mark) in self.shared.lanes.iter().zip(self.sources.marks()) {
            if mark.ordinal > progress.drained_ordinal() {
                progress.set_drained(progress.drained(), mark.ordinal);
            }
        }
        if self.last_used.elapsed() >= IDLE_CHECK
            && let Some(session) = &mut self.session
        {
            self.last_used = Instant::now();
            if let Err(error) = session.check().await {
                return self.unreachable(&error);
            }
            self.remember(true).await;
        }
        Next::Idle
    }

    async fn attempt(&mut self, mut batch: Batch) -> Result<Next, DrainFailed> {
        let started = Instant::now();
        let Some(session) = &mut self.session else {
            self.batch = Some(batch);
            return Ok(Next::Reconnect);
        };
        let outcome = session.commit(&mut batch, self.probes_left > 0).await;
        self.last_used = Instant::now();
        let error = match outcome {
            Ok(()) => {
                self.probes_left = self.probes_left.saturating_sub(1);
                self.repeats = 0;
                self.backoff = BACKOFF_MIN;
                self.rows_max = (self.rows_max * 2).min(ROUND_ROWS_MAX);
                self.note_rate(&batch, started.elapsed());
                self.committed(&batch);
                self.remember(false).await;
                self.note_oldest();
                return Ok(if self.left_some { Next::Now } else { Next::Wait });
            }
            Err(error) => error,
        };
        Ok(match error {
            RoundError::Row { record, error } => self.refused(batch, record, &error),
            RoundError::Postgres(error) if error.sqlstate() == Some(SqlState::QUERY_CANCELED) => {
                // Most likely the statement's timeout: the same again would take as long.
                tracing::warn!(%error, rows = batch.records.len(), "a drain transaction is repeated with fewer rows");
                self.take_fewer(batch);
                Next::Reconnect
            }
            RoundError::Postgres(error) => {
                self.batch = Some(batch);
                self.trouble(&error)
            }
            RoundError::PartitionGone => {
                self.batch = Some(batch);
                Next::Now
            }
            RoundError::CheckpointMoved => {
                tracing::warn!("the checkpoint is not where it was left; reading it again");
                self.batch = Some(batch);
                self.session = None;
                Next::Reconnect
            }
            RoundError::CountDiffers { sent, taken } => {
                self.batch = Some(batch);
                let error = format!("PostgreSQL took {taken} of {sent} rows without an error");
                self.away("copy_count_differs", &error);
                Next::Pause
            }
            RoundError::LettersNotKept(error) => {
                self.batch = Some(batch);
                self.away("dead_letters_not_kept", &error.to_string());
                Next::Pause
            }
        })
    }

    fn trouble(&mut self, error: &Error) -> Next {
        match remedy(error) {
            Remedy::Probe => {
                self.probes_left = PROBE_ROUNDS;
                Next::Now
            }
            Remedy::Again if self.session.as_ref().is_some_and(|session| !session.is_broken()) => {
                tracing::warn!(%error, "a drain transaction is repeated");
                self.repeats += 1;
                if self.repeats > REPEATS_AT_ONCE { Next::Reconnect } else { Next::Now }
            }
            _ => self.unreachable(error),
        }
    }

    /// Sets a refused row aside, or makes the round smaller until it is known which one it is.
    fn refused(&mut self, mut batch: Batch, record: Option<usize>, error: &Error) -> Next {
        let rows = batch.copy_order();
        if rows.is_empty() {
            // It is no message's.
            self.batch = Some(batch);
            return self.unreachable(error);
        }
        let record = record.or_else(|| (rows.len() == 1).then(|| rows[0]));
        let Some(index) = record else {
            self.take_fewer(batch);
            return Next::Now;
        };
        let (sqlstate, text) = match error.db_error() {
            Some(db) => (db.sqlstate.as_str().to_owned(), db.message.clone()),
            None => ("XX000".to_owned(), error.to_string()),
        };
        let number = batch.records[index].number;
        tracing::warn!(number, sqlstate, "PostgreSQL refuses a message; it is set aside");
        batch.verdicts[index] = Verdict::Refused { sqlstate, error: text };
        self.batch = Some(batch);
        Next::Now
    }

    /// Gives the round's records back, to be taken half as many at a time.
    fn take_fewer(&mut self, batch: Batch) {
        self.rows_max = (batch.records.len() / 2).max(1);
        self.left_some = true;
        self.sources.give_back(batch.records, &batch.before);
    }

    /// Everything in `batch` is in PostgreSQL.
    fn committed(&mut self, batch: &Batch) {
        let counters = &self.shared.counters;
        let refused = batch.refused().count() as u64;
        let duplicates =
            batch.verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Duplicate { .. })).count() as u64;
        let rows = batch.records.len() as u64 - refused - duplicates;
        counters.drain_transactions.fetch_add(1, Ordering::Relaxed);
        counters.drained_messages.fetch_add(rows, Ordering::Relaxed);
        counters.duplicate_messages.fetch_add(duplicates, Ordering::Relaxed);
        self.shared.dead_letters.fetch_add(refused, Ordering::Relaxed);
        for (progress, mark) in self.shared.lanes.iter().zip(&batch.after) {
            progress.set_drained(mark.position, mark.ordinal);
            self.shared.release(progress, mark.position);
        }
        let deliveries = batch.deliveries(self.shared.lanes.len());
        for (progress, deliveries) in self.shared.lanes.iter().zip(deliveries) {
            // A lane without a core was written in an earlier life of the process.
            if let Some(mailbox) = self.shared.mailboxes.get(usize::from(progress.lane.lane()))
                && !deliveries.is_empty()
            {
                mailbox.send(Letter::Committed(deliveries));
            }
        }
    }

    fn note_rate(&self, batch: &Batch, took: Duration) {
        let bytes: usize = batch.records.iter().map(|record| record.bytes.len()).sum();
        let rate = (bytes as f64 / took.as_secs_f64().max(1e-6)) as u64;
        let before = self.shared.drain_bytes_per_s.load(Ordering::Relaxed);
        let smoothed = if before == 0 { rate } else { (before * 7 + rate) / 8 };
        self.shared.drain_bytes_per_s.store(smoothed.max(1), Ordering::Relaxed);
    }

    /// Keeps the age of the oldest message true.
    fn note_oldest(&mut self) {
        let in_batch = self.batch.as_ref().and_then(|batch| batch.message(0)).map(|message| message.accepted_us as u64);
        let oldest_us = in_batch.unwrap_or_else(|| self.sources.oldest_accepted_us());
        self.shared.oldest_pending_us.store(oldest_us, Ordering::Relaxed);
    }
}
