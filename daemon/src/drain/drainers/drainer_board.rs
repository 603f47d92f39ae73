//! What the drainers of a daemon know of each other: when each is due, how each fares, and when all are to end.

use super::{hold_up::HoldUp, mismatch::MismatchLog};
use crate::{
    drain::decisions::Decisions,
    rt::Notify,
    state::{
        database_health::{DatabaseHealth, HealthMonitor},
        delivery_state::Pause,
        drain_view::DrainView,
    },
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Instant,
};

/// When the drain has to have ended; `None` while it is to go on.
pub(crate) type FinishBy = Arc<Mutex<Option<Instant>>>;

/// A drainer, as the others know it.
struct Member {
    notify: Rc<Notify>,
    /// When it is due for what another drainer's round has taken out of the signal.
    due: Option<Instant>,
    is_held_up: bool,
    /// Why it is held up, if a person has to act.
    pause: Option<Pause>,
    /// When its oldest message was accepted, in microseconds since 1970; 0: none, or not known.
    oldest_us: u64,
    bytes_per_s: u64,
}

/// The drainers of a daemon, all on one thread.
pub(crate) struct DrainerBoard {
    drain: Arc<DrainView>,
    decisions: Arc<Decisions>,
    health: Arc<HealthMonitor>,
    finish_by: FinishBy,
    members: RefCell<Vec<Member>>,
    /// Number of drainers; `None` before the first session has found it out.
    size: Cell<Option<usize>>,
    /// Whether a drainer has found that log and database do not fit.
    has_mismatch: Cell<bool>,
    mismatches: RefCell<MismatchLog>,
    /// Notified when the number is known, when a drainer ends, and while there is no drainer by what would wake them.
    changed: Notify,
}

impl DrainerBoard {
    /// Without a drainer.
    pub(crate) fn new(
        drain: Arc<DrainView>,
        decisions: Arc<Decisions>,
        health: Arc<HealthMonitor>,
        finish_by: FinishBy,
    ) -> Self {
        Self {
            drain,
            decisions,
            health,
            finish_by,
            members: RefCell::default(),
            size: Cell::new(None),
            has_mismatch: Cell::new(false),
            mismatches: RefCell::default(),
            changed: Notify::default(),
        }
    }

    /// Adds the next drainer, which `notify` wakes.
    pub(crate) fn add(&self, notify: Rc<Notify>) {
        let member = Member { notify, due: None, is_held_up: false, pause: None, oldest_us: 0, bytes_per_s: 0 };
        self.members.borrow_mut().push(member);
    }

    /// Wakes all drainers.
    pub(crate) fn wake_all(&self) {
        let members = self.members.borrow();
        members.iter().for_each(|member| member.notify.notify());
        if members.is_empty() {
            self.changed.notify();
        }
    }

    /// All drainers have ended, and the first one is about to begin again.
    pub(crate) fn begin_again(&self) {
        self.has_mismatch.set(false);
        self.size.set(None);
    }

    /// All drainers have ended.
    pub(crate) fn remove_all(&self) {
        self.members.borrow_mut().clear();
    }

    /// Notified when something has happened that concerns who runs the drainers.
    pub(crate) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// Number of drainers; `None`: not known yet.
    pub(crate) fn size(&self) -> Option<usize> {
        self.size.get()
    }

    /// The first session has found out the number of drainers.
    pub(crate) fn set_size(&self, size: usize) {
        self.size.set(Some(size));
        self.changed.notify();
    }

    /// Whether there is one drainer, as far as is known.
    pub(crate) fn is_alone(&self) -> bool {
        self.size.get().is_none_or(|size| size == 1)
    }

