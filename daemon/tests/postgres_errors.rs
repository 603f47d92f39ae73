//! PostgreSQL reports transient errors at every statement of a drain transaction, and sends unsolicited messages.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    proxy::{Complaint, Deed, From, Point, Rig, Since, Style, wire},
    rows, wait_until,
};
use forebay_cluster::TestCluster;

/// The transient errors.
const PASSING: [&str; 9] = ["57P01", "57P03", "53300", "53100", "25006", "40001", "40P01", "55P03", "57014"];

/// The minimum number of statements in a drain transaction with new partitions.
const STATEMENTS_MIN: u64 = 8;

/// The level at which every failed attempt is logged. At `info` an attempt is logged only if its reason differs from
/// the previous one.
const TELL_ALL: [&str; 2] = ["--log", "info,forebay::drain=debug"];

/// The size of the longest message that a server might send.
const HUGE_TEXT_BYTES: usize = 1 << 20;

/// Applies this fault at every statement of a drain transaction, each time in another transaction. Checks that each
/// transaction is repeated until it succeeds.
fn at_every_statement(rig: &mut Rig, label: &str, deed: &Deed) {
    for statement in 0.. {
        // A new partition, so that the statements that create it are covered as well.
        let partition = format!("{label}-{statement}");
        rig.proxy.arm_one(From::Client, Point::Message(statement), Since::Armed, deed.clone());
        rig.push(&partition, 3);
        let struck = rig.proxy.wait_for_outcome();
        rig.wait_until_drained();
        if !struck {
            assert!(statement >= STATEMENTS_MIN, "statements were met: {statement}");
            return;
        }
    }
}

/// Runs `work` for each of those codes in parallel, each with its own daemon.
fn for_each_passing(work: impl Fn(&mut Rig, &'static str) + Sync) {
    let cluster = TestCluster::start_without_fsync().unwrap();
    std::thread::scope(|scope| {
        for sqlstate in PASSING {
            let (work, cluster) = (&work, &cluster);
            scope.spawn(move || {
                let mut rig = Rig::start(cluster, sqlstate, &TELL_ALL);
                rig.wait_until_drained();
                work(&mut rig, sqlstate);
                rig.check(cluster);
            });
        }
    });
    assert_eq!(rows(&cluster, "SELECT count(*) FROM forebay.dead_letters"), [["0"]]);
}

#[test]
fn case_56_what_passes_by_itself_is_repeated_at_whichever_statement_it_is_said() {
    for_each_passing(|rig, sqlstate| at_every_statement(rig, sqlstate, &Deed::Fail(Complaint::error(sqlstate))));
}

#[test]
fn case_56_what_passes_by_itself_is_repeated_also_when_the_session_ends_with_it() {
    for_each_passing(|rig, sqlstate| at_every_statement(rig, sqlstate, &Deed::Close(Complaint::fatal(sqlstate))));
}

#[test]
fn case_56_what_passes_by_itself_is_waited_for_at_the_log_in() {
    for_each_passing(|rig, sqlstate| {
        rig.proxy.refuse(Complaint::fatal(sqlstate));
        wait_until("the refusal is told", || !rig.is_healthy());
        let answer = rig.push("p", 5);
        assert_eq!(answer[0]["status"], "buffered");
        wait_until("the code is told", || rig.daemon.log().contains(&format!("FATAL {sqlstate}: injected")));
        rig.proxy.open();
        rig.wait_until_drained();
    });
}

#[test]
fn case_56_in_one_outage_each_change_of_the_reason_is_told_once() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, "reasons", &TELL_ALL);
    rig.push("p", 1);
    rig.wait_until_drained();
    for sqlstate in ["57P03", "53300", "28P01", "57P03"] {
        let count = |level: &str| {
            let log = rig.daemon.log();
            log.lines().filter(|line| line.contains(level) && line.contains(&format!("injected {sqlstate}"))).count()
        };
        let told = count("ERROR");
        let attempts = count("DEBUG");
        rig.proxy.refuse(Complaint::fatal(sqlstate));
        wait_until("it is tried again and again", || count("DEBUG") >= attempts + 2);
        assert_eq!(count("ERROR"), told + 1, "{sqlstate}: {}", rig.daemon.log());
    }
    rig.proxy.open();
    rig.push("p", 1);
    rig.check(&cluster);
}

#[test]
fn case_56_a_role_without_a_connection_left_is_waited_for() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.psql("CREATE ROLE limited LOGIN; GRANT ALL ON DATABASE forebay TO limited").unwrap();
    let dir = common::data_dir();
    let url = cluster.url().replace("forebay@", "limited@");
    let daemon = common::Daemon::start(dir.path(), &url, &[&["--cores", "1"], &TELL_ALL[..]].concat());
    daemon.wait_until_drained();
    cluster
        .psql(
            "ALTER ROLE limited CONNECTION LIMIT 0; \
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'limited'",
        )
        .unwrap();
    let push = |n: u64| {
        let body = serde_json::json!({"items": [{"queue": "limited", "payload": n}]});
        assert_eq!(daemon.connect().push(&body).unwrap().status, 201);
    };
    (0..10).for_each(push);
    wait_until("the refusal is told", || daemon.log().contains("53300"));
    cluster.psql("ALTER ROLE limited CONNECTION LIMIT -1").unwrap();
    let expected: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(common::stage::payload_texts(&daemon, &cluster, "limited", 10), expected);
    assert_eq!(daemon.figure("failed"), 0);
}

