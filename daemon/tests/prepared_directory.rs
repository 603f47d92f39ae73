//! A data directory that somebody has prepared: links, fifos, foreign owners and open modes are refused before anything is
//! made, and no link is followed later on.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{Daemon, NOWHERE, data_dir, forebay_by, wait_until};
use forebay_cluster::TestCluster;
use forebay_wal::layout::Layout;
use serde_json::json;
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

/// A user that is not root.
const NOBODY: u32 = 65_534;

/// A data directory of our own, and a place outside of it with a file.
struct Places {
    _all: tempfile::TempDir,
    data: PathBuf,
    outside: PathBuf,
}

impl Places {
    fn new() -> Self {
        let all = data_dir();
        let [data, outside] = ["data", "outside"].map(|name| all.path().join(name));
        for dir in [&data, &outside] {
            fs::create_dir(dir).unwrap();
            fs::set_permissions(dir, Permissions::from_mode(0o700)).unwrap();
        }
        fs::write(outside.join("file"), "kept").unwrap();
        Self { _all: all, data, outside }
    }

    /// Names, contents, modes and times of the place outside.
    fn listing(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.outside).unwrap().map(|entry| entry.unwrap().path());
        let mut lines: Vec<String> = entries.chain([self.outside.clone()]).map(|path| describe(&path)).collect();
        lines.sort();
        lines
    }

    /// Starts a daemon, which must refuse the directory with exit code 2 and one line. Returns the line.
    fn refusal(&self, what: &str) -> String {
        let before = self.listing();
        let data = self.data.to_str().unwrap();
        let args = ["serve", "--listen", "127.0.0.1:0", "--postgres", NOWHERE, "--log", "error", "--data-dir", data];
        let output = forebay_by(&["timeout", "20"], &args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{what}: {text}");
        assert_eq!(text.lines().count(), 1, "{what}: {text}");
        assert_eq!(self.listing(), before, "{what}: nothing is made or changed outside");
        text
    }
}

fn describe(path: &Path) -> String {
    let found = path.symlink_metadata().unwrap();
    let content = if found.is_file() { fs::read_to_string(path).unwrap() } else { String::new() };
    let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
    format!("{} {:o} {times:?} {content:?}", path.display(), found.mode())
}

/// Every name that a daemon uses below its data directory.
fn names(data: &Path) -> Vec<PathBuf> {
    let layout = Layout::new(data.join("wal"));
    let in_log = [layout.lane(0), layout.segment(0, 1), layout.free(), layout.set_aside()];
    let of_free = layout.free().join(layout.segment(0, 1).file_name().unwrap());
    let others = [
        "lock",
        "control.sock",
        "wal",
        "wal/log-id",
        "wal/log-id.tmp",
        "wal/drained",
        "wal/drained.tmp",
        "wal/incarnations",
        "wal/incarnations.spare",
        "wal/sync-method",
        "wal/sync-method.tmp",
        "wal/probe-direct.tmp",
        "wal/probe-fdatasync.tmp",
        "wal/dead-letters",
        "wal/dead-letters/00000000000000000001-lane0-0-drainer0.pending",
        "postgres",
        "postgres/pgdata",
        "postgres/pgdata.init-1-0",
        "postgres/run",
        "postgres/server.log",
        "postgres/server.log.1",
        "postgres/start.lock",
        "postgres/forebay.conf",
        "postgres/forebay.new",
        "postgres/pg_hba.conf",
        "postgres/pg_hba.new",
    ];
    in_log.into_iter().chain([of_free]).chain(others.map(|name| data.join(name))).collect()
}

#[test]
fn a_link_under_any_name_that_the_daemon_uses_is_refused_and_nothing_is_made_outside() {
    let count = names(Path::new("/")).len();
    for index in 0..count {
        for target in ["file", "missing", "."] {
            let places = Places::new();
            let link = names(&places.data).remove(index);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(places.outside.join(target), &link).unwrap();
            let what = format!("{} -> {target}", link.display());
            let line = places.refusal(&what);
            assert!(line.contains("symbolic link") && line.contains(link.to_str().unwrap()), "{what}: {line}");
        }
    }
}

#[test]
fn a_directory_full_of_links_is_refused() {
    let places = Places::new();
    // The deepest names first: a link takes the place of a directory only if nothing is in it.
    let mut names = names(&places.data);
    names.sort_by_key(|name| std::cmp::Reverse(name.components().count()));
    for name in names {
        let is_there = name.symlink_metadata().is_ok();
        if !is_there {
            fs::create_dir_all(name.parent().unwrap()).unwrap();
            symlink(places.outside.join("file"), &name).unwrap();
        }
    }
    places.refusal("all at once");
}