    /// When the drain has to have ended, once that is wanted.
    pub(crate) fn finish_by(&self) -> Option<Instant> {
        *self.finish_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A drainer is about to look at the log. What was signalled before is in its round, and stays due for the others.
    pub(crate) fn reset_due(&self, drainer: usize) {
        let signalled = self.drain.signal.reset();
        for (index, member) in self.members.borrow_mut().iter_mut().enumerate() {
            member.due = if index == drainer { None } else { earlier(member.due, signalled) };
        }
    }

    /// When a drainer's next round is due. Arm the signal before.
    pub(crate) fn due(&self, drainer: usize) -> Option<Instant> {
        let due = self.members.borrow()[drainer].due;
        earlier(due, self.drain.signal.due())
    }

    /// Whether all drainers are to end, and to begin again from the checkpoint: because log and database do not fit, or because
    /// a person decides where to continue.
    pub(crate) fn is_interrupted(&self) -> bool {
        (self.has_mismatch() || self.decisions.is_pending()) && self.finish_by().is_none()
    }

    /// Whether a drainer has found that log and database do not fit.
    pub(crate) fn has_mismatch(&self) -> bool {
        self.has_mismatch.get()
    }

    /// Whether all drainers are to end, for good or to begin again.
    pub(crate) fn is_ending(&self) -> bool {
        self.finish_by().is_some() || self.is_interrupted()
    }

    /// PostgreSQL has answered a drainer.
    pub(crate) fn answered(&self, drainer: usize) {
        self.members.borrow_mut()[drainer].is_held_up = false;
        if !self.members.borrow().iter().any(|member| member.is_held_up) {
            self.health.answered();
        }
    }

    /// PostgreSQL has carried out what a drainer asked for. A session alone does not end a pause.
    pub(super) fn carried_out(&self, drainer: usize) {
        self.members.borrow_mut()[drainer].pause = None;
        if self.drain.delivery.is_paused() {
            self.publish_pause();
        }
    }

    /// A drainer has no session.
    pub(super) fn held_up(&self, drainer: usize, hold_up: &HoldUp) {
        {
            let member = &mut self.members.borrow_mut()[drainer];
            member.is_held_up = true;
            member.pause = hold_up.pause();
        }
        self.publish_pause();
        self.health.set(DatabaseHealth::Disconnected);
    }

    /// A drainer has found that log and database do not fit. All drainers end.
    pub(super) fn mismatch(&self, drainer: usize, hold_up: &HoldUp) {
        self.held_up(drainer, hold_up);
        self.mismatches.borrow_mut().report(drainer, hold_up);
        self.has_mismatch.set(true);
        self.wake_all();
    }

    /// Log and database fit again, or a person has decided: a mismatch after this is another one.
    pub(super) fn forget_mismatch(&self) {
        self.mismatches.borrow_mut().clear();
        self.drain.delivery.found_match();
    }

    /// Says why delivery is paused: the reason of the first drainer that has one.
    fn publish_pause(&self) {
        let pause = self.members.borrow().iter().find_map(|member| member.pause.clone());
        if pause.is_none() && self.drain.delivery.is_paused() {
            tracing::info!("delivery is no longer paused");
        }
        self.drain.delivery.set_pause(pause);
    }

    /// Whether PostgreSQL has neither answered nor been missed so far.
    pub(crate) fn is_health_unknown(&self) -> bool {
        self.health.get() == DatabaseHealth::Unknown
    }

    /// Notes when the oldest message was accepted that a drainer still has to deliver, in microseconds since 1970; 0: none, or
    /// not known.
    pub(crate) fn set_oldest(&self, drainer: usize, oldest_us: u64) {
        self.members.borrow_mut()[drainer].oldest_us = oldest_us;
        let members = self.members.borrow();
        let oldest_us = members.iter().map(|member| member.oldest_us).filter(|oldest_us| *oldest_us > 0).min();
        self.drain.oldest_pending_us.store(oldest_us.unwrap_or(0), Ordering::Relaxed);
    }

    /// Notes at which rate a drainer's last round took bytes out of the log, for the mean over its last rounds.
    pub(crate) fn add_rate(&self, drainer: usize, bytes_per_s: u64) {
        let mut members = self.members.borrow_mut();
        let mean = &mut members[drainer].bytes_per_s;
        *mean = if *mean == 0 { bytes_per_s } else { (*mean * 7 + bytes_per_s) / 8 }.max(1);
        let sum = members.iter().map(|member| member.bytes_per_s).sum();
        self.drain.bytes_per_s.store(sum, Ordering::Relaxed);
    }
}

/// The earlier one of two times, either of which may be missing.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::drainers::hold_up::WaitFor;
    use crate::state::{
        drain_signal::{DrainSignal, Patience},
        mailbox::Mailboxes,
    };

    fn board(members: usize) -> (Arc<DrainView>, DrainerBoard) {
        let drain = Arc::new(DrainView::new(DrainSignal::new().unwrap(), None));
        let health = Arc::new(HealthMonitor::new(Arc::new(Mailboxes::new(0).unwrap())));
        let decisions = Arc::new(Decisions::new(Arc::clone(&drain)));
        let board = DrainerBoard::new(Arc::clone(&drain), decisions, health, FinishBy::default());
        (0..members).for_each(|_| board.add(Rc::new(Notify::default())));
        (drain, board)
    }

    #[test]
    fn what_one_drainer_takes_out_of_the_signal_stays_due_for_the_others() {
        let (drain, board) = board(2);
        drain.signal.add(1, Patience::NONE);
        board.reset_due(0);
        assert_eq!(board.due(0), None);
        assert!(board.due(1).is_some_and(|due| due <= Instant::now()));
        board.reset_due(1);
        assert_eq!(board.due(1), None);
    }

    #[test]
    fn delivery_is_paused_while_a_drainer_waits_for_a_person_and_not_while_it_waits_for_postgresql() {
        let (drain, board) = board(2);
        board.held_up(0, &HoldUp::new("postgres_away", &"no answer", WaitFor::Postgres));
        assert_eq!(drain.delivery.pause(), None);
        board.held_up(1, &HoldUp::new("postgres_refuses", &"no", WaitFor::Person));
        let pause = Pause { code: "postgres_refuses", reason: "no".to_owned() };
        assert_eq!(drain.delivery.pause(), Some(pause.clone()));
        board.carried_out(0);
        board.answered(1);
        assert_eq!(drain.delivery.pause(), Some(pause));
        board.carried_out(1);
        assert_eq!(drain.delivery.pause(), None);
    }

    #[test]
    fn postgresql_is_there_once_it_has_answered_all_drainers_that_missed_it() {
        let (drain, board) = board(2);
        assert!(board.is_health_unknown());
        let away = HoldUp::new("postgres_away", &"no answer", WaitFor::Postgres);
        (0..2).for_each(|drainer| board.held_up(drainer, &away));
        board.answered(0);
        assert_eq!(board.health.get(), DatabaseHealth::Disconnected);
        board.answered(1);
        assert_eq!(board.health.get(), DatabaseHealth::Connected);
        board.set_oldest(0, 30);
        board.set_oldest(1, 20);
        board.set_oldest(1, 0);
        assert_eq!(drain.oldest_pending_us.load(Ordering::Relaxed), 30, "the oldest of those that are known");
    }
}
