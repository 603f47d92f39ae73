//! Copies whose list of incarnations is missing, or older than their segments: a person says what becomes of the records in doubt.

use super::{STOP_TIMEOUT, check_once, check_refused, command, copy, dirs, push, start};
use crate::common::data_dir;
use forebay_cluster::{StopMode, TestCluster};
use std::{fs, path::Path};

const LISTS: [&str; 2] = ["incarnations", "incarnations.spare"];

/// What becomes of the list of a copy.
#[derive(Clone, Copy)]
enum List {
    Missing,
    /// Copied before the original began again, and the segments after it.
    Stale,
}

fn remove_lists(dir: &Path) {
    for name in LISTS {
        fs::remove_file(dir.join("wal").join(name)).unwrap();
    }
}

/// Forks without a word, which is refused, and then with one. `doubtful` records are in doubt.
fn fork_with_a_word(dir: &Path, cluster: &TestCluster, choice: &str, doubtful: usize) {
    let undecided = command(&["wal", "fork"], dir, cluster);
    let error = String::from_utf8_lossy(&undecided.stderr);
    assert_eq!(undecided.status.code(), Some(2), "{error}");
    assert!(error.contains("--common leave") && error.contains(&format!("{doubtful} records are in doubt")), "{error}");
    let decided = command(&["wal", "fork", "--common", choice], dir, cluster);
    assert_eq!(decided.status.code(), Some(0), "{decided:?}");
}

#[test]
fn a_copy_without_its_list_or_with_an_older_one_asks_before_it_is_forked() {
    for (list, choice, doubtful) in
        [(List::Missing, "leave", 5), (List::Stale, "leave", 2), (List::Stale, "deliver", 2)]
    {
        let cluster = TestCluster::start_without_fsync().unwrap();
        let parent = data_dir();
        let (a, b) = dirs(&parent);
        let daemon = start(&a, &cluster);
        let mut answered = push(&daemon, "first", 3, 1);
        daemon.wait_until_drained();
        assert!(daemon.terminate().success());
        let early = parent.path().join("early");
        copy(&a, &early);
        let daemon = start(&a, &cluster);
        let doubled = push(&daemon, "second", 2, 1);
        answered.extend(doubled.clone());
        daemon.wait_until_drained();
        assert!(daemon.terminate().success());
        copy(&a, &b);
        remove_lists(&b);
        if matches!(list, List::Stale) {
            for name in LISTS {
                fs::copy(early.join("wal").join(name), b.join("wal").join(name)).unwrap();
            }
        }
        let daemon = start(&b, &cluster);
        check_refused(&daemon, &a);
        answered.extend(push(&daemon, "b", 3, 1));
        fork_with_a_word(&b, &cluster, choice, doubtful);
        daemon.wait_until_drained();
        if choice == "deliver" {
            answered.extend(doubled);
        }
        check_once(&cluster, answered);
    }
}

#[test]
fn the_original_asks_too_when_a_copy_with_an_older_list_was_faster() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let parent = data_dir();
    let (a, b) = dirs(&parent);
    let daemon = start(&a, &cluster);
    let mut answered = push(&daemon, "first", 3, 1);
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
    let early = parent.path().join("early");
    copy(&a, &early);
    cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
    let daemon = start(&a, &cluster);
    answered.extend(push(&daemon, "second", 2, 1));
    assert!(daemon.terminate().success());
    copy(&a, &b);
    for name in LISTS {
        fs::copy(early.join("wal").join(name), b.join("wal").join(name)).unwrap();
    }
    cluster.start().unwrap();
    let copied = start(&b, &cluster);
    copied.wait_until_drained();
    let daemon = start(&a, &cluster);
    check_refused(&daemon, &b);
    answered.extend(push(&daemon, "a", 3, 1));
    fork_with_a_word(&a, &cluster, "leave", 2);
    daemon.wait_until_drained();
    check_once(&cluster, answered);
}
