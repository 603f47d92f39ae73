//! The runtime of a thread. All that depends on how monoio behaves, and all unsafe code of the daemon, is below this module.
//!
//! What the code relies on, read in the source of monoio 0.2.4:
//!
//! * A dropped accept that had completed leaks its descriptor. An accept is therefore never dropped: shutting the listener
//!   down ends it.
//! * Accepted sockets come without `CLOEXEC`.
//! * A future that is pending on a socket ends when the socket is shut down. It is not dropped before.
//! * Woken tasks run in the order in which they were woken, behind those that were waiting already.
#![allow(unsafe_code)]

mod allocator;
mod events;
mod socket;
mod tls_stream;
mod transport;

pub use allocator::{give_free_memory_back, give_memory_back_soon, take_small_pages};
pub use events::{Notify, Turns, spawn_on_event};
pub use socket::{Listener, ShutdownHandle, Socket, hung_up};
pub use tls_stream::TlsStream;
pub use transport::{Interrupter, Transport, is_interrupted, read_more, write_all};

use crate::ignore::ignore;
use monoio::{IoUringDriver, Runtime, time::TimeDriver};
use std::{
    future::{Future, poll_fn},
    io,
    num::NonZeroU64,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

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
    // The kernel may prolong a sleep by 50 µs otherwise, which is as long as the longest pause of a core.
    ignore(rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN)), "pauses of this thread take longer");
    let completions = (connections * COMPLETIONS_PER_CONNECTION).max(2 * RING_ENTRIES).next_power_of_two();
    let mut error = None;
    for step in 0..3 {
        let mut ring = io_uring_06::IoUring::builder();
        ring.setup_cqsize(completions).setup_clamp();
        match step {
            // The kernel takes completions in when this thread asks, and does not interrupt it (6.1).
            0 => ring.setup_single_issuer().setup_defer_taskrun(),
            // It does not interrupt it (5.19).
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

/// Spawns a task on this thread.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(future));
}

/// Runs a future to its end, or to a panic in it: `None` then. monoio would let the panic end the thread.
pub async fn catch_panic<T>(mut future: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
    poll_catching_panic(|cx| future.as_mut().poll(cx)).await
}

/// The same for a wait that is no future.
pub async fn poll_catching_panic<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Sleeps; the timer's step is a millisecond.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// Puts the whole thread to sleep, and with it all tasks that it serves. What arrives meanwhile is taken in together
/// afterwards, which costs much less than one by one.
pub fn pause_thread(duration: Duration) {
    if !duration.is_zero() {
        std::thread::sleep(duration);
    }
}
