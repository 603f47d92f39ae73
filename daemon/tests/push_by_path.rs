//! `POST /push/{queue}[/{partition}]`: names in paths, keys, query parameters, NDJSON; and the payloads' way to jsonb.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Response,
    stage::{Stage, literal},
};
use serde_json::{Value, json};
use std::path::Path;

const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

fn post(stage: &Stage, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    stage.daemon.connect().request("POST", path, headers, Some(body.as_bytes())).unwrap()
}

/// As bytes of a path.
fn percent_encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn the_body_is_the_payload_whatever_the_content_type_says() {
    let stage = Stage::shared();
    let types = ["application/json", "text/plain", "application/x-www-form-urlencoded", "image/png; q=\"x\"", ""];
    for (number, content_type) in types.iter().enumerate() {
        let headers = [("Content-Type", *content_type)];
        let headers = if content_type.is_empty() { &[][..] } else { &headers };
        let response = post(&stage, "/push/types/own", headers, &format!(" {{\"n\": {number}}}\n"));
        assert_eq!(response.status, 201, "{content_type}");
        assert_eq!(response.header("Forebay-Durability"), Some("disk"));
        assert_eq!(response.json()["messages"][0]["status"], "buffered");
    }
    let expected: Vec<Value> = (0..types.len()).map(|n| json!({"n": n})).collect();
    assert_eq!(stage.payloads("types", types.len()), expected);
    let partitions = stage.rows("SELECT DISTINCT partition FROM forebay.message_log WHERE queue = 'types'");
    assert_eq!(partitions, [["own"]]);
    assert_eq!(post(&stage, "/push/types", &[], "not JSON").code(), "malformed_json");
}

#[test]
fn case_74_names_with_quotes_emoji_dots_and_slashes_stand_in_postgresql_as_they_were_meant() {
    let stage = Stage::shared();
    let long = "n".repeat(255);
    let names =
        ["it's \"quoted\"", "\u{1f30a}\u{200d}é", "../../etc/passwd", "..", "a/b", "%41+ ;--", " ", "\t\n", &long];
    for (index, queue) in names.iter().enumerate() {
        let partition = names[names.len() - 1 - index];
        let path = format!("/push/{}/{}?wait=postgres", percent_encoded(queue), percent_encoded(partition));
        let response = post(&stage, &path, &[], "1");
        assert_eq!(response.status, 201, "{queue:?}: {}", String::from_utf8_lossy(&response.body));
        assert_eq!(response.json()[0]["queueName"], *queue);
        // The same names in JSON are the same queue and partition.
        let body = json!({"items": [{"queue": queue, "partition": partition, "payload": 2}]});
        assert_eq!(stage.daemon.connect().push(&body).unwrap().status, 201);
        let sql = format!(
            "SELECT seq, payload FROM forebay.message_log WHERE queue = {} AND partition = {} ORDER BY seq",
            literal(queue),
            literal(partition)
        );
        assert_eq!(stage.rows(&sql), [["1", "1"], ["2", "2"]], "{queue:?} / {partition:?}");
    }
    // Not encoded, dots are a name like any other, and a plus sign is one.
    assert_eq!(post(&stage, "/push/a+b/..?wait=postgres", &[], "3").json()[0]["queueName"], "a+b");
    let sql = "SELECT partition FROM forebay.message_log WHERE queue = 'a+b'";
    assert_eq!(stage.rows(sql), [[".."]]);
}

#[test]
fn case_74_names_that_postgresql_cannot_hold_or_that_are_too_long_are_refused() {
    let stage = Stage::shared();
    let long = "n".repeat(256);
    let paths = [
        ("/push/", "queue"),
        ("/push/q/", "partition"),
        ("/push/a%00b", "queue"),
        ("/push/q/%00", "partition"),
        (&format!("/push/{long}"), "queue"),
        (&format!("/push/q/{long}"), "partition"),
    ];
    for (path, named) in paths {
        let response = post(&stage, path, &[], "1");
        assert_eq!(response.status, 400, "{path}");
        assert!(response.error().starts_with(named), "{path}: {}", response.error());
    }
    for path in ["/push/%", "/push/%4", "/push/%zz", "/push/%ff"] {
        assert_eq!(post(&stage, path, &[], "1").status, 400, "{path}");
    }
    assert_eq!(post(&stage, "/push/a/b/c", &[], "1").status, 404);
}

