//! `forebay wal` with and without a running daemon, on a log that never reached PostgreSQL.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Daemon, NOWHERE, data_dir, forebay,
    load::{Load, Spec},
    wait_until,
};
use forebay_cluster::TestCluster;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Output, Stdio},
};

const ARGS: [&str; 6] = ["--cores", "2", "--wal-segment-bytes", "1MiB", "--wal-max-bytes", "64MiB"];

const ONE_CORE: [&str; 6] = ["--cores", "1", "--wal-segment-bytes", "1MiB", "--wal-max-bytes", "64MiB"];

/// Padding of the messages' payloads, so that each lane has several segments.
const FILL_BYTES: usize = 20_000;

fn wal(data_dir: &Path, command: &str, args: &[&str]) -> Output {
    forebay(&[&["wal", command, "--data-dir", data_dir.to_str().unwrap()], args].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The JSON lines of a command, which must succeed.
fn lines(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    parse_lines(&output.stdout)
}

fn parse_lines(bytes: &[u8]) -> Vec<Value> {
    text(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The identity of a message, independent of its lane.
fn name(message: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&message["queue"]), text(&message["partition"]), message["payload"]["n"].to_string())
}

fn names<'a>(messages: impl IntoIterator<Item = &'a Value>) -> Vec<(String, String, String)> {
    let mut names: Vec<_> = messages.into_iter().map(name).collect();
    names.sort();
    names
}

/// Pushes each message once over connections that the kernel spreads over the cores: by JSON to queue `a`, by NDJSON to
/// queue `b`. Returns what the log must hold.
fn fill(daemon: &Daemon) -> Vec<(String, String, String)> {
    let mut pushed = Vec::new();
    let fill = "x".repeat(FILL_BYTES);
    for connection in 0..16 {
        let mut client = daemon.connect();
        for n in 0..8 {
            let payload = json!({"n": n, "fill": fill});
            let item = json!({"queue": "a", "partition": format!("c{connection}"), "payload": payload,
                "transactionId": format!("{connection}-{n}")});
            assert_eq!(client.push(&json!({"items": [item], "qos0": true})).unwrap().status, 201);
            pushed.push(("a".to_owned(), format!("c{connection}"), n.to_string()));
        }
        let body: String = (0..5).map(|n| format!("{{\"n\": {n}.50}}\n")).collect();
        let path = format!("/push/b/c{connection}");
        assert_eq!(client.post_ndjson(&path, body.as_bytes()).unwrap().status, 201);
        pushed.extend((0..5).map(|n| ("b".to_owned(), format!("c{connection}"), format!("{n}.5"))));
    }
    pushed.sort();
    pushed
}

fn assert_in_order_of_numbers(messages: &[Value]) {
    let numbers: Vec<u64> = messages.iter().map(|message| message["number"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    let mut ordinals: BTreeMap<u64, u64> = BTreeMap::new();
    for message in messages {
        let ordinal = message["ordinal"].as_u64().unwrap();
        if let Some(before) = ordinals.insert(message["lane"].as_u64().unwrap(), ordinal) {
            assert!(before < ordinal, "a lane's order");
        }
    }
}

/// Flips a bit in the payload of a record behind offset `from`, in the segment with the most records. Returns the
/// segment's lane and number, and the offset of the bit.
fn damage(data_dir: &Path, from: usize) -> (u64, u64, u64) {
    let segments = lines(&wal(data_dir, "ls", &["--json"]));
    let segment = segments.iter().max_by_key(|segment| segment["records"].as_u64()).unwrap();
    let (lane, number) = (segment["lane"].as_u64().unwrap(), segment["segment"].as_u64().unwrap());
    let path = data_dir.join(format!("wal/lane-{lane:02}/{number:010}.seg"));
    let content = std::fs::read(&path).unwrap();
    let fill = content[from..].windows(100).position(|bytes| bytes.iter().all(|byte| *byte == b'x'));
    let at = from + fill.unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[content[at] ^ 1], at as u64).unwrap();
    (lane, number, at as u64)
}

#[test]
fn dump_shows_every_message_once_in_order_beside_a_daemon_and_without_one() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &ARGS);
    let pushed = fill(&daemon);
    let beside = lines(&wal(dir.path(), "dump", &[]));
    assert_eq!(names(&beside), pushed);
    assert_in_order_of_numbers(&beside);
    assert!(daemon.terminate().success());
    let messages = lines(&wal(dir.path(), "dump", &[]));
    assert_eq!(messages, beside);

    let message = messages.iter().find(|message| message["transactionId"] == "3-4").unwrap();
    assert_eq!(
        (&message["queue"], &message["partition"], &message["payload"]["n"]),
        (&json!("a"), &json!("c3"), &json!(4))
    );
    assert_eq!((message["traceId"].clone(), message["id"].as_str().unwrap().len()), (Value::Null, 36));
    let accepted_at = message["acceptedAt"].as_str().unwrap();
    assert_eq!((accepted_at.len(), accepted_at.ends_with('Z')), ("2000-01-01T00:00:00.000000Z".len(), true));
    // The number is unchanged, digit by digit.
    let of_b = wal(dir.path(), "dump", &["--queue", "b"]);
    assert_eq!(text(&of_b.stdout).matches("\"payload\":{\"n\": 4.50}}\n").count(), 16);

    let of_b = lines(&of_b);
    assert_eq!(of_b, messages.iter().filter(|message| message["queue"] == "b").cloned().collect::<Vec<_>>());
    let from = messages[100]["number"].to_string();
    assert_eq!(lines(&wal(dir.path(), "dump", &["--from", &from, "--limit", "7"])), messages[100..107]);
    let of_b_from = of_b.iter().filter(|message| message["number"].as_u64() >= messages[100]["number"].as_u64());
    let expected: Vec<Value> = of_b_from.take(3).cloned().collect();
    assert_eq!(lines(&wal(dir.path(), "dump", &["--queue", "b", "--from", &from, "--limit", "3"])), expected);
    assert!(lines(&wal(dir.path(), "dump", &["--limit", "0"])).is_empty());
    assert!(lines(&wal(dir.path(), "dump", &["--queue", "none"])).is_empty());
}

