//! The drainers of one daemon, all on one thread: which partitions are whose, what is due for each, and how each fares.
//!
//! A partition is one drainer's for as long as their number stays, so its order is that drainer's order. Each has a session,
//! a checkpoint and a reader of the log of its own, and passes over what is not its own. The first one finds out how many
//! there are (see `plan`), and calls the others.

use super::{drainer::Drainer, thread::DrainFailed};
use crate::postgres::connect::TargetSource;
use crate::{message::Message, rt, rt::Notify, state::shared::Shared};
use forebay_wal::{frame::KIND_MESSAGE, layout::Layout};
use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Instant,
};

/// Which records of the log are a drainer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its number, from 0 on.
    pub drainer: usize,
    /// How many drainers there are.
    pub drainers: usize,
}

impl Share {
    /// All of them.
    pub const WHOLE: Self = Self { drainer: 0, drainers: 1 };

    /// Whether a record is this drainer's: by its partition, and the first one's if it is no message. The checkpoints stand on
    /// this, so it is the same in all releases: CRC-32 (of IEEE 802.3) of queue, a zero byte and partition, modulo the number
    /// of drainers.
    #[must_use]
    pub fn has(self, kind: u16, payload: &[u8]) -> bool {
        if self.drainers == 1 {
            return true;
        }
        let message = (kind == KIND_MESSAGE).then(|| Message::decode(payload).ok()).flatten();
        let owner = message.map_or(0, |message| {
            let mut crc = crc32fast::Hasher::new();
            crc.update(message.queue.as_bytes());
            crc.update(&[0]);
            crc.update(message.partition.as_bytes());
            crc.finalize() as usize % self.drainers
        });
        owner == self.drainer
    }

    /// Whether it tells of what all drainers meet.
    pub(crate) fn tells(self) -> bool {
        self.drainer == 0
    }
}

/// What the others know of a drainer.
struct Member {
    notify: Rc<Notify>,
    /// When something was due that another one's round took out of the signal.
    due: Option<Instant>,
    is_held_up: bool,
    oldest_us: u64,
    bytes_per_s: u64,
}

/// The drainers.
pub(crate) struct Crew {
    pub(crate) shared: Arc<Shared>,
    pub(crate) layout: Layout,
    pub(crate) target: TargetSource,
    finish_by: Arc<Mutex<Option<Instant>>>,
    members: RefCell<Vec<Member>>,
    /// How many there are; `None` before the first session has found out.
    size: Cell<Option<usize>>,
    running: Cell<usize>,
    failed: RefCell<Option<DrainFailed>>,
    over: Notify,
}

impl Crew {
    /// Nobody yet.
    pub(crate) fn new(
        shared: Arc<Shared>,
        layout: Layout,
        target: TargetSource,
        finish_by: Arc<Mutex<Option<Instant>>>,
    ) -> io::Result<Rc<Self>> {
        let crew = Rc::new(Self {
            shared,
            layout,
            target,
            finish_by,
            members: RefCell::default(),
            size: Cell::new(None),
            running: Cell::new(0),
            failed: RefCell::default(),
            over: Notify::default(),
        });
        let woken = Rc::downgrade(&crew);
        rt::spawn_on_event(crew.shared.drain.signal.event(), move || {
            let Some(crew) = woken.upgrade() else { return false };
            crew.members.borrow().iter().for_each(|member| member.notify.notify());
            true
        })?;
        Ok(crew)
    }

    /// Runs the first drainer, and those that it calls, until all have ended or one cannot go on.
    pub(crate) async fn run(self: Rc<Self>) -> Result<(), DrainFailed> {
        self.start(Share::WHOLE);
        loop {
            if let Some(failure) = self.failed.take() {
                return Err(failure);
            }
            if self.running.get() == 0 {
                return Ok(());
            }
            self.over.notified().await;
        }
    }

    fn start(self: &Rc<Self>, share: Share) {
        let notify = Rc::new(Notify::default());
        let member = Member { notify: Rc::clone(&notify), due: None, is_held_up: false, oldest_us: 0, bytes_per_s: 0 };
        self.members.borrow_mut().push(member);
        self.running.set(self.running.get() + 1);
        let crew = Rc::clone(self);
        rt::spawn(async move {
            let drainer = Drainer::new(Rc::clone(&crew), share, notify);
            // A panic is not caught here: it ends the thread, and is told there.
            if let Err(failure) = drainer.run().await {
                crew.failed.replace(Some(failure));
            }
            crew.running.set(crew.running.get() - 1);
            crew.over.notify();
        });
    }

