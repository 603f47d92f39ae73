//! All drainers of the daemon, on one thread.
//!
//! A partition belongs to one drainer as long as their number stays, so its order is that drainer's order. Each drainer has a
//! session, a checkpoint and a reader of the log of its own, and passes over records of the others. The first one finds out
//! how many there are (see `session/plan.rs`); then the others start.

use super::{
    drainer::Drainer,
    drainer_board::{DrainerBoard, FinishBy},
};
use crate::{
    drain::{failure::DrainFailed, source::partition_share::PartitionShare, start::DrainStart},
    rt::{self, Notify},
};
use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
};

/// The drainers.
pub(crate) struct DrainerSet {
    start: DrainStart,
    board: Rc<DrainerBoard>,
    running: Cell<usize>,
    failure: RefCell<Option<DrainFailed>>,
}

impl DrainerSet {
    /// No drainer runs yet. The signal of `start` wakes all of them, on this thread.
    ///
    /// # Errors
    /// Those of the ring.
    pub(crate) fn new(start: DrainStart, finish_by: FinishBy) -> io::Result<Rc<Self>> {
        let board = DrainerBoard::new(Arc::clone(&start.drain), Arc::clone(&start.health), finish_by);
        let set = Rc::new(Self { start, board: Rc::new(board), running: Cell::new(0), failure: RefCell::new(None) });
        let woken = Rc::downgrade(&set.board);
        rt::spawn_on_event(set.start.drain.signal.event(), move || {
            let Some(board) = woken.upgrade() else { return false };
            board.wake_all();
            true
        })?;
        Ok(set)
    }

    /// Runs all drainers until all have ended, or one cannot go on.
    ///
    /// # Errors
    /// [`DrainFailed`] of the first one that cannot go on.
    pub(crate) async fn run(self: Rc<Self>) -> Result<(), DrainFailed> {
        self.spawn(PartitionShare::WHOLE);
        let mut spawned = 1;
        loop {
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            let drainers = self.board.size().unwrap_or(1);
            (spawned..drainers).for_each(|drainer| self.spawn(PartitionShare { drainer, drainers }));
            spawned = drainers;
            if self.running.get() == 0 {
                return Ok(());
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
            let drainer = Drainer::new(&set.start, Rc::clone(&set.board), share, notify);
            // A panic is not caught here: it ends the thread, which reports it.
            if let Err(failure) = drainer.run().await {
                set.failure.replace(Some(failure));
            }
            set.running.set(set.running.get() - 1);
            set.board.changed().notify();
        });
    }
}
