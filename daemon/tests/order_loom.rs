//! The daemon's code that reads the counter and the durable ends, under every interleaving that `loom` finds. There are two
//! lanes, each with its thread, a producer that sends to one and then to the other, and the drain.
//!
//! `daemon/tests/order_model.rs` walks a larger model of the same order.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use forebay::drain::source::snapshot::snapshot;
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

/// A lane with one message. It shows what `forebay_wal::lane::LaneShared` shows of many.
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

    /// Numbers a message, then makes it durable.
    fn take(&self, lane: usize) {
        let number = self.counter.fetch_add(1, Ordering::SeqCst);
        self.lanes[lane].number.store(number, Ordering::SeqCst);
        self.lanes[lane].durable.store(true, Ordering::SeqCst);
    }

    fn counter(&self) -> u64 {
        self.counter.load(Ordering::SeqCst)
    }

    /// The number before each lane's durable end.
    fn ends(&self) -> [Option<u64>; 2] {
        self.lanes.each_ref().map(|lane| {
            let durable = lane.durable.load(Ordering::SeqCst);
            durable.then(|| lane.number.load(Ordering::SeqCst))
        })
    }
}

/// Reads the counter, and the number before each lane's durable end.
type Look = fn(&Log) -> (u64, [Option<u64>; 2]);

/// Takes two rounds while two messages are being pushed; the second one is sent after the answer to the first one.
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
                // Without an answer nothing is sent in this interleaving.
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
