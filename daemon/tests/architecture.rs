//! `docs/architecture.md` says which room of `daemon/src` may use which. The `use` lines and paths of the code are read, and
//! must match that table: no arrow that is not listed, none that is listed and gone, no cycle.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rooms;

use rooms::{Arrow, Code, cycles};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Files of one room that may use each other in a circle.
const FILES_IN_A_CYCLE_MAX: usize = 3;

/// Rooms and files through which a payload passes on its way from the socket to COPY, at most. The aim is 7 and 14.
const WAY_ROOMS_MAX: usize = 9;
const WAY_FILES_MAX: usize = 24;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn page() -> String {
    fs::read_to_string(root().join("docs/architecture.md")).unwrap()
}

/// The rows of the table below a heading, each as its cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = page();
    let section = page.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The words of a cell that stand between backquotes.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The allowed arrows: for each room the rooms that it may use.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let room = |row: Vec<String>| (quoted(&row[0]).pop_first().unwrap(), quoted(&row[2]));
    table("## Rooms").into_iter().map(room).collect()
}

/// What is wrong with the arrows of `code`, a sentence each.
fn faults(code: &Code, allowed: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut faults = Vec::new();
    for Arrow { from, to, line } in code.arrows_between_rooms() {
        if !allowed.get(&code.room(&from)).is_some_and(|rooms| rooms.contains(&code.room(&to))) {
            faults.push(format!("{from}:{line} uses {to}: the arrow is not listed"));
        }
    }
    let rooms = code.rooms();
    for cycle in cycles(&rooms) {
        faults.push(format!("rooms use each other in a circle: {}", cycle.join(", ")));
    }
    for (room, files) in code.files_by_room() {
        for cycle in cycles(&files).into_iter().filter(|cycle| cycle.len() > FILES_IN_A_CYCLE_MAX) {
            faults.push(format!("files of {room} use each other in a circle: {}", cycle.join(", ")));
        }
    }
    faults
}

#[test]
fn every_arrow_between_rooms_is_listed_and_there_is_no_cycle() {
    let faults = faults(&Code::read(&root().join("daemon/src")), &allowed());
    assert!(faults.is_empty(), "docs/architecture.md, Rooms:\n{}", faults.join("\n"));
}

#[test]
fn every_listed_room_and_arrow_exists() {
    let code = Code::read(&root().join("daemon/src"));
    let (rooms, allowed) = (code.rooms(), allowed());
    assert_eq!(
        allowed.keys().collect::<Vec<_>>(),
        rooms.keys().collect::<Vec<_>>(),
        "left: docs/architecture.md; right: daemon/src"
    );
    for (room, listed) in &allowed {
        let unused: Vec<_> = listed.difference(&rooms[room]).collect();
        assert!(unused.is_empty(), "{room} uses none of {unused:?}: take them from the list");
    }
}

#[test]
fn a_planted_arrow_and_a_planted_cycle_are_found() {
    let allowed = allowed();
    let mut code = Code::read(&root().join("daemon/src"));
    code.plant("state/mark.rs", "use crate::drain::source::log_source;");
    let upward = "state/mark.rs:1 uses drain/source/log_source.rs: the arrow is not listed".to_owned();
    assert!(faults(&code, &allowed).contains(&upward), "{:?}", faults(&code, &allowed));

    let mut code = Code::read(&root().join("daemon/src"));
    code.plant("limits.rs", "fn planted() -> crate::ids::IdMaker { todo!() }");
    let found = faults(&code, &allowed);
    assert!(found.iter().any(|fault| fault.starts_with("limits.rs:1 uses ids.rs")), "{found:?}");

    let mut code = Code::read(&root().join("daemon/src"));
    let ring = ["postgres/connect.rs", "postgres/database.rs", "postgres/predecessor.rs", "postgres/remedy.rs"];
    for (from, to) in ring.iter().zip(ring.iter().cycle().skip(1)) {
        let module = Path::new(to).file_stem().unwrap().to_str().unwrap().to_owned();
        code.plant(from, &format!("use super::{module}::planted;"));
    }
    let found = faults(&code, &allowed);
    assert!(found.iter().any(|fault| fault.starts_with("files of postgres use each other in a circle")), "{found:?}");
}

#[test]
fn the_way_of_a_message_is_short() {
    let way = table("## The way of a message");
    let files: BTreeSet<String> = way.iter().flat_map(|row| quoted(&row[0])).collect();
    for file in &files {
        assert!(root().join(file).is_file(), "{file} is not there");
    }
    let room = |file: &String| match file.strip_prefix("daemon/src/") {
        Some(inside) => inside.split('/').next().unwrap().trim_end_matches(".rs").to_owned(),
        None => file.split('/').next().unwrap().to_owned(),
    };
    let rooms: BTreeSet<String> = files.iter().map(room).collect();
    assert!(files.len() <= WAY_FILES_MAX, "{} files: {files:?}", files.len());
    assert!(rooms.len() <= WAY_ROOMS_MAX, "{} rooms: {rooms:?}", rooms.len());
}

#[test]
fn every_path_that_the_page_names_exists() {
    let page = page();
    let tops = ["daemon/", "wal/", "pgwire/", "cluster/", "os/", "bench/", "fuzz/", "docs/"];
    let paths: BTreeSet<String> =
        quoted(&page).into_iter().filter(|path| tops.iter().any(|top| path.starts_with(top))).collect();
    assert!(paths.len() > 50, "{paths:?}");
    let missing: Vec<_> = paths.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "not there: {missing:?}");
}
