//! The ordinary life of a cluster: created, started, stopped and adopted.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};

use crate::support::{DEADLINE, Place, is_postgres, pid_in_file, psql, socket_dir_mode, stop, wait_for, we_are_root};
use forebay_cluster::{Cluster, ClusterConfig, ClusterError, StopMode, TestCluster, TestOptions};

#[test]
fn a_new_cluster_starts_stops_and_starts_again_with_its_data() {
    let place = Place::new();
    let cluster = place.open();
    assert!(cluster.is_alive() && cluster.is_accepting());
    assert_eq!(psql(&cluster, "SELECT current_user, current_database()"), "forebay|forebay");
    psql(&cluster, "CREATE TABLE kept AS SELECT 7 AS n");
    stop(&cluster);
    assert!(!cluster.is_alive() && !cluster.is_accepting());
    assert_eq!(cluster.postmaster_pid(), None);
    cluster.start().unwrap();
    assert_eq!(psql(&cluster, "SELECT n FROM kept"), "7");
    stop(&cluster);
    stop(&cluster);
}

#[test]
fn a_new_cluster_is_private_durable_and_utf8_with_bytewise_order() {
    let place = Place::new();
    let cluster = place.open();
    let settings =
        "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'listen_addresses', 'server_encoding')";
    assert_eq!(
        psql(&cluster, &format!("{settings} ORDER BY name")),
        "fsync|on\nlisten_addresses|\nserver_encoding|UTF8"
    );
    assert_eq!(psql(&cluster, "SELECT datcollate FROM pg_database WHERE datname = 'forebay'"), "C");
    let socket_dir = fs::metadata(cluster.socket_dir()).unwrap();
    assert_eq!(socket_dir.permissions().mode() & 0o7777, socket_dir_mode());
    let account = psql(&cluster, "SELECT pg_read_file('/proc/self/status')");
    let uid = account.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().split_whitespace().next().unwrap();
    assert_eq!(uid, socket_dir.uid().to_string());
    assert_ne!(uid, "0");
    stop(&cluster);
}

#[test]
fn opening_it_twice_adopts_the_running_server() {
    let place = Place::new();
    let first = place.open();
    let second = place.open();
    assert_eq!(first.postmaster_pid(), second.postmaster_pid());
    stop(&second);
    assert!(!first.is_alive());
}

#[test]
fn a_server_whose_owner_was_killed_is_adopted() {
    let place = Place::new();
    let (mut owner, url, pid) = run_program(&[], &place);
    owner.kill().unwrap();
    owner.wait().unwrap();

    let mut config = place.config();
    config.settings.push(("work_mem".to_owned(), "5MB".to_owned()));
    let cluster = Cluster::open(config).unwrap();
    assert_eq!(cluster.postmaster_pid(), Some(pid));
    assert_eq!(cluster.url(), url);
    wait_for("the adopted server to take its new settings", || psql(&cluster, "SHOW work_mem") == "5MB");
    stop(&cluster);
    assert!(!cluster.is_alive());
}

#[test]
fn a_server_that_ends_with_its_owner_also_ends_if_the_owner_is_killed() {
    let place = Place::new();
    let (mut owner, _, pid) = run_program(&["--ends-with-me"], &place);
    assert_eq!(pid_in_file(&place.cluster_dir()), Some(pid));
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_for("the server to end", || pid_in_file(&place.cluster_dir()).is_none());
}

#[test]
fn the_program_stops_its_server_when_its_input_ends() {
    let place = Place::new();
    let (mut owner, _, _) = run_program(&[], &place);
    drop(owner.stdin.take());
    assert!(owner.wait().unwrap().success());
    assert_eq!(pid_in_file(&place.cluster_dir()), None);
}

