//! Whether delivery goes on, or is paused until a person acts. Pushes are taken either way.

use super::drain_point::DrainPoint;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// Why delivery is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The code of the log line, which has an entry in `docs/runbook.md`.
    pub code: &'static str,
    /// What happened, and what there is to do: one or more sentences.
    pub reason: String,
}

/// The state of delivery. The drain sets it; all threads may read it.
#[derive(Default)]
pub struct DeliveryState {
    pause: Mutex<Option<Pause>>,
    is_paused: AtomicBool,
    mismatch_point: Mutex<Option<DrainPoint>>,
}

impl DeliveryState {
    /// Why delivery is paused; `None` while it goes on, or waits for PostgreSQL.
    pub fn pause(&self) -> Option<Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether delivery is paused.
    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    /// Notes why delivery is paused, or that it is not.
    pub fn set_pause(&self, pause: Option<Pause>) {
        self.is_paused.store(pause.is_some(), Ordering::Relaxed);
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner) = pause;
    }

    /// How far the drain was when it found that log and database do not fit; `None`: they fit.
    pub fn mismatch_point(&self) -> Option<DrainPoint> {
        self.mismatch_point.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that log and database do not fit. The point of an earlier mismatch stays until they fit again.
    pub fn found_mismatch(&self, point: DrainPoint) {
        self.mismatch_point.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(point);
    }

    /// Log and database fit.
    pub fn found_match(&self) {
        *self.mismatch_point.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::mark::Mark;
    use forebay_wal::position::Position;

    #[test]
    fn the_point_of_a_mismatch_is_the_first_one_until_log_and_database_fit_again() {
        let point =
            |ordinal| DrainPoint::new(vec![vec![Mark { position: Position { segment: 1, offset: 4096 }, ordinal }]]);
        let state = DeliveryState::default();
        assert_eq!(state.mismatch_point(), None);
        state.found_mismatch(point(5));
        state.found_mismatch(point(7));
        assert_eq!(state.mismatch_point(), Some(point(5)));
        state.found_match();
        state.found_mismatch(point(7));
        assert_eq!(state.mismatch_point(), Some(point(7)));
    }
}
