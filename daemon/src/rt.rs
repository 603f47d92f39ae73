//! The one place that knows how monoio behaves; everything else of it stays behind these few functions.
//!
//! What they stand on (monoio 0.2.4, read in its source): a dropped accept that had completed leaks its descriptor, so an
//! accept is never dropped but ended by shutting the listener down; accepted sockets come without `CLOEXEC`; a future
//! pending on a socket ends when the socket is shut down, and is not dropped before; tasks that are woken run in the order
//! in which they were woken, after those that were already waiting.
#![allow(unsafe_code)]

mod sealed;
mod transport;

pub use sealed::Sealed;
pub use transport::{Interrupter, Transport, is_interrupted, read_more, write_all};

use crate::limits::FREE_MEMORY_KEPT;
use monoio::{
    IoUringDriver, Runtime,
    net::{TcpListener, TcpStream},
    time::TimeDriver,
};
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    num::NonZeroU64,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    pin::Pin,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

/// Number of the allocator's option that says for how many milliseconds it keeps free memory (mimalloc.h, `mi_option_t`).
const ALLOCATOR_PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Makes the allocator give memory back [`FREE_MEMORY_KEPT`] after its last use, unless the environment
/// (`MIMALLOC_PURGE_DELAY`) says otherwise. To be called before there is a second thread.
pub fn give_memory_back_soon() {
    let milliseconds = FREE_MEMORY_KEPT.as_millis() as std::ffi::c_long;
    // SAFETY: it writes one word of the allocator's own, which is initialized on first use, and checks the number. There is
    // no other thread that could read it meanwhile.
    unsafe { libmimalloc_sys::mi_option_set_default(ALLOCATOR_PURGE_DELAY, milliseconds) };
}

/// Keeps the kernel from filling memory by huge pages, which the allocator asks for: two megabytes would stay for the few
/// kilobytes in them that are used, twice the memory in all. The environment (`MIMALLOC_ALLOW_THP`) decides where it says
/// something. A private PostgreSQL inherits it, which asks for none of these.
pub fn take_small_pages() {
    if std::env::var_os("MIMALLOC_ALLOW_THP").is_none() {
        // Where it is refused, more memory is used.
        rustix::thread::disable_transparent_huge_pages(true).unwrap_or_default();
    }
}

/// Lets the allocator give back what this thread has freed: it does so by itself only while memory is asked for, and a thread
/// whose connections have become idle asks for none.
pub fn give_free_memory_back() {
    // SAFETY: it may be called at any time, and touches nothing but what is free.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// The runtime of one thread.
pub type CoreRuntime = Runtime<TimeDriver<IoUringDriver>>;

/// Submission entries of a core's ring: one pass of a busy core queues at most this much before it enters the kernel.
const RING_ENTRIES: u32 = 4096;

/// Completion entries a connection may need at once: its read, poll or write, and the cancellation of it.
const COMPLETIONS_PER_CONNECTION: u32 = 2;

/// Builds the runtime of the calling thread for up to `connections` connections, by the best set-up that the kernel knows.
///
/// # Errors
/// Those of `io_uring_setup`.
pub fn runtime(connections: u32) -> io::Result<CoreRuntime> {
    // A `rest` shall not take 50 µs longer than it was meant to, as the kernel allows itself.
    rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN)).unwrap_or_default();
    let completions = (connections * COMPLETIONS_PER_CONNECTION).max(2 * RING_ENTRIES).next_power_of_two();
    let mut error = None;
    for step in 0..3 {
        let mut ring = io_uring_06::IoUring::builder();
        ring.setup_cqsize(completions).setup_clamp();
        match step {
            // Completions are taken in when this thread asks, without interrupting it (6.1).
            0 => ring.setup_single_issuer().setup_defer_taskrun(),
            // The same but for the asking (5.19).
            1 => ring.setup_coop_taskrun(),
            _ => &mut ring,
        };
        let builder = monoio::RuntimeBuilder::<IoUringDriver>::new().with_entries(RING_ENTRIES).uring_builder(ring);
        match builder.enable_timer().build() {
            Ok(runtime) => return Ok(runtime),
            Err(failed) if failed.raw_os_error() == Some(libc::EINVAL) => error = Some(failed),
            Err(failed) => return Err(failed),
        }
    }
    Err(error.unwrap_or_else(|| io::Error::other("no way to set up io_uring")))
}

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
                // Either way the caller looks for itself what there is to do.
                if monoio::time::timeout(wait, self.notified()).await.is_err() {
                    self.waiter.take();
                }
            }
        }
    }
}

