//! Crashes of the server, of `initdb` and of their owner, and the recovery from them.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::support::{DEADLINE, Place, pid_in_file, psql, signal, stop, wait_for, we_are_root};
use rustix::process::Signal;

use forebay_cluster::{ClusterError, StopMode, Watch};

#[test]
fn a_postmaster_killed_is_started_again_by_the_watch_with_its_data() {
    let place = Place::new();
    let cluster = Arc::new(place.open());
    let watch = Watch::start(cluster.clone()).unwrap();
    psql(&cluster, "CREATE TABLE kept (n int)");
    for n in 1..=3 {
        psql(&cluster, &format!("INSERT INTO kept VALUES ({n})"));
        let killed = cluster.postmaster_pid().unwrap();
        cluster.kill9().unwrap();
        wait_for("the watch to start the server", || cluster.is_accepting());
        assert_ne!(cluster.postmaster_pid(), Some(killed));
        assert_eq!(psql(&cluster, "SELECT count(*) FROM kept"), n.to_string());
    }
    watch.stop(DEADLINE).unwrap();
    assert!(!cluster.is_alive());
}

#[test]
fn a_postmaster_killed_with_busy_children_is_started_again() {
    let place = Place::new();
    let cluster = Arc::new(place.open());
    // Sessions in the middle of a statement notice the postmaster's death late, and stay attached to its shared memory.
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let sql = "SELECT count(*) FROM generate_series(1, 3000000)";
            let mut command = Command::new(cluster.binaries().path("psql"));
            command.args(["-X", "-d", &cluster.url(), "-c", sql]).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    wait_for("the sessions to be busy", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%series%'";
        psql(&cluster, sql).parse::<u32>().unwrap() > 2
    });
    cluster.kill9().unwrap();
    cluster.start().unwrap();
    assert_eq!(psql(&cluster, "SELECT 1"), "1");
    for mut session in busy {
        session.wait().unwrap();
    }
    stop(&cluster);
}

#[test]
fn an_immediate_stop_is_recovered_from() {
    let place = Place::new();
    let cluster = place.open();
    psql(&cluster, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n");
    cluster.stop(StopMode::Immediate, DEADLINE).unwrap();
    cluster.start().unwrap();
    assert_eq!(psql(&cluster, "SELECT count(*) FROM kept"), "1000");
    stop(&cluster);
}

#[test]
fn a_server_restarted_by_hand_is_kept() {
    let place = Place::new();
    let cluster = Arc::new(place.open());
    let watch = Watch::start(cluster.clone()).unwrap();
    let before = cluster.postmaster_pid().unwrap();
    let mut pg_ctl = Command::new(cluster.binaries().path("pg_ctl"));
    pg_ctl.args(["restart", "-w", "-m", "fast", "-s", "-D"]).arg(place.cluster_dir().join("pgdata"));
    pg_ctl.arg("-l").arg("/dev/null").stdout(Stdio::null()).stderr(Stdio::null());
    // Either pg_ctl or the watch starts the server first. pg_ctl may therefore fail, but the server must run.
    spawn_as_owner(&place, &mut pg_ctl).wait().unwrap();
    wait_for("a server to run again", || cluster.is_accepting() && cluster.postmaster_pid() != Some(before));
    let after = cluster.postmaster_pid();
    // Longer than several checks of the watch.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(cluster.postmaster_pid(), after);
    assert_eq!(psql(&cluster, "SHOW listen_addresses"), "");
    watch.stop(DEADLINE).unwrap();
    assert_eq!(pid_in_file(&place.cluster_dir()), None);
}

#[test]
fn a_server_told_to_stop_is_left_alone_by_the_watch() {
    let place = Place::new();
    let cluster = Arc::new(place.open());
    let watch = Watch::start(cluster.clone()).unwrap();
    stop(&cluster);
    thread::sleep(Duration::from_secs(1));
    assert!(!cluster.is_alive());
    cluster.start().unwrap();
    assert!(cluster.is_alive());
    watch.stop(DEADLINE).unwrap();
}

#[test]
fn a_watch_that_is_stopped_cancels_a_start_that_cannot_succeed() {
    let place = Place::new();
    let cluster = Arc::new(place.open());
    let watch = Watch::start(cluster.clone()).unwrap();
    let pg_control = place.cluster_dir().join("pgdata/global/pg_control");
    let aside = pg_control.with_extension("aside");
    fs::rename(&pg_control, &aside).unwrap();
    cluster.kill9().unwrap();
    // The watch tries to start the server now, and fails. Each attempt adds lines to the log.
    let log = || fs::read_to_string(cluster.log_file()).unwrap().matches("pg_control").count();
    wait_for("failed starts", || log() > 2);
    watch.stop(DEADLINE).unwrap();
    let attempts = log();
    thread::sleep(Duration::from_secs(1));
    assert_eq!(log(), attempts, "the watch still tries to start the server");
    fs::rename(&aside, &pg_control).unwrap();
    cluster.start().unwrap();
    stop(&cluster);
}

#[test]
fn an_interrupted_initdb_is_repeated() {
    let place = Place::new();
    let mut owner = Command::new(env!("CARGO_BIN_EXE_forebay-private-postgres"))
        .arg(place.cluster_dir())
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let unfinished = || {
        let entries = fs::read_dir(place.cluster_dir()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("pgdata.init-"))
    };
    wait_for("initdb to have begun", || unfinished().is_some_and(|dir| dir.join("PG_VERSION").exists()));
    let left_behind = unfinished().unwrap();
    // It must start no further process that works on the directory, so it is stopped before its children are counted.
    signal(owner.id().cast_signed(), Signal::STOP);
    for _ in 0..3 {
        for pid in descendants(owner.id()) {
            signal(pid.cast_signed(), Signal::KILL);
        }
    }
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(left_behind.exists() && !place.cluster_dir().join("pgdata").exists(), "interrupted too late");

    let cluster = place.open();
    assert_eq!(psql(&cluster, "SELECT 1"), "1");
    assert!(unfinished().is_none());
    stop(&cluster);
}

#[test]
fn an_initdb_that_outlives_its_owner_does_not_disturb_the_next_one() {
    let place = Place::new();
    let mut owner = Command::new(env!("CARGO_BIN_EXE_forebay-private-postgres"))
        .arg(place.cluster_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("initdb to have begun", || {
        let entries = fs::read_dir(place.cluster_dir()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| path.join("PG_VERSION").exists())
    });
    owner.kill().unwrap();
    owner.wait().unwrap();
    let cluster = place.open();
    assert_eq!(psql(&cluster, "SELECT 1"), "1");
    stop(&cluster);
}

/// The process `pid` and all its descendants, parents first.
fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, parent))
        })
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    found
}