/// Starts the program of this crate. Returns it with the URL and the process id that it prints.
fn run_program(options: &[&str], place: &Place) -> (Child, String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-private-postgres"));
    command.args(options).arg(place.cluster_dir()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap();
    let pid = lines.next().unwrap().unwrap().parse().unwrap();
    (child, url, pid)
}

#[test]
fn a_server_survives_the_drop_of_its_handle_but_not_a_stop() {
    let place = Place::new();
    let cluster = place.open();
    let pid = cluster.postmaster_pid();
    drop(cluster);
    let again = place.open();
    assert_eq!(again.postmaster_pid(), pid);
    again.stop(StopMode::Immediate, DEADLINE).unwrap();
    assert!(!again.is_alive());
}

#[test]
fn two_clusters_run_at_the_same_time() {
    let (one, two) = (TestCluster::start().unwrap(), TestCluster::start_without_fsync().unwrap());
    one.psql("CREATE TABLE only_here (n int)").unwrap();
    assert!(two.psql("SELECT * FROM only_here").is_err());
    assert_eq!(one.psql("SHOW fsync").unwrap(), "on");
    assert_eq!(two.psql("SHOW fsync").unwrap(), "off");
    let dir = two.dir().to_owned();
    drop(two);
    assert!(!dir.exists());
    assert_eq!(one.psql("SELECT count(*) FROM only_here").unwrap(), "0");
}

#[test]
fn a_test_cluster_ends_with_a_panic() {
    let (send, receive) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let cluster = TestCluster::start_without_fsync().unwrap();
        send.send((cluster.postmaster_pid().unwrap(), cluster.dir().to_owned())).unwrap();
        panic!("as in a failed test");
    });
    assert!(panicked.join().is_err());
    let (pid, dir) = receive.recv().unwrap();
    assert!(!dir.exists());
    assert!(!is_postgres(pid));
}

#[test]
fn a_test_cluster_survives_the_end_of_the_thread_that_started_it() {
    let cluster = std::thread::spawn(TestCluster::start_without_fsync).join().unwrap().unwrap();
    let pid = cluster.postmaster_pid();
    assert_eq!(cluster.psql("SELECT pg_sleep(0.3), 1").unwrap(), "|1");
    assert_eq!(cluster.postmaster_pid(), pid);
}

#[test]
fn tcp_and_passwords_work_if_configured() {
    let cluster = TestCluster::start_with(TestOptions {
        fsync: false,
        tcp: true,
        hba_lines: vec!["host all somebody 127.0.0.1/32 scram-sha-256".to_owned()],
        ..TestOptions::default()
    })
    .unwrap();
    cluster.psql("CREATE ROLE somebody LOGIN PASSWORD 'open'").unwrap();
    let login = |user: &str, password: &str| {
        let url = format!("postgres://{user}:{password}@127.0.0.1:{}/forebay", cluster.port());
        let psql = cluster.binaries().path("psql");
        Command::new(psql).args(["-X", "-w", "-d", &url, "-c", "SELECT 1"]).output().unwrap().status.success()
    };
    assert!(login("somebody", "open"));
    assert!(!login("somebody", "closed"));
    assert!(!login("forebay", "open"), "the superuser cannot log in over TCP");
}

#[test]
fn the_error_of_a_failed_start_contains_the_reason() {
    let place = Place::new();
    let mut config = place.config();
    config.settings.push(("shared_buffers".to_owned(), "a lot".to_owned()));
    let error = Cluster::open(config).unwrap_err();
    let ClusterError::StartFailed { log_tail, .. } = &error else { panic!("{error:?}") };
    assert!(log_tail.contains("shared_buffers"), "{error}");
}

#[test]
fn a_directory_that_is_no_cluster_is_not_changed() {
    let place = Place::new();
    let pgdata = place.cluster_dir().join("pgdata");
    fs::create_dir_all(&pgdata).unwrap();
    fs::write(pgdata.join("precious"), "x").unwrap();
    if we_are_root() {
        std::os::unix::fs::chown(&pgdata, Some(65534), Some(65534)).unwrap();
    }
    let error = Cluster::open(place.config()).unwrap_err();
    assert!(matches!(error, ClusterError::NotACluster { .. }), "{error}");
    assert_eq!(fs::read_to_string(pgdata.join("precious")).unwrap(), "x");
}

#[test]
fn a_cluster_of_another_major_version_is_refused() {
    let place = Place::new();
    let pgdata = place.cluster_dir().join("pgdata");
    fs::create_dir_all(&pgdata).unwrap();
    fs::write(pgdata.join("PG_VERSION"), "9\n").unwrap();
    if we_are_root() {
        std::os::unix::fs::chown(&pgdata, Some(65534), Some(65534)).unwrap();
    }
    let error = Cluster::open(ClusterConfig::new(place.cluster_dir())).unwrap_err();
    assert!(matches!(error, ClusterError::VersionMismatch { data_major: 9, .. }), "{error}");
}