#[test]
fn dump_into_a_pipe_that_closes_early_ends_quietly_with_success() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &ARGS);
    fill(&daemon);
    assert!(daemon.terminate().success());
    let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["wal", "dump", "--data-dir", dir.path().to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The output exceeds the capacity of a pipe.
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let status = child.wait().unwrap();
    let mut complaints = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    assert_eq!((status.code(), complaints.as_str()), (Some(0), ""));
    assert!(serde_json::from_str::<Value>(&first).is_ok(), "{first:.100}");
}

#[test]
fn ls_and_stats_agree_with_what_was_pushed() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &ARGS);
    let pushed = fill(&daemon);
    assert!(daemon.terminate().success());
    let messages = lines(&wal(dir.path(), "dump", &[]));

    let segments = lines(&wal(dir.path(), "ls", &["--json"]));
    let mut bytes = 0;
    for segment in &segments {
        let path = format!(
            "wal/lane-{:02}/{:010}.seg",
            segment["lane"].as_u64().unwrap(),
            segment["segment"].as_u64().unwrap()
        );
        assert_eq!(segment["bytes"].as_u64().unwrap(), dir.path().join(path).metadata().unwrap().len());
        bytes += segment["bytes"].as_u64().unwrap();
        let records = segment["records"].as_u64().unwrap();
        assert_eq!(segment["state"], if records > 0 { "data" } else { "ready" });
        let ordinal = |name: &str| segment[name].as_u64();
        let between = ordinal("lastOrdinal").zip(ordinal("firstOrdinal")).map_or(0, |(last, first)| last - first + 1);
        assert_eq!(between, records, "a segment's ordinals have no gaps: {segment}");
        let inside = |message: &&Value| {
            let number = message["number"].as_u64();
            message["lane"] == segment["lane"]
                && segment["firstNumber"].as_u64() <= number
                && number <= segment["lastNumber"].as_u64()
        };
        assert_eq!(messages.iter().filter(inside).count() as u64, records, "{segment}");
    }
    let files = ["lane-00", "lane-01"].map(|lane| dir.path().join("wal").join(lane).read_dir().unwrap().count());
    assert_eq!(segments.len(), files.iter().sum::<usize>());

    let stats = &lines(&wal(dir.path(), "stats", &["--json"]))[0];
    let total = &stats["total"];
    assert_eq!(
        (total["records"].as_u64(), total["segments"].as_u64()),
        (Some(pushed.len() as u64), Some(segments.len() as u64))
    );
    assert_eq!((total["bytes"].as_u64(), total["findings"].as_u64()), (Some(bytes), Some(0)));
    assert_eq!(total["firstNumber"], messages[0]["number"]);
    assert_eq!(total["lastNumber"], messages[messages.len() - 1]["number"]);
    // The texts have one length and start with the year, so they sort like the times.
    let accepted = || messages.iter().map(|message| message["acceptedAt"].as_str().unwrap());
    assert_eq!(total["oldestAcceptedAt"].as_str(), accepted().min());
    assert_eq!(total["newestAcceptedAt"].as_str(), accepted().max());
    assert_eq!(stats["queues"], json!([{"queue": "a", "messages": 128}, {"queue": "b", "messages": 80}]));
    for lane in stats["lanes"].as_array().unwrap() {
        let of_lane = messages.iter().filter(|message| message["lane"] == lane["lane"]).count();
        assert_eq!(lane["records"].as_u64(), Some(of_lane as u64));
    }

    let table = text(&wal(dir.path(), "ls", &[]).stdout);
    assert_eq!(table.lines().count(), segments.len() + 1, "{table}");
    let table = text(&wal(dir.path(), "stats", &[]).stdout);
    assert!(table.lines().any(|line| line.starts_with("total ") && line.contains(" 208 ")), "{table}");
}

