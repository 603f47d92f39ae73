//! A server restored from a base backup and archived WAL to an earlier point in time: it continues on another timeline.

use crate::{
    common::{Daemon, data_dir, forebay, rows, wait_until},
    numbers, push,
    replica::{back_up, pgdata},
};
use forebay_cluster::{StopMode, TestCluster};
use serde_json::{Value, json};
use std::{fs, io::Write, path::Path, time::Duration};

const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Padding for each number: about thirty of them fill a segment.
const FILL_BYTES: usize = 30_000;
const SMALL: [&str; 4] = ["--cores", "1", "--wal-segment-bytes", "1MiB"];
const RETAIN: [&str; 2] = ["--retain-drained", "1h"];

fn push_all(daemon: &Daemon, queue: &str, numbers: std::ops::Range<u64>) {
    let mut client = daemon.connect();
    numbers.for_each(|n| drop(push(&mut client, queue, n, FILL_BYTES)));
    daemon.wait_until_drained();
}

/// Replaces the server's files with `backup` and lets it recover up to the named restore point.
fn restore(cluster: &TestCluster, backup: &Path, point: &str) {
    cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
    let lost = cluster.dir().join("lost");
    fs::rename(pgdata(cluster), &lost).unwrap();
    fs::rename(backup, pgdata(cluster)).unwrap();
    let mut settings = fs::File::options().append(true).open(pgdata(cluster).join("postgresql.auto.conf")).unwrap();
    let archive = lost.join("pg_wal");
    writeln!(
        settings,
        "restore_command = 'cp {}/%f %p'\nrecovery_target_name = '{point}'\nrecovery_target_action = 'promote'",
        archive.display()
    )
    .unwrap();
    fs::write(pgdata(cluster).join("recovery.signal"), "").unwrap();
    cluster.start().unwrap();
}

fn checkpoint(command: &[&str], data_dir: &Path, cluster: &TestCluster) -> (Option<i32>, Vec<u8>) {
    let at = ["--data-dir", data_dir.to_str().unwrap(), "--postgres", &cluster.url()];
    let output = forebay(&[&["checkpoint"], command, &at].concat());
    (output.status.code(), output.stdout)
}

fn show(data_dir: &Path, cluster: &TestCluster) -> (Option<i32>, Value) {
    let (code, stdout) = checkpoint(&["show", "--json"], data_dir, cluster);
    (code, serde_json::from_slice(&stdout).unwrap())
}

#[test]
fn case_61_restored_to_a_point_in_time_on_another_timeline_what_is_retained_comes_again_and_else_a_person_decides() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let (kept_dir, plain_dir) = (data_dir(), data_dir());
    let kept = Daemon::start(kept_dir.path(), &cluster.url(), &[&SMALL[..], &RETAIN].concat());
    let plain = Daemon::start(plain_dir.path(), &cluster.url(), &SMALL);
    let push_both = |numbers: std::ops::Range<u64>| {
        push_all(&kept, "kept", numbers.clone());
        push_all(&plain, "plain", numbers);
    };
    push_both(0..10);
    let backup = cluster.dir().join("backup");
    back_up(&cluster, &backup);
    push_both(10..40);
    cluster.psql("SELECT pg_create_restore_point('yesterday')").unwrap();
    push_both(40..200);
    // Both daemons keep running.
    restore(&cluster, &backup, "yesterday");
    plain.wait_until_paused("checkpoint_mismatch", &["went back in time"]);
    let timeline = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)::int";
    assert_eq!(rows(&cluster, timeline), [["2"]]);
    let (code, shown) = show(plain_dir.path(), &cluster);
    assert_eq!((code, &shown["fits"], &shown["rememberedServer"]["timeline"]), (Some(1), &json!(false), &json!(1)));
    assert_eq!(checkpoint(&["set", "--to", "log-end", "--yes"], plain_dir.path(), &cluster).0, Some(0));
    push_all(&plain, "plain", 200..210);
    assert!(numbers(&cluster, "plain").into_iter().eq((0..40).chain(200..210)), "to the point, and from then on");
    // The other daemon has retained everything that was lost.
    push_all(&kept, "kept", 200..210);
    wait_until("all are there", || numbers(&cluster, "kept").len() >= 210);
    assert!(numbers(&cluster, "kept").into_iter().eq(0..210), "each once and in order");
    assert!(kept.log().contains("what it lost is delivered again"), "{}", kept.log());
    for (daemon, dir) in [(kept, &kept_dir), (plain, &plain_dir)] {
        assert!(daemon.terminate().success());
        let (code, shown) = show(dir.path(), &cluster);
        assert_eq!((code, &shown["rememberedServer"]["timeline"]), (Some(0), &json!(2)));
    }
}