#[test]
fn a_hard_link_in_place_of_a_file_of_the_log_is_refused_and_so_is_a_file_in_place_of_a_directory() {
    for name in ["wal/incarnations", "wal/lane-00/00000000000000000001.seg", "wal/drained", "lock"] {
        let places = Places::new();
        let path = places.data.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::hard_link(places.outside.join("file"), &path).unwrap();
        assert!(places.refusal(name).contains("hard link"), "{name}");
    }
    for name in ["wal", "wal/lane-00", "wal/set-aside", "wal/dead-letters"] {
        let places = Places::new();
        fs::create_dir_all(places.data.join(name).parent().unwrap()).unwrap();
        fs::write(places.data.join(name), "").unwrap();
        assert!(places.refusal(name).contains("not a directory"), "{name}");
        assert!(!places.data.join("lock").exists(), "nothing is made");
    }
    for name in ["wal/log-id", "wal/incarnations", "wal/drained"] {
        let places = Places::new();
        fs::create_dir_all(places.data.join(name)).unwrap();
        assert!(places.refusal(name).contains("not a regular file"), "{name}");
        assert!(!places.data.join("lock").exists(), "nothing is made");
    }
}

#[test]
fn a_fifo_or_a_device_in_place_of_a_file_is_refused_and_nobody_waits_for_it() {
    for name in ["lock", "wal/log-id", "wal/drained", "postgres/start.lock", "postgres/server.log"] {
        let places = Places::new();
        let path = places.data.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(places.refusal(name).contains("not a regular file"), "{name}");
    }
}

#[test]
fn a_directory_that_others_may_write_to_is_refused_with_the_chmod() {
    for mode in [0o777, 0o775, 0o1777] {
        let places = Places::new();
        fs::set_permissions(&places.data, Permissions::from_mode(mode)).unwrap();
        let line = places.refusal("open");
        assert!(line.contains(&format!("chmod go-w {}", places.data.display())), "{line}");
        assert_eq!(fs::read_dir(&places.data).unwrap().count(), 0);
    }
}

#[test]
fn what_belongs_to_somebody_else_is_refused_with_the_chown() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: no file can be given to another user, and the test does nothing");
        return;
    }
    for name in ["", "lock", "wal", "wal/log-id", "wal/lane-00", "postgres", "postgres/server.log"] {
        let places = Places::new();
        let path = places.data.join(name);
        match name {
            "" => {}
            "wal" | "wal/lane-00" | "postgres" => fs::create_dir_all(&path).unwrap(),
            _ => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "").unwrap();
            }
        }
        chown(path.as_path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let line = places.refusal(name);
        assert!(line.contains(&format!("belongs to user {NOBODY}")) && line.contains("chown -R 0"), "{name}: {line}");
    }
    // Another user's link, also one that leads to a directory of root's.
    let places = Places::new();
    let link = places.data.with_file_name("link");
    symlink(&places.outside, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
    Places { data: link, ..places }.refusal("a link to root's directory");
}

#[test]
fn the_log_s_directory_is_private_and_one_that_an_earlier_release_made_becomes_so() {
    let places = Places::new();
    let wal = places.data.join("wal");
    fs::create_dir(&wal).unwrap();
    fs::set_permissions(&wal, Permissions::from_mode(0o775)).unwrap();
    let daemon = Daemon::start(&places.data, NOWHERE, &["--cores", "1"]);
    assert_eq!(daemon.connect().post("/push/q", b"1").unwrap().status, 201);
    for dir in [wal.clone(), wal.join("lane-00"), wal.join("free")] {
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700, "{}", dir.display());
    }
    assert!(daemon.terminate().success());
}

#[test]
fn a_link_that_comes_while_the_daemon_runs_is_replaced_and_not_followed() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let places = Places::new();
    let daemon = Daemon::start(&places.data, &cluster.url(), &["--cores", "1"]);
    daemon.wait_until_drained();
    let before = places.listing();
    let [file, temporary] = ["wal/drained", "wal/drained.tmp"].map(|name| places.data.join(name));
    symlink(places.outside.join("file"), &temporary).unwrap();
    let item = json!({"queue": "q", "payload": 1});
    assert_eq!(daemon.connect().push(&json!({"items": [item]})).unwrap().status, 201);
    wait_until("how far the log is drained is written down", || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains("\"ordinal\":1"))
            && temporary.symlink_metadata().is_err()
    });
    assert_eq!(places.listing(), before);
    assert!(daemon.terminate().success());
}