#[test]
fn an_idempotency_key_is_the_transaction_id() {
    let stage = Stage::shared();
    let key = [("Idempotency-Key", "order-7")];
    let first = post(&stage, "/push/keys?wait=postgres", &key, "1").json();
    assert_eq!((&first[0]["status"], &first[0]["transaction_id"]), (&json!("queued"), &json!("order-7")));
    let again = post(&stage, "/push/keys?wait=postgres", &key, "2").json();
    assert_eq!((&again[0]["status"], &again[0]["message_id"]), (&json!("duplicate"), &first[0]["message_id"]));
    // As does the other way in.
    let item = json!({"queue": "keys", "payload": 3, "transactionId": "order-7"});
    let by_json = stage.daemon.connect().push(&json!({"items": [item]})).unwrap().json();
    assert_eq!(by_json[0]["status"], "duplicate");
    // Lines have the key and their own number.
    for (body, statuses) in [("10\n\n30", ["queued", "queued"]), ("11\n\n31\n41", ["duplicate", "duplicate"])] {
        let headers = [NDJSON, ("Idempotency-Key", "k")];
        let answers = post(&stage, "/push/keys?wait=postgres", &headers, body).json();
        assert_eq!([&answers[0]["status"], &answers[1]["status"]], statuses);
        assert_eq!((&answers[0]["transaction_id"], &answers[1]["transaction_id"]), (&json!("k/1"), &json!("k/3")));
    }
    assert_eq!(stage.payloads("keys", 4), [json!(1), json!(10), json!(30), json!(41)]);
}

#[test]
fn the_query_says_how_long_to_wait_for_company_or_to_wait_for_the_commit() {
    let stage = Stage::shared();
    for query in ["bufferMs=5", "bufferMax=1", "bufferMs=5&bufferMax=1", "bufferMs=0"] {
        let response = post(&stage, &format!("/push/query?{query}"), &[], "1");
        assert_eq!((response.status, response.header("Forebay-Durability")), (201, Some("disk")), "{query}");
    }
    let response = post(&stage, "/push/query?wait=postgres", &[], "2");
    assert_eq!((response.status, response.header("Forebay-Durability")), (201, Some("postgres")));
    assert_eq!(response.json()[0]["status"], "queued");
    let minimal = post(&stage, "/push/query?wait=postgres", &[("Prefer", "return=minimal")], "3");
    assert_eq!(minimal.json()["count"], 1);
    for query in ["bufferMs=-1", "bufferMs=x", "bufferMax=1e3", "bufferMs=", "wait=disk", "nonsense=1", "bufferMs=%zz"]
    {
        let refused = post(&stage, &format!("/push/query?{query}"), &[], "4");
        assert_eq!(refused.status, 400, "{query}");
    }
    stage.payloads("query", 6);
}

#[test]
fn each_line_of_ndjson_is_a_message_in_the_order_of_the_lines() {
    let stage = Stage::shared();
    let mut lines: Vec<String> =
        (0..2000).map(|n| json!({"line": n, "fill": "y".repeat(n % 90)}).to_string()).collect();
    let expected: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Blank lines count for nothing, and lines may end as on other systems.
    lines[7].push_str("\r\n\r\n  \t");
    lines[8].insert_str(0, "\n\n");
    let body = lines.join("\n");
    let response = post(&stage, "/push/lines", &[NDJSON], &body);
    assert_eq!(response.status, 201);
    assert_eq!(response.json()["messages"].as_array().unwrap().len(), 2000);
    assert_eq!(stage.payloads("lines", 2000), expected);
    let with_parameter = [("Content-Type", "Application/X-NDJSON; charset=utf-8"), ("Prefer", "return=minimal")];
    let response = post(&stage, "/push/lines2/p", &with_parameter, "1\r\n2\r\n");
    assert_eq!((response.status, &response.json()["count"]), (201, &json!(2)));
    assert_eq!(stage.payloads("lines2", 2), [json!(1), json!(2)]);
    assert_eq!(post(&stage, "/push/lines3", &[NDJSON], "\n \r\n").status, 201);
}

