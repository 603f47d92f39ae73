//! The connection to PostgreSQL ends during a drain transaction: at every byte, at every message, on either side, with
//! and without loss of the data in flight. It also ends at COMMIT, and with the daemon killed.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    proxy::{Deed, Fault, From, Outcome, Place, Point, ResponseOptions, Rig, Since},
    random::Random,
    test_seed,
};
use forebay_cluster::TestCluster;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The number of daemons that are cut off in parallel, each behind its own proxy. The back-off after each cut is idle
/// time.
const RIGS: usize = 12;

/// The minimum number of bytes in the drain transaction of one message, by side. With fewer, the test has not found the
/// transaction.
const TRANSACTION_BYTES_MIN: [u64; 2] = [300, 80];

/// A sweep over all bytes for one side and one manner. The daemons share the next byte.
struct Sweep {
    from: From,
    manner: ResponseOptions,
    next: AtomicU64,
    /// A transaction ended before it had a byte with that index.
    done: AtomicBool,
}

fn sweeps() -> Vec<Sweep> {
    let mut sweeps = Vec::new();
    for from in [From::Client, From::Server] {
        for manner in [ResponseOptions::Reset, ResponseOptions::Close] {
            sweeps.push(Sweep { from, manner, next: AtomicU64::new(0), done: AtomicBool::new(false) });
        }
    }
    sweeps
}

/// Starts the rigs and lets each create the partition of all its pushes. Then runs `work` with all of them in parallel.
fn with_rigs(cluster: &TestCluster, name: &str, work: impl Fn(&mut Rig, usize) + Sync) {
    std::thread::scope(|scope| {
        for index in 0..RIGS {
            let work = &work;
            scope.spawn(move || {
                let mut rig = Rig::start(cluster, &format!("{name}{index}"), &[]);
                rig.push("p", 1);
                rig.wait_until_drained();
                work(&mut rig, index);
                rig.check(cluster);
            });
        }
    });
}

fn cut(from: From, point: Point, since: Since, manner: ResponseOptions) -> Fault {
    Fault { place: Place { from, point, since }, deed: Deed::Cut(manner) }
}

#[test]
fn case_55_cut_at_every_byte_of_a_drain_transaction_it_is_carried_out_once() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let sweeps = sweeps();
    with_rigs(&cluster, "byte", |rig, _| {
        for sweep in &sweeps {
            while !sweep.done.load(Ordering::Relaxed) {
                let byte = sweep.next.fetch_add(1, Ordering::Relaxed);
                rig.proxy.arm([cut(sweep.from, Point::Byte(byte), Since::Transaction, sweep.manner)]);
                rig.push("p", 1);
                if !rig.proxy.wait_for_outcome() {
                    sweep.done.store(true, Ordering::Relaxed);
                    sweep.next.fetch_min(byte, Ordering::Relaxed);
                }
                rig.wait_until_drained();
            }
        }
    });
    for sweep in &sweeps {
        let bytes = sweep.next.load(Ordering::Relaxed);
        println!("{:?} {:?}: {bytes} bytes", sweep.from, sweep.manner);
        assert!(bytes >= TRANSACTION_BYTES_MIN[sweep.from as usize], "{:?}: {bytes}", sweep.from);
    }
}

#[test]
fn case_55_cut_at_every_message_of_a_large_transaction_that_makes_its_partitions_it_is_carried_out_once() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let sweeps = sweeps();
    with_rigs(&cluster, "message", |rig, index| {
        for sweep in &sweeps {
            while !sweep.done.load(Ordering::Relaxed) {
                let message = sweep.next.fetch_add(1, Ordering::Relaxed);
                // A new partition, so that the statements that create it are cut as well.
                let partition = format!("{:?}-{:?}-{message}", sweep.from, sweep.manner);
                rig.proxy.arm([cut(sweep.from, Point::Message(message), Since::Armed, sweep.manner)]);
                rig.push(&partition, 100 + index as u64);
                if !rig.proxy.wait_for_outcome() {
                    sweep.done.store(true, Ordering::Relaxed);
                    sweep.next.fetch_min(message, Ordering::Relaxed);
                }
                rig.wait_until_drained();
            }
        }
    });
    for sweep in &sweeps {
        let messages = sweep.next.load(Ordering::Relaxed);
        println!("{:?} {:?}: {messages} messages", sweep.from, sweep.manner);
        assert!(messages >= 8, "{:?}: {messages}", sweep.from);
    }
}

