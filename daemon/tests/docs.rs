//! The pages in `docs/` say what the code says: endpoints, codes of log lines and refusals, settings, and the tests that
//! invariants name.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use clap::Args;
use forebay::{
    access::AccessRequest,
    api::{BodyKind, ROUTES},
    http::{ErrorCode, Retry},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Where log lines come from.
const SOURCES: [&str; 5] = ["daemon/src", "cluster/src", "os/src", "wal/src", "pgwire/src"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// The text of all `.rs` files below `dirs`, without what only tests are built from and without comments.
fn sources(dirs: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    dirs.iter().for_each(|dir| collect(&root().join(dir), &mut files));
    assert!(!files.is_empty());
    files.iter().map(|path| code_of(path)).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            collect(&path, files);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            files.push(path);
        }
    }
}

fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// What follows each `marker` in `code`, white space left out.
fn after<'a>(code: &'a str, marker: &'a str) -> impl Iterator<Item = &'a str> {
    code.split(marker).skip(1).map(str::trim_start)
}

/// The code that `text` starts with, as a string literal.
fn literal(text: &str) -> Option<&str> {
    let (code, _) = text.strip_prefix('"')?.split_once('"')?;
    is_code(code).then_some(code)
}

fn is_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_error_that_is_logged_has_a_code_with_an_entry_in_the_runbook_and_the_other_way_round() {
    let mut logged = BTreeSet::new();
    for code in sources(&SOURCES) {
        for line in after(&code, "tracing::error!(").chain(after(&code, "tracing::warn!(")) {
            logged.extend(line.strip_prefix("code = ").and_then(literal).map(str::to_owned));
        }
        for line in after(&code, "tracing::error!(") {
            assert!(line.starts_with("code = \"") || line.starts_with("code,"), "an error without a code: {line:.80}");
        }
        // The lines that get their code from elsewhere.
        for marker in ["HoldUp::new(", "Mismatch::new("] {
            logged.extend(after(&code, marker).filter_map(literal).map(str::to_owned));
        }
    }
    let page = page("runbook.md");
    let entries = page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
    let entries: BTreeSet<String> = entries.map(str::to_owned).collect();
    assert_eq!(logged, entries, "left: logged; right: entries of docs/runbook.md");
}

#[test]
fn every_code_of_a_refusal_stands_in_the_api_s_page_with_its_statuses_and_the_other_way_round() {
    let page = page("http-api.md");
    let table = page.split("\n## Error codes\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut rows: BTreeMap<&str, (BTreeSet<u16>, bool)> = BTreeMap::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| `")) {
        let mut cells = row.split('|');
        let code = cells.next().unwrap().trim().trim_end_matches('`');
        let statuses = cells.next().unwrap().split(',').map(|status| status.trim().parse().unwrap());
        let names_retry_after = row.contains("`Retry-After`");
        assert!(rows.insert(code, (statuses.collect(), names_retry_after)).is_none(), "{code} comes twice");
    }
    let codes = ErrorCode::ALL.iter().map(|code| {
        let statuses = code.statuses().iter().copied().collect();
        (code.text(), (statuses, code.retry() != Retry::Never))
    });
    assert_eq!(codes.collect::<BTreeMap<_, _>>(), rows, "left: ErrorCode; right: docs/http-api.md");
}

#[test]
fn every_endpoint_stands_in_the_api_s_page_with_its_scope_and_body_and_the_other_way_round() {
    let page = page("http-api.md");
    let table = page.split("| method | path | needs | body | does |\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut rows = BTreeSet::new();
    for row in table.lines().skip(1) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, method, path, needs, body, ..] = cells[..] else { panic!("{row}") };
        let path = quoted(path).next().unwrap();
        assert!(
            rows.insert((method.to_owned(), path.to_owned(), needs.to_owned(), body.to_owned())),
            "{row} comes twice"
        );
    }
    let routes = ROUTES.iter().map(|route| {
        let needs = match route.access {
            AccessRequest::Nothing => "nothing".to_owned(),
            AccessRequest::Token => "any token".to_owned(),
            AccessRequest::Scope(scope) => format!("`{}`", scope.name()),
            AccessRequest::Either(one, other) => format!("`{}` or `{}`", one.name(), other.name()),
        };
        let body = match route.body {
            BodyKind::None => "none",
            BodyKind::OptionalJson => "optional JSON",
            BodyKind::Json => "JSON",
            BodyKind::PayloadOrLines => "payload or NDJSON",
        };
        // A name that may contain slashes is written as any other.
        (route.method.name().to_owned(), route.pattern.text().replace("...}", "}"), needs, body.to_owned())
    });
    assert_eq!(routes.collect::<BTreeSet<_>>(), rows, "left: ROUTES; right: docs/http-api.md");
}

