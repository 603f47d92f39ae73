//! Queues and partitions that cannot be created: they hold up their own messages only, and no id is used in vain.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{data_dir, forebay, rows, stage::Stage, wait_until};
use forebay_cluster::TestCluster;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The longest time that a message may be held up by another one, with slack for a busy machine.
const HOLD_UP_PATIENCE: Duration = Duration::from_secs(20);

/// Plain pushes wait for their commit even if the machine is busy.
const WAIT_LONG: [&str; 2] = ["--commit-wait-ms", "60000"];

fn push(stage: &Stage, queue: &str, partition: &str, payload: &Value) -> String {
    let item = json!({"queue": queue, "partition": partition, "payload": payload});
    let answer = stage.daemon.connect().push(&json!({"items": [item]})).unwrap();
    assert_eq!(answer.status, 201);
    answer.json()[0]["status"].as_str().unwrap().to_owned()
}

fn messages(stage: &Stage) -> u64 {
    stage.rows("SELECT count(*) FROM forebay.messages")[0][0].parse().unwrap()
}

fn last_value(stage: &Stage, table: &str) -> u64 {
    stage.rows(&format!("SELECT last_value FROM forebay.{table}_id_seq"))[0][0].parse().unwrap()
}

#[test]
fn what_exists_takes_no_id_and_ids_may_be_larger_than_an_integer() {
    let stage = Stage::start(&WAIT_LONG);
    for n in 0..20 {
        assert_eq!(push(&stage, "events", &format!("p{n}"), &json!(n)), "queued");
    }
    assert_eq!((last_value(&stage, "queues"), last_value(&stage, "partitions")), (1, 20));
    stage
        .cluster
        .psql(
            "ALTER TABLE forebay.queues ALTER id RESTART WITH 2147483646; \
             ALTER TABLE forebay.partitions ALTER id RESTART WITH 2147483646",
        )
        .unwrap();
    for n in 0..5 {
        assert_eq!(push(&stage, &format!("q{n}"), "p", &json!(n)), "queued");
    }
    assert_eq!((last_value(&stage, "queues"), last_value(&stage, "partitions")), (2_147_483_650, 2_147_483_650));
    assert_eq!(stage.payload_texts("q4", 1), ["4"]);
}

#[test]
fn a_sequence_that_gives_ids_that_are_taken_holds_nothing_up() {
    let stage = Stage::start(&WAIT_LONG);
    let items: Vec<Value> = (0..200).map(|n| json!({"queue": format!("q{n}"), "payload": n})).collect();
    stage.daemon.connect().push(&json!({"items": items})).unwrap();
    stage
        .cluster
        .psql("SELECT setval('forebay.partitions_id_seq', 1, false), setval('forebay.queues_id_seq', 1, false)")
        .unwrap();
    let start = Instant::now();
    let items: Vec<Value> = (190..230).map(|n| json!({"queue": format!("q{n}"), "payload": n})).collect();
    let answers = stage.daemon.connect().push(&json!({"items": items})).unwrap().json();
    assert!(answers.as_array().unwrap().iter().all(|answer| answer["status"] == "queued"), "{answers}");
    assert!(start.elapsed() < HOLD_UP_PATIENCE, "{:?}", start.elapsed());
    assert_eq!(stage.daemon.figure("failed"), 0);
    let sql = "SELECT count(*), count(DISTINCT id) FROM forebay.queues";
    assert_eq!(stage.rows(sql), [["230", "230"]]);
}

