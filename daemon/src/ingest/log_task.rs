//! The core's end of the log: submits groups, wakes those whose records became durable, tells the drain.

use super::{Core, CoreFailed, gather::Gathering};
use crate::{
    config::Sync,
    limits::GATHER_BYTES,
    rt,
    rt::{Notify, Turns},
    state::drain_signal::Patience,
};
use forebay_wal::{
    position::Position,
    segment::{file_name, lane_dir_name},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Poll, Waker},
};

/// The lane took a failed write: nothing that is not durable yet ever will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poisoned;

/// Messages that will interest the drain once they are durable.
struct Note {
    end_ordinal: u64,
    count: u64,
    patience: Patience,
}

#[derive(Default)]
pub(crate) struct LogState {
    /// Something may be there to be written.
    submit: Notify,
    gathering: Gathering,
    notes: RefCell<VecDeque<Note>>,
    waiters: RefCell<Vec<(u64, Waker)>>,
    /// Woken by whatever happens to the lane.
    room_waiters: RefCell<Vec<Waker>>,
    events: Cell<u64>,
    poisoned: Cell<bool>,
}

impl LogState {
    pub(crate) fn note(&self, end_ordinal: u64, count: u64, patience: Patience) {
        self.notes.borrow_mut().push_back(Note { end_ordinal, count, patience });
    }

    /// Sends what was appended on its way, before long. See [`Core::submit`].
    pub(crate) fn submit(&self, is_answered_then: bool) {
        self.gathering.asked(is_answered_then);
        self.look();
    }

    /// Lets it be looked whether something is to be sent on its way.
    pub(crate) fn look(&self) {
        self.submit.notify();
    }

    /// Waits until something happened to the lane.
    pub(crate) async fn next_event(&self) {
        let seen = self.events.get();
        poll_fn(|cx| {
            if self.events.get() != seen {
                return Poll::Ready(());
            }
            self.room_waiters.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether the lane took a failed write.
    pub(crate) fn has_failed(&self) -> bool {
        self.poisoned.get()
    }

    pub(crate) fn happened(&self) {
        self.events.set(self.events.get() + 1);
        self.room_waiters.take().into_iter().for_each(Waker::wake);
    }

    fn wake_up_to(&self, durable_ordinal: u64) {
        self.waiters.borrow_mut().retain_mut(|(end_ordinal, waker)| {
            let waits_on = *end_ordinal > durable_ordinal;
            if !waits_on {
                waker.wake_by_ref();
            }
            waits_on
        });
    }
}

pub(crate) fn spawn(core: &Rc<Core>) -> io::Result<()> {
    let on_event = Rc::clone(core);
    let lane = core.lane.borrow();
    rt::spawn_on_event(lane.event(), move || {
        on_lane_event(&on_event);
        true
    })?;
    let submitter = Rc::clone(core);
    let mut turns = Turns::new()?;
    // A write that waits for no disk is over before a rest is.
    let rests = core.shared.config.sync != Sync::None;
    let rest = move |duration| {
        if rests {
            rt::rest(duration)
        }
    };
    rt::spawn(async move {
        loop {
            submitter.log.submit.notified().await;
            let gathering = &submitter.log.gathering;
            let mut turn = async || turns.turn().await;
            gathering.rest(&mut turn, rest).await;
            if submitter.lane.borrow().is_waiting() {
                gathering.wait(|| is_large(&submitter), turn, rest).await;
                submit(&submitter);
            }
        }
    });
    Ok(())
}

/// Whether so much waits that more would make the write no cheaper.
fn is_large(core: &Core) -> bool {
    core.lane.borrow().queued_bytes() >= GATHER_BYTES
}

/// Gives the disk what was appended, unless it is at work.
fn submit(core: &Core) {
    let outcome = core.lane.borrow_mut().submit();
    match outcome {
        Ok(true) => core.log.gathering.write_started(),
        Ok(false) => {}
        Err(failed) => poison(core, &failed),
    }
}

fn on_lane_event(core: &Core) {
    let outcome = core.lane.borrow_mut().on_event();
    match outcome {
        Ok(more_is_durable) => {
            if more_is_durable {
                core.log.gathering.write_ended();
                // Before those who are woken have their turn.
                if is_large(core) {
                    submit(core);
                }
                let durable_ordinal = core.lane.borrow().durable_ordinal();
                core.log.wake_up_to(durable_ordinal);
                tell_drain(core, durable_ordinal);
            }
            core.log.happened();
            core.log.look();
            core.end_if_done();
        }
        Err(failed) => poison(core, &failed),
    }
}

fn tell_drain(core: &Core, durable_ordinal: u64) {
    let mut notes = core.log.notes.borrow_mut();
    let mut due: Option<(u64, Patience)> = None;
    while let Some(note) = notes.front().filter(|note| note.end_ordinal <= durable_ordinal) {
        due = Some(match due {
            Some((count, patience)) => (count + note.count, patience.shorter(note.patience)),
            None => (note.count, note.patience),
        });
        notes.pop_front();
    }
    if let Some((count, patience)) = due {
        core.shared.drain.signal.add(count, patience);
    }
}

pub(crate) fn poison(core: &Core, failed: &forebay_wal::group::WriteError) {
    if core.log.poisoned.replace(true) {
        return;
    }
    // At once: a push that another core takes from here on would be answered by a daemon that ends.
    core.shared.log.set_failed();
    let Position { segment, offset } = failed.at;
    let lane = core.lane.borrow().shared().lane();
    let file = format!("wal/{}/{}", lane_dir_name(lane), file_name(segment));
    tracing::error!(
        code = "log_write_failed",
        lane,
        file,
        offset,
        error = %failed.source,
        "a write to the log failed; pushes are refused, and the daemon ends once the drain had its time"
    );
    core.log.wake_up_to(u64::MAX);
    core.log.happened();
    let what =
        format!("a write to {file} failed behind byte {offset}: {}; see to the disk, then start again", failed.source);
    core.fail(CoreFailed::Storage(what));
}

pub(crate) async fn durable(core: &Core, end_ordinal: u64) -> Result<(), Poisoned> {
    poll_fn(|cx| {
        if core.lane.borrow().durable_ordinal() >= end_ordinal {
            Poll::Ready(Ok(()))
        } else if core.log.poisoned.get() {
            Poll::Ready(Err(Poisoned))
        } else {
            core.log.waiters.borrow_mut().push((end_ordinal, cx.waker().clone()));
            Poll::Pending
        }
    })
    .await
}
