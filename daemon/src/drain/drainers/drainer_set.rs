//! All drainers of the daemon, on one thread.
//!
//! A partition belongs to one drainer as long as their number stays, so its order is that drainer's order. Each drainer has a
//! session, a checkpoint and a reader of the log of its own, and passes over records of the others. The first one finds out
//! how many there are (see `session/plan.rs`); then the others start.
//!
//! Where log and database do not fit, and where a person decides where to continue, all drainers end and begin again as after
//! a start. Nothing that they held is kept: what was delivered is only what the checkpoint says.

use super::{
    drainer::Drainer,
    drainer_board::{DrainerBoard, FinishBy},
};
use crate::{
    drain::{
        checkpoint::{
            decision::{Decided, DecisionError, decide},
            fork::fork,
            log_places::LogPlaces,
            remembered,
        },
        decisions::Decision,
        session::APPLICATION_NAME,
        source::partition_share::PartitionShare,
        start::DrainStart,
    },
    ids,
    limits::PAUSE_INTERVAL,
    postgres::connect,
    rt::{self, Notify},
    state::incarnations::Incarnations,
};
use std::{cell::Cell, io, rc::Rc, sync::Arc, time::Instant};

/// The drainers.
pub(crate) struct DrainerSet {
    start: DrainStart,
    board: Rc<DrainerBoard>,
    running: Cell<usize>,
}

impl DrainerSet {
    /// No drainer runs yet. The signal of `start` wakes all of them, on this thread.
    ///
    /// # Errors
    /// Those of the ring.
    pub(crate) fn new(start: DrainStart, finish_by: FinishBy) -> io::Result<Rc<Self>> {
        let DrainStart { drain, decisions, health, .. } = &start;
        let board = DrainerBoard::new(Arc::clone(drain), Arc::clone(decisions), Arc::clone(health), finish_by);
        let set = Rc::new(Self { start, board: Rc::new(board), running: Cell::new(0) });
        let woken = Rc::downgrade(&set.board);
        rt::spawn_on_event(set.start.drain.signal.event(), move || {
            let Some(board) = woken.upgrade() else { return false };
            board.wake_all();
            true
        })?;
        Ok(set)
    }

    /// Drains until the drain is to end.
    pub(crate) async fn run(self: Rc<Self>) {
        loop {
            self.run_drainers().await;
            self.board.remove_all();
            if self.board.has_mismatch() {
                self.start.log.hold_drained(true);
            }
            self.between_runs().await;
            if self.board.finish_by().is_some() {
                // Whoever decided is told that the daemon ends.
                drop(self.start.decisions.take());
                return;
            }
            self.board.begin_again();
        }
    }

    /// Runs all drainers until all have ended.
    async fn run_drainers(self: &Rc<Self>) {
        self.spawn(PartitionShare::WHOLE);
        let mut spawned = 1;
        loop {
            let drainers = self.board.size().unwrap_or(1);
            (spawned..drainers).for_each(|drainer| self.spawn(PartitionShare { drainer, drainers }));
            spawned = drainers;
            if self.running.get() == 0 {
                return;
            }
            self.board.changed().notified().await;
        }
    }

    fn spawn(self: &Rc<Self>, share: PartitionShare) {
        let notify = Rc::new(Notify::default());
        self.board.add(Rc::clone(&notify));
        self.running.set(self.running.get() + 1);
        let set = Rc::clone(self);
        rt::spawn(async move {
            // A panic is not caught here: it ends the thread, which reports it.
            Drainer::new(&set.start, Rc::clone(&set.board), share, notify).run().await;
            set.running.set(set.running.get() - 1);
            set.board.changed().notify();
        });
    }

    /// While no drainer is at work: carries out the decision that waits, or waits for one until it is time to look again
    /// whether log and database fit.
    async fn between_runs(&self) {
        let look_again = Instant::now() + PAUSE_INTERVAL;
        while self.board.finish_by().is_none() {
            if let Some(pending) = self.start.decisions.take() {
                let outcome = self.carry_out(pending.decision).await;
                pending.answer(outcome);
                return;
            }
            if !self.board.has_mismatch() || Instant::now() >= look_again {
                return;
            }
            self.board.changed().notified_until(Some(look_again)).await;
        }
    }

    /// Carries out a decision, in the database and then in the data directory.
    async fn carry_out(&self, decision: Decision) -> Result<Decided, DecisionError> {
        let DrainStart { log, drain, identity, settings, layout, target, .. } = &self.start;
        let mut target = target().ok_or(DecisionError::NoServer)?;
        target.application_name.get_or_insert_with(|| APPLICATION_NAME.to_owned());
        identity.set_named().map_err(DecisionError::NotWritten)?;
        let places = LogPlaces::of(log, drain, identity, layout)?;
        let mut conn = connect::connect(&target, &settings.schema, settings.statement_timeout).await?;
        let round = ids::random();
        identity.add_round(round);
        let (schema, migrate) = (&settings.schema.name, settings.migrate);
        let decided = match decision {
            Decision::Continue(to) => decide(&mut conn, schema, migrate, &places, to, round).await?,
            Decision::Fork(common) => {
                let write = |content: &Incarnations| identity.replace(content);
                fork(&mut conn, (schema, migrate), &places, common, round, write).await?
            }
        };
        for (progress, mark) in log.lanes.iter().zip(&decided.marks) {
            progress.set_reachable(mark.position);
        }
        remembered::write(drain, log.disk.dir(), decided.remembered.clone());
        self.board.forget_mismatch();
        tracing::warn!(?decision, "somebody decided where the drain continues");
        Ok(decided)
    }
}
