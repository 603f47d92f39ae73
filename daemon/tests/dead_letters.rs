//! Dead letters: kept whole in PostgreSQL, or in files where it refuses them too; looked at, put back, dropped.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, data_dir, stage::Stage, wait_until};
use forebay_cluster::TestCluster;
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
    // A letter that is refused as late is not taken for a row.
    let late_letters = "CREATE FUNCTION refuse_letter() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no letters'; END$$; \
                        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON forebay.dead_letters DEFERRABLE INITIALLY DEFERRED \
                        FOR EACH ROW WHEN (NEW.transaction_id = 'tx101') EXECUTE FUNCTION refuse_letter()";
    stage.cluster.psql(late_letters).unwrap();
    assert_eq!(push(&stage.daemon, &[json!({"queue": "late", "payload": 1}), bad(101)])[0]["status"], "queued");
    push(&stage.daemon, &[bad(101)]);
    let kept: Vec<Value> = lines(&stage.daemon).iter().map(|letter| letter["transactionId"].clone()).collect();
    assert_eq!(kept, ["tx101", "tx101"]);
    let items: Vec<Value> = (0..30).map(|n| if n == 17 { bad(n) } else { good(n) }).collect();
    let answers = push(&stage.daemon, &items);
    assert_eq!((&answers[16]["status"], &answers[17]["status"]), (&json!("queued"), &json!("failed")));
    assert!(numbers(&stage).iter().map(|n| n.parse::<u64>().unwrap()).eq((0..30).filter(|n| *n != 17)));
    assert_eq!(stage.rows("SELECT sqlstate FROM forebay.dead_letters"), [["23503"]]);
    // The session goes on from the checkpoint that stands, and is not given up.
    assert!(!stage.daemon.log().contains("the checkpoint is not where it was left"), "{}", stage.daemon.log());
}

