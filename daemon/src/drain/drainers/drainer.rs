//! The loop of one drainer: wait until something is due, take a round, commit it, tell the clients that wait.
//!
//! [`CommitPipeline`] decides what is sent when, and [`RetryPolicy`] what follows from a failure. The drainer carries that out.

use super::{
    commit_pipeline::{CommitPipeline, Effect, Event},
    connecting::{Connector, NoSession, no_session},
    deliverer::Deliverer,
    drainer_board::DrainerBoard,
    hold_up::{HoldUp, HoldUpLog, WaitFor},
    mismatch::Mismatch,
    refusal_log::RefusalLog,
    retry::{Response, RetryPolicy, Wait},
    round_taker::{MarkPolicy, RoundTaker},
    waiter::Waiter,
};
use crate::{
    drain::{
        checkpoint::remembered::remember,
        round::{batch::Batch, round_error::RoundError, transaction::SendMode, uncreated_names::UncreatedNames},
        session::{Begun, Session, SessionContext},
        settings::DrainSettings,
        source::{lane_source::TakeError, partition_share::PartitionShare},
        start::DrainStart,
    },
    limits::{LANE_RETRY_INTERVAL, LONE_FAILURE_PAUSE, PAUSE_INTERVAL},
    panics::panic_if_planted,
    rt::{self, Notify},
    state::{drain_point::DrainPoint, drain_view::DrainView, log_view::LogView},
};
use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a drainer is idle at most before it checks whether PostgreSQL is still there.
const IDLE_CHECK: Duration = Duration::from_secs(1);

/// How long a drainer rests that has met only other drainers' records. It is the timer's step, the shortest rest in which the
/// thread gets to the others.
const REST: Duration = Duration::from_millis(1);

/// One drainer.
pub(super) struct Drainer {
    index: usize,
    log: Arc<LogView>,
    drain: Arc<DrainView>,
    settings: Arc<DrainSettings>,
    /// What the drainers know of each other.
    board: Rc<DrainerBoard>,
    taker: RoundTaker,
    connector: Connector,
    deliverer: Deliverer,
    waiter: Waiter,
    /// There exactly while the pipeline has one.
    session: Option<Session>,
    pipeline: CommitPipeline<Batch>,
    retry: RetryPolicy,
    uncreated: UncreatedNames,
    /// Why the first round failed, until that is decided about.
    failure: Option<RoundError>,
    hold_ups: HoldUpLog,
    refusals: RefusalLog,
    last_used: Instant,
}

/// What follows after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextStep {
    /// The next step at once: something more may be due.
    Now,
    /// Wait for a signal.
    Wait,
    /// The same; there was nothing to take.
    Idle,
    /// The next step after a moment.
    Soon,
    /// Connect again after the back-off.
    BackOff,
    /// Try again after a while: a person has to act.
    Pause,
    /// Read the log again soon: a lane cannot be read.
    RetryLane,
}

impl Drainer {
    /// The drainer of `share`, which `notify` wakes.
    pub(super) fn new(start: &DrainStart, board: Rc<DrainerBoard>, share: PartitionShare, notify: Rc<Notify>) -> Self {
        let DrainStart { log, drain, identity, settings, layout, target, .. } = start;
        let (log_view, drain_view) = (|| Arc::clone(log), || Arc::clone(drain));
        let index = share.drainer;
        let context = SessionContext {
            settings: Arc::clone(settings),
            log: log_view(),
            drain: drain_view(),
            identity: Arc::clone(identity),
            layout: layout.clone(),
            drainer: index,
        };
        Self {
            index,
            log: log_view(),
            drain: drain_view(),
            settings: Arc::clone(settings),
            taker: RoundTaker::new(log_view(), drain_view(), layout.clone(), Rc::clone(&board), share),
            connector: Connector::new(Arc::clone(target), context),
            deliverer: Deliverer::new(start, index),
            waiter: Waiter::new(drain_view(), Rc::clone(&board), index, notify),
            board,
            session: None,
            pipeline: CommitPipeline::new(),
            retry: RetryPolicy::new(),
            uncreated: UncreatedNames::default(),
            failure: None,
            hold_ups: HoldUpLog::default(),
            refusals: RefusalLog::default(),
            last_used: Instant::now(),
        }
    }