#[test]
fn a_queue_that_cannot_be_created_holds_up_its_own_messages_only() {
    let stage = Stage::start(&WAIT_LONG);
    assert_eq!(push(&stage, "known", "p", &json!(0)), "queued");
    let rule = "CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
                IF NEW.name LIKE 'bad%' THEN RAISE EXCEPTION 'not this name' USING ERRCODE = substr(NEW.name, 4); END IF; \
                RETURN NEW; END$$; \
                CREATE TRIGGER judge BEFORE INSERT ON forebay.queues FOR EACH ROW EXECUTE FUNCTION judge(); \
                CREATE TRIGGER judge BEFORE INSERT ON forebay.partitions FOR EACH ROW EXECUTE FUNCTION judge()";
    stage.cluster.psql(rule).unwrap();
    let codes = ["XX000", "P0001", "53100", "40001", "0A000", "57014", "2200H"];
    for (n, code) in codes.iter().enumerate() {
        let bad = json!({"queue": format!("bad{code}"), "payload": n});
        let bad_partition = json!({"queue": "known", "partition": format!("bad{code}"), "payload": n});
        let known = json!({"queue": "known", "partition": "p", "payload": n + 1});
        let new = json!({"queue": format!("new{code}"), "payload": n});
        let start = Instant::now();
        let items = [bad, known, bad_partition, new];
        let answers = stage.daemon.connect().push(&json!({"items": items})).unwrap().json();
        let statuses: Vec<&str> =
            answers.as_array().unwrap().iter().map(|answer| answer["status"].as_str().unwrap()).collect();
        assert_eq!(statuses, ["failed", "queued", "failed", "queued"], "{code}");
        assert!(start.elapsed() < HOLD_UP_PATIENCE, "{code}: {:?}", start.elapsed());
    }
    let expected: Vec<Vec<String>> =
        codes.iter().flat_map(|code| [vec![(*code).to_owned()], vec![(*code).to_owned()]]).collect();
    assert_eq!(stage.rows("SELECT sqlstate FROM forebay.dead_letters ORDER BY number"), expected);
    assert_eq!(stage.payload_texts("known", codes.len() + 1).len(), codes.len() + 1);
    // Once it can be created, its messages can be put back, and new ones arrive.
    stage.cluster.psql("DROP TRIGGER judge ON forebay.queues; DROP TRIGGER judge ON forebay.partitions").unwrap();
    wait_until("a new message arrives", || push(&stage, "badXX000", "Default", &json!(1)) == "queued");
    let url = stage.cluster.url();
    let retry =
        ["dead-letters", "retry", "--all", "--postgres", &url, "--data-dir", stage.dir.path().to_str().unwrap()];
    let output = forebay(&retry);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stage.rows("SELECT count(*) FROM forebay.dead_letters"), [["0"]]);
}

#[test]
fn a_name_that_ends_its_session_or_takes_too_long_holds_up_its_own_messages_only() {
    let stage = Stage::start(&["--postgres-timeout-ms", "5000"]);
    assert_eq!(push(&stage, "known", "p", &json!(0)), "queued");
    let rule = "CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
                IF NEW.name LIKE 'kill%' THEN PERFORM pg_terminate_backend(pg_backend_pid()); \
                ELSIF NEW.name LIKE 'sleep%' THEN PERFORM pg_sleep(100); END IF; RETURN NEW; END$$; \
                CREATE TRIGGER judge BEFORE INSERT ON forebay.queues FOR EACH ROW EXECUTE FUNCTION judge(); \
                CREATE TRIGGER judge BEFORE INSERT ON forebay.partitions FOR EACH ROW EXECUTE FUNCTION judge()";
    stage.cluster.psql(rule).unwrap();
    let deliver = |names: &[(&str, &str)], round: usize| {
        let (rows, letters) = (messages(&stage), stage.daemon.figure("failed"));
        let bad =
            names.iter().map(|(queue, partition)| json!({"queue": queue, "partition": partition, "payload": round}));
        let new = (0..200)
            .map(|n| json!({"queue": format!("new{round}-{}", n % 20), "partition": n.to_string(), "payload": n}));
        let known = std::iter::once(json!({"queue": "known", "partition": "p", "payload": round}));
        let items: Vec<Value> = bad.chain(new).chain(known).collect();
        let start = Instant::now();
        assert_eq!(stage.daemon.connect().push(&json!({"items": items})).unwrap().status, 201);
        stage.daemon.wait_until_drained();
        assert_eq!(stage.daemon.figure("failed"), letters + names.len() as u64, "{names:?}");
        assert_eq!(messages(&stage), rows + 201);
        assert!(start.elapsed() < HOLD_UP_PATIENCE, "{names:?}: {:?}", start.elapsed());
    };
    deliver(&[("kill", "p")], 1);
    deliver(&[("known", "kill"), ("kill", "p"), ("kill2", "p")], 2);
    deliver(&[("sleep", "p")], 3);
    deliver(&[("known", "sleep"), ("sleep", "p"), ("kill", "q")], 4);
    // What is known of them is not found out again with each round.
    let before = stage.daemon.log().matches("the drain is held up").count();
    for round in 5..15 {
        deliver(&[("kill", "p"), ("known", "kill"), ("sleep", "p")], round);
    }
    let lost = stage.daemon.log().matches("the drain is held up").count() - before;
    assert!(lost <= 6, "{lost} sessions for ten rounds");
    let codes = stage.rows("SELECT DISTINCT sqlstate FROM forebay.dead_letters ORDER BY 1");
    assert_eq!(codes, [["57014"], ["57P01"]]);
    stage.cluster.psql("DROP TRIGGER judge ON forebay.queues; DROP TRIGGER judge ON forebay.partitions").unwrap();
    wait_until("a new message arrives", || push(&stage, "kill", "p", &json!(1)) == "queued");
}