    /// There are `drainers`: calls all but the first one.
    pub(crate) fn call(self: &Rc<Self>, drainers: usize) {
        if self.size.replace(Some(drainers)).is_none() {
            (1..drainers).for_each(|drainer| self.start(Share { drainer, drainers }));
        }
    }

    /// How many there are; `None`: nobody has found out yet.
    pub(crate) fn size(&self) -> Option<usize> {
        self.size.get()
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.size.get().is_none_or(|size| size == 1)
    }

    /// When the drain is to have ended, once that is wanted.
    pub(crate) fn finish_by(&self) -> Option<Instant> {
        *self.finish_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A drainer is about to look at the log: what was signalled before is in its round, and stays due for the others.
    pub(crate) fn reset_due(&self, drainer: usize) {
        let was_due = self.shared.drain.signal.reset();
        for (index, member) in self.members.borrow_mut().iter_mut().enumerate() {
            member.due = match (member.due, was_due) {
                _ if index == drainer => None,
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
    }

    /// When a drainer's next round is due. Arm the signal before.
    pub(crate) fn due(&self, drainer: usize) -> Option<Instant> {
        let of_member = self.members.borrow().get(drainer).and_then(|member| member.due);
        match (of_member, self.shared.drain.signal.due()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// A drainer's PostgreSQL has answered as it should.
    pub(crate) fn answered(&self, drainer: usize) {
        self.change(drainer, |member| member.is_held_up = false);
        if !self.members.borrow().iter().any(|member| member.is_held_up) {
            self.shared.health.answered();
        }
    }

    /// A drainer is without a session.
    pub(crate) fn held_up(&self, drainer: usize) {
        self.change(drainer, |member| member.is_held_up = true);
    }

    /// Notes when the oldest message was accepted that a drainer has still to do, in microseconds since 1970; 0: none, or not
    /// known.
    pub(crate) fn note_oldest(&self, drainer: usize, oldest_us: u64) {
        self.change(drainer, |member| member.oldest_us = oldest_us);
        let members = self.members.borrow();
        let oldest_us = members.iter().map(|member| member.oldest_us).filter(|oldest_us| *oldest_us > 0).min();
        self.shared.drain.oldest_pending_us.store(oldest_us.unwrap_or(0), Ordering::Relaxed);
    }

    /// Notes what a drainer takes out of the log, in bytes a second, over its last round.
    pub(crate) fn note_rate(&self, drainer: usize, rate: u64) {
        self.change(drainer, |member| {
            let before = member.bytes_per_s;
            member.bytes_per_s = if before == 0 { rate } else { (before * 7 + rate) / 8 }.max(1);
        });
        let sum = self.members.borrow().iter().map(|member| member.bytes_per_s).sum();
        self.shared.drain.bytes_per_s.store(sum, Ordering::Relaxed);
    }

    fn change(&self, drainer: usize, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.borrow_mut().get_mut(drainer) {
            change(member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn record(queue: &str, partition: &str) -> Vec<u8> {
        let message = Message {
            id: Uuid::nil(),
            accepted_us: 0,
            queue,
            partition,
            transaction_id: None,
            trace_id: None,
            namespace: "",
            task: "",
            producer_sub: "",
            awaited: false,
            payload: b"1",
        };
        let mut bytes = Vec::new();
        message.encode_head(&mut bytes);
        bytes.extend_from_slice(message.payload);
        bytes
    }

    #[test]
    fn each_record_is_one_drainer_s_and_the_same_one_s_in_all_releases() {
        for drainers in [1, 2, 3, 16] {
            let mut counts = vec![0; drainers];
            for partition in 0..1000 {
                let record = record("orders", &partition.to_string());
                let owners: Vec<usize> = (0..drainers)
                    .filter(|drainer| Share { drainer: *drainer, drainers }.has(KIND_MESSAGE, &record))
                    .collect();
                assert_eq!(owners.len(), 1);
                counts[owners[0]] += 1;
            }
            assert!(counts.iter().all(|count| *count > 600 / drainers), "{counts:?}");
        }
        // Written down, for a log is drained on by later releases.
        let owner = |queue, partition| {
            (0..16)
                .find(|drainer| Share { drainer: *drainer, drainers: 16 }.has(KIND_MESSAGE, &record(queue, partition)))
        };
        assert_eq!(
            [owner("orders", "Default"), owner("orders", "eu"), owner("a", "b"), owner("ab", "")],
            [Some(2), Some(5), Some(1), Some(0)]
        );
    }

    #[test]
    fn what_is_no_message_is_the_first_one_s() {
        assert!(Share { drainer: 0, drainers: 3 }.has(KIND_MESSAGE + 1, b"?"));
        assert!(!Share { drainer: 2, drainers: 3 }.has(KIND_MESSAGE + 1, b"?"));
    }
}