#[test]
fn every_setting_stands_in_the_operator_s_page_with_its_variable() {
    let page = page("operations.md");
    let command = forebay::config::args::ServeArgs::augment_args(clap::Command::new("serve"));
    for arg in command.get_arguments() {
        let (flag, variable) = (arg.get_long().unwrap(), arg.get_env().unwrap().to_str().unwrap());
        assert!(page.contains(&format!("| `--{flag}` | `{variable}` |")), "docs/operations.md lacks --{flag}");
    }
    for row in page.lines().filter_map(|line| line.strip_prefix("| `--")) {
        let flag = row.split('`').next().unwrap();
        assert!(command.get_arguments().any(|arg| arg.get_long() == Some(flag)), "there is no --{flag}");
    }
}

#[test]
fn what_a_sqlstate_leads_to_stands_in_the_page_as_in_the_code() {
    use forebay::postgres::remedy::TABLE;
    let page = page("postgresql.md");
    let section = page.split("\n## What an error leads to\n").nth(1).unwrap();
    let mut rows: BTreeMap<&str, &str> = BTreeMap::new();
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        // The one row that an SQLSTATE alone does not decide.
        if cells[1] != "probe" {
            let codes = cells[0].split(", ").map(|code| code.trim_matches('`'));
            codes.for_each(|code| assert_eq!(rows.insert(code, cells[1]), None, "{code} comes twice"));
        }
    }
    let table: BTreeMap<&str, &str> = TABLE.iter().map(|(code, remedy)| (*code, remedy.word())).collect();
    assert_eq!(table, rows, "left: daemon/src/postgres/remedy.rs; right: docs/postgresql.md");
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let page = page("invariants.md");
    let invariants: Vec<&str> = page.split("**Invariant:**").skip(1).collect();
    assert!(!invariants.is_empty());
    for invariant in invariants {
        let invariant = invariant.split("\n\n").next().unwrap().split("\n- ").next().unwrap();
        let held_by = invariant.split("Held by").nth(1).unwrap_or_else(|| panic!("held by nothing: {invariant}"));
        check_tests(held_by, invariant);
    }
}

/// Checks that `text` names tests, and the files that they are in.
fn check_tests(text: &str, of: &str) {
    let (files, tests): (Vec<&str>, Vec<&str>) = quoted(text).partition(|name| name.ends_with(".rs"));
    assert!(!files.is_empty() && !tests.is_empty(), "held by nothing: {of}");
    let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(root().join(file)).unwrap()).collect();
    for test in tests {
        let declared = format!("fn {test}(");
        assert!(texts.iter().any(|text| text.contains(&declared)), "{files:?} has no test {test}");
    }
}

#[test]
fn every_trap_of_the_peer_s_names_tests_that_exist_or_why_it_cannot() {
    let page = page("invariants.md");
    let table = page.split("\n## Traps\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let mut numbers = Vec::new();
    for row in rows.filter(|row| row.starts_with(|first: char| first.is_ascii_digit())) {
        let [number, _, shown_by] = <[&str; 3]>::try_from(row.split(" | ").collect::<Vec<_>>()).unwrap();
        numbers.push(number.parse::<u32>().unwrap());
        if !shown_by.starts_with("cannot exist: ") {
            check_tests(shown_by, row);
        }
    }
    assert!(numbers.into_iter().eq(1..=26), "the traps of the log, the drain and the outage");
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md"), root().join("examples/README.md")];
    for dir in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for target in after(&text, "](").map(|rest| rest.split(')').next().unwrap()) {
            let (file, _) = target.split_once('#').unwrap_or((target, ""));
            let is_here = target.contains("://") || file.is_empty() || page.parent().unwrap().join(file).exists();
            assert!(is_here, "{} has a link to {target}, which is not there", page.display());
        }
    }
}
