//! `docs/openapi.yaml` says what the daemon does: its paths are those of [`ROUTES`], its codes those of [`ErrorCode`], and
//! schemathesis holds the rest against a running daemon. `make test` installs that below the build's directory.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{stage::Stage, wait_until};
use forebay::{
    api::{BodyKind, ROUTES},
    http::ErrorCode,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn description() -> String {
    fs::read_to_string(root().join("docs/openapi.yaml")).unwrap()
}

/// The lines below the one that is `key`, up to the next that is no further in.
fn below<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = text.lines().skip_while(|line| *line != key);
    let own = indent(lines.next().unwrap_or_else(|| panic!("no {key}")));
    lines.take_while(|line| indent(line) > own).collect()
}

/// Operations of the description: path, method, and whether they take a body.
fn operations() -> BTreeMap<(String, String), bool> {
    let (text, mut operations) = (description(), BTreeMap::new());
    let (mut path, mut method) = (String::new(), String::new());
    for line in below(&text, "paths:") {
        let Some(key) = line.strip_suffix(':') else { continue };
        match key.len() - key.trim_start().len() {
            2 => path = key.trim().to_owned(),
            4 => {
                method = key.trim().to_ascii_uppercase();
                operations.insert((path.clone(), method.clone()), false);
            }
            6 if key.trim() == "requestBody" => drop(operations.insert((path.clone(), method.clone()), true)),
            _ => {}
        }
    }
    assert!(operations.len() > 5);
    operations
}

#[test]
fn every_route_of_the_code_is_described_with_its_body_and_every_description_is_a_route() {
    let routes = ROUTES.iter().map(|route| {
        // A greedy name is one parameter too.
        let path = route.pattern.text().replace("...}", "}");
        ((path, route.method.name().to_owned()), route.body != BodyKind::None)
    });
    assert_eq!(operations(), routes.collect(), "left: docs/openapi.yaml; right: ROUTES");
}

#[test]
fn every_path_allows_the_methods_that_are_described() {
    let stage = Stage::shared();
    let mut described: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, method) in operations().into_keys() {
        described.entry(path).or_default().insert(method);
    }
    for (path, described) in described {
        let path = path.replace(['{', '}'], "");
        let response = stage.daemon.connect().request("OPTIONS", &path, &[], None).unwrap();
        let allow = response.header("Allow").unwrap_or_else(|| panic!("{path}: {}", response.status));
        let allowed = allow.split(", ").filter(|method| !matches!(*method, "HEAD" | "OPTIONS"));
        assert_eq!(allowed.map(str::to_owned).collect::<BTreeSet<_>>(), described, "{path}");
    }
}

#[test]
fn every_code_of_a_refusal_is_described_and_no_other() {
    let text = description();
    let described: BTreeSet<&str> =
        below(&text, "    Code:").into_iter().filter_map(|line| line.trim().strip_prefix("- ")).collect();
    let codes: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.text()).collect();
    assert_eq!(described, codes, "left: docs/openapi.yaml; right: ErrorCode");
}

/// Where `make deps-test` puts it.
fn schemathesis() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let program = target.join("python/bin/schemathesis");
    assert!(program.is_file(), "{} is not there; `make deps-test` installs it", program.display());
    program
}

#[test]
fn schemathesis_finds_no_answer_that_is_not_as_described() {
    let stage = Stage::start(&["--sync", "none"]);
    // Some dead letters, with the first ids, to be shown, put back and dropped.
    stage.cluster.psql("ALTER TABLE forebay.messages ADD CHECK (payload <> '\"refused\"')").unwrap();
    let items = vec![json!({"queue": "refused", "payload": "refused"}); 20];
    assert_eq!(stage.daemon.connect().push(&json!({"items": items})).unwrap().status, 201);
    wait_until("the letters are counted", || stage.daemon.figure("failed") == 20);
    // A pop that waits for half a minute would be taken for one that hangs: it is tested elsewhere.
    let described = description();
    let wait =
        described.split("        - name: timeout\n").next().unwrap().rsplit_once("        - name: wait\n").unwrap().1;
    let wait = format!("        - name: wait\n{wait}");
    assert_eq!(described.matches(&wait).count(), 2);
    let bounded = described.replace(&wait, "");
    let page = stage.dir.path().join("openapi.yaml");
    fs::write(&page, bounded).unwrap();
    let url = format!("http://{}", stage.daemon.address);
    // One worker: Python 3.11's parser of itself, which hypothesis uses, is not safe with several threads.
    let output = Command::new(schemathesis())
        .current_dir(stage.dir.path())
        .arg("run")
        .arg(page)
        .args(["--url", &url, "--seed", "1", "--max-examples", "40", "--workers", "1", "--no-color"])
        .args(["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--request-timeout", "60"])
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{report}");
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains(&format!("Tested: {}", ROUTES.len())), "{report}");
    assert!(!stage.daemon.log().contains("panic"), "{}", stage.daemon.log());
    assert_eq!(stage.daemon.connect().get("/health").unwrap().status, 200);
}
