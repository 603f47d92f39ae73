//! What other threads leave for one thread, which an eventfd wakes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

/// Things that wait for a thread.
pub struct Inbox<T> {
    /// `None` once the thread has ended.
    waiting: Mutex<Option<Vec<T>>>,
    event: OwnedFd,
}

impl<T> Inbox<T> {
    /// An empty one.
    ///
    /// # Errors
    /// Those of `eventfd`.
    pub fn new() -> io::Result<Self> {
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        Ok(Self { waiting: Mutex::new(Some(Vec::new())), event })
    }

    /// Leaves something, and wakes the thread. Returns it if the thread has ended.
    ///
    /// # Errors
    /// The thing itself.
    pub fn push(&self, thing: T) -> Result<(), T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = &mut *waiting else { return Err(thing) };
        waiting.push(thing);
        // The thread takes all that waits.
        if waiting.len() == 1
            && let Err(error) = rustix::io::write(&self.event, &1_u64.to_ne_bytes())
        {
            tracing::error!(code = "eventfd_failed", %error, "a thread cannot be woken");
        }
        Ok(())
    }

    /// Takes all that waits.
    pub fn take(&self) -> Vec<T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The thread has ended: nothing is taken any more. What waited is dropped.
    pub fn end(&self) {
        drop(self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The eventfd.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
