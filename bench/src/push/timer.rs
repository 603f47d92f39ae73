//! A connection's own timer, for `--rate`. tokio's has a step of a millisecond, in which tens of requests fall due at once:
//! the server would be measured by bursts that nobody asked for.

use std::fs::File as StdFile;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio_uring::fs::File;

/// All timers expire at multiples of this in the time of the run, so that one interrupt serves those who are due together:
/// with one for each request a thread spends half as much again on 40,000 requests a second.
pub(crate) const STEP_NS: u64 = 100_000;

/// A `timerfd` that is read through the ring: as exact as the kernel's high-resolution timers.
pub(crate) struct Timer {
    file: File,
    /// What is read: how often it expired. Empty while the kernel has it.
    expirations: Vec<u8>,
}

impl Timer {
    /// A timer on the thread's ring.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        let descriptor = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        Ok(Self { file: File::from_std(StdFile::from(descriptor)), expirations: vec![0; size_of::<u64>()] })
    }

    /// Waits for so long; for ever, if that is nothing. To be awaited to its end.
    ///
    /// # Errors
    /// Those of `timerfd_settime`, and of reading from it.
    pub(crate) async fn wait(&mut self, wait: Duration) -> io::Result<()> {
        let no_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
        let once = Itimerspec { it_interval: no_interval, it_value: value };
        // SAFETY: `self.file` owns the descriptor and is borrowed for longer than this borrow of it lives.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.file.as_raw_fd()) };
        rustix::time::timerfd_settime(descriptor, TimerfdTimerFlags::empty(), &once)?;
        let (read, expirations) = self.file.read_at(std::mem::take(&mut self.expirations), 0).await;
        self.expirations = expirations;
        read.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_timer_waits_as_long_as_it_was_told_each_time() {
        tokio_uring::start(async {
            let mut timer = Timer::new().unwrap();
            for wait in [Duration::from_millis(5), Duration::from_nanos(1), Duration::from_millis(2)] {
                let set_at = Instant::now();
                timer.wait(wait).await.unwrap();
                assert!(set_at.elapsed() >= wait, "{wait:?}");
            }
        });
    }
}