/// Spawns a task on this thread.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(future));
}

/// Runs a future to its end, or to a panic in it: `None` then. monoio would let that end the thread.
pub async fn catch_panic<T>(mut future: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
    poll_fn(|cx| {
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| future.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

/// Sleeps; the timer's step is a millisecond.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// Lets the thread sleep, and with it all that it serves: what arrives meanwhile is taken in together afterwards, for much less
/// than one by one.
pub fn rest(duration: Duration) {
    if !duration.is_zero() {
        std::thread::sleep(duration);
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

/// Turns of this thread's loop: what is ready on each is taken in, and all who wait for it are woken.
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
        let (_, counter) = self.event.read_at(std::mem::take(&mut self.counter), 0).await;
        self.counter = counter;
    }
}

/// A listener of its own on an address that other threads listen on as well.
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Takes a bound, listening socket.
    ///
    /// # Errors
    /// When monoio refuses it.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::from_std(socket.into())? })
    }

    /// The next connection. Must be awaited to its end: see [`stop`](Self::stop).
    ///
    /// # Errors
    /// Those of `accept`, and `EINVAL` once stopped.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        // A server that the daemon starts must not inherit its connections.
        rustix::io::fcntl_setfd(borrow(&stream), rustix::io::FdFlags::CLOEXEC)?;
        // Answers are written whole; waiting for more to send would only delay them.
        stream.set_nodelay(true)?;
        Ok((stream, peer))
    }

    /// Ends listening: a pending accept fails with `EINVAL`.
    pub fn stop(&self) {
        shut_down(borrow(&self.listener), rustix::net::Shutdown::Read);
    }
}

/// A way to end a connection's pending operations, kept no longer than the connection.
pub struct Stopper(RawFd);

impl Stopper {
    /// For a socket that outlives the result.
    #[must_use]
    pub fn new(socket: &impl AsRawFd) -> Self {
        Self(socket.as_raw_fd())
    }

    /// Lets the pending read, and all later ones, find the end of the stream.
    pub fn stop_reading(&self) {
        self.shut_down(rustix::net::Shutdown::Read);
    }

    /// Lets a pending write fail as well.
    pub fn stop(&self) {
        self.shut_down(rustix::net::Shutdown::Both);
    }

    fn shut_down(&self, how: rustix::net::Shutdown) {
        // SAFETY: by `new`'s contract the descriptor is open.
        shut_down(unsafe { BorrowedFd::borrow_raw(self.0) }, how);
    }
}

/// Sends a few bytes to a connection that is closed then. They fit into the socket's empty buffer, so nothing waits.
pub fn say(stream: &TcpStream, bytes: &[u8]) {
    if let Err(error) =
        rustix::net::send(borrow(stream), bytes, rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL)
    {
        tracing::debug!(%error, "a client that was turned away was not told");
    }
}

fn shut_down(fd: BorrowedFd<'_>, how: rustix::net::Shutdown) {
    // Not connected any more: nothing is left to shut down.
    if let Err(error) = rustix::net::shutdown(fd, how) {
        tracing::debug!(%error, "shutdown");
    }
}

fn borrow(of: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the owner of the descriptor is borrowed as long as the result.
    unsafe { BorrowedFd::borrow_raw(of.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocators_option_is_the_one_that_is_meant() {
        // SAFETY: it reads one word of the allocator's own, which no test writes.
        let milliseconds = unsafe { libmimalloc_sys::mi_option_get(ALLOCATOR_PURGE_DELAY) };
        let from_environment = std::env::var("MIMALLOC_PURGE_DELAY").ok().and_then(|text| text.parse().ok());
        assert_eq!(milliseconds, from_environment.unwrap_or(1000), "mimalloc's own default; no other option has it");
    }
}
