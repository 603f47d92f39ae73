//! `--sync`: the result of `auto` is stored and used, a method that the file system refuses is never replaced by a
//! weaker one, and the status reports the method in use.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, NOWHERE, data_dir, stage::payload_texts};
use forebay_cluster::TestCluster;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const AUTO: [&str; 4] = ["--cores", "2", "--sync", "auto"];
const MEASURED: &str = "sync method measured; the times are medians";
const KEPT: &str = "sync method as measured at an earlier start";
const NOT_NAMED: &str = "names no durable sync method";
const FALLS_BACK: &str = "refuses O_DIRECT";

/// Names a directory on a file system that refuses `O_DIRECT`. It is set when the test runs a second time inside a
/// namespace.
const RAMFS_VARIABLE: &str = "SYNC_METHODS_RAMFS";

fn kept_file(data_dir: &Path) -> PathBuf {
    data_dir.join("wal/sync-method")
}

fn sync_of(daemon: &Daemon) -> String {
    daemon.buffers()["sync"].as_str().unwrap().to_owned()
}

/// How often the daemons of a directory have logged `text`.
fn logged(daemon: &Daemon, text: &str) -> usize {
    daemon.log().matches(text).count()
}

fn push(daemon: &Daemon, numbers: std::ops::Range<u32>) {
    let mut client = daemon.connect();
    for n in numbers {
        assert_eq!(client.post("/push/auto", n.to_string().as_bytes()).unwrap().status, 201);
    }
}

