//! The reply to a push and the rows that it leaves in PostgreSQL, as the contract defines them.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Response,
    stage::{Stage, literal},
    wait_until,
};
use serde_json::{Value, json};
use uuid::Uuid;

fn push(stage: &Stage, body: &Value) -> Response {
    let response = stage.daemon.connect().push(body).unwrap();
    assert_eq!(response.status, 201, "{}", String::from_utf8_lossy(&response.body));
    response
}

/// Sends a plain push of one item and returns the reply for it.
fn push_one(stage: &Stage, item: &Value) -> Value {
    let mut items = push(stage, &json!({"items": [item]})).json();
    assert_eq!(items.as_array().unwrap().len(), 1);
    items[0].take()
}

/// Checks the two headers that every 2xx reply has.
fn check_headers(response: &Response, durability: &str) {
    assert_eq!(response.header("Forebay-Durability"), Some(durability));
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    let fill = response.header("Forebay-Buffer-Fill").unwrap();
    assert!(fill.len() == 4 && fill.as_bytes()[1] == b'.', "two decimals: {fill}");
    assert!((0.0..=1.0).contains(&fill.parse::<f64>().unwrap()), "a share: {fill}");
}

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn uuid(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn a_plain_push_is_answered_when_its_rows_are_committed_with_an_array_in_the_order_of_its_items() {
    let stage = Stage::shared();
    let body = json!({"items": [
        {"queue": "plain", "payload": {"a": 1}},
        {"queue": "plain", "partition": "other", "payload": [2], "transactionId": "tx \"2\" ü"},
        {"queue": "plain", "payload": 3},
    ]});
    let response = push(&stage, &body);
    let there = stage.rows(
        "SELECT partition, seq, id, transaction_id, payload FROM forebay.message_log \
         WHERE queue = 'plain' ORDER BY partition, seq",
    );
    check_headers(&response, "postgres");
    let answers = response.json();
    for (index, answer) in answers.as_array().unwrap().iter().enumerate() {
        let expected = ["index", "message_id", "partition_id", "queueName", "status", "transaction_id"];
        assert_eq!(keys(answer), expected);
        assert_eq!((&answer["index"], &answer["status"]), (&json!(index), &json!("queued")));
        assert_eq!(answer["queueName"], "plain");
        assert_eq!(uuid(&answer["message_id"]).get_version_num(), 7);
    }
    // An item without a transaction id gets its message id.
    assert_eq!(answers[0]["transaction_id"], answers[0]["message_id"]);
    assert_eq!(answers[1]["transaction_id"], "tx \"2\" ü");
    assert_eq!(answers[0]["partition_id"], answers[2]["partition_id"]);
    assert_ne!(answers[0]["partition_id"], answers[1]["partition_id"]);
    let row = |partition: &str, seq: &str, answer: &Value, payload: &str| {
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        vec![partition.to_owned(), seq.to_owned(), text("message_id"), text("transaction_id"), payload.to_owned()]
    };
    let expected = [
        row("Default", "1", &answers[0], "{\"a\": 1}"),
        row("Default", "2", &answers[2], "3"),
        row("other", "1", &answers[1], "[2]"),
    ];
    assert_eq!(there, expected, "committed before the answer");
}

#[test]
fn a_buffered_push_is_answered_with_an_object_when_the_disk_has_it_whichever_field_asked_for_it() {
    let stage = Stage::shared();
    for (index, flag) in ["bufferMs", "bufferMax", "qos0"].iter().enumerate() {
        let mut body = json!({"items": [
            {"queue": "buffered", "payload": index, "transactionId": flag},
            {"queue": "buffered", "payload": "last"},
        ]});
        body[*flag] = [json!(10), json!(1), json!(true)][index].clone();
        let response = push(&stage, &body);
        check_headers(&response, "disk");
        let answer = response.json();
        assert_eq!(keys(&answer), ["dbHealthy", "messages", "pushed", "qos0"], "{flag}");
        assert_eq!((&answer["pushed"], &answer["qos0"]), (&json!(true), &json!(true)));
        assert_eq!(answer["dbHealthy"], true);
        let messages = answer["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 2);
        assert_eq!(keys(&messages[0]), ["index", "message_id", "status", "transaction_id"]);
        assert_eq!((&messages[1]["index"], &messages[1]["status"]), (&json!(1), &json!("buffered")));
        assert_eq!(messages[0]["transaction_id"], *flag);
        assert_eq!(messages[1]["transaction_id"], messages[1]["message_id"]);
        let id = uuid(&messages[1]["message_id"]);
        let arrived = format!("SELECT seq FROM forebay.message_log WHERE id = '{id}'");
        wait_until("a buffered message arrives", || !stage.rows(&arrived).is_empty());
    }
    let last = json!("last");
    let expected = [json!(0), last.clone(), json!(1), last.clone(), json!(2), last];
    assert_eq!(stage.payloads("buffered", 6), expected);
    // A push is plain unless `qos0` is true.
    let plain = push(&stage, &json!({"items": [{"queue": "b", "payload": 1}], "qos0": false, "bufferMs": null}));
    assert_eq!(plain.json()[0]["status"], "queued");
}

#[test]
fn return_minimal_leaves_the_list_out_of_either_answer() {
    let stage = Stage::shared();
    let items = json!([{"queue": "minimal", "payload": 1}, {"queue": "minimal", "payload": 2}]);
    let bodies = [json!({"items": items}), json!({"items": items, "bufferMs": 5})];
    for (body, durability) in bodies.iter().zip(["postgres", "disk"]) {
        let headers = [("Prefer", "return=minimal"), ("Content-Type", "application/json")];
        let body = body.to_string();
        let mut client = stage.daemon.connect();
        let response = client.request("POST", "/api/v1/push", &headers, Some(body.as_bytes())).unwrap();
        assert_eq!(response.status, 201);
        check_headers(&response, durability);
        let answer = response.json();
        assert_eq!((&answer["pushed"], &answer["count"]), (&json!(true), &json!(2)));
        assert!(answer.get("messages").is_none() && answer.is_object(), "{answer}");
    }
    stage.payloads("minimal", 4);
}

#[test]
fn a_push_of_no_items_is_answered_and_leaves_nothing() {
    let stage = Stage::start(&[]);
    let appended = || stage.daemon.buffers()["lanes"].to_string();
    let before = appended();
    assert_eq!(push(&stage, &json!({"items": []})).json(), json!([]));
    assert_eq!(push(&stage, &json!({"items": [], "qos0": true})).json()["messages"], json!([]));
    assert_eq!(appended(), before);
}

#[test]
fn case_59_a_second_push_with_the_same_transaction_id_adds_nothing_and_names_the_first_message() {
    let stage = Stage::shared();
    let item = |n: i64, partition: &str| json!({"queue": "twice", "partition": partition, "payload": n, "transactionId": "same"});
    // Within one request.
    let answers = push(&stage, &json!({"items": [item(1, "a"), item(2, "a"), item(3, "a")]})).json();
    assert_eq!((&answers[0]["status"], &answers[1]["status"]), (&json!("queued"), &json!("duplicate")));
    let first = &answers[0];
    for later in [&answers[1], &answers[2]] {
        assert_eq!((&later["status"], &later["message_id"]), (&json!("duplicate"), &first["message_id"]));
        assert_eq!(later["transaction_id"], "same");
    }
    // Across requests, together with an item that is not a duplicate.
    let answers = push(&stage, &json!({"items": [item(4, "a"), {"queue": "twice", "partition": "a", "payload": 5}]}));
    let answers = answers.json();
    assert_eq!((&answers[0]["status"], &answers[0]["message_id"]), (&json!("duplicate"), &first["message_id"]));
    assert_eq!((&answers[1]["status"], &answers[1]["partition_id"]), (&json!("queued"), &first["partition_id"]));
    // Another partition and another queue: no duplicates.
    assert_eq!(push_one(&stage, &item(6, "b"))["status"], "queued");
    let elsewhere = json!({"queue": "twice2", "partition": "a", "payload": 7, "transactionId": "same"});
    assert_eq!(push_one(&stage, &elsewhere)["status"], "queued");
    // A buffered message is found as well, although its reply came earlier.
    push(&stage, &json!({"items": [item(8, "a")], "qos0": true}));
    let rows = stage.payloads("twice", 3);
    assert_eq!(rows, [json!(1), json!(5), json!(6)]);
}

#[test]
fn a_transaction_id_may_be_a_uuid_in_any_case_or_any_text_and_stays_as_it_was_written() {
    let stage = Stage::shared();
    let id = "0190a8e2-7c3a-7bbb-8ccc-0123456789ab";
    let upper = id.to_uppercase();
    let long = "é".repeat(255);
    for transaction_id in [id, &upper, "  ", &long, "a'b\\c\"d"] {
        let item = json!({"queue": "ids", "partition": transaction_id.len().to_string(), "payload": 1,
                          "transactionId": transaction_id});
        let answer = push_one(&stage, &item);
        assert_eq!(answer["transaction_id"], *transaction_id);
        let sql = format!(
            "SELECT count(*) FROM forebay.message_log WHERE id = '{}' AND transaction_id = {}",
            answer["message_id"].as_str().unwrap(),
            literal(transaction_id)
        );
        // The two spellings of the UUID are different texts.
        assert_eq!((answer["status"].as_str(), &stage.rows(&sql)[0][0][..]), (Some("queued"), "1"), "{transaction_id}");
    }
}

#[test]
fn the_views_have_the_documented_columns_and_a_message_keeps_its_trace_id_and_time() {
    let stage = Stage::shared();
    let trace_id = "6f1dd9b8-2b1f-4a55-9c5b-111213141516";
    let item = json!({"queue": "columns", "payload": {}, "traceId": trace_id.to_uppercase()});
    let answer = push_one(&stage, &item);
    let columns = |view: &str| {
        let sql = format!(
            "SELECT string_agg(column_name, ',' ORDER BY ordinal_position) FROM information_schema.columns \
             WHERE table_schema = 'forebay' AND table_name = '{view}'"
        );
        stage.rows(&sql)[0][0].clone()
    };
    assert_eq!(columns("message_log"), "queue,partition,seq,id,transaction_id,trace_id,payload,created_at");
    assert_eq!(columns("dead_letters_log"), "queue,partition,transaction_id,payload_text,error,failed_at,source");
    let sql = "SELECT id, trace_id, pg_typeof(payload), \
               created_at BETWEEN now() - interval '5 min' AND now() + interval '1 s' \
               FROM forebay.message_log WHERE queue = 'columns'";
    let id = answer["message_id"].as_str().unwrap();
    assert_eq!(stage.rows(sql), [[id, trace_id, "jsonb", "t"]]);
    // Triggers and replication use this table.
    assert_eq!(stage.rows(&format!("SELECT payload FROM forebay.messages WHERE id = '{id}'")), [["{}"]]);
    let untraced = push_one(&stage, &json!({"queue": "columns", "partition": "untraced", "payload": 1}));
    let sql = format!("SELECT trace_id FROM forebay.message_log WHERE id = {}", untraced["message_id"]);
    assert_eq!(stage.rows(&sql.replace('"', "'")), [["\\N"]]);
}

#[test]
fn namespace_and_task_apply_where_the_push_makes_the_queue_and_not_later() {
    let stage = Stage::shared();
    push_one(&stage, &json!({"queue": "labels", "payload": 1, "namespace": "space", "task": "work"}));
    push_one(&stage, &json!({"queue": "labels", "payload": 2, "namespace": "other", "task": "other"}));
    push_one(&stage, &json!({"queue": "labels none", "payload": 3}));
    let sql = "SELECT name, namespace, task FROM forebay.queues WHERE name LIKE 'labels%' ORDER BY name";
    assert_eq!(stage.rows(sql), [["labels", "space", "work"], ["labels none", "\\N", "\\N"]]);
}

#[test]
fn seq_counts_without_gaps_in_each_partition_whatever_was_refused_or_doubled_in_between() {
    let stage = Stage::shared();
    let mut client = stage.daemon.connect();
    for round in 0..10 {
        let item = |n: i64| json!({"queue": "gapless", "partition": format!("p{}", n % 3), "payload": n, "transactionId": n.to_string()});
        // Half of the items of each round were in the previous round.
        let items: Vec<Value> = (round * 5..round * 5 + 10).map(item).collect();
        assert_eq!(client.push(&json!({"items": items})).unwrap().status, 201);
        assert_eq!(client.push(&json!({"items": [items[0], {"queue": "gapless"}]})).unwrap().status, 400);
    }
    let sql = "SELECT partition, seq, payload FROM forebay.message_log WHERE queue = 'gapless' ORDER BY partition, seq";
    let rows = stage.rows(sql);
    assert_eq!(rows.len(), 55);
    for partition in 0..3 {
        let name = format!("p{partition}");
        let own: Vec<(usize, usize)> = rows
            .iter()
            .filter(|row| row[0] == name)
            .map(|row| (row[1].parse().unwrap(), row[2].parse().unwrap()))
            .collect();
        let expected: Vec<(usize, usize)> = (partition..55).step_by(3).enumerate().map(|(i, n)| (i + 1, n)).collect();
        assert_eq!(own, expected, "partition {name}");
    }
}

#[test]
fn health_ready_and_the_buffers_have_their_documented_shape() {
    let stage = Stage::start(&["--wal-max-bytes", "64MiB"]);
    push_one(&stage, &json!({"queue": "state", "payload": 1}));
    let mut client = stage.daemon.connect();
    let health = client.get("/health").unwrap();
    assert_eq!(health.status, 200);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(health.json(), json!({"status": "healthy", "database": "connected", "version": version}));
    assert_eq!(client.get("/ready").unwrap().status, 200);
    let buffers = client.get("/api/v1/status/buffers").unwrap();
    assert_eq!((buffers.status, buffers.header("Content-Type")), (200, Some("application/json")));
    let buffers = buffers.json();
    for name in ["pending", "failed", "pendingBytes", "oldestPendingMs", "usedBytes"] {
        assert_eq!(buffers[name], 0, "{name}");
    }
    assert_eq!((&buffers["dbHealthy"], &buffers["quotaBytes"]), (&json!(true), &json!(64 << 20)));
    assert_eq!(buffers["drainTransactions"], 1);
    assert_eq!(buffers["lanes"].as_array().unwrap().len(), 2);
}

#[test]
fn head_is_answered_as_get_without_a_body_and_options_with_what_is_allowed() {
    let stage = Stage::shared();
    let mut client = stage.daemon.connect();
    for path in ["/health", "/ready", "/api/v1/status/buffers"] {
        let head = client.request("HEAD", path, &[], None).unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_ne!(head.header("Content-Length"), Some("0"), "{path}");
        let options = client.request("OPTIONS", path, &[], None).unwrap();
        assert_eq!((options.status, options.header("Allow")), (204, Some("GET, HEAD, OPTIONS")), "{path}");
    }
    for path in ["/api/v1/push", "/push/q", "/push/q/p"] {
        let options = client.request("OPTIONS", path, &[], None).unwrap();
        assert_eq!((options.status, options.header("Allow")), (204, Some("POST, OPTIONS")), "{path}");
        // CORS is off.
        assert_eq!(options.header("Access-Control-Allow-Origin"), None);
    }
}
