//! NDJSON bodies with more lines than a reply lists, pushed with `?wait=postgres`.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{PATIENCE, Response, stage::Stage, wait_until};
use forebay::limits::NDJSON_LISTED_MAX;
use forebay_cluster::StopMode;
use serde_json::{Value, json};

/// More than twice the number of lines that are waited for at once.
const LINES: u64 = 2 * NDJSON_LISTED_MAX + 5_001;

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

/// Checks the short reply to a push of all lines; `more` holds its further fields.
fn check(response: &Response, durability: &str, more: &Value) {
    assert_eq!((response.status, response.header("Forebay-Durability")), (201, Some(durability)), "{response:?}");
    let mut expected = json!({"pushed": true, "count": LINES});
    expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    assert_eq!(response.json(), expected);
}

/// The numbers of a queue's messages in PostgreSQL at this moment, ordered by `seq`.
fn committed(stage: &Stage, queue: &str) -> Vec<u64> {
    let sql = format!("SELECT payload->>'n' FROM forebay.message_log WHERE queue = '{queue}' ORDER BY partition, seq");
    stage.rows(&sql).iter().map(|row| row[0].parse().unwrap()).collect()
}

#[test]
fn more_lines_than_are_listed_are_all_committed_in_order_when_they_are_answered_and_a_second_time_all_are_duplicates() {
    let stage = Stage::shared();
    let headers = [("Content-Type", "application/x-ndjson"), ("Idempotency-Key", "body-1")];
    let mut client = stage.daemon.connect();
    for duplicates in [0, LINES] {
        let body = lines(0..LINES);
        let response = client.request("POST", "/push/many?wait=postgres", &headers, Some(body.as_bytes())).unwrap();
        check(&response, "postgres", &json!({"dbHealthy": true, "duplicates": duplicates, "failed": 0}));
        assert!(committed(&stage, "many").into_iter().eq(0..LINES));
    }
}

#[test]
fn lines_that_postgresql_refuses_are_counted_wherever_in_the_body_they_are() {
    let stage = Stage::start(&[]);
    let rule = "ALTER TABLE forebay.messages ADD CONSTRAINT only_good CHECK (payload->>'n' NOT LIKE '%777')";
    stage.cluster.psql(rule).unwrap();
    let mut client = stage.daemon.connect();
    let response = client.post_ndjson("/push/refused?wait=postgres", lines(0..LINES).as_bytes()).unwrap();
    let refused = (0..LINES).filter(|n| n % 1000 == 777).count();
    check(&response, "postgres", &json!({"dbHealthy": true, "duplicates": 0, "failed": refused}));
    assert!(committed(&stage, "refused").into_iter().eq((0..LINES).filter(|n| n % 1000 != 777)));
    assert_eq!(stage.rows("SELECT count(*) FROM forebay.dead_letters_log"), [[refused.to_string()]]);
}

#[test]
fn while_postgresql_is_away_or_goes_in_the_midst_of_them_they_are_answered_from_the_log_and_arrive_in_order() {
    let stage = Stage::start(&[]);
    let mut client = stage.daemon.connect();
    let head = "POST /push/cut?wait=postgres HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-ndjson\r\n";
    let body = lines(0..LINES);
    // Some of the first lines are committed when PostgreSQL stops. The others are in flight or not sent yet.
    let (first, rest) = body.split_at(body.len() * 2 / 3);
    client.send(format!("{head}Content-Length: {}\r\n\r\n{first}", body.len()).as_bytes()).unwrap();
    wait_until("some are committed", || !committed(&stage, "cut").is_empty());
    stage.cluster.stop(StopMode::Immediate, PATIENCE).unwrap();
    client.send(rest.as_bytes()).unwrap();
    let response = client.receive(false).unwrap();
    check(&response, "disk", &json!({"dbHealthy": false, "duplicates": 0, "failed": 0}));
    wait_until("it is known to be away", || stage.daemon.buffers()["dbHealthy"] == false);
    let response = client.post_ndjson("/push/away?wait=postgres", body.as_bytes()).unwrap();
    // No commit was awaited, so duplicates are unknown.
    check(&response, "disk", &json!({"dbHealthy": false}));
    stage.cluster.start().unwrap();
    stage.daemon.wait_until_drained();
    for queue in ["cut", "away"] {
        assert!(committed(&stage, queue).into_iter().eq(0..LINES), "{queue}");
    }
}
