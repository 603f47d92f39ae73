//! Common HTTP clients: curl, Python's requests, Node's fetch, wrk, ab, oha. Each pushes and reads its replies, and
//! PostgreSQL has what it pushed. `make test` installs all but oha, which takes minutes to build.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::stage::Stage;
use serde_json::{Value, json};
use std::{fs, path::PathBuf, process::Command};

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a client until it exits; it must succeed.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program} cannot be run ({error}); `make deps-test` installs it"));
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {}\n{out}\n{errors}", output.status);
    out.into_owned()
}

fn base(stage: &Stage) -> String {
    format!("http://{}", stage.daemon.address)
}

/// JSON documents in a canonical order, so that a client's output and PostgreSQL's rows can be compared.
fn sorted(documents: impl Iterator<Item = Value>) -> Vec<String> {
    let mut texts: Vec<String> = documents.map(|document| document.to_string()).collect();
    texts.sort_unstable();
    texts
}

/// Runs a client that prints what it pushed, and checks that PostgreSQL has exactly that.
fn check(queue: &str, large: &Value, client: impl FnOnce(&str) -> String) {
    let stage = Stage::shared();
    let printed = client(&base(&stage));
    let pushed = printed.lines().map(|line| match line {
        "large" => large.clone(),
        line => serde_json::from_str(line).unwrap_or_else(|_| panic!("{queue} printed {line:?}")),
    });
    let pushed = sorted(pushed);
    assert!(!pushed.is_empty());
    assert_eq!(sorted(stage.payloads(queue, pushed.len()).into_iter()), pushed);
}

#[test]
fn curl_pushes_in_the_ways_that_people_do() {
    let dir = tempfile::tempdir().unwrap();
    let large = json!("x".repeat(5_000_000));
    check("curl", &large, |base| {
        let script = script("curl.sh");
        run("bash", &[script.to_str().unwrap(), base, "curl", dir.path().to_str().unwrap()])
    });
}

#[test]
fn python_requests_pushes_whole_bodies_and_streams() {
    check("requests", &Value::Null, |base| {
        // The `requests` package belongs to the distribution's interpreter.
        let script = script("push_requests.py");
        run("/usr/bin/python3", &["-X", "utf8", script.to_str().unwrap(), base, "requests"])
    });
}

#[test]
fn node_fetch_pushes_whole_bodies_streams_and_many_at_once() {
    check("fetch", &Value::Null, |base| run("node", &[script("push_fetch.mjs").to_str().unwrap(), base, "fetch"]));
}

/// Checks that PostgreSQL has the pushes of a load generator. It has all that the generator counted, and at most one
/// more for each connection whose last reply the generator did not read.
fn check_load(stage: &Stage, queue: &str, counted: u64, connections: u64) {
    stage.daemon.wait_until_drained();
    let rows = stage.rows(&format!("SELECT count(*) FROM forebay.message_log WHERE queue = '{queue}'"));
    let kept: u64 = rows[0][0].parse().unwrap();
    println!("{queue}: {counted} pushes answered, {kept} messages");
    assert!(
        counted > 0 && (counted..=counted + connections).contains(&kept),
        "{queue} counted {counted}, kept are {kept}"
    );
}

/// The number that follows `label` in a report.
fn figure(report: &str, label: &str) -> Option<u64> {
    let rest = report.split_once(label)?.1.trim_start();
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[test]
fn wrk_pushes_for_a_second_and_every_answer_is_2xx() {
    let stage = Stage::shared();
    let (script, url) = (script("wrk.lua"), format!("{}/push/wrk", base(&stage)));
    let report = run("wrk", &["-t", "1", "-c", "16", "-d", "1s", "-s", script.to_str().unwrap(), &url]);
    assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
    let counted = report.lines().find(|line| line.contains(" requests in ")).and_then(|line| figure(line, ""));
    check_load(&stage, "wrk", counted.unwrap_or_else(|| panic!("{report}")), 16);
}

#[test]
fn ab_pushes_over_connections_of_http_1_0_that_are_kept() {
    let stage = Stage::shared();
    let dir = tempfile::tempdir().unwrap();
    let body = dir.path().join("body.json");
    fs::write(&body, r#"{"by":"ab"}"#).unwrap();
    let url = format!("{}/push/ab", base(&stage));
    let args =
        ["-k", "-l", "-q", "-n", "2000", "-c", "8", "-T", "application/json", "-p", body.to_str().unwrap(), &url];
    let report = run("ab", &args);
    assert_eq!(figure(&report, "Complete requests:"), Some(2000), "{report}");
    assert_eq!(figure(&report, "Failed requests:"), Some(0), "{report}");
    assert_eq!(figure(&report, "Keep-Alive requests:"), Some(2000), "{report}");
    assert!(!report.contains("Non-2xx"), "{report}");
    check_load(&stage, "ab", 2000, 0);
}

/// Where oha may be installed: the distribution has no package of it.
fn oha() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("oha")).find(|program| program.is_file())
}

#[test]
fn oha_pushes_where_it_is_installed() {
    let Some(oha) = oha() else {
        // Written directly to standard error: the test harness hides the output of passing tests.
        let warning =
            b"\n*** oha is not installed, so its test pushed nothing: `make oha` builds it, in minutes ***\n\n";
        std::io::Write::write_all(&mut std::io::stderr(), warning).unwrap();
        return;
    };
    let stage = Stage::shared();
    let url = format!("{}/push/oha", base(&stage));
    let args =
        ["--no-tui", "--output-format", "json", "-n", "2000", "-c", "8", "-m", "POST", "-d", r#"{"by":"oha"}"#, &url];
    let report: Value = serde_json::from_str(&run(oha.to_str().unwrap(), &args)).unwrap();
    assert_eq!(report["statusCodeDistribution"], json!({"201": 2000}), "{report}");
    check_load(&stage, "oha", 2000, 0);
}
