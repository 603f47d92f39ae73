//! The connections of a core, so that a stop reaches them.

use crate::rt::Stopper;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

#[derive(Default)]
pub(super) struct Registry {
    connections: RefCell<HashMap<u64, Entry>>,
}

struct Entry {
    stopper: Stopper,
    idle: Rc<Cell<bool>>,
}

impl Registry {
    /// Adds a connection. The cell says whether it is between requests, and is the connection's to keep true.
    pub(super) fn add(&self, id: u64, stopper: Stopper) -> Rc<Cell<bool>> {
        let idle = Rc::new(Cell::new(true));
        self.connections.borrow_mut().insert(id, Entry { stopper, idle: Rc::clone(&idle) });
        idle
    }

    pub(super) fn remove(&self, id: u64) {
        self.connections.borrow_mut().remove(&id);
    }

    pub(super) fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    pub(super) fn stop_idle(&self) {
        self.connections
            .borrow()
            .values()
            .filter(|entry| entry.idle.get())
            .for_each(|entry| entry.stopper.stop_reading());
    }

    pub(super) fn stop_all(&self) {
        self.connections.borrow().values().for_each(|entry| entry.stopper.stop());
    }
}
