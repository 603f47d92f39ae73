//! Rows that PostgreSQL refuses for various reasons, and repeated transaction ids.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, data_dir, rows, stage::Stage};
use forebay_cluster::TestCluster;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A statement that fails, and its SQLSTATE.
const REFUSALS: [(&str, &str); 12] = [
    ("SELECT 'x'::uuid", "22P02"),
    (r#"SELECT '"\u0000"'::jsonb"#, "22P05"),
    (r"SELECT convert_from('\xff'::bytea, 'UTF8')", "22021"),
    ("SELECT 40000::smallint", "22003"),
    ("SELECT 1 / 0", "22012"),
    ("SELECT deep()", "54001"),
    ("SELECT array_fill(0, ARRAY[2147483647])", "54000"),
    ("SELECT 0::positive", "23514"),
    ("INSERT INTO strict VALUES (NULL)", "23502"),
    ("INSERT INTO child VALUES (1)", "23503"),
    ("DO 'BEGIN RAISE ''we do not take it''; END'", "P0001"),
    ("DO 'BEGIN RAISE no_data_found; END'", "P0002"),
];

/// A trigger that executes the SQL in a payload, and the objects that this SQL needs.
const TRIGGER: &str = "
    CREATE FUNCTION deep() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN deep() + 1; END';
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE strict (a int NOT NULL);
    CREATE TABLE parent (a int PRIMARY KEY);
    CREATE TABLE child (a int REFERENCES parent);
    CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql SET search_path = forebay, public AS
        $$BEGIN IF NEW.payload ? 'sql' THEN EXECUTE NEW.payload->>'sql'; END IF; RETURN NEW; END$$;
    CREATE TRIGGER judge BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION judge()";

/// Numbered messages; every third one is refused, each for the next reason.
fn with_refused(count: usize) -> (Vec<Value>, BTreeMap<usize, &'static str>) {
    let mut refused = BTreeMap::new();
    let payload = |n: usize| {
        if n % 3 == 1 {
            let (sql, sqlstate) = REFUSALS[n / 3 % REFUSALS.len()];
            refused.insert(n, sqlstate);
            json!({"n": n, "sql": sql})
        } else {
            json!({"n": n})
        }
    };
    ((0..count).map(payload).collect(), refused)
}

fn check_refused(stage: &Stage, queue: &str, count: usize, refused: &BTreeMap<usize, &str>) {
    let sql = format!("SELECT seq, payload->>'n' FROM forebay.message_log WHERE queue = '{queue}' ORDER BY seq");
    let good = (0..count).filter(|n| !refused.contains_key(n));
    let expected: Vec<Vec<String>> = good.zip(1..).map(|(n, seq)| vec![seq.to_string(), n.to_string()]).collect();
    assert_eq!(stage.rows(&sql), expected, "their neighbours in order, without gaps");
    let sql = format!(
        "SELECT payload_text::jsonb->>'n', sqlstate FROM forebay.dead_letters WHERE queue = '{queue}' \
         ORDER BY (payload_text::jsonb->>'n')::int"
    );
    let expected: Vec<Vec<String>> =
        refused.iter().map(|(n, sqlstate)| vec![n.to_string(), (*sqlstate).to_owned()]).collect();
    assert_eq!(stage.rows(&sql), expected, "each in dead letters, with its reason");
}

#[test]
fn case_58_rows_refused_for_any_reason_are_set_aside_with_it_and_their_neighbours_delivered_in_order() {
    let stage = Stage::start(&WAIT_LONG[2..]);
    stage.cluster.psql(TRIGGER).unwrap();
    let count = 3 * REFUSALS.len() * 2;
    let (payloads, refused) = with_refused(count);
    let item = |queue: &str, payload: &Value| json!({"queue": queue, "payload": payload});
    // All in one round, and each in a round of its own.
    let items: Vec<Value> = payloads.iter().map(|payload| item("batch", payload)).collect();
    let answers = stage.daemon.connect().push(&json!({"items": items, "bufferMs": 1})).unwrap();
    assert_eq!(answers.status, 201);
    for (n, payload) in payloads.iter().enumerate() {
        let answer = stage.daemon.connect().push(&json!({"items": [item("alone", payload)]})).unwrap().json();
        let expected = if refused.contains_key(&n) { "failed" } else { "queued" };
        assert_eq!(answer[0]["status"], expected, "{payload} {answer}");
    }
    stage.daemon.wait_until_drained();
    for queue in ["batch", "alone"] {
        check_refused(&stage, queue, count, &refused);
    }
    let figure = |name: &str| stage.daemon.figure(name);
    assert_eq!((figure("failed"), figure("pending")), (2 * refused.len() as u64, 0));
    assert_eq!(figure("drainedMessages"), 2 * (count - refused.len()) as u64);
}

/// The stored message for each partition and transaction id: its `seq` and its id.
fn stored(cluster: &TestCluster) -> BTreeMap<(String, String), (u64, String)> {
    let sql = "SELECT partition, transaction_id, seq, id FROM forebay.message_log ORDER BY partition, seq";
    let mut last = BTreeMap::<String, u64>::new();
    let mut stored = BTreeMap::new();
    for row in rows(cluster, sql) {
        let [partition, transaction_id, seq, id] = <[String; 4]>::try_from(row).unwrap();
        let seq: u64 = seq.parse().unwrap();
        let last = last.entry(partition.clone()).or_default();
        assert_eq!(seq, *last + 1, "seq has no gaps in {partition}");
        *last = seq;
        assert!(stored.insert((partition, transaction_id), (seq, id)).is_none(), "each once");
    }
    stored
}

/// The reply for one message of a plain push: partition, transaction id, status, message id.
type Answer = (String, String, String, String);

/// Pushes requests with these transaction ids, each after the reply to the previous one. Returns all replies.
fn push_all(daemon: &Daemon, partition: &str, requests: &[Vec<String>]) -> Vec<Answer> {
    let mut client = daemon.connect();
    let mut answers = Vec::new();
    for ids in requests {
        let item = |id: &String| json!({"queue": "double", "partition": partition, "payload": id, "transactionId": id});
        let items: Vec<Value> = ids.iter().map(item).collect();
        let response = client.push(&json!({"items": items})).unwrap();
        assert_eq!(response.status, 201);
        for (answer, id) in response.json().as_array().unwrap().iter().zip(ids) {
            let text = |name: &str| answer[name].as_str().unwrap().to_owned();
            assert_eq!(text("transaction_id"), *id);
            answers.push((partition.to_owned(), id.clone(), text("status"), text("message_id")));
        }
    }
    answers
}

/// Checks that each message is stored exactly once and that all replies name it. Returns the number of duplicates.
fn check_doubles(cluster: &TestCluster, answers: &[Answer]) -> usize {
    let stored = stored(cluster);
    let mut queued = BTreeMap::<(&str, &str), u64>::new();
    for (partition, transaction_id, status, message_id) in answers {
        let (_, id) = &stored[&(partition.clone(), transaction_id.clone())];
        assert_eq!(message_id, id, "{status}: every answer names the message that stands for {transaction_id}");
        *queued.entry((partition, transaction_id)).or_default() += u64::from(status == "queued");
        assert!(status == "queued" || status == "duplicate", "{status}");
    }
    assert!(queued.values().all(|count| *count == 1), "one push of each brought it");
    assert_eq!(queued.len(), stored.len());
    answers.len() - stored.len()
}

/// A long wait, because the machine may be busy.
const WAIT_LONG: [&str; 4] = ["--cores", "1", "--commit-wait-ms", "60000"];

#[test]
fn case_59_one_duplicate_in_ten_thousand_is_told_to_its_push_and_costs_no_neighbour() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &WAIT_LONG);
    daemon.wait_until_drained();
    // Two of the 20,000 are duplicates: one of an earlier request, one of the same request.
    let id = |n: usize| match n {
        15_555 => 17.to_string(),
        7_777 => 7_700.to_string(),
        n => n.to_string(),
    };
    let requests: Vec<Vec<String>> =
        (0..20_000).step_by(500).map(|first| (first..first + 500).map(id).collect()).collect();
    let answers = push_all(&daemon, "p", &requests);
    assert_eq!(check_doubles(&cluster, &answers), 2);
    assert_eq!((daemon.figure("duplicateMessages"), daemon.figure("drainedMessages")), (2, 19_998));
}

