//! Traps of a peer's drain that this drain avoids: no message suffers because of another sender's message.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Daemon, PATIENCE, data_dir,
    proxy::{Complaint, Deed, From, Point, Rig, Since},
    stage::{Stage, payload_texts},
    wait_until,
};
use forebay_cluster::{StopMode, TestCluster};
use serde_json::{Value, json};

/// Texts that drivers and servers use for outages, missing queues or duplicates.
const MISLEADING: [&str; 6] = [
    "server closed the connection unexpectedly",
    "Connection refused",
    "pool timeout",
    "queue \"events\" does not exist",
    "duplicate key value violates unique constraint \"messages_transaction\"",
    "terminating connection due to administrator command",
];

/// Plain pushes wait for their commit even if the machine is busy.
const WAIT_LONG: [&str; 2] = ["--commit-wait-ms", "60000"];

/// A trigger that refuses a row whose payload has `say`, with that text as the error.
const TRIGGER: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
     $$BEGIN IF NEW.payload ? 'say' THEN RAISE '%', NEW.payload->>'say'; END IF; RETURN NEW; END$$; \
     CREATE TRIGGER refuse BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION refuse()";

/// Deletes a queue with all its messages, as an operator would.
fn delete_queue(cluster: &TestCluster, queue: &str) {
    let partitions = format!(
        "(SELECT p.id FROM forebay.partitions p JOIN forebay.queues q ON q.id = p.queue_id WHERE q.name = '{queue}')"
    );
    cluster
        .psql(&format!(
            "BEGIN; DELETE FROM forebay.messages WHERE partition_id IN {partitions}; \
             DELETE FROM forebay.partitions WHERE id IN {partitions}; \
             DELETE FROM forebay.queues WHERE name = '{queue}'; COMMIT"
        ))
        .unwrap();
}

fn statuses(answers: &Value) -> Vec<&str> {
    answers.as_array().unwrap().iter().map(|answer| answer["status"].as_str().unwrap()).collect()
}

#[test]
fn trap_12_one_deleted_queue_takes_no_others_messages_along_and_its_own_arrive_too() {
    let stage = Stage::start(&WAIT_LONG);
    let item = |queue: &str, n: u64| json!({"queue": queue, "payload": n});
    let push = |items: Vec<Value>| stage.daemon.connect().push(&json!({"items": items})).unwrap().json();
    let queues = ["living", "deleted", "other"];
    push(queues.map(|queue| item(queue, 0)).into());
    for n in 1..5 {
        delete_queue(&stage.cluster, "deleted");
        // The drain caches the ids of partitions, and one of them no longer exists.
        let items = queues.iter().cycle().take(30).zip(0..).map(|(queue, index)| item(queue, n * 100 + index / 3));
        assert_eq!(statuses(&push(items.collect())), ["queued"; 30]);
    }
    let numbers = |from: u64| (from..5).flat_map(|n| (0..10).map(move |index| (n * 100 + index).to_string()));
    for queue in ["living", "other"] {
        let expected: Vec<String> = ["0".to_owned()].into_iter().chain(numbers(1)).collect();
        assert_eq!(stage.payload_texts(queue, 41), expected, "{queue}");
    }
    assert_eq!(stage.payload_texts("deleted", 10), numbers(4).collect::<Vec<_>>());
    assert_eq!(stage.daemon.figure("failed"), 0);
}

#[test]
fn trap_14_what_postgresql_could_not_store_is_refused_at_the_door_and_blocks_nothing() {
    let stage = Stage::start(&WAIT_LONG);
    let long_id = "i".repeat(256);
    let poison = [
        json!({"queue": "poison", "payload": "a\u{0}b"}),
        json!({"queue": "poison", "payload": 1, "traceId": "no uuid"}),
        json!({"queue": "poison", "payload": 1, "transactionId": long_id}),
        json!({"queue": "poison", "payload": 1, "transactionId": "a\u{0}b"}),
        json!({"queue": "poison\u{0}", "payload": 1}),
    ];
    for (n, item) in poison.iter().enumerate() {
        for buffered in [false, true] {
            let mut body = json!({"items": [{"queue": "poison", "payload": "neighbour"}, item]});
            if buffered {
                body["qos0"] = json!(true);
            }
            assert_eq!(stage.daemon.connect().push(&body).unwrap().status, 400, "{item}");
        }
        let answer = stage.daemon.connect().push(&json!({"items": [{"queue": "poison", "payload": n}]})).unwrap();
        assert_eq!(answer.json()[0]["status"], "queued", "others go on");
    }
    stage.payload_texts("poison", poison.len());
    assert_eq!(stage.daemon.figure("failed"), 0);
}

