//! The table of rules in `docs/http-api.md` names only existing tests, and every test of this directory is in it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn daemon() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text of all `.rs` files below a directory.
fn sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The names of the tests in a source.
fn tests(text: &str) -> BTreeSet<&str> {
    let attribute = concat!("#[", "test]");
    text.split(attribute).skip(1).filter_map(|rest| Some(rest.split_once("fn ")?.1.split_once('(')?.0)).collect()
}

#[test]
fn every_rule_of_the_rfcs_names_tests_that_exist_and_every_test_here_has_its_rule() {
    let page = fs::read_to_string(daemon().join("../docs/http-api.md")).unwrap();
    let section = page.split("\n## RFC 9110 and 9112\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| 9"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.len() > 60, "{} rules", rows.len());
    let mut text = String::new();
    sources(&daemon().join("src"), &mut text);
    sources(&daemon().join("tests"), &mut text);
    let all = tests(&text);
    let mut named = BTreeSet::new();
    for row in &rows {
        let [section, _, _, shown_by] = row[..] else {
            panic!("a row has a section, a rule, what is done, its test: {row:?}")
        };
        assert!(section.starts_with("9110 ") || section.starts_with("9112 "), "{row:?}");
        let tests: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty() || shown_by.starts_with("none: "), "shown by nothing: {row:?}");
        for test in tests {
            assert!(all.contains(test), "there is no test {test}: {row:?}");
            named.insert(test);
        }
    }
    let mut own = String::new();
    sources(&daemon().join("tests/http_conformance"), &mut own);
    let unnamed: Vec<&str> =
        tests(&own).into_iter().filter(|test| !named.contains(test) && !test.starts_with("every_rule_")).collect();
    assert!(unnamed.is_empty(), "tests without a rule: {unnamed:?}");
}
