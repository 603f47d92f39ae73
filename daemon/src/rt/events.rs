//! Events of a thread: notifications among its tasks, eventfds that other threads signal, and turns of its loop.

use super::spawn;
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    os::fd::BorrowedFd,
    task::{Poll, Waker},
    time::Instant,
};

/// Waits for something that happens on the same thread. One waiter at a time; a notification without a waiter is kept.
#[derive(Default)]
pub struct Notify {
    notified: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Notify {
    /// Lets the waiter, or the next one, go on.
    pub fn notify(&self) {
        if !self.notified.replace(true)
            && let Some(waker) = self.waiter.take()
        {
            waker.wake();
        }
    }

    /// Waits for the next notification.
    pub async fn notified(&self) {
        poll_fn(|cx| {
            if self.notified.replace(false) {
                return Poll::Ready(());
            }
            self.waiter.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Waits for the next notification, at most until `deadline`.
    pub async fn notified_until(&self, deadline: Option<Instant>) {
        match deadline {
            None => self.notified().await,
            Some(deadline) => {
                let wait = deadline.saturating_duration_since(Instant::now());
                // The caller finds out for itself what there is to do.
                if monoio::time::timeout(wait, self.notified()).await.is_err() {
                    self.waiter.take();
                }
            }
        }
    }
}

/// Calls `on_event` on this thread each time the eventfd was signalled, until it returns `false`.
///
/// # Errors
/// When the descriptor cannot be duplicated.
pub fn spawn_on_event(event: BorrowedFd<'_>, mut on_event: impl FnMut() -> bool + 'static) -> io::Result<()> {
    let file = monoio::fs::File::from_std(event.try_clone_to_owned()?.into())?;
    spawn(async move {
        let mut counter = vec![0; 8];
        loop {
            let (outcome, buffer) = file.read_at(counter, 0).await;
            counter = buffer;
            match outcome {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(code = "eventfd_failed", %error, "an eventfd cannot be read");
                    return;
                }
            }
            if !on_event() {
                return;
            }
        }
    });
    Ok(())
}

/// Turns of this thread's loop. With each turn the loop takes in what is ready, and wakes all tasks that wait for it.
pub struct Turns {
    /// An eventfd that counts down by one with each read, from so much that no read ever waits.
    event: monoio::fs::File,
    counter: Vec<u8>,
}

impl Turns {
    /// Turns of the calling thread's loop.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE)?;
        rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes())?;
        Ok(Self { event: monoio::fs::File::from_std(event.into())?, counter: vec![0; 8] })
    }

    /// Waits until the loop has come round.
    pub async fn turn(&mut self) {
        // A read that failed has taken a turn as well.
        let (_, counter) = self.event.read_at(std::mem::take(&mut self.counter), 0).await;
        self.counter = counter;
    }
}