#[test]
fn auto_measures_once_keeps_a_durable_method_and_pushes_survive_kill_9() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &AUTO);
    let first = sync_of(&daemon);
    assert!(["direct", "fdatasync"].contains(&first.as_str()), "{first}");
    assert_eq!(fs::read_to_string(kept_file(dir.path())).unwrap(), format!("{first}\n"));
    assert_eq!((logged(&daemon, MEASURED), logged(&daemon, KEPT)), (1, 0));
    push(&daemon, 0..50);
    daemon.kill9();

    // The stored method is used, whatever was measured.
    let other = if first == "direct" { "fdatasync" } else { "direct" };
    for (restart, method) in [first.as_str(), other].into_iter().enumerate() {
        fs::write(kept_file(dir.path()), format!("{method}\n")).unwrap();
        let daemon = Daemon::start(dir.path(), NOWHERE, &AUTO);
        assert_eq!(sync_of(&daemon), method);
        assert_eq!((logged(&daemon, MEASURED), logged(&daemon, KEPT)), (1, restart + 1));
        let restart = restart as u32;
        push(&daemon, 50 + 10 * restart..60 + 10 * restart);
        daemon.kill9();
        assert_eq!(fs::read_to_string(kept_file(dir.path())).unwrap(), format!("{method}\n"));
    }

    let daemon = Daemon::start(dir.path(), &cluster.url(), &AUTO);
    let expected: Vec<String> = (0..70).map(|n| n.to_string()).collect();
    assert_eq!(payload_texts(&daemon, &cluster, "auto", 70), expected);
    let mut names: Vec<_> = fs::read_dir(dir.path().join("wal")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.retain(|name| name.to_string_lossy().ends_with(".tmp"));
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn a_file_that_names_no_durable_method_is_measured_again_with_a_warning() {
    let dir = data_dir();
    Daemon::start(dir.path(), NOWHERE, &AUTO).kill9();
    for (round, garbage) in ["none\n", "", "direct", "\0\0\0\0\0\0\0"].into_iter().enumerate() {
        fs::write(kept_file(dir.path()), garbage).unwrap();
        let daemon = Daemon::start(dir.path(), NOWHERE, &AUTO);
        assert_eq!((logged(&daemon, NOT_NAMED), logged(&daemon, MEASURED)), (round + 1, round + 2));
        let method = sync_of(&daemon);
        assert!(["direct", "fdatasync"].contains(&method.as_str()), "{method}");
        assert_eq!(fs::read_to_string(kept_file(dir.path())).unwrap(), format!("{method}\n"));
        daemon.kill9();
    }
}

#[test]
fn the_other_settings_neither_measure_nor_read_what_auto_kept() {
    let dir = data_dir();
    for (args, method) in [(&[][..], "direct"), (&["--sync", "fdatasync"], "fdatasync"), (&["--sync", "none"], "none")]
    {
        let daemon = Daemon::start(dir.path(), NOWHERE, args);
        assert_eq!(sync_of(&daemon), method);
        assert!(!kept_file(dir.path()).exists());
        assert_eq!((logged(&daemon, MEASURED), logged(&daemon, FALLS_BACK)), (0, 0));
    }
    fs::write(kept_file(dir.path()), "fdatasync\n").unwrap();
    assert_eq!(sync_of(&Daemon::start(dir.path(), NOWHERE, &[])), "direct");
}

/// ramfs refuses `O_DIRECT` on every kernel, and any user may mount it in a namespace. Some containers forbid such
/// namespaces, and then this test has nothing to run on. `wal/src/probe.rs` tests the meaning of the error codes
/// everywhere.
#[test]
fn where_o_direct_is_refused_fdatasync_is_used_and_pushes_survive_kill_9() {
    let Some(ramfs) = std::env::var_os(RAMFS_VARIABLE) else {
        return run_on_ramfs("where_o_direct_is_refused_fdatasync_is_used_and_pushes_survive_kill_9");
    };
    // The log is created elsewhere: ramfs cannot reserve space, which new segments need.
    let quota = ["--cores", "1", "--wal-max-bytes", "64MiB"];
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), NOWHERE, &quota);
    push(&daemon, 0..20);
    assert!(daemon.terminate().success());
    let moved = Path::new(&ramfs).join("data");
    assert!(Command::new("cp").arg("-a").arg(dir.path()).arg(&moved).status().unwrap().success());

    let daemon = Daemon::start(&moved, NOWHERE, &quota);
    assert_eq!((sync_of(&daemon).as_str(), logged(&daemon, FALLS_BACK)), ("fdatasync", 1));
    let answer = daemon.connect().post("/push/auto", b"20").unwrap();
    // Synced, but ramfs keeps its files in memory: a restart of the machine loses them.
    assert_eq!((answer.status, answer.header("Forebay-Durability")), (201, Some("memory")));
    push(&daemon, 21..40);
    daemon.kill9();

    let auto = [&quota[..], &["--sync", "auto"]].concat();
    let daemon = Daemon::start(&moved, NOWHERE, &auto);
    assert_eq!(
        (sync_of(&daemon).as_str(), logged(&daemon, FALLS_BACK), daemon.figure("pending")),
        ("fdatasync", 2, 40)
    );
    assert_eq!(fs::read_to_string(kept_file(&moved)).unwrap(), "fdatasync\n");
    assert!(daemon.terminate().success());
    // As if stored by a start on a disk that supports it.
    fs::write(kept_file(&moved), "direct\n").unwrap();
    let daemon = Daemon::start(&moved, NOWHERE, &auto);
    assert_eq!((sync_of(&daemon).as_str(), logged(&daemon, FALLS_BACK)), ("fdatasync", 3));
}

/// Runs a test of this file again in namespaces with a mounted ramfs.
fn run_on_ramfs(test: &str) {
    let dir = data_dir();
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        let this = std::env::current_exe().unwrap();
        command.args(["-Urm", "sh", "-c", script]).arg(this).arg(dir.path()).arg(test);
        command.env(RAMFS_VARIABLE, dir.path()).output()
    };
    let mount = "mount -t ramfs none \"$1\"";
    match unshare(mount) {
        Ok(output) if output.status.success() => {}
        refused => return eprintln!("not tested, for this machine lets nobody mount a ramfs: {refused:?}"),
    }
    let output = unshare(&format!("{mount} && exec \"$0\" --exact \"$2\" --nocapture")).unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