#[test]
fn a_flipped_bit_costs_one_message_and_is_named_by_every_command() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &ARGS);
    let pushed = fill(&daemon);
    // Also with the daemon running.
    let (lane, segment, at) = damage(dir.path(), 400_000);
    let beside = wal(dir.path(), "verify", &["--json"]);
    assert_eq!(beside.status.code(), Some(1), "{}", text(&beside.stderr));
    assert_eq!(parse_lines(&beside.stdout)[0]["running"], true);
    assert!(daemon.terminate().success());

    let verify = wal(dir.path(), "verify", &["--json"]);
    assert_eq!(verify.status.code(), Some(1));
    let report = &parse_lines(&verify.stdout)[0];
    assert_eq!((&report["sound"], &report["running"]), (&json!(false), &json!(false)));
    let lanes = report["lanes"].as_array().unwrap();
    let of_lane = lanes.iter().find(|found| found["lane"] == lane).unwrap();
    let records: u64 = lanes.iter().map(|lane| lane["records"].as_u64().unwrap()).sum();
    assert_eq!((records, of_lane["missingRecords"].as_u64()), (pushed.len() as u64 - 1, Some(1)));
    let findings = of_lane["findings"].as_array().unwrap();
    let bad = findings.iter().find(|finding| finding["kind"] == "bad_payload").unwrap();
    assert_eq!(
        (bad["segment"].as_u64(), &bad["damage"], &bad["expected"]),
        (Some(segment), &json!(true), &json!(false))
    );
    let offset = bad["offset"].as_u64().unwrap();
    assert!(offset < at && at < offset + FILL_BYTES as u64 + 1_000, "{bad}: the bit is in the byte at {at}");
    assert!(findings.iter().any(|finding| finding["kind"] == "lost" && finding["records"] == 1), "{report}");

    let dump = wal(dir.path(), "dump", &[]);
    let shown = lines(&dump);
    assert!(text(&dump.stderr).contains(&format!("lane {lane}: record {}", bad["number"])), "{}", text(&dump.stderr));
    assert_eq!(shown.len(), pushed.len() - 1);
    assert!(shown.iter().all(|message| message["number"] != bad["number"]));
    let mut missing = pushed;
    let shown_names = names(&shown);
    missing.retain(|name| shown_names.binary_search(name).is_err());
    assert_eq!(missing.len(), 1);

    let segments = lines(&wal(dir.path(), "ls", &["--json"]));
    let damaged: Vec<_> = segments.iter().filter(|segment| segment["state"] == "damaged").collect();
    assert_eq!(damaged.len(), 1);
    assert_eq!((damaged[0]["lane"].as_u64(), damaged[0]["segment"].as_u64()), (Some(lane), Some(segment)));
    assert_eq!(lines(&wal(dir.path(), "stats", &["--json"]))[0]["total"]["findings"], findings.len());
    salvages_all_others(dir.path(), &shown);
}

/// Checks that salvage copies what dump shows, reports what is missing, and changes nothing.
fn salvages_all_others(data_dir: &Path, shown: &[Value]) {
    let before = content_of(&data_dir.join("wal"));
    let elsewhere = common::data_dir();
    let to = elsewhere.path().join("copied");
    let salvage = |to: &Path| wal(data_dir, "salvage", &["--to", to.to_str().unwrap()]);
    let output = salvage(&to);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(told.contains(&format!("total: {} records copied, 1 known to be missing", shown.len())), "{told}");
    let files = content_of(&to);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["lane-00.ndjson", "lane-01.ndjson"]);
    let mut copied: Vec<Value> = files.values().flat_map(|content| parse_lines(content)).collect();
    copied.sort_by_key(|message| message["number"].as_u64());
    assert_eq!(copied, shown);

    // It neither overwrites an existing directory nor writes into the log.
    assert_eq!(salvage(&to).status.code(), Some(2));
    assert_eq!(salvage(&data_dir.join("wal/lane-00/copied")).status.code(), Some(2));
    assert!(content_of(&to) == files && content_of(&data_dir.join("wal")) == before);
}