#[test]
fn a_bad_line_ends_ndjson_with_400_and_the_number_of_lines_kept_before_it() {
    let stage = Stage::shared();
    let good = (0..600).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
    let bodies = [
        (format!("{good}\n{{\"open\": \n9999"), 600, 601, "malformed_json"),
        (format!("\n\n{good}\n\"\\u0000\"\n9999\n"), 600, 603, "payload_not_storable"),
        ("bad\n1".to_owned(), 0, 1, "malformed_json"),
    ];
    for (index, (body, accepted, line, code)) in bodies.iter().enumerate() {
        let queue = format!("bad line {index}");
        let response = post(&stage, &format!("/push/{}", percent_encoded(&queue)), &[NDJSON], body);
        assert_eq!((response.status, response.code()), (400, (*code).to_owned()));
        assert!(response.error().contains(&format!("line {line}")), "{}", response.error());
        assert_eq!(response.json()["accepted"], *accepted, "{}", String::from_utf8_lossy(&response.body));
        let expected: Vec<Value> = (0..*accepted).map(|n| json!(n)).collect();
        assert_eq!(stage.payloads(&queue, *accepted), expected);
    }
}

#[test]
fn payloads_of_every_kind_arrive_as_they_were_sent() {
    let stage = Stage::shared();
    let large = format!("{{\"large\": {}}}", json!("\u{1f30a}x\"\\".repeat(150_000)));
    assert!(large.len() > 1 << 20);
    let deep = format!("{}{}", "[".repeat(512), "]".repeat(512));
    let digits = "9".repeat(1000);
    let payloads = [
        "null",
        "true",
        "\"\"",
        "{}",
        "[]",
        "0",
        "-0.5",
        "[[], {}, null, false]",
        "{\"é\\u00e9\\ud83c\\udf0a\": \"\\b\\f\\n\\r\\t\\/\\\"\\\\\", \"\": {\"\": []}}",
        "\"\u{1f30a} \u{7f} \u{202e}\"",
        &large,
    ];
    // What jsonb writes just as it was sent: serde_json would make floating point numbers of these, or refuse them.
    let exact =
        ["123456789012345678901234567890.5", "0.1000", "-12345678901234567890", "18446744073709551616", &digits, &deep];
    for (index, payload) in payloads.iter().chain(&exact).enumerate() {
        let response = match index % 2 {
            0 => post(&stage, "/push/kinds", &[], payload),
            _ => {
                let body = format!("{{\"items\":[{{\"payload\":{payload},\"queue\":\"kinds\"}}],\"bufferMs\":1}}");
                stage.daemon.connect().post("/api/v1/push", body.as_bytes()).unwrap()
            }
        };
        let shown: String = payload.chars().take(60).collect();
        assert_eq!(response.status, 201, "{shown}: {}", String::from_utf8_lossy(&response.body));
    }
    let texts = stage.payload_texts("kinds", payloads.len() + exact.len());
    for (sent, stored) in payloads.iter().zip(&texts) {
        let parse = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        assert!(parse(sent) == parse(stored), "{}", stored.chars().take(60).collect::<String>());
    }
    assert!(texts[payloads.len()..] == exact, "{:?}", &texts[payloads.len()..]);
}

/// Sends a file of one document a line, as curl would, and looks for each of them.
fn check_earthquakes(queue: &str, path: &Path, count: usize) {
    let stage = Stage::shared();
    let body = std::fs::read_to_string(path).unwrap();
    let response = post(&stage, &format!("/push/{queue}"), &[NDJSON], &body);
    assert_eq!(response.status, 201, "{}", String::from_utf8_lossy(&response.body));
    let sent: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(sent.len(), count);
    assert!(stage.payloads(queue, count) == sent, "in the order of the file, equal as JSON");
    let sql = format!("SELECT min(seq), max(seq), count(*) FROM forebay.message_log WHERE queue = '{queue}'");
    let count = count.to_string();
    assert_eq!(stage.rows(&sql), [["1", &count, &count]]);
}

#[test]
fn every_earthquake_of_the_example_stands_in_the_log_in_the_order_of_the_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    check_earthquakes("quakes", &root.join("examples/earthquakes.ndjson"), 500);
    // The whole of them, where it is at hand.
    let all = root.parent().unwrap().join("shared/data/earthquakes.ndjson");
    if all.exists() {
        check_earthquakes("all-quakes", &all, 1707);
    }
}