    /// Drains until the end that the board gives, or until the board interrupts all drainers.
    pub(super) async fn run(mut self) {
        let mut next = NextStep::Now;
        loop {
            if self.board.is_interrupted() {
                return;
            }
            if let Some(finish_by) = self.board.finish_by() {
                if self.is_finished(next) || Instant::now() >= finish_by {
                    self.update_local_state(true).await;
                    return;
                }
                if next != NextStep::RetryLane {
                    next = NextStep::Now;
                }
            }
            match next {
                NextStep::Now => {}
                NextStep::Wait | NextStep::Idle => self.waiter.until_due(self.last_used + IDLE_CHECK).await,
                NextStep::Soon => rt::sleep(LONE_FAILURE_PAUSE).await,
                NextStep::BackOff => {
                    self.update_oldest();
                    self.waiter.back_off().await;
                }
                NextStep::Pause => {
                    self.update_oldest();
                    self.waiter.pause(PAUSE_INTERVAL).await;
                }
                NextStep::RetryLane => rt::sleep(LANE_RETRY_INTERVAL).await,
            }
            panic_if_planted("drain");
            next = self.step().await;
        }
    }

    /// Whether a drainer that is to end has nothing more to do.
    fn is_finished(&self, next: NextStep) -> bool {
        // Without PostgreSQL waiting is useless: the log keeps the messages.
        let is_hopeless = matches!(next, NextStep::BackOff | NextStep::Pause);
        // An idle drainer may have pending messages that it cannot take: they are lost, and were reported.
        let is_idle = next == NextStep::Idle || (self.board.is_alone() && self.log.pending() == 0);
        is_hopeless || (is_idle && self.pipeline.is_empty())
    }

    /// Carries out effects until the drainer may see to something else.
    async fn step(&mut self) -> NextStep {
        loop {
            let (session, is_more_left) = (&self.session, self.taker.is_more_left());
            let has_to_wait = |batch: &Batch| session.as_ref().is_some_and(|session| session.needs_questions(batch));
            let effect = self.pipeline.effect(is_more_left, has_to_wait);
            let outcome = match effect {
                Effect::Connect => match self.connect().await {
                    None => continue,
                    Some(next) => return next,
                },
                Effect::Take => match self.take().await {
                    None => continue,
                    Some(next) => return next,
                },
                Effect::TakeAhead => {
                    self.take_ahead();
                    continue;
                }
                Effect::Send { is_behind_commit: false } if self.is_schema_look_due() => {
                    match self.look_at_schema().await {
                        None => continue,
                        Some(next) => return next,
                    }
                }
                Effect::Send { is_behind_commit } => self.send(is_behind_commit).await,
                Effect::AwaitRound => self.await_round().await,
                Effect::SendCommit => self.send_commit().await,
                Effect::AwaitCommit => self.await_commit().await,
                Effect::RollBack => self.roll_back().await,
                Effect::Decide => return self.decide(),
            };
            if let Err(error) = outcome
                && let Some(next) = self.fail(effect, error)
            {
                return next;
            }
            if self.pipeline.is_between_rounds() {
                let has_more = self.taker.is_more_left() || !self.pipeline.is_empty();
                return if has_more { NextStep::Now } else { NextStep::Wait };
            }
        }
    }

    /// Opens a session, and continues from its checkpoint. Without one it returns what follows.
    async fn connect(&mut self) -> Option<NextStep> {
        let size = self.board.size();
        // Before the session takes anything from the checkpoint.
        let point = self.log.drain_point();
        let (session, Begun { drainers, marks }) = match self.connector.open(size).await {
            Ok(begun) => begun,
            Err(NoSession::NotYet) => return Some(NextStep::BackOff),
            Err(NoSession::HeldUp(hold_up)) => return Some(self.hold_up(&hold_up)),
            Err(NoSession::Mismatch(mismatch)) => return Some(self.mismatch(&mismatch, point)),
        };
        if size.is_none() {
            self.taker.set_share(PartitionShare { drainer: self.index, drainers });
            self.board.set_size(drainers);
        }
        let reached = self.pipeline.rounds().position(|batch| session.has_committed(batch)).map_or(0, |last| last + 1);
        let is_next = self.pipeline.rounds().nth(reached).is_some_and(|batch| batch.before() == marks);
        let output = self.pipeline.on(Event::SessionBegun { reached, is_next });
        for batch in output.delivered {
            tracing::info!("the transaction whose answer was lost had committed");
            self.refusals.committed(&batch);
            self.board.answered(self.index);
            self.deliverer.deliver(&batch);
        }
        if !is_next {
            // Reads the rounds that were given back again.
            self.taker.go_to(&marks);
        }
        self.deliverer.set_checkpoint(&marks);
        if self.hold_ups.connected() || self.board.is_health_unknown() {
            let pending = self.log.pending();
            tracing::info!(drainer = self.index, pending, "connected to PostgreSQL");
        }
        self.last_used = Instant::now();
        self.session = Some(session);
        self.board.forget_mismatch();
        self.log.hold_drained(false);
        self.board.answered(self.index);
        self.update_local_state(true).await;
        None
    }