#[test]
fn case_59_every_second_a_duplicate_within_a_batch_across_batches_and_across_two_daemons_is_told_to_its_push() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dirs = [data_dir(), data_dir()];
    let daemons = dirs.each_ref().map(|dir| Daemon::start(dir.path(), &cluster.url(), &WAIT_LONG));
    daemons.iter().for_each(Daemon::wait_until_drained);
    // Each request has each id twice, and half of the ids of the previous request. Ids are UUIDs and other texts.
    let id =
        |n: usize| if n.is_multiple_of(2) { uuid::Uuid::from_u128(n as u128).to_string() } else { format!("id {n}") };
    let ids = |first: usize| (first..first + 20).flat_map(|n| [id(n), id(n)]).collect();
    let requests: Vec<Vec<String>> = (0..600).step_by(10).map(ids).collect();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let pushers: Vec<_> = daemons
            .iter()
            .flat_map(|daemon| ["a", "b", "a"].map(|partition| (daemon, partition)))
            .map(|(daemon, partition)| scope.spawn(|| push_all(daemon, partition, &requests)))
            .collect();
        pushers.into_iter().flat_map(|pusher| pusher.join().unwrap()).collect()
    });
    let duplicates = check_doubles(&cluster, &answers);
    assert_eq!(duplicates, answers.len() - 2 * 610);
    let total = |name: &str| -> u64 { daemons.iter().map(|daemon| daemon.figure(name)).sum() };
    assert_eq!((total("drainedMessages"), total("duplicateMessages")), (2 * 610, duplicates as u64));
    assert_eq!((total("failed"), total("pending")), (0, 0));
}
