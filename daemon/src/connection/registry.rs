//! The connections of a core, so that the sweep and a stop reach them.

use super::watch::{Timeouts, Watch};
use crate::ingest::Core;
use crate::rt::Stopper;
use std::{cell::RefCell, rc::Rc};

#[derive(Default)]
pub(crate) struct Registry {
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    watches: Vec<Option<Rc<Watch>>>,
    free: Vec<usize>,
    /// Connections that went, or gave their buffers back, since that was asked for.
    given_back: usize,
}

/// A connection's entry, kept no longer than the connection's descriptor.
pub(crate) struct Registered {
    core: Rc<Core>,
    watch: Rc<Watch>,
    slot: usize,
}

impl Registered {
    /// Adds a connection.
    pub(crate) fn new(core: &Rc<Core>, stopper: Stopper) -> Self {
        let watch = Rc::new(Watch::new(stopper, core.now_ms()));
        let slot = core.registry.add(Rc::clone(&watch));
        Self { core: Rc::clone(core), watch, slot }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.core.registry.remove(self.slot);
        self.core.end_if_done();
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
        slots.given_back += 1;
        if slots.free.len() == slots.watches.len() {
            // After a crowd has left its memory goes too.
            *slots = Slots { given_back: slots.given_back, ..Slots::default() };
        }
    }

    pub(crate) fn len(&self) -> usize {
        let slots = self.slots.borrow();
        slots.watches.len() - slots.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn stop_idle(&self) {
        self.each(Watch::stop_if_idle);
    }

    pub(crate) fn stop_all(&self) {
        self.each(Watch::stop);
    }

    pub(crate) fn sweep(&self, now_ms: u64, timeouts: &Timeouts) {
        let mut interrupted = 0;
        self.slots.borrow().watches.iter().flatten().for_each(|watch| {
            interrupted += usize::from(watch.sweep(now_ms, timeouts));
        });
        self.slots.borrow_mut().given_back += interrupted;
    }

    /// How many connections went, or were asked for their buffers, since this was asked.
    pub(crate) fn take_given_back(&self) -> usize {
        std::mem::take(&mut self.slots.borrow_mut().given_back)
    }

    /// None of what is done to a watch adds or removes one: those whose wait it ends go on later.
    fn each(&self, what: impl Fn(&Watch)) {
        self.slots.borrow().watches.iter().flatten().for_each(|watch| what(watch));
    }
}