#[test]
fn case_55_cut_at_any_byte_of_large_transactions_and_again_while_it_connects_they_are_carried_out_once() {
    let seed = test_seed();
    let cluster = TestCluster::start_without_fsync().unwrap();
    with_rigs(&cluster, "any", |rig, index| {
        let mut random = Random::new(seed + index as u64);
        let mut struck = 0;
        for _ in 0..20 {
            let mut any = |bytes: u64| {
                let from = if random.once_in(2) { From::Client } else { From::Server };
                let manner = if random.once_in(2) { ResponseOptions::Reset } else { ResponseOptions::Close };
                let bytes = if from == From::Client { bytes } else { 800 };
                cut(from, Point::Byte(random.below(bytes)), Since::Armed, manner)
            };
            // The second and third fault strike while the daemon connects and repeats the transaction.
            rig.proxy.arm([any(40_000), any(3000), any(6000)]);
            rig.push("p", 300);
            // A transaction that was cut after its COMMIT is not repeated, and then the other faults do not strike.
            rig.wait_until_drained();
            struck += u64::from(rig.proxy.outcome() == Outcome::Struck);
        }
        assert!(struck > 0, "some were cut three times");
    });
}

/// Holds the drain at COMMIT, either the request or the reply, and runs `meanwhile`.
fn hold_at_commit(rig: &mut Rig, from: From, meanwhile: impl Fn(&mut Rig)) {
    rig.proxy.arm_one(from, Point::Commit, Since::Armed, Deed::Hold);
    rig.push_buffered("p", 20);
    rig.proxy.wait_until_holding();
    meanwhile(rig);
    rig.proxy.release();
    rig.push_buffered("p", 3);
    rig.wait_until_drained();
}

#[test]
fn case_54_a_commit_on_its_way_there_or_back_when_the_connection_ends_is_known_from_the_checkpoint() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, "commit", &[]);
    // The creation of the schema also ends with a COMMIT, and must be over.
    rig.wait_until_drained();
    for _ in 0..3 {
        for from in [From::Client, From::Server] {
            hold_at_commit(&mut rig, from, |rig| rig.proxy.reset_all());
        }
    }
    assert_eq!(rig.check(&cluster), 6 * 23);
    let told = rig.daemon.log().matches("the transaction whose answer was lost had committed").count();
    assert_eq!(told, 3, "those whose answer was on its way back");
}

#[test]
fn case_54_killed_with_its_commit_on_its_way_there_or_back_the_daemon_knows_from_the_checkpoint() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, "killed", &[]);
    rig.wait_until_drained();
    for _ in 0..2 {
        for from in [From::Client, From::Server] {
            hold_at_commit(&mut rig, from, Rig::kill9_and_restart);
        }
    }
    assert_eq!(rig.check(&cluster), 4 * 23);
}

#[test]
fn case_54_the_server_killed_with_a_commit_on_its_way_there_or_back_is_asked_what_became_of_it() {
    // This cluster syncs, because the test crashes it.
    let cluster = TestCluster::start().unwrap();
    let mut rig = Rig::start(&cluster, "crashed", &[]);
    rig.wait_until_drained();
    for _ in 0..2 {
        for from in [From::Client, From::Server] {
            hold_at_commit(&mut rig, from, |rig| {
                cluster.kill9().unwrap();
                rig.proxy.reset_all();
                cluster.start().unwrap();
            });
        }
    }
    assert_eq!(rig.check(&cluster), 4 * 23);
}

#[test]
fn case_55_the_session_the_server_or_the_daemon_killed_in_the_middle_of_a_copy() {
    // This cluster syncs, because the test crashes it.
    let cluster = TestCluster::start().unwrap();
    let mut rig = Rig::start(&cluster, "copy", &[]);
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'forebay'";
    for fate in ["session", "server", "daemon"] {
        // The start of the COPY has arrived, and its end has not.
        rig.proxy.arm_one(From::Client, Point::Tag(b'c'), Since::Armed, Deed::Hold);
        rig.push_buffered("p", 200);
        rig.proxy.wait_until_holding();
        match fate {
            "session" => assert_eq!(cluster.psql(terminate).unwrap(), "t"),
            "server" => {
                cluster.kill9().unwrap();
                cluster.start().unwrap();
            }
            _ => rig.kill9_and_restart(),
        }
        rig.proxy.release();
        rig.push_buffered("p", 20);
        rig.wait_until_drained();
    }
    assert_eq!(rig.check(&cluster), 3 * 220);
}