/// Paths and contents of the files below a directory.
fn content_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in dir.read_dir().unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(
                content_of(&entry.path()).into_iter().map(|(below, content)| (format!("{name}/{below}"), content)),
            );
        } else {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn a_lane_s_first_message_is_missed_too() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &ONE_CORE);
    let mut client = daemon.connect();
    for n in 0..3 {
        let body = json!({"items": [{"queue": "q", "payload": {"n": n, "fill": "x".repeat(200)}}], "qos0": true});
        assert_eq!(client.push(&body).unwrap().status, 201);
    }
    assert!(daemon.terminate().success());
    assert_eq!(damage(dir.path(), 0).1, 1);
    let report = &parse_lines(&wal(dir.path(), "verify", &["--json"]).stdout)[0]["lanes"][0];
    assert_eq!((&report["records"], &report["missingRecords"]), (&json!(2), &json!(1)), "{report}");
}

#[test]
fn a_log_whose_name_is_lost_is_salvaged_whole() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &ARGS);
    let pushed = fill(&daemon);
    assert!(daemon.terminate().success());
    std::fs::write(dir.path().join("wal/log-id"), "forebay-log 1 of some name\n").unwrap();
    for command in ["ls", "stats", "dump", "verify"] {
        let output = wal(dir.path(), command, &[]);
        assert_eq!(output.status.code(), Some(3), "{command}");
        assert!(text(&output.stderr).contains("log-id is missing or damaged"), "{}", text(&output.stderr));
    }
    let elsewhere = common::data_dir();
    let output = wal(dir.path(), "salvage", &["--to", elsewhere.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let copied: Vec<Value> = content_of(elsewhere.path()).values().flat_map(|content| parse_lines(content)).collect();
    assert_eq!(names(&copied), pushed);
}

#[test]
fn a_write_that_never_finished_shows_none_of_a_batch_that_is_not_whole() {
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &ONE_CORE);
    let mut client = daemon.connect();
    let push = |n: u64, client: &mut common::Client| {
        let item = |part: u64| json!({"queue": "q", "payload": {"n": n, "part": part, "fill": "y".repeat(5_000)}});
        let body = json!({"items": [item(0), item(1), item(2)], "qos0": true});
        assert_eq!(client.push(&body).unwrap().status, 201);
    };
    (0..4).for_each(|n| push(n, &mut client));
    daemon.kill9();
    assert_eq!(lines(&wal(dir.path(), "dump", &[])).len(), 12);
    // As if the machine had stopped before the last of the push's three records was on the disk.
    let path = dir.path().join("wal/lane-00/0000000001.seg");
    let content = std::fs::read(&path).unwrap();
    let end = content.iter().rposition(|byte| *byte == b'y').unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 2_000], end as u64 - 2_000).unwrap();
    let shown = lines(&wal(dir.path(), "dump", &[]));
    assert_eq!(shown.iter().map(|message| message["payload"]["n"].as_u64().unwrap()).max(), Some(2));
    assert_eq!(shown.len(), 9, "a batch is shown whole or not at all");
    let segments = lines(&wal(dir.path(), "ls", &["--json"]));
    assert_eq!((&segments[0]["state"], &segments[0]["records"]), (&json!("data"), &json!(9)));
}

#[test]
fn beside_a_daemon_that_writes_and_drains_no_command_fails_or_finds_damage() {
    let dir = data_dir();
    let cluster = TestCluster::start_without_fsync().unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &ARGS);
    let load =
        Load::start(&Spec { queue: "q", label: "p", producers: 6, partitions: 3, fill_bytes: 60_000 }, daemon.address);
    // Over all lanes: the kernel chooses the lane of a producer's connection.
    let oldest = || -> u64 {
        let mut by_lane = BTreeMap::new();
        for segment in lines(&wal(dir.path(), "ls", &["--json"])) {
            by_lane.entry(segment["lane"].as_u64()).or_insert(segment["segment"].as_u64().unwrap());
        }
        by_lane.values().sum()
    };
    let first = oldest();
    let mut rounds = 0;
    // Segments are created and released meanwhile.
    wait_until("segments are released", || {
        for (command, args) in [("verify", &["--json"][..]), ("stats", &["--json"]), ("dump", &[])] {
            let output = wal(dir.path(), command, args);
            let (mut told, shown) = (text(&output.stderr), text(&output.stdout));
            if command != "dump" {
                told.push_str(&shown);
            }
            assert_eq!(output.status.code(), Some(0), "{command}: {told}");
            if command == "dump" {
                assert!(output.stderr.is_empty(), "{told}");
                assert_in_order_of_numbers(&parse_lines(&output.stdout));
            }
        }
        rounds += 1;
        rounds >= 10 && oldest() >= first + 3
    });
    load.stop();
}

#[test]
fn where_there_is_no_log_every_command_ends_with_2_and_says_so() {
    let dir = data_dir();
    for command in ["ls", "stats", "dump", "verify", "salvage"] {
        let to = dir.path().join("to");
        let args: &[&str] = if command == "salvage" { &["--to", to.to_str().unwrap()] } else { &[] };
        let output = wal(&dir.path().join("nothing"), command, args);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(text(&output.stderr).contains("there is no log at"), "{command}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !to.exists());
    }
}