    /// Log and database do not fit: all drainers end, until a person decides or the cause is gone.
    fn mismatch(&mut self, mismatch: &Mismatch, point: DrainPoint) -> NextStep {
        self.drain.delivery.found_mismatch(point.clone());
        let point = self.drain.delivery.mismatch_point().unwrap_or(point);
        let wal = self.log.disk.dir().path();
        let data_dir = wal.parent().unwrap_or(wal);
        let hold_up = mismatch.hold_up(&self.log, &point, data_dir);
        self.update_oldest();
        self.remember(&point);
        self.board.mismatch(self.index, &hold_up);
        NextStep::Pause
    }

    /// Writes down in the data directory how far the drain is, without PostgreSQL.
    fn remember(&self, point: &DrainPoint) {
        remember(&self.log, &self.drain, &point.least());
    }

    /// Takes a round while none is under way. Without one it returns what follows.
    async fn take(&mut self) -> Option<NextStep> {
        let is_quiet = self.last_used.elapsed() >= IDLE_CHECK;
        let policy = MarkPolicy { checkpoint: Some(self.deliverer.checkpoint()), is_quiet };
        match self.taker.take(self.retry.rows_max(), policy) {
            Ok(Some(batch)) => {
                self.pipeline.on(Event::RoundTaken(batch));
                // PostgreSQL may take its time.
                self.update_oldest();
                None
            }
            Ok(None) if self.taker.is_more_left() => {
                // Only other drainers' records so far.
                rt::sleep(REST).await;
                Some(NextStep::Now)
            }
            Ok(None) => Some(self.idle().await),
            Err(error @ TakeError::Process(_)) => {
                Some(self.hold_up(&HoldUp::new("log_unreadable", &error, WaitFor::Person)))
            }
            Err(TakeError::Lane) => Some(NextStep::RetryLane),
        }
    }

    /// Takes the next round while PostgreSQL carries out the first one.
    fn take_ahead(&mut self) {
        let policy = MarkPolicy { checkpoint: None, is_quiet: false };
        let event = match self.taker.take(self.retry.rows_max(), policy) {
            Ok(Some(batch)) => Event::RoundTaken(batch),
            // The next round meets the same error, and reports it.
            Ok(None) | Err(_) => Event::NothingTaken,
        };
        self.pipeline.on(event);
    }

    async fn send(&mut self, is_behind_commit: bool) -> Result<(), RoundError> {
        self.last_used = Instant::now();
        if !is_behind_commit {
            self.update_local_state(false).await;
        }
        let mode = SendMode {
            is_behind_commit,
            is_probing: self.settings.always_probe || self.retry.is_probing(),
            is_sifting: self.retry.is_sifting(),
        };
        open(&mut self.session).send(self.pipeline.round_to_send(), &mut self.uncreated, mode).await?;
        self.pipeline.on(Event::RoundSent);
        Ok(())
    }

    async fn await_round(&mut self) -> Result<(), RoundError> {
        let refused_before = self.refusals.in_a_row();
        open(&mut self.session).finish_round(self.pipeline.first_mut(), refused_before).await?;
        self.pipeline.on(Event::RoundFinished);
        Ok(())
    }

    async fn send_commit(&mut self) -> Result<(), RoundError> {
        open(&mut self.session).send_commit().await?;
        self.pipeline.on(Event::CommitSent);
        Ok(())
    }

