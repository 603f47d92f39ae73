//! PostgreSQL is reachable and refuses single rows, or refuses everything until an operator has acted.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Daemon, data_dir,
    load::{self, Load, Spec},
    stage::{Stage, payload_texts},
    wait_until,
};
use forebay_cluster::TestCluster;
use serde_json::{Value, json};

const SPEC: Spec = Spec { queue: "load", label: "a", producers: 4, partitions: 2, fill_bytes: 100 };

fn database(daemon: &Daemon) -> Value {
    daemon.connect().get("/health").unwrap().json()["database"].take()
}

/// Pushes 0 to 99 in one request; 10, 50 and 99 have `"bad": true`. Checks that those three are in dead letters and
/// that the others are delivered in order.
fn check_set_aside(rule: &str, sqlstate: &str, reason: &str) {
    let stage = Stage::start(&[]);
    let mut client = stage.daemon.connect();
    let push = |client: &mut common::Client, numbers: std::ops::Range<u64>, flag: bool| {
        let item = |n: u64| {
            let bad = [10, 50, 99].contains(&n);
            json!({"queue": "rules", "payload": {"n": n, "bad": bad}, "transactionId": format!("tx{n}")})
        };
        let mut body = json!({"items": numbers.map(item).collect::<Vec<_>>()});
        if flag {
            body["qos0"] = json!(true);
        }
        let response = client.push(&body).unwrap();
        assert_eq!(response.status, 201);
        response.json()
    };
    push(&mut client, 0..5, false);
    stage.cluster.psql(rule).unwrap();
    let answers = push(&mut client, 5..60, false);
    for (answer, n) in answers.as_array().unwrap().iter().zip(5..) {
        let expected = if n == 10 || n == 50 { "failed" } else { "queued" };
        assert_eq!((&answer["status"], &answer["transaction_id"]), (&json!(expected), &json!(format!("tx{n}"))));
    }
    assert!(answers[5]["error"].as_str().unwrap().contains(reason), "{}", answers[5]);
    push(&mut client, 60..100, true);
    stage.daemon.wait_until_drained();
    let sql = "SELECT seq, payload->>'n' FROM forebay.message_log WHERE queue = 'rules' ORDER BY seq";
    let good = (0..100).filter(|n| ![10, 50, 99].contains(n));
    let expected: Vec<Vec<String>> = good.zip(1..).map(|(n, seq)| vec![seq.to_string(), n.to_string()]).collect();
    assert_eq!(stage.rows(sql), expected, "in order, without gaps");
    let sql = "SELECT queue, partition, transaction_id, payload_text::jsonb->>'n', error, source, \
               failed_at > now() - interval '5 min' FROM forebay.dead_letters_log ORDER BY 4::text";
    let dead = stage.rows(sql);
    for (row, n) in dead.iter().zip(["10", "50", "99"]) {
        let transaction_id = format!("tx{n}");
        let [queue, partition, transaction, number, error, source, recent] = &row[..] else { panic!("{row:?}") };
        assert_eq!([queue, partition, transaction, number, source], ["rules", "Default", &transaction_id, n, "drain"]);
        assert!(error.contains(reason) && recent == "t", "{row:?}");
    }
    let states = stage.rows("SELECT DISTINCT sqlstate FROM forebay.dead_letters");
    assert_eq!((dead.len(), states), (3, vec![vec![sqlstate.to_owned()]]));
    assert_eq!((stage.daemon.figure("failed"), database(&stage.daemon)), (3, json!("connected")));
    // Dead letters are final: after a restart they are neither delivered again nor forgotten.
    let Stage { daemon, cluster, dir } = stage;
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]);
    daemon.wait_until_drained();
    assert_eq!(daemon.figure("failed"), 3);
    assert_eq!(common::rows(&cluster, "SELECT count(*) FROM forebay.messages"), [["97"]]);
}

#[test]
fn case_58_rows_that_a_user_s_constraint_refuses_are_set_aside_and_their_neighbours_delivered_in_order() {
    let rule = "ALTER TABLE forebay.messages ADD CONSTRAINT only_good CHECK (payload->>'bad' IS DISTINCT FROM 'true')";
    check_set_aside(rule, "23514", "only_good");
}

