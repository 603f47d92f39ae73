//! What a person decides while the daemon runs: where the drain continues. The drain carries it out between two sessions.

use super::checkpoint::decision::{Decided, DecisionError};
use crate::state::{
    drain_view::DrainView,
    place::{Common, Place},
};
use std::{
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

/// What a decision comes to.
type Outcome = Result<Decided, DecisionError>;

/// What a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Where the drain continues.
    Continue(Place),
    /// The log gets an id of its own. What becomes of records that other directories have too, if that is said.
    Fork(Option<Common>),
}

/// A decision that the drain has to carry out.
pub(crate) struct Pending {
    /// The decision.
    pub(crate) decision: Decision,
    reply: Sender<Outcome>,
}

/// The way from the thread `control` to the drain. It takes one decision at a time.
pub struct Decisions {
    drain: Arc<DrainView>,
    /// Held by whoever decides.
    turn: Mutex<()>,
    pending: Mutex<Option<Pending>>,
    is_pending: AtomicBool,
}

impl Decisions {
    /// For the drain that `drain` shows.
    #[must_use]
    pub fn new(drain: Arc<DrainView>) -> Self {
        Self { drain, turn: Mutex::new(()), pending: Mutex::new(None), is_pending: AtomicBool::new(false) }
    }

    /// Lets the drain carry out `decision`, and waits at most `patience` until it has.
    ///
    /// # Errors
    /// See [`DecisionError`]; [`DecisionError::Unknown`] if the drain took it and did not answer in time.
    pub fn decide(&self, decision: Decision, patience: Duration) -> Result<Decided, DecisionError> {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(DecisionError::Busy),
        };
        let outcome = self.hand_over(decision);
        match outcome.recv_timeout(patience) {
            Ok(outcome) => outcome,
            // The drain has ended.
            Err(RecvTimeoutError::Disconnected) => Err(DecisionError::Ending),
            Err(RecvTimeoutError::Timeout) => match self.take() {
                Some(_) => Err(DecisionError::Busy),
                None => Err(DecisionError::Unknown),
            },
        }
    }

    fn hand_over(&self, decision: Decision) -> Receiver<Outcome> {
        let (reply, outcome) = channel();
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(Pending { decision, reply });
        self.is_pending.store(true, Ordering::SeqCst);
        self.drain.signal.wake_anyway();
        outcome
    }

    /// Whether a decision waits.
    pub(crate) fn is_pending(&self) -> bool {
        self.is_pending.load(Ordering::SeqCst)
    }

    /// Takes the decision that waits.
    pub(crate) fn take(&self) -> Option<Pending> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_pending.store(false, Ordering::SeqCst);
        pending.take()
    }
}

impl Pending {
    /// Tells whoever decided what it came to.
    pub(crate) fn answer(self, outcome: Outcome) {
        if self.reply.send(outcome).is_err() {
            tracing::debug!("nobody waits for the decision any more");
        }
    }
}