#[test]
fn a_letter_that_meets_again_and_again_what_a_server_in_trouble_says_goes_to_a_file_and_holds_nobody_up() {
    let stage = Stage::start(&[]);
    stage.cluster.psql(RULE).unwrap();
    let refuse = "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS \
                  $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = NEW.transaction_id; END$$; \
                  CREATE TRIGGER refuse BEFORE INSERT ON forebay.dead_letters FOR EACH ROW EXECUTE FUNCTION public.refuse()";
    push(&stage.daemon, &[good(0)]);
    stage.cluster.psql(refuse).unwrap();
    for (code, n) in ["XX000", "55000", "40001", "57014"].into_iter().zip(1_u64..) {
        let mut item = bad(100 + n);
        item["transactionId"] = json!(code);
        let body = json!({"items": [item, good(n)], "qos0": true});
        assert_eq!(stage.daemon.connect().push(&body).unwrap().status, 201);
        wait_until("it is kept in a file", || stage.daemon.figure("failed") == n);
        stage.daemon.wait_until_drained();
    }
    assert_eq!(numbers(&stage), ["0", "1", "2", "3", "4"]);
    assert_eq!(lines(&stage.daemon).len(), 4);
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
    let payload: Value = serde_json::from_str(kept[0]["payloadText"].as_str().unwrap()).unwrap();
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
fn a_letter_that_the_table_skips_without_a_word_is_kept_in_a_file() {
    let stage = Stage::start(&[]);
    stage.cluster.psql(RULE).unwrap();
    let skip = "CREATE FUNCTION public.skip() RETURNS trigger LANGUAGE plpgsql AS \
                $$BEGIN IF NEW.transaction_id = 'tx2' THEN RETURN NULL; END IF; RETURN NEW; END$$; \
                CREATE TRIGGER skip BEFORE INSERT ON forebay.dead_letters FOR EACH ROW EXECUTE FUNCTION public.skip()";
    stage.cluster.psql(skip).unwrap();
    push(&stage.daemon, &[good(1), bad(2), bad(3), good(4)]);
    wait_until("the letters are counted", || stage.daemon.figure("failed") == 2);
    assert_eq!(numbers(&stage), ["1", "4"]);
    assert_eq!(stage.rows("SELECT transaction_id FROM forebay.dead_letters"), [["tx3"]]);
    let kept = lines(&stage.daemon);
    assert_eq!((kept.len(), &kept[0]["transactionId"]), (1, &json!("tx2")));
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

/// Runs `forebay dead-letters` with `args` for the stage's daemon; exit code and standard output.
fn dead_letters(stage: &Stage, args: &[&str]) -> (i32, String) {
    let at = ["--data-dir", stage.dir.path().to_str().unwrap(), "--postgres", &stage.cluster.url()];
    let output = common::forebay(&[&["dead-letters"], args, &at].concat());
    print!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// The same with `--json`: its lines.
fn dead_letters_json(stage: &Stage, args: &[&str]) -> (i32, Vec<Value>) {
    let (code, text) = dead_letters(stage, &[args, &["--json"]].concat());
    (code, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

const GOOD_AGAIN: &str = "ALTER TABLE forebay.messages DROP CONSTRAINT only_good";

/// `seq`, number, id and transaction id of the messages in order.
fn messages(stage: &Stage) -> Vec<Vec<String>> {
    stage.rows("SELECT seq, payload->>'n', id, transaction_id FROM forebay.message_log WHERE queue = 'q' ORDER BY seq")
}

#[test]
fn the_command_line_lists_shows_puts_back_and_drops_letters_of_the_table_and_of_files() {
    let stage = Stage::start(&[]);
    stage.cluster.psql(RULE).unwrap();
    let own =
        json!({"queue": "q", "payload": {"n": 3, "bad": true}, "traceId": "00000000-0000-0000-0000-00000000000a"});
    let answers = push(&stage.daemon, &[good(1), bad(2), own, bad(4)]);
    let own_id = answers[2]["message_id"].as_str().unwrap().to_owned();
    push(&stage.daemon, &[json!({"queue": "other", "payload": {"bad": true}})]);
    // Two more, which the table does not take.
    stage.cluster.psql(NO_LETTERS).unwrap();
    push(&stage.daemon, &[bad(5), bad(6)]);

    let (code, listed) = dead_letters_json(&stage, &["ls", "--queue", "q"]);
    let ids: Vec<&str> = listed.iter().map(|letter| letter["id"].as_str().unwrap()).collect();
    let transactions: Vec<&str> = listed.iter().map(|letter| letter["transactionId"].as_str().unwrap()).collect();
    assert_eq!((code, transactions), (0, vec!["tx2", &own_id, "tx4", "tx5", "tx6"]));
    assert_eq!((&listed[0]["place"], &listed[4]["place"]), (&json!("postgres"), &json!("file")));
    let (_, text) = dead_letters(&stage, &["ls", "--limit", "3"]);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains("23514") && text.contains("q/Default") && text.contains("tx2"), "{text}");
    for (id, n) in [(ids[0], 2), (ids[3], 5)] {
        let (code, shown) = dead_letters_json(&stage, &["show", id]);
        let payload: Value = serde_json::from_str(shown[0]["payloadText"].as_str().unwrap()).unwrap();
        assert_eq!((code, payload), (0, json!({"n": n, "bad": true})));
        assert!(dead_letters(&stage, &["show", id]).1.contains("only_good"));
    }
    assert_eq!(dead_letters(&stage, &["show", "999"]).0, 1);
    assert_eq!((dead_letters(&stage, &["show", "x"]).0, dead_letters(&stage, &["retry"]).0), (2, 2));

    // Still refused: they stay, with the new reason.
    stage.cluster.psql(LETTERS_AGAIN).unwrap();
    stage.cluster.psql("ALTER TABLE forebay.messages RENAME CONSTRAINT only_good TO still_not").unwrap();
    let (code, retried) = dead_letters_json(&stage, &["retry", ids[0], ids[3]]);
    assert_eq!((code, &retried[0]["status"], &retried[1]["status"]), (1, &json!("failed"), &json!("failed")));
    for id in [ids[0], ids[3]] {
        assert!(dead_letters(&stage, &["show", id]).1.contains("still_not"), "{id}");
    }
    stage.cluster.psql("ALTER TABLE forebay.messages DROP CONSTRAINT still_not").unwrap();

    // One was sent again meanwhile, with its transaction id; one is dropped.
    assert_eq!(push(&stage.daemon, &[good(4), good(7)])[0]["status"], "queued");
    assert_eq!(dead_letters(&stage, &["drop", ids[4]]).0, 0);
    let (code, retried) = dead_letters_json(&stage, &["retry", "--all", "--queue", "q"]);
    let statuses: Vec<&str> = retried.iter().map(|retried| retried["status"].as_str().unwrap()).collect();
    assert_eq!((code, statuses), (0, vec!["queued", "queued", "duplicate", "queued"]));
    let found = messages(&stage);
    let numbers: Vec<&str> = found.iter().map(|row| row[1].as_str()).collect();
    assert_eq!(numbers, ["1", "4", "7", "2", "3", "5"], "each at the end of its partition");
    assert!(found.iter().zip(1..).all(|(row, seq)| row[0] == seq.to_string()), "seq has no gaps: {found:?}");
    assert_eq!((&found[4][2], &found[4][3]), (&own_id, &own_id), "its id is its own, also as transaction id");
    assert_eq!(
        stage.rows("SELECT trace_id FROM forebay.message_log WHERE payload->>'n' = '3'")[0][0].as_bytes()[35],
        b'a'
    );
    // What was put back is known by its transaction id, and the drain goes on behind it.
    let again = push(&stage.daemon, &[good(2), json!({"queue": "q", "payload": 0, "transactionId": own_id}), good(8)]);
    let statuses: Vec<&str> = (0..3).map(|index| again[index]["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["duplicate", "duplicate", "queued"]);

    wait_until("the daemon counts the one that is left", || stage.daemon.figure("failed") == 1);
    assert_eq!(dead_letters(&stage, &["drop", "--all"]).0, 2, "not confirmed");
    assert_eq!(dead_letters(&stage, &["drop", "--all", "--yes"]).0, 0);
    wait_until("none is left", || stage.daemon.figure("failed") == 0);
    assert!(files(&stage.daemon, "ndjson").is_empty());
    assert_eq!(dead_letters(&stage, &["retry", ids[0]]).0, 1, "it is gone");
    let nowhere = common::forebay(&["dead-letters", "ls", "--postgres", common::NOWHERE]);
    assert_eq!(nowhere.status.code(), Some(5));
}

#[test]
fn over_http_letters_are_listed_shown_put_back_and_dropped() {
    let stage = Stage::start(&[]);
    stage.cluster.psql(RULE).unwrap();
    let items: Vec<Value> = (0..10).map(bad).collect();
    push(&stage.daemon, &items);
    stage.cluster.psql(NO_LETTERS).unwrap();
    push(&stage.daemon, &[bad(10)]);
    stage.cluster.psql(LETTERS_AGAIN).unwrap();
    let mut client = stage.daemon.connect();
    let mut get = |path: &str| {
        let response = client.get(path).unwrap();
        (response.status, response.json())
    };
    let path = "/api/v1/dead-letters";
    // Page by page, the last one with the letter of the file.
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let (status, page) = get(&format!("{path}?limit=4&queue=q{after}"));
        assert_eq!(status, 200, "{page}");
        ids.extend(
            page["deadLetters"].as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(ids.len(), 11);
    assert!(ids[10].starts_with('f'));
    assert_eq!(get(&format!("{path}?queue=none")).1["deadLetters"], json!([]));
    let (status, shown) = get(&format!("{path}/{}", ids[3]));
    assert_eq!((status, &shown["transactionId"], &shown["sqlstate"]), (200, &json!("tx3"), &json!("23514")));
    assert!(shown["payloadText"].as_str().unwrap().contains("\"bad\""));
    for (path, status, code) in [
        (format!("{path}/999999"), 404, "dead_letter_not_found"),
        (format!("{path}/nonsense"), 404, "dead_letter_not_found"),
        (format!("{path}?limit=0"), 400, "invalid_request"),
        (format!("{path}?what=1"), 400, "invalid_request"),
    ] {
        let (answered, body) = get(&path);
        assert_eq!((answered, body["code"].as_str()), (status, Some(code)), "{path}");
    }
    let mut client = stage.daemon.connect();
    let mut send = |method: &str, path: &str, body: Option<&[u8]>| {
        let response = client.request(method, path, &[], body).unwrap();
        (response.status, response.json())
    };
    let (status, refused) = send("POST", &format!("{path}/{}/retry", ids[0]), None);
    assert_eq!((status, &refused["status"], &refused["sqlstate"]), (200, &json!("failed"), &json!("23514")));
    let (status, dropped) = send("DELETE", &format!("{path}/{}", ids[1]), None);
    assert_eq!((status, &dropped["status"]), (200, &json!("dropped")));
    assert_eq!(send("DELETE", &format!("{path}/{}", ids[1]), None).0, 404);
    assert_eq!(stage.daemon.figure("failed"), 10, "at once");
    assert_eq!(send("PUT", &format!("{path}/{}", ids[0]), None).0, 405);
    stage.cluster.psql(GOOD_AGAIN).unwrap();
    let (status, retried) = send("POST", &format!("{path}/{}/retry", ids[10]), None);
    assert_eq!((status, &retried["status"], &retried["seq"]), (200, &json!("queued"), &json!(1)));
    push(&stage.daemon, &[good(2)]);
    assert_eq!(send("POST", &format!("{path}/retry"), Some(b"{\"queue\":\"other\"}")).1["queued"], 0);
    assert_eq!(send("POST", &format!("{path}/retry"), Some(b"{\"quue\":1}")).0, 400);
    let (status, all) = send("POST", &format!("{path}/retry"), Some(b"{\"queue\":\"q\"}"));
    assert_eq!((status, all), (200, json!({"queued": 8, "duplicate": 1, "failed": 0, "more": false})));
    assert_eq!(stage.daemon.figure("failed"), 0);
    assert_eq!(numbers(&stage), ["10", "2", "0", "3", "4", "5", "6", "7", "8", "9"]);
    // Without PostgreSQL nobody waits for long, and pushes go on.
    stage.cluster.stop(forebay_cluster::StopMode::Immediate, common::PATIENCE).unwrap();
    let (status, away) = send("GET", path, None);
    assert_eq!((status, away["code"].as_str()), (503, Some("postgres_away")));
    push(&stage.daemon, &[good(11)]);
    stage.cluster.start().unwrap();
    stage.daemon.wait_until_drained();
    assert_eq!(send("GET", path, None).0, 200);
}

#[test]
fn a_letter_whose_partition_is_deleted_while_it_is_put_back_stays_and_says_so() {
    let stage = Stage::start(&[]);
    stage.cluster.psql(RULE).unwrap();
    push(&stage.daemon, &[good(0), bad(1)]);
    stage.cluster.psql(GOOD_AGAIN).unwrap();
    let letter = stage.rows("SELECT id, sqlstate, error, failed_at FROM forebay.dead_letters").remove(0);
    let path = format!("/api/v1/dead-letters/{}/retry", letter[0]);
    let retry = || stage.daemon.connect().post(&path, b"").unwrap();
    // The partition is still to be seen while another session deletes it, and gone once its lock can be had.
    let config = forebay_pgwire::Config::from_url(&stage.cluster.url()).unwrap();
    let mut runtime = forebay::rt::runtime(8).unwrap();
    let mut other =
        runtime.block_on(forebay_pgwire::Connection::connect(&config, forebay_pgwire::SearchPath::Inherited)).unwrap();
    let delete = "BEGIN; DELETE FROM forebay.messages; DELETE FROM forebay.partitions";
    runtime.block_on(other.simple(delete)).unwrap();
    let retried = std::thread::scope(|scope| {
        let retried = scope.spawn(retry);
        let waiting = "SELECT 1 FROM pg_stat_activity \
                       WHERE application_name LIKE 'forebay %' AND wait_event_type = 'Lock'";
        wait_until("the retry waits for the partition's lock", || !stage.rows(waiting).is_empty());
        runtime.block_on(other.simple("COMMIT")).unwrap();
        retried.join().unwrap()
    });
    let body = retried.json();
    assert_eq!((retried.status, &body["status"]), (200, &json!("partition_deleted")), "{body}");
    assert_eq!(stage.rows("SELECT id, sqlstate, error, failed_at FROM forebay.dead_letters"), [letter]);
    assert_eq!(stage.daemon.figure("failed"), 1);
    assert_eq!(stage.rows("SELECT 1 FROM forebay.messages"), Vec::<Vec<String>>::new());
    // Once more, and the partition is made anew.
    assert_eq!(retry().json()["status"], "queued");
    assert_eq!(messages(&stage).len(), 1);
    assert_eq!(stage.daemon.figure("failed"), 0);
}

#[test]
fn requests_do_not_wait_for_one_another_and_too_many_are_refused_at_once() {
    let stage = Stage::start(&[]);
    stage.cluster.psql(RULE).unwrap();
    push(&stage.daemon, &[good(0), bad(1), bad(2)]);
    stage.cluster.psql(GOOD_AGAIN).unwrap();
    let config = forebay_pgwire::Config::from_url(&stage.cluster.url()).unwrap();
    let mut runtime = forebay::rt::runtime(8).unwrap();
    let mut other =
        runtime.block_on(forebay_pgwire::Connection::connect(&config, forebay_pgwire::SearchPath::Inherited)).unwrap();
    runtime.block_on(other.simple("BEGIN; SELECT FROM forebay.partitions FOR UPDATE")).unwrap();
    let ids = stage.rows("SELECT id FROM forebay.dead_letters ORDER BY id");
    let waiting =
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'forebay admin' AND wait_event_type = 'Lock'";
    let list = || stage.daemon.connect().get("/api/v1/dead-letters").unwrap();
    std::thread::scope(|scope| {
        for (others, id) in ids.iter().enumerate() {
            assert_eq!(list().status, 200, "beside {others} that wait");
            let path = format!("/api/v1/dead-letters/{}/retry", id[0]);
            let daemon = &stage.daemon;
            scope.spawn(move || daemon.connect().post(&path, b"").unwrap());
            wait_until("it waits for the partition's lock", || stage.rows(waiting).len() == others + 1);
        }
        // Both connections wait now, and so do all requests beyond.
        let lists: Vec<_> = (0..2 * forebay::limits::PG_REQUESTS_MAX).map(|_| scope.spawn(list)).collect();
        wait_until("too many wait", || lists.iter().any(|list| list.is_finished()));
        runtime.block_on(other.simple("COMMIT")).unwrap();
        let (taken, refused): (Vec<_>, Vec<_>) =
            lists.into_iter().map(|list| list.join().unwrap()).partition(|response| response.status == 200);
        assert!(!refused.is_empty() && taken.len() + 2 >= forebay::limits::PG_REQUESTS_MAX);
        for response in refused {
            assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
            assert!(response.header("Retry-After").is_some() && response.error().contains("connection"));
        }
    });
}

#[test]
fn a_letter_that_a_trigger_skips_stays_with_the_reason_and_leaves_no_gap() {
    let stage = Stage::start(&[]);
    stage.cluster.psql(RULE).unwrap();
    push(&stage.daemon, &[bad(1), bad(2)]);
    let skip = "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS \
                $$BEGIN IF NEW.payload->>'n' = '1' THEN RETURN NULL; END IF; RETURN NEW; END$$; \
                CREATE TRIGGER skip BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION skip()";
    stage.cluster.psql(&format!("{GOOD_AGAIN}; {skip}")).unwrap();
    let retried = stage.daemon.connect().post("/api/v1/dead-letters/retry", b"").unwrap();
    assert_eq!(retried.json(), json!({"queued": 1, "duplicate": 0, "failed": 1, "more": false}));
    assert_eq!(stage.rows("SELECT transaction_id, sqlstate FROM forebay.dead_letters"), [["tx1", "XXFB2"]]);
    let found = messages(&stage);
    assert_eq!((found.len(), found[0][0].as_str(), found[0][1].as_str()), (1, "1", "2"));
}

#[test]
fn a_record_that_is_no_message_is_shown_in_digits_and_stays() {
    let stage = Stage::start(&[]);
    // As an earlier release left it, and as this one would.
    let rows = "INSERT INTO forebay.dead_letters (queue, partition, payload_text, payload_bytes, record_kind, sqlstate, error, source, created_at) \
                VALUES ('', '', '\\x00ff', NULL, NULL, 'XXFB1', 'unknown', 'drain', now()), ('', '', '\\x00ff', '\\x00ff', 9, 'XXFB1', 'unknown', 'drain', now())";
    stage.cluster.psql(rows).unwrap();
    let (_, listed) = dead_letters_json(&stage, &["ls"]);
    let id = listed[1]["id"].as_str().unwrap();
    assert_eq!(dead_letters_json(&stage, &["show", id]).1[0]["payloadHex"], "00ff");
    let (code, retried) = dead_letters_json(&stage, &["retry", "--all"]);
    assert_eq!((code, &retried[1]["status"]), (1, &json!("failed")));
    wait_until("they are counted", || stage.daemon.figure("failed") == 2);
}

#[test]
fn put_back_from_a_file_a_message_does_not_come_twice_though_the_command_was_killed_before_it_took_the_line_away() {
    let stage = Stage::start(&[]);
    stage.cluster.psql(RULE).unwrap();
    stage.cluster.psql(NO_LETTERS).unwrap();
    // Without a transaction id.
    push(&stage.daemon, &[json!({"queue": "q", "payload": {"n": 1, "bad": true}})]);
    stage.cluster.psql(GOOD_AGAIN).unwrap();
    let path = files(&stage.daemon, "ndjson").remove(0);
    let content = fs::read(&path).unwrap();
    let retry = || dead_letters_json(&stage, &["retry", "--all"]).1[0]["status"].take();
    assert_eq!(retry(), "queued");
    assert!(!path.exists());
    // As the kill would leave it.
    fs::write(&path, content).unwrap();
    assert_eq!(retry(), "duplicate");
    assert!(!path.exists());
    assert_eq!(numbers(&stage), ["1"]);
}

#[test]
fn the_figure_follows_also_while_pushes_never_cease() {
    let stage = Stage::start(&[]);
    stage.cluster.psql(RULE).unwrap();
    push(&stage.daemon, &[bad(1), bad(2)]);
    let spec = common::load::Spec { queue: "load", label: "a", producers: 4, partitions: 2, fill_bytes: 0 };
    let load = common::load::Load::start(&spec, stage.daemon.address);
    load.wait_for(100);
    assert_eq!(stage.daemon.figure("failed"), 2);
    assert_eq!(dead_letters(&stage, &["drop", "--all", "--yes"]).0, 0);
    wait_until("the daemon counts anew", || stage.daemon.figure("failed") == 0);
    load.stop();
}

#[test]
fn letters_of_an_earlier_schema_are_brought_along_and_can_be_put_back() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let printed = String::from_utf8(common::forebay(&["schema", "print"]).stdout).unwrap();
    let first = "INSERT INTO \"forebay\".schema_version (version) VALUES (1);";
    let (before, _) = printed.split_once(first).unwrap();
    cluster.psql(&format!("{before}{first}")).unwrap();
    let letter = "INSERT INTO forebay.dead_letters (queue, partition, message_id, transaction_id, payload_text, sqlstate, error, source, created_at) \
                  VALUES ('q', 'p', '00000000-0000-0000-0000-00000000000b', 'old', '{\"n\": 1}', '23514', 'no', 'drain', '2026-01-02 03:04:05.678901+00')";
    cluster.psql(letter).unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]);
    daemon.wait_until_drained();
    let stage = Stage { daemon, cluster, dir };
    assert_eq!(dead_letters(&stage, &["retry", "--all"]).0, 0);
    assert_eq!(messages(&stage), [["1", "1", "00000000-0000-0000-0000-00000000000b", "old"]]);
    let created = "SELECT created_at = '2026-01-02 03:04:05.678901+00' FROM forebay.message_log";
    assert_eq!(stage.rows(created), [["t"]], "when it was taken, to the microsecond");
}
