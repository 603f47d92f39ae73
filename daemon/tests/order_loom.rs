//! The order in which a round looks at the log, as it stands in the daemon, under every interleaving that `loom` finds: two
//! lanes on threads of their own, a producer that goes from one to the other, and the drain.
//!
//! `daemon/tests/order_model.rs` walks a larger model of the same; this one walks the code.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use forebay::drain::snapshot::snapshot;
use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// No number.
const NONE: u64 = u64::MAX;

/// What a lane shows of its one message, as `forebay_wal::lane::LaneShared` does of all.
struct Lane {
    number: AtomicU64,
    durable: AtomicBool,
}

struct Log {
    counter: AtomicU64,
    lanes: [Lane; 2],
    /// The first lane's message was answered.
    answered: AtomicBool,
}

impl Log {
    fn new() -> Self {
        let lane = || Lane { number: AtomicU64::new(NONE), durable: AtomicBool::new(false) };
        Self { counter: AtomicU64::new(0), lanes: [lane(), lane()], answered: AtomicBool::new(false) }
    }

    /// A message is numbered, and then durable.
    fn take(&self, lane: usize) {
        let number = self.counter.fetch_add(1, Ordering::SeqCst);
        self.lanes[lane].number.store(number, Ordering::SeqCst);
        self.lanes[lane].durable.store(true, Ordering::SeqCst);
    }

    fn counter(&self) -> u64 {
        self.counter.load(Ordering::SeqCst)
    }

    /// The numbers that stand before each lane's durable end.
    fn ends(&self) -> [Option<u64>; 2] {
        self.lanes.each_ref().map(|lane| {
            let durable = lane.durable.load(Ordering::SeqCst);
            durable.then(|| lane.number.load(Ordering::SeqCst))
        })
    }
}

/// What a round takes, by lane, and what it looks at to know.
type Look = fn(&Log) -> (u64, [Option<u64>; 2]);

/// Two rounds while two messages are on their way, the second of which is sent after the first one's answer.
fn two_rounds(look: Look) {
    loom::model(move || {
        let log = Arc::new(Log::new());
        let first = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                log.take(0);
                log.answered.store(true, Ordering::Release);
            })
        };
        let second = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                // Where the answer is not there yet, there is nothing to be seen.
                if log.answered.load(Ordering::Acquire) {
                    log.take(1);
                }
            })
        };
        let mut delivered = [false; 2];
        for _ in 0..2 {
            let (below, ends) = look(&log);
            let taken = ends.map(|number| number.is_some_and(|number| number < below));
            delivered = [delivered[0] | taken[0], delivered[1] | taken[1]];
            assert!(delivered[0] || !delivered[1], "the second one is delivered and the first one is not");
        }
        first.join().unwrap();
        second.join().unwrap();
    });
}

#[test]
fn as_the_daemon_looks_at_the_log_no_message_overtakes_one_whose_answer_its_sender_had() {
    two_rounds(|log| snapshot(|| log.counter(), || log.ends()));
}

#[test]
fn with_the_counter_read_after_the_ends_a_message_is_found_to_overtake_another() {
    let found = catch_unwind(AssertUnwindSafe(|| {
        two_rounds(|log| {
            let ends = log.ends();
            (log.counter(), ends)
        });
    }));
    let what = found.expect_err("the order is broken");
    let what = what.downcast_ref::<&str>().map(|what| (*what).to_owned()).or(what.downcast_ref::<String>().cloned());
    assert_eq!(what.as_deref(), Some("the second one is delivered and the first one is not"));
}
