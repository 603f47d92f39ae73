//! Dead letters: kept whole in PostgreSQL, or in files where it refuses them too; looked at, put back, dropped.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, stage::Stage, wait_until};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

/// Refuses messages whose payload has `"bad": true`.
const RULE: &str =
    "ALTER TABLE forebay.messages ADD CONSTRAINT only_good CHECK (payload->>'bad' IS DISTINCT FROM 'true')";
/// No letter is taken.
const NO_LETTERS: &str = "ALTER TABLE forebay.dead_letters ADD CONSTRAINT none CHECK (false) NOT VALID";
const LETTERS_AGAIN: &str = "ALTER TABLE forebay.dead_letters DROP CONSTRAINT none";

fn push(daemon: &Daemon, items: &[Value]) -> Value {
    let response = daemon.connect().push(&json!({ "items": items })).unwrap();
    assert_eq!(response.status, 201);
    response.json()
}

fn bad(n: u64) -> Value {
    json!({"queue": "q", "payload": {"n": n, "bad": true}, "transactionId": format!("tx{n}")})
}

fn good(n: u64) -> Value {
    json!({"queue": "q", "payload": {"n": n}, "transactionId": format!("tx{n}")})
}

/// Paths of the files of letters that end with `.{ending}`.
fn files(daemon: &Daemon, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(daemon.data_dir().join("wal/dead-letters")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == ending)).collect()
}

/// The letters in all files that are kept.
fn lines(daemon: &Daemon) -> Vec<Value> {
    let texts = files(daemon, "ndjson").into_iter().map(|path| fs::read_to_string(path).unwrap());
    texts.flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()).collect()
}

fn numbers(stage: &Stage) -> Vec<String> {
    let rows = stage.rows("SELECT payload->>'n' FROM forebay.message_log WHERE queue = 'q' ORDER BY partition, seq");
    rows.into_iter().flatten().collect()
}

#[test]
fn case_58_what_is_refused_is_kept_byte_for_byte_with_all_that_it_takes_to_put_it_back() {
    let stage = Stage::start(&[]);
    stage.cluster.psql(RULE).unwrap();
    let payload = "{ \"bad\" :true, \"bad\": true,  \"text\":\"\\u00e9 é\\n\" }";
    let body = format!(
        r#"{{"items":[{{"queue":"q","partition":"p","payload":{payload},"transactionId":"t","traceId":"00000000-0000-0000-0000-00000000000a","namespace":"n","task":"k"}}]}}"#
    );
    let response = stage.daemon.connect().post("/api/v1/push", body.as_bytes()).unwrap();
    assert_eq!(response.json()[0]["status"], "failed");
    let letter = "SELECT queue, partition, transaction_id, trace_id, namespace, task, sqlstate, \
                  encode(convert_to(payload_text, 'UTF8'), 'hex'), payload_bytes IS NULL, number IS NOT NULL FROM forebay.dead_letters";
    let hex: String = payload.bytes().map(|byte| format!("{byte:02x}")).collect();
    let expected = ["q", "p", "t", "00000000-0000-0000-0000-00000000000a", "n", "k", "23514", &hex, "t", "t"];
    assert_eq!(stage.rows(letter), [expected]);
    // Many of one round are added by one statement, each with its own.
    let items: Vec<Value> = (0..500).map(|n| if n % 2 == 0 { bad(n) } else { good(n) }).collect();
    push(&stage.daemon, &items);
    stage.daemon.wait_until_drained();
    let letters =
        "SELECT payload_text::jsonb->>'n' FROM forebay.dead_letters WHERE partition = 'Default' ORDER BY number";
    let found: Vec<String> = stage.rows(letters).into_iter().flatten().collect();
    assert!(found.iter().map(|n| n.parse::<u64>().unwrap()).eq((0..500).step_by(2)));
    assert_eq!(stage.daemon.figure("failed"), 251);
    assert!(numbers(&stage).iter().map(|n| n.parse::<u64>().unwrap()).eq((1..500).step_by(2)));
}

#[test]
fn case_58_a_row_that_a_deferred_constraint_refuses_at_commit_is_found_by_halving() {
    let stage = Stage::start(&[]);
    let rule = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                $$BEGIN IF NEW.payload->>'bad' = 'true' THEN RAISE 'late' USING ERRCODE = '23503'; END IF; RETURN NULL; END$$; \
                CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON forebay.messages DEFERRABLE INITIALLY DEFERRED \
                FOR EACH ROW EXECUTE FUNCTION refuse()";
    stage.cluster.psql(rule).unwrap();
    let items: Vec<Value> = (0..30).map(|n| if n == 17 { bad(n) } else { good(n) }).collect();
    let answers = push(&stage.daemon, &items);
    assert_eq!((&answers[16]["status"], &answers[17]["status"]), (&json!("queued"), &json!("failed")));
    assert!(numbers(&stage).iter().map(|n| n.parse::<u64>().unwrap()).eq((0..30).filter(|n| *n != 17)));
    assert_eq!(stage.rows("SELECT sqlstate FROM forebay.dead_letters"), [["23503"]]);
}