#[test]
fn case_58_rows_that_a_user_s_trigger_refuses_are_set_aside_and_their_neighbours_delivered_in_order() {
    let rule = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                $$BEGIN IF NEW.payload->>'bad' = 'true' THEN RAISE 'we do not take it'; END IF; RETURN NEW; END$$; \
                CREATE TRIGGER refuse BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION refuse()";
    check_set_aside(rule, "P0001", "we do not take it");
}

#[test]
fn case_58_rows_refused_without_a_number_at_the_end_of_the_statement_are_found_by_halving() {
    let stage = Stage::start(&[]);
    stage.daemon.connect().push(&json!({"items": [{"queue": "late", "payload": 0}]})).unwrap();
    let rule = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                $$BEGIN IF EXISTS (SELECT FROM new_rows WHERE payload = '17' OR payload = '64') \
                THEN RAISE 'not these'; END IF; RETURN NULL; END$$; \
                CREATE TRIGGER refuse AFTER INSERT ON forebay.messages REFERENCING NEW TABLE AS new_rows \
                FOR EACH STATEMENT EXECUTE FUNCTION refuse()";
    stage.cluster.psql(rule).unwrap();
    let items: Vec<Value> = (1..100).map(|n| json!({"queue": "late", "payload": n})).collect();
    let answers = stage.daemon.connect().push(&json!({"items": items})).unwrap().json();
    assert_eq!((&answers[16]["status"], &answers[17]["status"]), (&json!("failed"), &json!("queued")));
    let expected: Vec<String> = (0..100).filter(|n| ![17, 64].contains(n)).map(|n| n.to_string()).collect();
    assert_eq!(stage.payload_texts("late", 98), expected);
    let dead = "SELECT payload_text FROM forebay.dead_letters_log ORDER BY 1";
    assert_eq!((stage.rows(dead), stage.daemon.figure("failed")), (vec![vec!["17".into()], vec!["64".into()]], 2));
}

/// Stops the drain with `away`, pushes, checks that the pause is reported and nothing is lost, and ends the pause with
/// `back`.
fn check_pause(args: &[&str], away: &str, back: &str) {
    let stage = Stage::start(args);
    let load = Load::start(&SPEC, stage.daemon.address);
    load.wait_for(100);
    stage.cluster.psql(away).unwrap();
    wait_until("the pause is told", || database(&stage.daemon) == "disconnected");
    assert_eq!(stage.daemon.connect().get("/ready").unwrap().status, 200);
    load.wait_for(100);
    assert!(stage.daemon.figure("pending") >= 100, "nothing is let go of");
    let log = stage.daemon.log();
    assert!(
        ["postgres_refuses", "schema_mismatch", "schema_takes_no_row"].iter().any(|code| log.contains(code)),
        "{log}"
    );
    stage.cluster.psql(back).unwrap();
    wait_until("the drain goes on by itself", || database(&stage.daemon) == "connected");
    load.wait_for(50);
    assert_eq!(load.refusals(), [""; 0]);
    let sent = load.stop();
    stage.daemon.wait_until_drained();
    assert!(load::check(&stage.cluster, &sent) >= 250);
    assert_eq!(stage.daemon.figure("failed"), 0);
}

#[test]
fn case_60_a_table_renamed_pauses_the_drain_until_it_is_back() {
    let rename = |from: &str, to: &str| format!("ALTER TABLE forebay.{from} RENAME TO {to}");
    check_pause(&[], &rename("messages", "gone"), &rename("gone", "messages"));
}

#[test]
fn case_60_a_column_missing_pauses_the_drain_until_it_is_back() {
    let rename = |from: &str, to: &str| format!("ALTER TABLE forebay.messages RENAME COLUMN {from} TO {to}");
    check_pause(&[], &rename("trace_id", "gone"), &rename("gone", "trace_id"));
}

#[test]
fn case_60_a_trigger_that_skips_partitions_pauses_the_drain_until_it_is_dropped() {
    let stage = Stage::start(&[]);
    let push = |queue: &str, n: u64| {
        let item = json!({"queue": queue, "payload": n});
        assert_eq!(stage.daemon.connect().push(&json!({"items": [item]})).unwrap().status, 201);
    };
    push("known", 0);
    let skip = "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$; \
                CREATE TRIGGER skip BEFORE INSERT ON forebay.partitions FOR EACH ROW EXECUTE FUNCTION skip()";
    stage.cluster.psql(skip).unwrap();
    push("new", 1);
    wait_until("the pause is told", || database(&stage.daemon) == "disconnected");
    let log = stage.daemon.log();
    assert!(log.contains("postgres_refuses") && log.contains("look for a trigger"), "{log}");
    stage.cluster.psql("DROP TRIGGER skip ON forebay.partitions").unwrap();
    wait_until("the drain goes on by itself", || database(&stage.daemon) == "connected");
    push("new", 2);
    assert_eq!(stage.payload_texts("new", 2), ["1", "2"]);
}