#[test]
fn case_56_a_statement_that_is_cancelled_is_repeated() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, "cancelled", &[]);
    rig.wait_until_drained();
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'forebay'";
    for _ in 0..5 {
        // The COPY has started and waits for its end.
        rig.proxy.arm_one(From::Client, Point::Tag(b'c'), Since::Armed, Deed::Hold);
        rig.push_buffered("p", 100);
        rig.proxy.wait_until_holding();
        let copies = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'forebay' AND query LIKE 'COPY%' \
                      AND state = 'active'";
        wait_until("the COPY is under way", || !rows(&cluster, copies).is_empty());
        cluster.psql(cancel).unwrap();
        rig.proxy.release();
        rig.wait_until_drained();
    }
    assert_eq!(rig.check(&cluster), 500);
    assert!(rig.daemon.log().contains("57014"), "it was cancelled");
}

#[test]
fn case_56_a_deadlock_with_somebody_who_locks_in_another_order_is_repeated() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.psql("ALTER SYSTEM SET deadlock_timeout = '20ms'").unwrap();
    cluster.psql("SELECT pg_reload_conf()").unwrap();
    let mut rig = Rig::start(&cluster, "deadlock", &[]);
    for partition in ["a", "b"] {
        rig.push(partition, 1);
    }
    rig.wait_until_drained();
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'forebay'";
    let lock = |name: &str| format!("SELECT FROM forebay.partitions WHERE name = '{name}' FOR UPDATE;");
    let others = format!("BEGIN; {} SELECT pg_sleep(0.3); {} COMMIT", lock("b"), lock("a"));
    let mut rounds = 0;
    while rows(&cluster, deadlocks) == [["0"]] {
        rounds += 1;
        assert!(rounds < 50, "the drain and somebody else meet");
        std::thread::scope(|scope| {
            // PostgreSQL may choose either of the two as the victim of the deadlock.
            let other = scope.spawn(|| drop(cluster.psql(&others)));
            while !other.is_finished() {
                for partition in ["a", "b"] {
                    rig.push_buffered(partition, 2);
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        rig.wait_until_drained();
        std::thread::sleep(std::time::Duration::from_millis(600));
    }
    rig.check(&cluster);
}

#[test]
fn case_64_answers_that_come_in_single_bytes_and_late_change_nothing() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, "bytes", &["--commit-wait-ms", "60000"]);
    rig.proxy.set_style(Style { single_bytes: true, delay: None });
    // The daemon then also logs in by single bytes.
    rig.proxy.reset_all();
    rig.push("first", 1);
    rig.wait_until_drained();
    for n in 0..30 {
        assert_eq!(rig.push(&format!("p{}", n % 3), 1 + n % 4)[0]["status"], "queued");
    }
    rig.proxy.set_style(Style { single_bytes: true, delay: Some(std::time::Duration::from_millis(3)) });
    for _ in 0..5 {
        assert_eq!(rig.push("late", 1)[0]["status"], "queued");
    }
    rig.check(&cluster);
}

/// Sends these bytes before each server message of a drain transaction and of the statements that create its partition,
/// each time in another transaction. Each transaction succeeds.
fn before_every_answer(name: &str, words: &[u8]) {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, name, &["--commit-wait-ms", "60000"]);
    rig.wait_until_drained();
    for message in 0.. {
        rig.proxy.arm_one(From::Server, Point::Message(message), Since::Armed, Deed::Insert(words.to_vec()));
        let answer = rig.push(&format!("p{message}"), 2);
        assert_eq!(answer[1]["status"], "queued", "at message {message}");
        if !rig.proxy.wait_for_outcome() {
            assert!(message >= STATEMENTS_MIN, "messages were met: {message}");
            break;
        }
    }
    rig.check(&cluster);
    assert!(!rig.daemon.log().contains(" ERROR "), "nothing is wrong");
}

#[test]
fn case_64_a_flood_of_notices_before_any_answer_changes_nothing() {
    let notice = Complaint { severity: "WARNING", sqlstate: "01000", text: "again".repeat(20) }.notice();
    before_every_answer("notices", &notice.repeat(10_000));
}

#[test]
fn case_64_a_parameter_that_changes_before_any_answer_also_in_a_copy_changes_nothing() {
    let words = [
        wire::parameter_status("application_name", "another"),
        wire::parameter_status("unheard_of", &"x".repeat(100_000)),
        wire::parameter_status("TimeZone", "Antarctica/Troll"),
        // A notification.
        wire::message(b'A', b"\0\0\0\x2achannel\0payload\0"),
    ];
    before_every_answer("parameters", &words.concat());
}

#[test]
fn case_64_an_error_of_a_mebibyte_at_any_statement_is_survived_and_not_told_whole() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, "huge", &[]);
    rig.wait_until_drained();
    let huge = |severity, sqlstate| Complaint { severity, sqlstate, text: "y".repeat(HUGE_TEXT_BYTES) };
    at_every_statement(&mut rig, "error", &Deed::Fail(huge("ERROR", "40001")));
    at_every_statement(&mut rig, "fatal", &Deed::Close(huge("FATAL", "57P01")));
    // Before authentication, a shorter message from the server is accepted.
    rig.proxy.refuse(huge("FATAL", "53300"));
    wait_until("the refusal is told", || !rig.is_healthy());
    rig.push("p", 5);
    rig.proxy.open();
    rig.check(&cluster);
    let longest = rig.daemon.log().lines().map(str::len).max();
    assert!(longest < Some(64 << 10), "a line of the log has {longest:?} bytes");
}