    async fn await_commit(&mut self) -> Result<(), RoundError> {
        open(&mut self.session).commit_answer(self.pipeline.first_mut()).await?;
        self.carried_out();
        for batch in self.pipeline.on(Event::CommitAnswered).delivered {
            self.retry.committed(batch.refused().count());
            self.refusals.committed(&batch);
            if let Some(rate) = batch.bytes_per_s() {
                self.board.add_rate(self.index, rate);
            }
            self.board.answered(self.index);
            self.deliverer.deliver(&batch);
        }
        self.update_oldest();
        if self.pipeline.is_empty() {
            self.update_local_state(false).await;
        }
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<(), RoundError> {
        open(&mut self.session).roll_back(self.pipeline.rounds_mut()).await?;
        self.pipeline.on(Event::RolledBack);
        Ok(())
    }

    /// An effect failed. Returns what follows if the session has to end; else the pipeline says when to decide.
    fn fail(&mut self, effect: Effect, error: RoundError) -> Option<NextStep> {
        let is_undefined = match effect {
            // Half a section may be under way if sending failed on this side.
            Effect::Send { .. } | Effect::SendCommit => !error.is_of_the_server(),
            // A transaction may still be open.
            Effect::RollBack => true,
            _ => false,
        };
        if is_undefined || error.ends_connection() || open(&mut self.session).is_lost() {
            self.end_session();
            let response = self.retry.respond(error, self.pipeline.first_mut(), false);
            return Some(match self.carry_out(response) {
                // Each lost session says more about which row it was, and all others wait for that.
                NextStep::BackOff if self.retry.is_searching() => NextStep::Soon,
                next => next,
            });
        }
        self.failure = Some(error);
        self.pipeline.on(Event::Failed);
        None
    }

    /// Decides what follows from the failure of the first round, which is rolled back.
    fn decide(&mut self) -> NextStep {
        let error = self.failure.take().unwrap_or_else(|| unreachable!("a round has failed"));
        let response = self.retry.respond(error, self.pipeline.first_mut(), true);
        self.carry_out(response)
    }

    /// Carries out a response.
    fn carry_out(&mut self, response: Response) -> NextStep {
        let (wait, event) = match response {
            Response::GiveUp(hold_up) => return self.hold_up(&hold_up),
            Response::GiveBack(hold_up) => {
                self.follow(Event::TakeFewer);
                return self.hold_up(&hold_up);
            }
            Response::Reconnect => {
                self.end_session();
                return NextStep::BackOff;
            }
            Response::SetAside { record, refusal } => {
                self.pipeline.first_mut().refuse(record, refusal);
                (Wait::No, Event::Repeat)
            }
            Response::Repeat(wait) => (wait, Event::Repeat),
            Response::TakeFewer(wait) => (wait, Event::TakeFewer),
        };
        self.follow(event);
        match wait {
            Wait::No => NextStep::Now,
            Wait::Short => NextStep::Soon,
            Wait::BackOff => NextStep::BackOff,
        }
    }

    /// Tells the pipeline what was decided. If the session has ended, the next one sends the rounds again.
    fn follow(&mut self, event: Event<Batch>) {
        if self.pipeline.has_session() {
            let output = self.pipeline.on(event);
            self.taker.give_back(output.given_back);
        }
    }

    /// PostgreSQL has carried out what it was asked for: what is met from now on is met for the first time.
    fn carried_out(&mut self) {
        self.waiter.reset_backoff();
        self.hold_ups.clear();
        self.board.carried_out(self.index);
    }

    /// Gives the session up and reports why. Returns what follows.
    fn hold_up(&mut self, hold_up: &HoldUp) -> NextStep {
        self.end_session();
        if self.hold_ups.report(self.index, hold_up) {
            self.remember(&self.log.drain_point());
        }
        self.board.held_up(self.index, hold_up);
        match hold_up.wait_for {
            WaitFor::Person => NextStep::Pause,
            WaitFor::Postgres => NextStep::BackOff,
        }
    }

    fn end_session(&mut self) {
        self.failure = None;
        if self.session.take().is_some() {
            self.pipeline.on(Event::SessionEnded);
        }
    }

    /// There is nothing to take.
    async fn idle(&mut self) -> NextStep {
        self.board.set_oldest(self.index, 0);
        self.taker.pass_over();
        if self.last_used.elapsed() >= IDLE_CHECK {
            self.last_used = Instant::now();
            if let Err(error) = open(&mut self.session).check().await {
                return self.hold_up(&HoldUp::by_postgres(&error));
            }
            if self.is_schema_look_due()
                && let Some(next) = self.look_at_schema().await
            {
                return next;
            }
            self.carried_out();
            self.refusals.log();
            self.board.answered(self.index);
            self.update_local_state(true).await;
        }
        NextStep::Idle
    }

    fn is_schema_look_due(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_schema_look_due)
    }

    /// Looks whether somebody changed the schema. If that stops delivery it returns what follows.
    async fn look_at_schema(&mut self) -> Option<NextStep> {
        match open(&mut self.session).look_at_schema().await {
            Ok(()) => {
                self.connector.report_remarks(open(&mut self.session));
                None
            }
            Err(error) => Some(match no_session(error) {
                NoSession::HeldUp(hold_up) => self.hold_up(&hold_up),
                NoSession::NotYet | NoSession::Mismatch(_) => unreachable!("the schema alone was looked at"),
            }),
        }
    }

    /// Writes down in the data directory how far the drain is, if that is due.
    async fn update_local_state(&mut self, is_idle: bool) {
        if let Some(session) = &mut self.session {
            session.update_local_state(is_idle).await;
        }
    }

    /// Publishes the age of the oldest message.
    fn update_oldest(&mut self) {
        let in_round = self.pipeline.rounds().next().and_then(Batch::oldest_accepted_us);
        let oldest_us = in_round.unwrap_or_else(|| self.taker.oldest_accepted_us());
        self.board.set_oldest(self.index, oldest_us);
    }
}

/// The session, which is there whenever the pipeline asks for I/O.
fn open(session: &mut Option<Session>) -> &mut Session {
    session.as_mut().unwrap_or_else(|| unreachable!("the pipeline has no session"))
}