#[test]
fn case_60_a_schema_that_is_gone_pauses_a_drain_that_may_not_migrate() {
    let rename = |from: &str, to: &str| format!("ALTER SCHEMA {from} RENAME TO {to}");
    let cluster = TestCluster::start_without_fsync().unwrap();
    let migrated = common::forebay(&["schema", "migrate", "--postgres", &cluster.url()]);
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1", "--migrate", "false"]);
    let push = |n: u64| {
        let response = daemon.connect().push(&json!({"items": [{"queue": "schema", "payload": n}]})).unwrap();
        assert_eq!(response.status, 201);
        response.json()[0]["status"].take()
    };
    daemon.wait_until_drained();
    assert_eq!(push(0), "queued");
    cluster.psql(&rename("forebay", "gone")).unwrap();
    assert_eq!(push(1), "buffered");
    wait_until("the pause is told", || database(&daemon) == "disconnected");
    (2..10).for_each(|n| assert_eq!(push(n), "buffered"));
    cluster.psql(&rename("gone", "forebay")).unwrap();
    let expected: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(payload_texts(&daemon, &cluster, "schema", 10), expected);
}

#[test]
fn case_60_a_schema_that_was_dropped_is_told_of_and_made_anew_only_when_a_person_decides() {
    let stage = Stage::start(&[]);
    let push = |n: u64| {
        let response = stage.daemon.connect().push(&json!({"items": [{"queue": "dropped", "payload": n}]})).unwrap();
        assert_eq!(response.status, 201);
    };
    (0..10).for_each(push);
    stage.daemon.wait_until_drained();
    stage.cluster.psql("DROP SCHEMA forebay CASCADE").unwrap();
    (10..20).for_each(push);
    wait_until("the pause is told", || database(&stage.daemon) == "disconnected");
    assert!(stage.daemon.figure("pending") >= 10, "nothing is let go of");
    assert!(stage.daemon.log().contains("postgres_refuses"));
    let Stage { daemon, cluster, dir } = stage;
    daemon.kill9();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]);
    // It may have been renamed: a second one beside it would divide the messages.
    daemon.wait_until_paused("schema_mismatch", &["rename it back", "checkpoint set --to mismatch --yes"]);
    let set = ["checkpoint", "set", "--to", "mismatch", "--yes", "--data-dir", dir.path().to_str().unwrap()];
    assert_eq!(common::forebay(&set).status.code(), Some(0));
    daemon.wait_until_drained();
    let sql = "SELECT payload FROM forebay.message_log WHERE queue = 'dropped' ORDER BY seq";
    let numbers: Vec<u64> = common::rows(&cluster, sql).iter().map(|row| row[0].parse().unwrap()).collect();
    assert!(numbers.into_iter().eq(10..20), "what was not delivered before");
}

#[test]
fn case_56_a_lock_that_somebody_holds_is_waited_for_and_nothing_goes_to_dead_letters() {
    let stage = Stage::start(&["--commit-wait-ms", "50"]);
    stage.daemon.connect().push(&json!({"items": [{"queue": "locked", "payload": 0}]})).unwrap();
    stage.daemon.wait_until_drained();
    std::thread::scope(|scope| {
        // Longer than the drain's own lock_timeout of 5 s.
        let hold = "BEGIN; LOCK TABLE forebay.messages IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(6); COMMIT";
        scope.spawn(|| stage.cluster.psql(hold).unwrap());
        let locked =
            "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'forebay.messages'::regclass";
        wait_until("the table is locked", || !stage.rows(locked).is_empty());
        for n in 1..20 {
            let response = stage.daemon.connect().push(&json!({"items": [{"queue": "locked", "payload": n}]})).unwrap();
            assert_eq!((response.status, response.json()[0]["status"].as_str()), (201, Some("buffered")));
        }
    });
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(stage.payload_texts("locked", 20), expected);
    assert_eq!(stage.daemon.figure("failed"), 0);
}

