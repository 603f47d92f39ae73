//! Writes into the data directory how far the drain is while there is no session.

use crate::state::{
    drain_view::DrainView,
    local_drain_state::LocalDrainState,
    log_view::LogView,
    mark::{LaneMark, Mark},
};
use forebay_os::dir::Dir;
use std::sync::atomic::Ordering;

/// Writes down that this process has drained up to `marks`, one for each lane, into the database of before: a restart finds the
/// same place. A failure to write is logged.
pub(crate) fn remember(log: &LogView, drain: &DrainView, marks: &[Mark]) {
    // Before the first session the file may know more than the log has.
    let Some(before) = drain.local_state().filter(|_| drain.has_checkpoint.load(Ordering::Relaxed)) else { return };
    let lanes = log.lanes.iter().zip(marks).map(|(progress, mark)| LaneMark::new(progress.lane.lane(), *mark));
    let state = LocalDrainState { lanes: lanes.collect(), ..before.clone() };
    if state != before || !drain.is_local_state_written() {
        write(drain, log.disk.dir(), state);
    }
}

/// Writes `state`, and uses it from now on whether or not that succeeds.
pub(crate) fn write(drain: &DrainView, wal: &Dir, state: LocalDrainState) {
    let outcome = state.write(wal);
    if let Err(error) = &outcome
        && drain.is_local_state_written()
    {
        tracing::warn!(%error, "how far the log is drained could not be written down; the drain tries again");
    }
    drain.set_local_state(state, outcome.is_ok());
}