#[test]
fn trap_15_an_error_is_known_by_its_code_whatever_its_words_are_a_row_s_own() {
    let stage = Stage::start(&[&WAIT_LONG[..], &["--log", "info,forebay::drain=debug"]].concat());
    stage.cluster.psql(TRIGGER).unwrap();
    for say in MISLEADING {
        let items = [json!({"queue": "words", "payload": 1}), json!({"queue": "words", "payload": {"say": say}})];
        let answers = stage.daemon.connect().push(&json!({"items": items})).unwrap().json();
        assert_eq!(statuses(&answers), ["queued", "failed"], "{say}");
        assert_eq!(stage.daemon.buffers()["dbHealthy"], true, "{say}");
    }
    stage.payload_texts("words", MISLEADING.len());
    assert_eq!(stage.daemon.figure("failed"), MISLEADING.len() as u64);
    assert!(!stage.daemon.log().contains("postgres_away"), "{}", stage.daemon.log());
}

#[test]
fn trap_15_an_error_is_known_by_its_code_whatever_its_words_are_the_server_s() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, "words", &[]);
    rig.wait_until_drained();
    let misleading = ["invalid input syntax for type json", "does not exist"].into_iter().chain(MISLEADING);
    for (text, sqlstate) in misleading.zip(["40001", "57P01", "53100", "40P01"].into_iter().cycle()) {
        // At the end of the COPY, where PostgreSQL would refuse a row.
        let complaint = Complaint { severity: "ERROR", sqlstate, text: text.to_owned() };
        rig.proxy.arm_one(From::Client, Point::Tag(b'c'), Since::Armed, Deed::Fail(complaint));
        rig.push("p", 10);
        rig.wait_until_drained();
    }
    assert_eq!(rig.check(&cluster), 80, "nothing was set aside, nothing was taken for a duplicate");
}

#[test]
fn trap_19_a_push_to_a_queue_that_there_is_not_is_refused_and_not_answered_and_thrown_away() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let args = ["--cores", "1", "--auto-create-queues", "false"];
    let daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    daemon.wait_until_drained();
    cluster.psql("INSERT INTO forebay.queues (name) VALUES ('known')").unwrap();
    let push = |queue: &str, n: u64, buffered: bool| {
        let mut body = json!({"items": [{"queue": queue, "payload": n}]});
        if buffered {
            body["qos0"] = json!(true);
        }
        daemon.connect().push(&body).unwrap().status
    };
    wait_until("the queue is known", || push("known", 0, true) == 201);
    daemon.wait_until_drained();
    for buffered in [false, true] {
        assert_eq!((push("unknown", 1, buffered), push("known", 1, buffered)), (404, 201));
    }
    cluster.stop(StopMode::Fast, PATIENCE).unwrap();
    for buffered in [false, true] {
        assert_eq!((push("unknown", 2, buffered), push("known", 2, buffered)), (404, 201));
    }
    cluster.start().unwrap();
    daemon.wait_until_drained();
    assert_eq!(payload_texts(&daemon, &cluster, "known", 5), ["0", "1", "1", "2", "2"]);
    payload_texts(&daemon, &cluster, "unknown", 0);
}

#[test]
fn trap_19_what_was_taken_for_a_queue_that_is_deleted_before_it_is_delivered_is_delivered() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, "deleted", &[]);
    rig.wait_until_drained();
    cluster.psql("INSERT INTO forebay.queues (name) VALUES ('deleted')").unwrap();
    rig.proxy.close();
    wait_until("the outage is known", || !rig.is_healthy());
    rig.push_buffered("p", 10);
    cluster.psql("DELETE FROM forebay.queues").unwrap();
    rig.proxy.open();
    assert_eq!(rig.check(&cluster), 10);
}

#[test]
fn trap_23_a_bad_message_in_the_transaction_of_strangers_is_its_sender_s_affair_alone() {
    // Buffered messages wait for an hour, so that they share the round of the first plain push.
    let stage = Stage::start(&[&WAIT_LONG[..], &["--flush-ms", "3600000", "--flush-max", "1000000"]].concat());
    stage.cluster.psql(TRIGGER).unwrap();
    let before = stage.daemon.figure("drainedMessages");
    for n in 0..20 {
        let payload = if n % 5 == 2 { json!({"say": "we do not take it"}) } else { json!(n) };
        let body = json!({"items": [{"queue": format!("of{}", n % 3), "payload": payload}], "qos0": true});
        assert_eq!(stage.daemon.connect().push(&body).unwrap().status, 201);
    }
    assert_eq!(stage.daemon.figure("pending"), 20, "all in one round");
    let bad = json!({"queue": "mine", "payload": {"say": "this neither"}});
    let answers = stage.daemon.connect().push(&json!({"items": [{"queue": "mine", "payload": 1}, bad]})).unwrap();
    assert_eq!(statuses(&answers.json()), ["queued", "failed"]);
    stage.daemon.wait_until_drained();
    let stored = stage.rows("SELECT payload FROM forebay.message_log WHERE queue LIKE 'of%' ORDER BY payload::int");
    let expected: Vec<Vec<String>> = (0..20).filter(|n| n % 5 != 2).map(|n| vec![n.to_string()]).collect();
    assert_eq!(stored, expected);
    assert_eq!((stage.daemon.figure("failed"), stage.daemon.figure("drainedMessages") - before), (5, 17));
}