#[test]
fn case_56_while_server_or_database_are_read_only_by_default_delivery_waits_and_a_role_s_setting_does_not_count() {
    const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                                WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let stage = Stage::start(&[]);
    let psql = |sql: &str| stage.cluster.psql(sql).unwrap();
    let rows = || stage.rows("SELECT count(*) FROM forebay.messages");
    let load = Load::start(&SPEC, stage.daemon.address);
    load.wait_for(100);
    // So that nothing is written to a server behind the dump that is taken of it.
    for (on, off, then) in [
        (
            "ALTER SYSTEM SET default_transaction_read_only = on",
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        ),
        (
            "ALTER DATABASE forebay SET default_transaction_read_only = on",
            "BEGIN READ WRITE; ALTER DATABASE forebay RESET default_transaction_read_only; COMMIT",
            END_SESSIONS,
        ),
    ] {
        psql(on);
        psql(then);
        wait_until("it is told", || database(&stage.daemon) == "disconnected");
        let before = rows();
        load.wait_for(100);
        assert_eq!(rows(), before, "{on}");
        assert!(stage.daemon.log().contains("25006"), "{on}");
        psql(off);
        psql(then);
        wait_until("the drain goes on by itself", || database(&stage.daemon) == "connected");
        load.wait_for(100);
    }
    psql("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on");
    psql(END_SESSIONS);
    load.wait_for(100);
    let sent = load.stop();
    stage.daemon.wait_until_drained();
    assert!(load::check(&stage.cluster, &sent) >= 500);
    assert_eq!(stage.daemon.figure("failed"), 0);
}

#[test]
fn case_59_every_other_message_a_duplicate_within_batches_and_across_daemons() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.psql("ALTER DATABASE forebay SET default_transaction_isolation = 'repeatable read'").unwrap();
    let dirs = [data_dir(), data_dir()];
    let daemons = dirs.each_ref().map(|dir| Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]));
    daemons.iter().for_each(Daemon::wait_until_drained);
    let item = |n: usize| json!({"queue": "double", "partition": format!("p{}", n % 2), "payload": n, "transactionId": n.to_string()});
    // Both daemons get every message, each in one of its two halves. Each push repeats half of the previous one.
    let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let pushers = daemons.each_ref().map(|daemon| {
            scope.spawn(move || {
                let (mut queued, mut duplicate) = (0, 0);
                let mut client = daemon.connect();
                for start in (0..1000).step_by(5) {
                    let items: Vec<Value> = (start..start + 10).map(item).collect();
                    let mut body = json!({"items": items});
                    if start % 3 == 0 {
                        body["bufferMs"] = json!(10);
                    }
                    let response = client.push(&body).unwrap();
                    assert_eq!(response.status, 201);
                    for answer in response.json().as_array().into_iter().flatten() {
                        match answer["status"].as_str() {
                            Some("queued") => queued += 1,
                            Some("duplicate") => duplicate += 1,
                            status => assert_eq!(status, Some("buffered")),
                        }
                    }
                }
                (queued, duplicate)
            })
        });
        pushers.map(|pusher| pusher.join().unwrap()).into()
    });
    daemons.iter().for_each(Daemon::wait_until_drained);
    assert!(counts.iter().all(|(_, duplicate)| *duplicate > 0), "{counts:?}");
    let sql = "SELECT partition, seq, payload, transaction_id FROM forebay.message_log ORDER BY partition, seq";
    let rows = common::rows(&cluster, sql);
    assert_eq!(rows.len(), 1005);
    for (partition, name) in ["p0", "p1"].iter().enumerate() {
        let own: Vec<_> = rows.iter().filter(|row| row[0] == *name).collect();
        for (index, row) in own.iter().enumerate() {
            assert_eq!(row[1], (index + 1).to_string(), "seq has no gaps");
            assert_eq!(row[2], row[3]);
        }
        let mut numbers: Vec<usize> = own.iter().map(|row| row[2].parse().unwrap()).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq((partition..1005).step_by(2)), "each once");
    }
    let total = |name: &str| -> u64 { daemons.iter().map(|daemon| daemon.figure(name)).sum() };
    assert_eq!((total("drainedMessages"), total("duplicateMessages")), (1005, 2 * 2000 - 1005));
}
