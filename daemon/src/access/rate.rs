//! How many messages a token may push: a token bucket, shared by all cores.
//!
//! The bucket is one number: the time at which it will be full again (GCRA of ITU-T I.371, with the "theoretical arrival time"
//! turned round). Taking messages moves that time ahead. Messages are refused if it would then lie further ahead than the
//! whole bucket takes to fill.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Fastest rate, in messages a second. A message's share of a second is then 100 ns; the time is counted in whole nanoseconds,
/// so a faster rate would be inexact.
pub const RATE_MAX: u64 = 10_000_000;

/// Largest bucket, in messages: it fills within 2^63 ns at the slowest rate.
pub const BURST_MAX: u64 = 1_000_000_000;

const NANOS_PER_S: u64 = 1_000_000_000;

/// The start of the clock.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A bucket of messages.
#[derive(Debug)]
pub struct Rate {
    messages_per_s: u64,
    burst: u64,
    /// Time in which the bucket gains one message.
    interval_ns: u64,
    /// When the bucket will be full again, in nanoseconds since [`START`].
    full_at_ns: AtomicU64,
}

impl Rate {
    /// A full bucket of `burst` messages (1 to [`BURST_MAX`]) that gains `messages_per_s` (1 to [`RATE_MAX`]).
    ///
    /// # Panics
    /// If one of them is out of its range; the tokens file is checked before.
    #[must_use]
    pub fn new(messages_per_s: u64, burst: u64) -> Self {
        assert!((1..=RATE_MAX).contains(&messages_per_s) && (1..=BURST_MAX).contains(&burst));
        Self { messages_per_s, burst, interval_ns: NANOS_PER_S / messages_per_s, full_at_ns: AtomicU64::new(0) }
    }

    /// Whether it is a bucket of this size and speed.
    #[must_use]
    pub fn is(&self, messages_per_s: u64, burst: u64) -> bool {
        (self.messages_per_s, self.burst) == (messages_per_s, burst)
    }

    /// Takes `count` messages out, all or none. A full bucket gives more than it holds and is then in debt, so that a large push
    /// is slow and not impossible.
    ///
    /// # Errors
    /// How long to wait until so many can be taken, if nobody else takes any.
    pub fn take(&self, count: u64) -> Result<(), Duration> {
        self.take_at(count, START.elapsed().as_nanos() as u64)
    }

    /// Puts back messages that were taken out and not pushed. The bucket never holds more than its burst: a time at which it
    /// would be full that lies in the past counts as now.
    pub fn give_back(&self, count: u64) {
        let taken_ns = count.saturating_mul(self.interval_ns);
        let earlier = |full_at_ns: u64| full_at_ns.saturating_sub(taken_ns);
        self.full_at_ns.update(Ordering::Relaxed, Ordering::Relaxed, earlier);
    }

    fn take_at(&self, count: u64, now_ns: u64) -> Result<(), Duration> {
        let fill_ns = self.burst * self.interval_ns;
        let needed_ns = count.min(self.burst) * self.interval_ns;
        let taken_ns = count.saturating_mul(self.interval_ns);
        let taken = self.full_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at_ns| {
            let start_ns = full_at_ns.max(now_ns);
            (start_ns + needed_ns <= now_ns + fill_ns).then(|| start_ns.saturating_add(taken_ns).min(u64::MAX / 2))
        });
        taken.map(|_| ()).map_err(|full_at_ns| Duration::from_nanos(full_at_ns + needed_ns - now_ns - fill_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = NANOS_PER_S;

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_the_rate() {
        let rate = Rate::new(10, 5);
        for _ in 0..5 {
            assert_eq!(rate.take_at(1, SECOND), Ok(()));
        }
        assert_eq!(rate.take_at(1, SECOND), Err(Duration::from_millis(100)));
        assert_eq!(rate.take_at(1, SECOND + SECOND / 10), Ok(()));
        assert!(rate.take_at(1, SECOND + SECOND / 10).is_err());
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let rate = Rate::new(10, 5);
        assert_eq!(rate.take_at(3, 0), Ok(()));
        for _ in 0..100 {
            assert_eq!(rate.take_at(3, 0), Err(Duration::from_millis(100)));
        }
        assert_eq!(rate.take_at(2, 0), Ok(()));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_never_more_than_the_burst() {
        let rate = Rate::new(10, 5);
        assert_eq!(rate.take_at(5, SECOND), Ok(()));
        assert!(rate.take_at(1, SECOND).is_err());
        rate.give_back(2);
        assert_eq!(rate.take_at(2, SECOND), Ok(()));
        assert!(rate.take_at(1, SECOND).is_err());
        // More than the bucket had, which was in debt: all of it goes.
        assert_eq!(rate.take_at(1000, 10 * SECOND), Ok(()));
        rate.give_back(1000);
        // Late, when all had come back by itself: there is one burst all the same.
        rate.give_back(5);
        assert_eq!(rate.take_at(5, 20 * SECOND), Ok(()));
        assert!(rate.take_at(1, 20 * SECOND).is_err());
    }

    #[test]
    fn more_than_the_bucket_holds_is_given_to_a_full_one_and_paid_for() {
        let rate = Rate::new(100, 10);
        assert_eq!(rate.take_at(1, 0), Ok(()));
        assert_eq!(rate.take_at(1000, 0), Err(Duration::from_millis(10)));
        assert_eq!(rate.take_at(1000, SECOND), Ok(()));
        let wait = rate.take_at(1, SECOND).unwrap_err();
        assert_eq!(wait, Duration::from_millis((1000 - 10 + 1) * 10));
    }

    #[test]
    fn the_largest_bucket_and_the_largest_push_do_not_overflow() {
        let rate = Rate::new(1, BURST_MAX);
        assert_eq!(rate.take_at(u64::MAX, SECOND), Ok(()));
        assert!(rate.take_at(1, SECOND).is_err());
        assert!(rate.take_at(u64::MAX, u64::MAX / 4).is_err());
    }

    #[test]
    fn several_threads_share_one_bucket() {
        let rate = Rate::new(1, 1000);
        let taken: usize = std::thread::scope(|scope| {
            let takes = || (0..1000).filter(|_| rate.take_at(1, 0).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(takes)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }

    proptest! {
        #[test]
        fn no_more_is_given_than_the_bucket_and_the_rate_allow(
            per_s in 1_u64..1000, burst in 1_u64..100, steps in proptest::collection::vec((0_u64..SECOND / 10, 1_u64..20), 1..200),
        ) {
            let rate = Rate::new(per_s, burst);
            let (mut now, mut taken) = (0, 0_u64);
            for (step, count) in steps {
                now += step;
                let outcome = rate.take_at(count.min(burst), now);
                if outcome.is_ok() {
                    taken += count.min(burst);
                }
                prop_assert!(taken <= burst + now / rate.interval_ns + 1);
                if let Err(wait) = outcome {
                    prop_assert!(rate.take_at(count.min(burst), now + wait.as_nanos() as u64).is_ok());
                    taken += count.min(burst);
                    now += wait.as_nanos() as u64;
                }
            }
        }
    }
}
