//! Runs `forebay-bench` against a small HTTP server in the test.
#![allow(clippy::unwrap_used, reason = "an error in a helper fails the test")]

mod server;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use server::{Reply, Request, Server};

const CREATED: Reply = Reply::Respond(201, r#"{"pushed":true}"#);

fn bench(url: &str, options: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay-bench"))
        .args(["push", "--json", "--url", url])
        .args(options.split_whitespace())
        .output()
        .unwrap()
}

fn push(server: &Server, options: &str) -> Output {
    bench(&format!("http://{}", server.address), options)
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn items(request: &Request) -> Vec<Value> {
    serde_json::from_str::<Value>(&request.body).unwrap()["items"].as_array().unwrap().clone()
}

/// The transaction ids that the server received, each with how often.
fn sent_ids(server: &Server) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for item in server.requests().iter().flat_map(items) {
        *ids.entry(item["transactionId"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    ids
}

/// The lines of an audit file: transaction id, partition, time sent, time answered.
fn audit(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[test]
fn every_request_is_sent_once_and_every_response_counted() {
    let server = Server::start(|_| CREATED);
    let output = push(&server, "--requests 100 --connections 8 --threads 2 --messages-per-request 3 --transaction-ids");
    assert!(output.status.success(), "{output:?}");
    let report = report(&output);
    assert_eq!(report["requests"], 100);
    assert_eq!(report["messages"], 300);
    assert_eq!(report["statuses"]["201"], 100);
    assert_eq!(report["failure"], Value::Null);
    assert!(report["latency_us"]["max"].as_f64().unwrap() >= report["latency_us"]["p50"].as_f64().unwrap());
    let body_bytes: usize = server.requests().iter().map(|request| request.body.len()).sum();
    assert_eq!(report["body_bytes"], body_bytes);
    assert!(sent_ids(&server).into_values().all(|times| times == 1));
    assert_eq!(sent_ids(&server).len(), 300);
    assert_eq!(server.connections(), 8);
}

#[test]
fn the_default_output_is_a_table() {
    let server = Server::start(|_| CREATED);
    let output = Command::new(env!("CARGO_BIN_EXE_forebay-bench"))
        .args(["push", "--requests", "5", "--url", &format!("http://{}/", server.address)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    for word in ["requests", "messages", "MB/s", "p99.9", "201: 5"] {
        assert!(table.contains(word), "{word} is missing in\n{table}");
    }
}

#[test]
fn pipelined_requests_are_all_answered_also_if_the_depth_does_not_divide_their_number() {
    let server = Server::start(|_| CREATED);
    let output = push(&server, "--requests 25 --connections 2 --pipeline 4 --partitions 3 --buffered");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report(&output)["requests"], 25);
    assert_eq!(server.requests().len(), 25);
    let partitions: HashSet<String> =
        server.requests().iter().flat_map(items).map(|item| item["partition"].to_string()).collect();
    assert_eq!(partitions.len(), 3);
}

#[test]
fn ndjson_is_sent_to_the_path_of_the_queue() {
    let server = Server::start(|_| CREATED);
    let output = push(&server, "--requests 4 --connections 1 --ndjson --messages-per-request 5 --queue quakes");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report(&output)["messages"], 20);
    for request in server.requests() {
        assert!(request.head.starts_with("POST /push/quakes?wait=postgres HTTP/1.1\r\n"));
        assert_eq!(request.body.lines().count(), 5);
    }
}

#[test]
fn one_response_other_than_2xx_ends_the_run_and_its_body_is_reported() {
    let server =
        Server::start(|number| if number < 10 { CREATED } else { Reply::Respond(503, r#"{"code":"overloaded"}"#) });
    let output = push(&server, "--duration 60 --connections 4");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains(r#"503: {"code":"overloaded"}"#), "{output:?}");
    let report = report(&output);
    // The other three connections may have been closed while they waited for their responses.
    assert!((7..=10).contains(&report["requests"].as_u64().unwrap()), "{report}");
    assert!(report["statuses"]["503"].as_u64().unwrap() >= 1);
    assert!(report["failure"].as_str().unwrap().contains("503"));
}

#[test]
fn bytes_that_are_not_a_response_end_the_run() {
    // The client skips the interim response, and takes its body for the next response.
    let server = Server::start(|_| Reply::Respond(100, "not an answer at all\r\n\r\n"));
    let output = push(&server, "--duration 60 --connections 1");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("status line"), "{output:?}");
}

#[test]
fn a_server_that_does_not_run_ends_the_run() {
    // No other test's server listens on this address, so its ports are free.
    let address = "127.0.0.9:9";
    let output = bench(&format!("http://{address}"), "--duration 60");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("cannot connect"), "{output:?}");
    // With --reconnect the run waits for the server, but fails if the server never comes.
    let output = bench(&format!("http://{address}"), "--duration 0.2 --reconnect");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("not one request"), "{output:?}");
}

#[test]
fn a_response_that_never_comes_counts_as_lost() {
    let server = Server::start(|number| if number == 0 { CREATED } else { Reply::Silence });
    let output = push(&server, "--duration 60 --connections 1 --answer-timeout 0.1");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("1 responses outstanding"), "{output:?}");
    assert_eq!(report(&output)["unanswered_requests"], 1);
}

#[test]
fn a_lost_connection_ends_the_run_without_reconnect() {
    let server = Server::start(|number| if number == 5 { Reply::HangUp } else { CREATED });
    let output = push(&server, "--requests 20 --connections 1");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(report(&output)["requests"], 5);
    let output = push(&server, "--requests 20 --duration 60 --connections 1 --reconnect");
    assert!(output.status.success(), "no further connection is lost: {output:?}");
}

#[test]
fn a_connection_that_the_server_closes_after_a_response_is_replaced() {
    let server = Server::start(|number| if number % 4 == 3 { Reply::RespondAndClose(201, "{}") } else { CREATED });
    let output = push(&server, "--requests 40 --duration 60 --connections 1 --reconnect");
    assert!(output.status.success(), "{output:?}");
    let report = report(&output);
    assert_eq!(report["requests"], 40);
    assert_eq!(server.requests().len(), 40);
    // After the last response there may be no request left to connect for.
    assert!((9..=10).contains(&report["reconnects"].as_u64().unwrap()), "{report}");
}

#[test]
fn a_retried_request_has_its_original_transaction_ids() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("answered");
    let server = Server::start(|number| if number % 7 == 3 { Reply::HangUp } else { CREATED });
    let options = format!(
        "--requests 60 --duration 60 --connections 3 --pipeline 2 --messages-per-request 2 --partitions 5 \
         --reconnect --on-error retry --run-id crash --audit {}",
        path.display()
    );
    let output = push(&server, &options);
    assert!(output.status.success(), "{output:?}");
    let report = report(&output);
    assert_eq!((report["requests"].as_u64(), report["abandoned_requests"].as_u64()), (Some(60), Some(0)));
    assert!(report["retried_requests"].as_u64().unwrap() >= 1);

    let lines = audit(&path);
    assert_eq!(lines.len(), 120);
    let answered: HashSet<&str> = lines.iter().map(|line| line[0].as_str()).collect();
    assert_eq!(answered.len(), 120, "each message is in the file once");
    let sent = sent_ids(&server);
    assert_eq!(sent.keys().map(String::as_str).collect::<HashSet<_>>(), answered, "no other transaction ids were sent");
    assert!(sent.values().any(|&times| times > 1), "some requests were sent again");
    for line in &lines {
        let stamps: Vec<u64> = line[2..].iter().map(|stamp| stamp.parse().unwrap()).collect();
        assert!(line[0].starts_with("crash-") && line[1].starts_with("p00000"), "{line:?}");
        assert!(stamps[0] <= stamps[1], "a message was answered before it was sent: {line:?}");
    }
}

#[test]
fn an_abandoned_request_is_recorded_as_lost_and_not_as_answered() {
    let directory = tempfile::tempdir().unwrap();
    let (answered, lost) = (directory.path().join("answered"), directory.path().join("lost"));
    let server = Server::start(|number| if number % 5 == 4 { Reply::HangUp } else { CREATED });
    let options = format!(
        "--requests 50 --duration 60 --connections 2 --reconnect --on-error abandon --audit {} --audit-lost {}",
        answered.display(),
        lost.display()
    );
    let output = push(&server, &options);
    assert!(output.status.success(), "{output:?}");
    let (answered, lost) = (audit(&answered), audit(&lost));
    assert_eq!((answered.len(), lost.len()), (40, 10));
    assert!(lost.iter().all(|line| line[3] == "-"));
    let names: HashSet<&String> = answered.iter().chain(&lost).map(|line| &line[0]).collect();
    assert_eq!(names.len(), 50);
    assert_eq!(sent_ids(&server).into_values().max(), Some(1), "no request is sent again");
}

#[test]
fn a_restarted_server_is_found_again() {
    // No other test uses this address, so no other server can take the port in between.
    let first = Server::start_at("127.0.0.7:0".parse().unwrap(), |_| CREATED);
    let address = first.address;
    let run = std::thread::spawn(move || {
        bench(
            &format!("http://{address}"),
            "--duration 60 --requests 200000 --connections 4 --reconnect --on-error retry",
        )
    });
    while first.requests().len() < 100 {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(first);
    std::thread::sleep(Duration::from_millis(50));
    // Only the second server responds with 507. A run that ends with this reason has therefore reconnected.
    let second = Server::start_at(address, |_| Reply::Respond(507, "full"));
    let output = run.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("507: full"), "{output:?}");
    let report = report(&output);
    assert!(report["requests"].as_u64().unwrap() >= 96, "{report}");
    assert!(report["failed_connects"].as_u64().unwrap() >= 1, "{report}");
    assert!(!second.requests().is_empty());
}

#[test]
fn a_wrong_command_line_has_another_exit_code_than_a_failed_run() {
    let output = bench("http://127.0.0.1:1", "--on-error retry");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = bench("http://127.0.0.1:1", "--no-such-option");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn an_open_loop_keeps_its_rate_and_measures_latency_from_when_requests_were_due() {
    let stalled = std::sync::atomic::AtomicBool::new(false);
    let server = Server::start(move |_| {
        if !stalled.swap(true, std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(600));
        }
        CREATED
    });
    let output = push(&server, "--duration 1 --rate 100 --connections 1 --threads 1");
    assert!(output.status.success(), "{output:?}");
    let report = report(&output);
    // Sixty of the hundred requests were due while the server stalled. A closed loop would have sent one.
    assert!(report["requests"].as_u64().unwrap() <= 100, "{report}");
    assert!(report["latency_us"]["p50"].as_f64().unwrap() > 20_000.0, "{report}");
}

#[test]
fn a_run_ends_in_time_although_a_request_is_due_much_later() {
    let server = Server::start(|_| CREATED);
    let started = Instant::now();
    let output = push(&server, "--duration 1 --rate 1 --connections 100 --threads 1");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report(&output)["requests"], 1);
    // The last connection's turn would be in 99 s.
    assert!(started.elapsed() < Duration::from_secs(50), "{:?}", started.elapsed());
}

#[test]
fn held_connections_are_closed_when_standard_input_ends() {
    let server = Server::start(|_| Reply::Respond(200, "{}\n"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_forebay-bench"))
        .args(["hold", "--connections", "20", "--url", &format!("http://{}", server.address)])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    assert_eq!((line.trim(), server.requests().len()), ("20 connections are held", 20));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
