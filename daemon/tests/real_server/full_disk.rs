//! PostgreSQL's disk is full.

use crate::{
    common::{Daemon, data_dir, rows, wait_until},
    namespace::enter_disk,
    numbers, push,
    replica::pgdata,
};
use forebay_cluster::TestCluster;
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
};

const NAME: &str = "full_disk::case_56_53100_from_a_full_disk_sets_nothing_aside_and_once_there_is_room_all_goes_on";

const DISK_BYTES: u64 = 32 << 20;
/// Padding for each number. It is small enough that PostgreSQL does not move it to a TOAST table.
const FILL_BYTES: usize = 1500;

/// Writes a file until the disk is full.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for piece_bytes in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; piece_bytes]).is_ok() {}
    }
}

#[test]
fn case_56_53100_from_a_full_disk_sets_nothing_aside_and_once_there_is_room_all_goes_on() {
    let Some(disk) = enter_disk(NAME, DISK_BYTES) else { return };
    let cluster = TestCluster::start_without_fsync().unwrap();
    let space = disk.join("space");
    fs::create_dir(&space).unwrap();
    let account = format!("--reference={}", pgdata(&cluster).display());
    assert!(Command::new("chown").arg(account).arg(&space).status().unwrap().success());
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "1", "--commit-wait-ms", "200"]);
    daemon.wait_until_drained();
    cluster.psql(&format!("CREATE TABLESPACE small LOCATION '{}'", space.display())).unwrap();
    cluster.psql("ALTER TABLE forebay.messages SET TABLESPACE small").unwrap();
    let mut client = daemon.connect();
    assert_eq!(push(&mut client, "q", 0, FILL_BYTES), "queued");
    let filler = disk.join("filler");
    fill(&filler);
    let mut pushed = 1;
    while daemon.buffers()["dbHealthy"] == true {
        push(&mut client, "q", pushed, FILL_BYTES);
        pushed += 1;
        assert!(pushed < 10_000, "the disk is full");
    }
    wait_until("it is told", || daemon.log().contains("code=\"postgres_away\""));
    assert!(daemon.log().contains("53100"), "{}", daemon.log());
    for _ in 0..50 {
        assert_eq!(push(&mut client, "q", pushed, FILL_BYTES), "buffered");
        pushed += 1;
    }
    assert_eq!(client.get("/ready").unwrap().status, 200);
    assert_eq!(daemon.figure("failed"), 0);
    fs::remove_file(filler).unwrap();
    daemon.wait_until_drained();
    assert_eq!(push(&mut client, "q", pushed, FILL_BYTES), "queued");
    assert!(numbers(&cluster, "q").into_iter().eq(0..=pushed), "each once and in order");
    assert_eq!(rows(&cluster, "SELECT count(*) FROM forebay.dead_letters"), [["0"]]);
    assert_eq!(daemon.figure("failed"), 0);
}