#[test]
fn what_the_table_of_dead_letters_refuses_too_is_kept_in_a_file_and_counted() {
    let stage = Stage::start(&[]);
    stage.cluster.psql(RULE).unwrap();
    // One letter is refused for what it is: the other one of its round is taken.
    stage.cluster.psql("ALTER TABLE forebay.dead_letters ADD CHECK (payload_text NOT LIKE '%3%')").unwrap();
    let answers = push(&stage.daemon, &[good(1), bad(2), bad(3), good(4)]);
    let statuses: Vec<&str> = (0..4).map(|index| answers[index]["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["queued", "failed", "failed", "queued"]);
    assert_eq!(numbers(&stage), ["1", "4"]);
    assert_eq!(stage.rows("SELECT transaction_id FROM forebay.dead_letters"), [["tx2"]]);
    let kept = lines(&stage.daemon);
    assert_eq!((kept.len(), &kept[0]["transactionId"], &kept[0]["sqlstate"]), (1, &json!("tx3"), &json!("23514")));
    let payload: Value = serde_json::from_str(kept[0]["payload"].as_str().unwrap()).unwrap();
    assert_eq!(payload, json!({"n": 3, "bad": true}));
    assert_eq!(stage.daemon.figure("failed"), 2);
    assert!(stage.daemon.log().contains("dead_letters_refused"));
    // The table is gone altogether: the messages are delivered all the same, also by the next daemon.
    stage.cluster.psql("ALTER TABLE forebay.dead_letters RENAME TO letters").unwrap();
    push(&stage.daemon, &[bad(5), good(6), bad(7)]);
    wait_until("the letters are counted", || stage.daemon.figure("failed") == 3);
    let Stage { daemon, cluster, dir } = stage;
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]);
    let stage = Stage { daemon, cluster, dir };
    push(&stage.daemon, &[bad(8), good(9)]);
    wait_until("the letters are counted", || stage.daemon.figure("failed") == 4);
    assert_eq!(numbers(&stage), ["1", "4", "6", "9"]);
    assert_eq!(lines(&stage.daemon).len(), 4);
    stage.cluster.psql("ALTER TABLE forebay.letters RENAME TO dead_letters").unwrap();
    wait_until("those in the table are counted again", || stage.daemon.figure("failed") == 5);
}

#[test]
fn killed_between_a_file_of_letters_and_its_commit_the_letters_are_kept_once() {
    let stage = Stage::start(&["--commit-wait-ms", "10"]);
    stage.cluster.psql(NO_LETTERS).unwrap();
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
                IF NEW.payload->>'bad' = 'true' THEN RAISE 'no'; END IF; \
                IF NEW.payload->>'n' = '2' THEN PERFORM pg_sleep(2); END IF; RETURN NEW; END$$; \
                CREATE TRIGGER slow BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION slow()";
    stage.cluster.psql(slow).unwrap();
    push(&stage.daemon, &[bad(1), good(2), bad(3)]);
    wait_until("the file is written", || !files(&stage.daemon, "pending").is_empty());
    assert!(files(&stage.daemon, "ndjson").is_empty());
    let Stage { daemon, cluster, dir } = stage;
    daemon.kill9();
    // Its transaction is rolled back once the server notices. The table takes one of the letters by then.
    cluster.psql(LETTERS_AGAIN).unwrap();
    cluster.psql("ALTER TABLE forebay.dead_letters ADD CHECK (transaction_id <> 'tx3')").unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]);
    daemon.wait_until_drained();
    let stage = Stage { daemon, cluster, dir };
    assert_eq!(numbers(&stage), ["2"]);
    assert_eq!(stage.rows("SELECT transaction_id FROM forebay.dead_letters"), [["tx1"]]);
    let kept = lines(&stage.daemon);
    assert_eq!((kept.len(), &kept[0]["transactionId"]), (1, &json!("tx3")));
    assert!(files(&stage.daemon, "pending").is_empty());
    wait_until("each is counted once", || stage.daemon.figure("failed") == 2);
    // A commit whose file kept its pending name, as by a kill right behind it: the checkpoint tells.
    let path = files(&stage.daemon, "ndjson").remove(0);
    let Stage { daemon, cluster, dir } = stage;
    daemon.kill9();
    fs::rename(&path, path.with_extension("pending")).unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]);
    daemon.wait_until_drained();
    assert_eq!((lines(&daemon).len(), daemon.figure("failed")), (1, 2));
}
