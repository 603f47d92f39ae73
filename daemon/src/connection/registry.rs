//! The connections of a core, so that the sweep and a shutdown reach them.

use super::{
    server::Server,
    watch::{SweepAction, Timeouts, Watch},
};
use crate::rt::{self, ShutdownHandle};
use std::{cell::RefCell, rc::Rc};

/// All connections of one core.
#[derive(Default)]
pub(crate) struct Registry {
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    watches: Vec<Option<Rc<Watch>>>,
    free: Vec<usize>,
    /// Buffers that connections freed, or were asked to free, since they were last counted.
    freed_buffers: usize,
}

/// A connection's entry in the registry; dropped when the connection is closed.
pub(crate) struct Registered {
    server: Rc<Server>,
    watch: Rc<Watch>,
    slot: usize,
}

impl Registered {
    /// Adds a connection.
    pub(crate) fn new(server: &Rc<Server>, handle: ShutdownHandle) -> Self {
        let watch = Rc::new(Watch::new(handle, server.now_ms()));
        let slot = server.registry.add(Rc::clone(&watch));
        server.connections.opened();
        Self { server: Rc::clone(server), watch, slot }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.server.connections.closed();
        self.server.registry.remove(self.slot);
        self.server.end_if_done();
    }
}

impl Registry {
    fn add(&self, watch: Rc<Watch>) -> usize {
        let slots = &mut *self.slots.borrow_mut();
        if let Some(slot) = slots.free.pop() {
            slots.watches[slot] = Some(watch);
            return slot;
        }
        slots.watches.push(Some(watch));
        slots.watches.len() - 1
    }

    fn remove(&self, slot: usize) {
        let slots = &mut *self.slots.borrow_mut();
        slots.watches[slot] = None;
        slots.free.push(slot);
        slots.freed_buffers += 1;
        if slots.free.len() == slots.watches.len() {
            // After a crowd has left its memory goes too.
            *slots = Slots { freed_buffers: slots.freed_buffers, ..Slots::default() };
        }
    }

    pub(crate) fn len(&self) -> usize {
        let slots = self.slots.borrow();
        slots.watches.len() - slots.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the connections that are between requests.
    pub(crate) fn stop_idle(&self) {
        self.each(Watch::stop_if_idle);
    }

    /// Closes all connections.
    pub(crate) fn stop_all(&self) {
        self.each(Watch::stop);
    }

    /// Ends what takes too long, and the waits of connections whose peer has hung up.
    pub(crate) fn sweep(&self, now_ms: u64, timeouts: &Timeouts) {
        let mut interrupted = 0;
        self.each(|watch| interrupted += usize::from(watch.sweep(now_ms, timeouts) == SweepAction::TakeBuffer));
        self.note_freed_buffers(interrupted);
        self.end_waits_of_hung_up();
    }

    /// Those who hold memory of the budget.
    pub(super) fn holders(&self) -> Vec<Rc<Watch>> {
        let slots = self.slots.borrow();
        slots.watches.iter().flatten().filter(|watch| watch.holding().bytes() > 0).map(Rc::clone).collect()
    }

    fn end_waits_of_hung_up(&self) {
        let slots = self.slots.borrow();
        let waiting: Vec<&Watch> =
            slots.watches.iter().flatten().map(|watch| &**watch).filter(|watch| watch.is_parked()).collect();
        if waiting.is_empty() {
            return;
        }
        match rt::hung_up(waiting.iter().map(|watch| watch.handle())) {
            Ok(hung_up) => hung_up.into_iter().for_each(|index| waiting[index].hang_up()),
            Err(error) => tracing::debug!(%error, "hung-up connections are not looked for"),
        }
    }

    /// A connection freed a buffer while it stays open.
    pub(crate) fn note_freed_buffers(&self, count: usize) {
        self.slots.borrow_mut().freed_buffers += count;
    }

    /// How many buffers were freed since this was asked last.
    pub(crate) fn take_freed_buffers(&self) -> usize {
        std::mem::take(&mut self.slots.borrow_mut().freed_buffers)
    }

    /// Nothing that is done to a watch adds or removes one: the tasks that it wakes run later.
    fn each(&self, what: impl FnMut(&Watch)) {
        let slots = self.slots.borrow();
        slots.watches.iter().flatten().map(|watch| &**watch).for_each(what);
    }
}
