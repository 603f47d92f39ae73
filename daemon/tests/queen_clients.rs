//! Queen's published Python clients, unchanged: 0.15.0, the last whose broker had messages as rows, and 2.6.0. `make deps-test`
//! installs them.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::stage::Stage;
use std::{path::Path, process::Command};

fn drive(version: &str) {
    let stage = Stage::start(&[]);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let python = target.join(format!("queen-{version}/bin/python"));
    assert!(python.is_file(), "{} is not there; `make deps-test` installs it", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/queen_client.py");
    let output = Command::new(python).arg(script).arg(format!("http://{}", stage.daemon.address)).output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("done"), "{out}\n{errors}\n{}", stage.daemon.log());
    // What it gave up is kept with the reason.
    assert_eq!(stage.rows("SELECT error, payload FROM forebay.consumer_letters"), [["boom", "{\"n\": 3}"]]);
}

#[test]
fn the_client_0_15_pushes_pops_renews_acknowledges_retries_and_consumes_in_groups() {
    drive("0.15.0");
}

#[test]
fn the_client_2_6_pushes_pops_renews_acknowledges_retries_and_consumes_in_groups() {
    drive("2.6.0");
}
