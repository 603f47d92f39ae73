//! The producer of a message: the `sub` of a verified JWT stays with the message until its row. No other statement
//! about the producer counts.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, Daemon, Response, data_dir, forebay, jwt, rows, wait_until};
use forebay_cluster::{StopMode, TestCluster};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path, time::Duration};
use tempfile::TempDir;

/// Has non-ASCII characters and characters that must be escaped.
const SENSOR: &str = "sensor-ü \"7\"\\\t';--";

/// A daemon that accepts JWTs and one token, with its own PostgreSQL.
struct Guarded {
    daemon: Daemon,
    cluster: TestCluster,
    token: String,
    dir: TempDir,
}

impl Guarded {
    /// With a PostgreSQL that runs, or is started later.
    fn start(is_up: bool) -> Self {
        let cluster = TestCluster::start_without_fsync().unwrap();
        if !is_up {
            cluster.stop(StopMode::Fast, Duration::from_secs(30)).unwrap();
        }
        let dir = data_dir();
        let tokens = tokens_file(dir.path());
        let made = forebay(&["token", "new", "--tokens-file", &tokens, "--scopes", "push,admin"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let token = String::from_utf8(made.stdout).unwrap().trim_end().to_owned();
        jwt::secret_file(dir.path());
        let daemon = start_daemon(dir.path(), &cluster);
        let guarded = Self { daemon, cluster, token, dir };
        if is_up {
            guarded.wait_until_drained();
        }
        guarded
    }

    fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        rows(&self.cluster, sql)
    }

    /// Waits until PostgreSQL has every message.
    fn wait_until_drained(&self) {
        wait_until("the log is drained", || {
            let buffers = request(&mut self.daemon.connect(), "GET", "/api/v1/status/buffers", &self.token, "", b"");
            let buffers = buffers.json();
            buffers["pending"] == 0 && buffers["dbHealthy"] == true
        });
    }

    /// Runs `forebay dead-letters` with `args` and `--json`. Returns its output lines.
    fn dead_letters(&self, args: &[&str]) -> Vec<Value> {
        let data = self.dir.path().join("data");
        let at = ["--json", "--data-dir", data.to_str().unwrap(), "--postgres", &self.cluster.url()];
        json_lines(&forebay(&[&["dead-letters"], args, &at].concat()))
    }
}

fn tokens_file(dir: &Path) -> String {
    dir.join("tokens.toml").to_str().unwrap().to_owned()
}

fn start_daemon(dir: &Path, cluster: &TestCluster) -> Daemon {
    let (tokens, secret) = (tokens_file(dir), dir.join("secret"));
    let args = ["--cores", "1", "--commit-wait-ms", "5000", "--tokens-file", &tokens, "--jwt-secret-file"];
    Daemon::start(&dir.join("data"), &cluster.url(), &[&args[..], &[secret.to_str().unwrap()]].concat())
}

fn json_lines(output: &std::process::Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn request(client: &mut Client, method: &str, path: &str, token: &str, kind: &str, body: &[u8]) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", kind)];
    client.request(method, path, &headers, (method == "POST").then_some(body)).unwrap()
}

/// Pushes three messages in each of the three ways. All of them try to name a producer; their payloads start with
/// `name`.
fn push_every_way(client: &mut Client, name: &str, token: &str) {
    let item = |n: u64| {
        json!({"queue": "q", "payload": {"is": format!("{name}-json-{n}"), "producerSub": "forged"},
               "producerSub": "forged", "producer_sub": "forged", "sub": "forged"})
    };
    let body = json!({"items": [item(0), item(1), item(2)], "producerSub": "forged", "sub": "forged"}).to_string();
    let lines: String =
        (0..3).map(|n| format!("{{\"is\":\"{name}-line-{n}\",\"producerSub\":\"forged\"}}\n")).collect();
    let path = "/push/q?producerSub=forged";
    let mut push = |path: &str, kind: &str, body: &str| {
        let response = request(client, "POST", path, token, kind, body.as_bytes());
        assert_eq!(response.status, 201, "{path}: {response:?}");
    };
    push("/api/v1/push", "application/json", &body);
    push("/push/q", "application/x-ndjson", &lines);
    for n in 0..3 {
        let body = format!("{{\"is\":\"{name}-path-{n}\",\"producerSub\":\"forged\"}}");
        // Unknown parameters are refused, so a query cannot name a producer.
        assert_eq!(request(client, "POST", path, token, "application/json", body.as_bytes()).status, 400);
        let response = request(client, "POST", "/push/q", token, "application/json", body.as_bytes());
        assert_eq!(response.status, 201);
    }
}

/// The number of messages by name and producer.
fn counts(found: impl IntoIterator<Item = (String, Option<String>)>) -> BTreeMap<(String, Option<String>), usize> {
    let mut counts = BTreeMap::new();
    for (is, sub) in found {
        *counts.entry((is.split('-').next().unwrap().to_owned(), sub)).or_default() += 1;
    }
    counts
}

/// The same for the rows in PostgreSQL.
fn stored(guarded: &Guarded) -> BTreeMap<(String, Option<String>), usize> {
    let sql = "SELECT payload->>'is', encode(convert_to(producer_sub, 'UTF8'), 'hex') FROM forebay.messages";
    counts(guarded.rows(sql).into_iter().map(|row| {
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let known = [SENSOR, "other"].into_iter().find(|known| hex(known) == row[1]);
        let sub = match known {
            Some(known) => Some(known.to_owned()),
            None if row[1] == "\\N" => None,
            None => Some(format!("nobody's: {}", row[1])),
        };
        (row[0].clone(), sub)
    }))
}

fn expected(of: &[(&str, Option<&str>)], count: usize) -> BTreeMap<(String, Option<String>), usize> {
    of.iter().map(|(name, sub)| (((*name).to_owned(), sub.map(str::to_owned)), count)).collect()
}

const ALL: [(&str, Option<&str>); 5] =
    [("sensor", Some(SENSOR)), ("other", Some("other")), ("nameless", None), ("empty", None), ("token", None)];

/// Pushes in every way as every kind of sender over one connection, so that the messages are adjacent in the log.
fn push_by_all(guarded: &Guarded) {
    let mut client = guarded.daemon.connect();
    for (name, token) in [
        ("sensor", jwt::pusher(&json!(SENSOR))),
        ("token", guarded.token.clone()),
        ("other", jwt::pusher(&json!("other"))),
        ("nameless", jwt::pusher(&json!(null))),
        ("empty", jwt::pusher(&json!(""))),
    ] {
        push_every_way(&mut client, name, &token);
    }
}

#[test]
fn the_sub_of_a_jwt_is_kept_with_each_of_its_messages_and_what_a_body_names_is_not() {
    let guarded = Guarded::start(true);
    push_by_all(&guarded);
    guarded.wait_until_drained();
    assert_eq!(stored(&guarded), expected(&ALL, 9));
    // A `sub` that cannot be stored makes the token invalid, before anything is kept.
    let mut client = guarded.daemon.connect();
    for sub in [json!("x".repeat(256)), json!("ü".repeat(128)), json!("a\u{0}b"), json!(7), json!(["other"])] {
        let refused =
            request(&mut client, "POST", "/push/q", &jwt::pusher(&sub), "application/json", b"{\"is\":\"x\"}");
        assert_eq!((refused.status, refused.code().as_str()), (401, "unauthorized"), "{sub}");
    }
    let longest = "x".repeat(255);
    let token = jwt::pusher(&json!(longest));
    let body = br#"{"items":[{"queue":"longest","payload":1}]}"#;
    let taken = request(&mut client, "POST", "/api/v1/push", &token, "application/json", body);
    assert_eq!((taken.status, &taken.json()[0]["status"]), (201, &json!("queued")));
    let sql = "SELECT producer_sub FROM forebay.messages WHERE payload = '1'";
    assert_eq!(guarded.rows(sql), [[longest]]);
    assert_eq!(guarded.rows("SELECT count(*) FROM forebay.messages"), [["46"]], "nothing of what was refused");
}

#[test]
fn killed_before_postgresql_was_there_every_message_still_has_its_producer_and_no_other() {
    let guarded = Guarded::start(false);
    push_by_all(&guarded);
    let Guarded { daemon, cluster, token, dir } = guarded;
    daemon.kill9();
    let data = dir.path().join("data");
    let dumped = json_lines(&forebay(&["wal", "dump", "--data-dir", data.to_str().unwrap()]));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let in_log = counts(
        dumped.iter().map(|line| (text(&line["payload"]["is"]).unwrap(), line.get("producerSub").and_then(text))),
    );
    assert_eq!(in_log, expected(&ALL, 9));
    cluster.start().unwrap();
    let daemon = start_daemon(dir.path(), &cluster);
    let guarded = Guarded { daemon, cluster, token, dir };
    guarded.wait_until_drained();
    assert_eq!(stored(&guarded), expected(&ALL, 9));
    push_by_all(&guarded);
    guarded.wait_until_drained();
    assert_eq!(stored(&guarded), expected(&ALL, 18));
}

#[test]
fn a_dead_letter_has_its_producer_in_the_table_and_in_a_file_and_keeps_it_when_it_is_put_back() {
    let guarded = Guarded::start(true);
    guarded.cluster.psql("ALTER TABLE forebay.messages ADD CONSTRAINT none CHECK (false) NOT VALID").unwrap();
    let push = |token: &str, is: &str| {
        let body = json!({"items": [{"queue": "q", "payload": {"is": is}, "producerSub": "forged"}]}).to_string();
        let mut client = guarded.daemon.connect();
        let response = request(&mut client, "POST", "/api/v1/push", token, "application/json", body.as_bytes());
        assert_eq!(response.json()[0]["status"], "failed", "{response:?}");
    };
    let sensor = jwt::pusher(&json!(SENSOR));
    push(&sensor, "sensor-table");
    push(&guarded.token, "token-table");
    guarded.cluster.psql("ALTER TABLE forebay.dead_letters ADD CONSTRAINT none CHECK (false) NOT VALID").unwrap();
    push(&sensor, "sensor-file");
    push(&guarded.token, "token-file");
    guarded.cluster.psql("ALTER TABLE forebay.dead_letters DROP CONSTRAINT none").unwrap();
    let listed = guarded.dead_letters(&["ls"]);
    let producers: Vec<&Value> = listed.iter().map(|letter| &letter["producerSub"]).collect();
    assert_eq!(producers, [&json!(SENSOR), &Value::Null, &json!(SENSOR), &Value::Null]);
    let in_table = "SELECT producer_sub IS NULL FROM forebay.dead_letters ORDER BY id";
    assert_eq!(guarded.rows(in_table), [["f"], ["t"]]);
    let shown = guarded.dead_letters(&["show", listed[2]["id"].as_str().unwrap()]);
    assert_eq!((&shown[0]["place"], &shown[0]["producerSub"]), (&json!("file"), &json!(SENSOR)));
    let path = format!("/api/v1/dead-letters/{}", listed[0]["id"].as_str().unwrap());
    let over_http = request(&mut guarded.daemon.connect(), "GET", &path, &guarded.token, "", b"");
    assert_eq!(over_http.json()["producerSub"], SENSOR);

    guarded.cluster.psql("ALTER TABLE forebay.messages DROP CONSTRAINT none").unwrap();
    assert_eq!(guarded.dead_letters(&["retry", "--all"]).len(), 4);
    assert_eq!(stored(&guarded), expected(&[("sensor", Some(SENSOR)), ("token", None)], 2));
}

#[test]
fn a_letter_in_a_file_of_an_earlier_release_can_be_put_back() {
    let guarded = Guarded::start(true);
    let dir = guarded.dir.path().join("data/wal/dead-letters");
    fs::create_dir_all(&dir).unwrap();
    let line = json!({"number": 1, "queue": "q", "partition": "p", "messageId": "00000000-0000-0000-0000-00000000000b",
                      "transactionId": "t", "traceId": null, "namespace": "", "task": "", "recordKind": 1, "acceptedUs": 1,
                      "failedUs": 2, "sqlstate": "23514", "error": "no", "payloadText": "{\"is\":\"old\"}"});
    fs::write(dir.join(format!("{:020}-lane0-0-drainer0.ndjson", 1)), format!("{line}\n")).unwrap();
    assert_eq!(guarded.dead_letters(&["ls"])[0]["producerSub"], Value::Null);
    assert_eq!(guarded.dead_letters(&["retry", "--all"])[0]["status"], "queued");
    assert_eq!(stored(&guarded), expected(&[("old", None)], 1));
}

#[test]
fn an_earlier_schema_is_waited_for_and_brought_along_with_what_stands_on_it() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let printed = String::from_utf8(forebay(&["schema", "print"]).stdout).unwrap();
    let second = "INSERT INTO \"forebay\".schema_version (version) VALUES (2);";
    let (before, _) = printed.split_once(second).unwrap();
    cluster.psql(&format!("{before}{second}")).unwrap();
    let earlier = "CREATE VIEW forebay.message_log AS \
                   SELECT q.name AS queue, p.name AS partition, m.seq, m.id, \
                          COALESCE(m.transaction_id, m.transaction_key::text, m.id::text) AS transaction_id, \
                          m.trace_id, m.payload, m.created_at \
                   FROM forebay.messages m JOIN forebay.partitions p ON p.id = m.partition_id \
                   JOIN forebay.queues q ON q.id = p.queue_id; \
                   INSERT INTO forebay.queues (name) VALUES ('q'); \
                   INSERT INTO forebay.partitions (queue_id, name, last_seq) VALUES (1, 'Default', 1); \
                   INSERT INTO forebay.messages VALUES (1, 1, now(), gen_random_uuid(), NULL, NULL, NULL, '{\"is\": \"old\"}'); \
                   CREATE VIEW mine AS SELECT * FROM forebay.message_log";
    cluster.psql(earlier).unwrap();
    let dir = data_dir();
    jwt::secret_file(dir.path());
    let secret = dir.path().join("secret");
    let args = ["--cores", "1", "--migrate", "false", "--jwt-secret-file", secret.to_str().unwrap()];
    let daemon = Daemon::start(&dir.path().join("data"), &cluster.url(), &args);
    wait_until("the daemon tells of it", || daemon.log().contains("schema_mismatch"));
    let push = |sub: &str| {
        let token = jwt::pusher(&json!(sub));
        let body = json!({"is": sub}).to_string();
        let response = request(&mut daemon.connect(), "POST", "/push/q", &token, "application/json", body.as_bytes());
        assert_eq!(response.status, 201);
    };
    push("before");
    let migrated = forebay(&["schema", "migrate", "--postgres", &cluster.url()]);
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    push("behind");
    let sql = "SELECT payload->>'is', producer_sub FROM forebay.messages ORDER BY seq";
    wait_until("all are there", || rows(&cluster, sql).len() == 3);
    assert_eq!(rows(&cluster, sql), [["old", "\\N"], ["before", "before"], ["behind", "behind"]]);
    assert_eq!(rows(&cluster, "SELECT count(*) FROM mine"), [["3"]]);
}