#[test]
fn a_lock_on_the_table_of_queues_is_held_against_no_name() {
    let stage = Stage::start(&["--postgres-timeout-ms", "1000", "--commit-wait-ms", "100"]);
    assert_eq!(push(&stage, "known", "p", &json!(0)), "queued");
    let lock = "BEGIN; LOCK TABLE forebay.queues IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(10); COMMIT";
    std::thread::scope(|scope| {
        let locking = scope.spawn(|| stage.cluster.psql(lock).unwrap());
        wait_until("the table is locked", || {
            stage.rows("SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock'") == [["1"]]
        });
        for n in 0..3 {
            assert_eq!(push(&stage, &format!("new{n}"), "p", &json!(n)), "buffered");
            assert_eq!(push(&stage, "known", "p", &json!(n)), "buffered");
        }
        locking.join().unwrap();
    });
    stage.daemon.wait_until_drained();
    assert_eq!(stage.daemon.figure("failed"), 0);
    assert_eq!(stage.payload_texts("new2", 1), ["2"]);
}

#[test]
fn a_sequence_without_a_further_id_does_not_hold_up_what_exists() {
    let stage = Stage::start(&WAIT_LONG);
    for queue in ["a", "b"] {
        assert_eq!(push(&stage, queue, "p", &json!(0)), "queued");
    }
    stage.cluster.psql("ALTER SEQUENCE forebay.partitions_id_seq MAXVALUE 2").unwrap();
    for n in 0..5 {
        let new = json!({"queue": "a", "partition": format!("new{n}"), "payload": n, "transactionId": "t"});
        assert_eq!(stage.daemon.connect().push(&json!({"items": [new], "qos0": true})).unwrap().status, 201);
        assert_eq!(push(&stage, "a", "p", &json!(n)), "queued");
        assert_eq!(push(&stage, "b", "p", &json!(n)), "queued");
    }
    stage.daemon.wait_until_drained();
    assert_eq!(stage.rows("SELECT DISTINCT sqlstate FROM forebay.dead_letters"), [["2200H"]]);
    assert_eq!(stage.payload_texts("b", 6).len(), 6);
}

#[test]
fn ids_of_an_earlier_schema_become_bigint_and_views_and_grants_stay() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let printed = String::from_utf8(forebay(&["schema", "print"]).stdout).unwrap();
    let third = "INSERT INTO \"forebay\".schema_version (version) VALUES (3);";
    let (earlier, _) = printed.split_once(third).unwrap();
    cluster.psql(&format!("{earlier}{third}")).unwrap();
    cluster
        .psql(
            "CREATE VIEW forebay.message_log AS \
             SELECT q.name AS queue, p.name AS partition, m.seq, m.id, \
                    COALESCE(m.transaction_id, m.transaction_key::text, m.id::text) AS transaction_id, \
                    m.trace_id, m.payload, m.created_at \
             FROM forebay.messages m JOIN forebay.partitions p ON p.id = m.partition_id \
             JOIN forebay.queues q ON q.id = p.queue_id; \
             CREATE ROLE reader; GRANT SELECT ON forebay.message_log TO reader; \
             CREATE VIEW public.mine AS SELECT queue, payload FROM forebay.message_log; \
             INSERT INTO forebay.queues (name) VALUES ('old'); \
             INSERT INTO forebay.partitions (queue_id, name, last_seq) SELECT id, 'Default', 1 FROM forebay.queues; \
             INSERT INTO forebay.messages (partition_id, seq, created_at, id, payload) \
             SELECT id, 1, now(), '00000000-0000-0000-0000-000000000001', '1' FROM forebay.partitions",
        )
        .unwrap();
    let dir = data_dir();
    let daemon = common::Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
    daemon.wait_until_drained();
    assert_eq!(daemon.connect().post("/push/old?wait=postgres", b"2").unwrap().json()[0]["status"], "queued");
    assert_eq!(rows(&cluster, "SELECT queue, payload FROM public.mine ORDER BY payload"), [["old", "1"], ["old", "2"]]);
    let types = "SELECT count(*) FROM information_schema.columns \
                 WHERE table_schema = 'forebay' AND column_name IN ('id', 'queue_id') AND data_type = 'integer'";
    assert_eq!(rows(&cluster, types), [["0"]]);
    assert_eq!(rows(&cluster, "SELECT has_table_privilege('reader', 'forebay.message_log', 'SELECT')"), [["t"]]);
    cluster.psql("ALTER TABLE forebay.queues ALTER id RESTART WITH 3000000000").unwrap();
    assert_eq!(daemon.connect().post("/push/new?wait=postgres", b"3").unwrap().json()[0]["status"], "queued");
}
