//! A connection's timer for `--rate`. tokio's timer has a resolution of a millisecond. Tens of requests would be due at
//! once, and the server would be measured under bursts.

use std::fs::File as StdFile;
use std::io;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio_uring::fs::File;

use super::descriptor;

/// All timers expire at multiples of this many nanoseconds since the start of the run, so that one interrupt serves all
/// that are due together. At 40,000 requests per second, an interrupt for each costs a thread half as much CPU time again.
pub(crate) const STEP_NS: u64 = 100_000;

/// A `timerfd` that is read through the ring, as precise as the kernel's high-resolution timers.
pub(crate) struct Timer {
    file: File,
    /// The buffer for the number of expirations. Empty while the kernel owns it.
    expirations: Vec<u8>,
}

impl Timer {
    /// Creates a timer on the thread's ring.
    ///
    /// # Errors
    /// If no file descriptor is available.
    pub(crate) fn new() -> io::Result<Self> {
        let descriptor = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        Ok(Self { file: File::from_std(StdFile::from(descriptor)), expirations: vec![0; size_of::<u64>()] })
    }

    /// Waits for `wait`, which must not be zero: such a timer never expires. The future must be awaited to its end.
    ///
    /// # Errors
    /// Those of `timerfd_settime`, and of reading from the descriptor.
    pub(crate) async fn wait(&mut self, wait: Duration) -> io::Result<()> {
        assert!(!wait.is_zero(), "a timer that is set to zero never expires");
        let no_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
        let once = Itimerspec { it_interval: no_interval, it_value: value };
        rustix::time::timerfd_settime(descriptor::of_file(&self.file), TimerfdTimerFlags::empty(), &once)?;
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
    fn a_timer_waits_for_the_given_time_each_time() {
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