#[test]
fn a_server_starts_although_another_program_has_the_id_in_its_pid_file() {
    let place = Place::new();
    let cluster = place.open();
    stop(&cluster);
    let mut other = spawn_as_owner(&place, Command::new("sleep").arg("60"));
    write_pid_file(&place, other.id());
    assert!(!cluster.is_alive());
    cluster.start().unwrap();
    assert_eq!(psql(&cluster, "SELECT 1"), "1");
    stop(&cluster);
    assert!(other.try_wait().unwrap().is_none(), "another program was stopped");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_server_starts_although_its_dead_predecessor_is_not_reaped() {
    let place = Place::new();
    let cluster = place.open();
    stop(&cluster);
    let mut dead = spawn_as_owner(&place, &mut Command::new("true"));
    let status = format!("/proc/{}/stat", dead.id());
    wait_for("it to be dead", || fs::read_to_string(&status).unwrap().contains(") Z "));
    write_pid_file(&place, dead.id());
    assert!(!cluster.is_alive());
    cluster.start().unwrap();
    assert_eq!(psql(&cluster, "SELECT 1"), "1");
    stop(&cluster);
    dead.wait().unwrap();
}

/// Starts a program as the account that owns the cluster. PostgreSQL ignores processes of other accounts.
fn spawn_as_owner(place: &Place, command: &mut Command) -> Child {
    let owner = fs::metadata(place.cluster_dir().join("pgdata")).unwrap();
    if we_are_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command.current_dir("/").spawn().unwrap()
}

fn write_pid_file(place: &Place, pid: u32) {
    let pgdata = place.cluster_dir().join("pgdata");
    let owner = fs::metadata(&pgdata).unwrap();
    let path = pgdata.join("postmaster.pid");
    fs::write(&path, format!("{pid}\n{}\n1700000000\n5432\n", pgdata.display())).unwrap();
    chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

#[test]
fn a_stop_that_takes_too_long_is_an_error_and_a_later_stop_waits_again() {
    let place = Place::new();
    let cluster = place.open();
    let pid = cluster.postmaster_pid().unwrap();
    signal(pid, Signal::STOP);
    let error = cluster.stop(StopMode::Fast, Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, ClusterError::StopTimeout { pid: still, .. } if still == pid), "{error}");
    assert!(cluster.is_alive());
    signal(pid, Signal::CONT);
    stop(&cluster);
    assert!(!cluster.is_alive());
}
