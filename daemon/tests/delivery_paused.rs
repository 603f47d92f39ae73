//! What concerns only delivery pauses delivery: PostgreSQL is replaced, its database made anew, its checkpoint gone. Pushes go on
//! meanwhile, and one decision on the running daemon delivers everything once.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Daemon, Response, data_dir, forebay,
    load::{Sent, check},
    rows, wait_until,
};
use forebay_cluster::{Cluster, ClusterConfig, StopMode, TestCluster};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const SMALL: [&str; 4] = ["--cores", "1", "--wal-segment-bytes", "1MiB"];

/// A server from `initdb`. Test clusters are copies of one template and share its system identifier.
struct Server(Cluster);

impl Server {
    fn start_below(dir: &Path) -> Self {
        let mut config = ClusterConfig::new(dir.join("server"));
        config.die_with_process = true;
        config.sync_init = false;
        let settings = [("shared_buffers", "32MB"), ("fsync", "off")];
        config.settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self(Cluster::open(config).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.stop(StopMode::Immediate, STOP_TIMEOUT).unwrap();
    }
}

/// One address of PostgreSQL, behind which the server can be exchanged.
struct Address {
    link: PathBuf,
}

impl Address {
    fn of(dir: &Path, server: &Cluster) -> Self {
        let address = Self { link: dir.join("address") };
        address.lead_to(server);
        address
    }

    fn lead_to(&self, server: &Cluster) {
        self.lead_nowhere();
        symlink(server.socket_dir(), &self.link).unwrap();
    }

    fn lead_nowhere(&self) {
        // There is none the first time.
        drop(std::fs::remove_file(&self.link));
    }

    fn url(&self) -> String {
        format!("postgres://forebay@/forebay?host={}", self.link.to_str().unwrap().replace('/', "%2F"))
    }
}

/// Ends the daemon's sessions, so that it connects again.
fn end_sessions(server: &Cluster) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'forebay%'";
    let mut psql = Command::new(server.binaries().path("psql"));
    assert!(psql.args(["-Xqc", sql, "-d", &server.url()]).output().unwrap().status.success());
}

/// Copies all of a database into another one.
fn dump(from: &Cluster) -> Vec<u8> {
    let dump = Command::new(from.binaries().path("pg_dump")).args(["-d", &from.url()]).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    dump.stdout
}

fn load(dump: &[u8], to: &Cluster) {
    let mut psql = Command::new(to.binaries().path("psql"));
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &to.url()]);
    let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    psql.stdin.take().unwrap().write_all(dump).unwrap();
    let output = psql.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `checkpoint set`, which is to reach the running daemon: it is told of no database.
fn set(to: &str, data_dir: &Path) -> Output {
    forebay(&["checkpoint", "set", "--to", to, "--yes", "--data-dir", data_dir.to_str().unwrap()])
}

fn check_set(to: &str, data_dir: &Path) {
    let output = set(to, data_dir);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stdout).unwrap().contains("goes on at"));
}

/// Producers whose messages have no transaction id, so that one which is delivered twice is there twice. None may be refused.
struct Producers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<u64>>,
}

impl Producers {
    const COUNT: u64 = 12;

    fn start(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..Self::COUNT).map(|id| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut client = common::Client::connect(address).unwrap();
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let payload = json!({"producer": format!("w{id}"), "n": n});
                    let partition = format!("p{}", id % 4);
                    let response = match n % 3 {
                        0 => client
                            .push(&json!({"items": [{"queue": "load", "partition": partition, "payload": payload}]})),
                        _ => {
                            client.post(&format!("/push/load/{partition}?bufferMs=20"), payload.to_string().as_bytes())
                        }
                    };
                    let response = response.unwrap();
                    assert_eq!(response.status, 201, "{}", String::from_utf8_lossy(&response.body));
                    n += 1;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                n
            })
        });
        Self { threads: threads.collect(), stop, answered }
    }

    fn wait_for(&self, more: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        wait_until("pushes are answered", || self.answered.load(Ordering::Relaxed) >= goal);
    }

    fn stop(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.threads.into_iter().enumerate().map(|(id, thread)| {
            Sent::all_answered("load", &format!("p{}", id % 4), &format!("w{id}"), thread.join().unwrap())
        });
        sent.collect()
    }
}

fn push(daemon: &Daemon, numbers: std::ops::Range<u64>) {
    let mut client = daemon.connect();
    for n in numbers {
        let response: Response = client.push(&json!({"items": [{"queue": "q", "payload": n}]})).unwrap();
        assert_eq!(response.status, 201);
    }
}

fn numbers(cluster: &TestCluster) -> Vec<u64> {
    let sql = "SELECT payload FROM forebay.message_log WHERE queue = 'q' ORDER BY seq";
    rows(cluster, sql).iter().map(|row| row[0].parse().unwrap()).collect()
}

fn ready(daemon: &Daemon) -> Value {
    let response = daemon.connect().get("/ready").unwrap();
    assert_eq!(response.status, 200);
    response.json()
}

#[test]
fn under_load_postgresql_is_replaced_by_a_dump_and_after_one_decision_everything_is_there_once() {
    let new = TestCluster::start_without_fsync().unwrap();
    let old = Server::start_below(new.dir());
    let dir = data_dir();
    let address = Address::of(new.dir(), &old.0);
    let daemon = Daemon::start(dir.path(), &address.url(), &["--cores", "2"]);
    daemon.wait_until_drained();
    let producers = Producers::start(daemon.address);
    producers.wait_for(3000);
    // From before the dump nothing more comes to the old server.
    address.lead_nowhere();
    end_sessions(&old.0);
    let dump = dump(&old.0);
    producers.wait_for(1000);
    address.lead_to(&new);
    // Nothing is made in the empty database, into which the dump comes.
    daemon.wait_until_paused("checkpoint_mismatch", &["another database", "load a dump first"]);
    load(&dump, &new);
    daemon.wait_until_paused("checkpoint_mismatch", &["another database", "checkpoint set --to database --yes"]);
    producers.wait_for(1000);
    let transactions = daemon.figure("drainTransactions");
    producers.wait_for(1000);
    assert_eq!(daemon.figure("drainTransactions"), transactions, "nothing is delivered before the decision");
    check_set("database", dir.path());
    daemon.wait_until_draining();
    producers.wait_for(1000);
    let sent = producers.stop();
    daemon.wait_until_drained();
    assert!(check(&new, &sent) >= 7000);
    assert_eq!(ready(&daemon), json!({"status": "ready"}));
    assert!(daemon.terminate().success());
    // The decision is remembered.
    let daemon = Daemon::start(dir.path(), &address.url(), &["--cores", "2"]);
    daemon.wait_until_drained();
    check(&new, &sent);
}

#[test]
fn a_dump_from_before_the_last_deliveries_gets_them_again_from_the_log() {
    let new = TestCluster::start_without_fsync().unwrap();
    let old = Server::start_below(new.dir());
    let dir = data_dir();
    let address = Address::of(new.dir(), &old.0);
    let args = ["--cores", "2", "--wal-segment-bytes", "1MiB", "--retain-drained", "1h", "--drain-connections", "3"];
    let daemon = Daemon::start(dir.path(), &address.url(), &args);
    daemon.wait_until_drained();
    let producers = Producers::start(daemon.address);
    producers.wait_for(2000);
    let dump = dump(&old.0);
    producers.wait_for(5000);
    load(&dump, &new);
    address.lead_to(&new);
    end_sessions(&old.0);
    daemon.wait_until_paused("checkpoint_mismatch", &["another database", "checkpoint set --to database --yes"]);
    check_set("database", dir.path());
    daemon.wait_until_draining();
    let sent = producers.stop();
    daemon.wait_until_drained();
    check(&new, &sent);
}

#[test]
fn a_database_that_was_dropped_and_made_anew_gets_what_was_not_delivered_also_after_a_restart() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &SMALL);
    push(&daemon, 0..20);
    daemon.wait_until_drained();
    let maintenance = cluster.url().replace("/forebay?", "/postgres?");
    for sql in ["DROP DATABASE forebay WITH (FORCE)", "CREATE DATABASE forebay"] {
        let mut psql = Command::new(cluster.binaries().path("psql"));
        assert!(psql.args(["-Xqc", sql, "-d", &maintenance]).output().unwrap().status.success());
        push(&daemon, 20..25);
    }
    daemon.wait_until_paused(
        "checkpoint_mismatch",
        &["another database", "(record 20)", "checkpoint set --to mismatch --yes"],
    );
    let refused = set("database", dir.path());
    assert_eq!(refused.status.code(), Some(2), "there is no checkpoint");
    assert!(String::from_utf8(refused.stderr).unwrap().contains("no checkpoint of this log"));
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(dir.path(), &cluster.url(), &SMALL);
    daemon.wait_until_paused("checkpoint_mismatch", &["(record 20)"]);
    push(&daemon, 25..30);
    assert_eq!(daemon.figure("pending"), 15);
    check_set("mismatch", dir.path());
    daemon.wait_until_drained();
    assert!(numbers(&cluster).into_iter().eq((20..25).chain(20..30)), "{:?}", numbers(&cluster));
    assert_eq!(set("mismatch", dir.path()).status.code(), Some(2), "they fit again");
}

#[test]
fn a_deleted_checkpoint_pauses_delivery_and_an_emptied_database_gets_everything_by_itself() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &SMALL);
    push(&daemon, 0..10);
    daemon.wait_until_drained();
    cluster.psql("DELETE FROM forebay.drain_checkpoints").unwrap();
    push(&daemon, 10..15);
    daemon.wait_until_paused("checkpoint_mismatch", &["row is gone", "checkpoint set --to mismatch --yes"]);
    assert_eq!(daemon.figure("pending"), 5);
    let show = ["checkpoint", "show", "--data-dir", dir.path().to_str().unwrap(), "--postgres", &cluster.url()];
    let shown = forebay(&show);
    assert_eq!(shown.status.code(), Some(1), "{}", String::from_utf8_lossy(&shown.stdout));
    assert!(String::from_utf8(shown.stdout).unwrap().contains("--to mismatch --yes"));
    check_set("mismatch", dir.path());
    daemon.wait_until_drained();
    assert_eq!(forebay(&show).status.code(), Some(0));
    assert!(numbers(&cluster).into_iter().eq(0..15));
    cluster.psql("TRUNCATE forebay.drain_checkpoints, forebay.messages, forebay.partitions, forebay.queues").unwrap();
    push(&daemon, 15..20);
    wait_until("all are there again", || numbers(&cluster).len() == 20);
    assert!(numbers(&cluster).into_iter().eq(0..20));
}

#[test]
fn delivery_goes_on_by_itself_when_the_right_database_is_back() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let other = Server::start_below(cluster.dir());
    let dir = data_dir();
    let address = Address::of(cluster.dir(), &cluster);
    let daemon = Daemon::start(dir.path(), &address.url(), &SMALL);
    push(&daemon, 0..10);
    daemon.wait_until_drained();
    address.lead_to(&other.0);
    end_sessions(&cluster);
    push(&daemon, 10..15);
    daemon.wait_until_paused("checkpoint_mismatch", &["another database"]);
    // A decision that cannot be carried out changes nothing.
    assert_eq!(set("database", dir.path()).status.code(), Some(2));
    std::thread::sleep(Duration::from_secs(6));
    let told = daemon.log().matches("code=\"checkpoint_mismatch\"").count();
    assert_eq!(told, 1, "told once, and not at each look: {}", daemon.log());
    address.lead_to(&cluster);
    daemon.wait_until_drained();
    assert_eq!(ready(&daemon), json!({"status": "ready"}));
    assert_eq!(daemon.buffers()["delivery"], json!({"state": "running"}));
    assert!(numbers(&cluster).into_iter().eq(0..15));
}

#[test]
fn a_schema_that_was_renamed_is_not_made_anew_after_a_restart_and_goes_on_once_it_is_renamed_back() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &SMALL);
    push(&daemon, 0..7);
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
    cluster.psql("ALTER SCHEMA forebay RENAME TO kept").unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &SMALL);
    push(&daemon, 7..10);
    daemon.wait_until_paused("schema_mismatch", &["rename it back", "(record 7)"]);
    assert_eq!(rows(&cluster, "SELECT to_regnamespace('forebay') IS NULL"), [["t"]]);
    cluster.psql("ALTER SCHEMA kept RENAME TO forebay").unwrap();
    daemon.wait_until_drained();
    assert!(numbers(&cluster).into_iter().eq(0..10));
}

#[test]
fn a_refusal_that_only_a_person_can_mend_is_shown_as_a_pause_and_an_outage_is_not() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &SMALL);
    push(&daemon, 0..3);
    daemon.wait_until_drained();
    cluster.stop(StopMode::Fast, STOP_TIMEOUT).unwrap();
    push(&daemon, 3..5);
    wait_until("the outage is told", || daemon.log().contains("postgres_away"));
    assert_eq!(ready(&daemon), json!({"status": "ready"}));
    cluster.start().unwrap();
    daemon.wait_until_drained();
    cluster.psql("ALTER TABLE forebay.messages RENAME TO gone").unwrap();
    push(&daemon, 5..8);
    daemon.wait_until_paused("postgres_refuses", &[]);
    cluster.psql("ALTER TABLE forebay.gone RENAME TO messages").unwrap();
    daemon.wait_until_drained();
    assert_eq!(ready(&daemon), json!({"status": "ready"}));
}

#[test]
fn a_decision_on_a_healthy_daemon_holds_at_once_and_what_is_no_command_changes_nothing() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let parent = data_dir();
    // Longer than an address of a unix socket.
    let dir = parent.path().join("d".repeat(150));
    let daemon = Daemon::start(&dir, &cluster.url(), &[&SMALL[..], &["--drain-connections", "2"]].concat());
    push(&daemon, 0..10);
    daemon.wait_until_drained();
    let socket = dir.join("control.sock");
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    daemon.kill9();
    let daemon = Daemon::start(&dir, &cluster.url(), &[&SMALL[..], &["--drain-connections", "2"]].concat());
    daemon.wait_until_drained();
    let by_descriptor = std::fs::File::open(&dir).unwrap();
    let path = format!("/proc/self/fd/{}/control.sock", std::os::fd::AsRawFd::as_raw_fd(&by_descriptor));
    // Some say nothing and leave.
    let silent: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(&path).unwrap()).collect();
    drop(silent);
    wait_until("what is no command is refused as such", || {
        let mut strange = UnixStream::connect(&path).unwrap();
        strange.write_all(b"{\"command\":\"rm\"}\n").unwrap();
        let mut reply = String::new();
        BufReader::new(strange).read_line(&mut reply).unwrap();
        assert!(reply.contains("\"refused\""), "{reply}");
        // Before, there are too many of them.
        reply.contains("cannot be read")
    });
    assert_eq!(set("mismatch", &dir).status.code(), Some(2), "nothing is known of a mismatch");
    check_set("log-oldest", &dir);
    daemon.wait_until_drained();
    wait_until("all come again", || numbers(&cluster).len() == 20);
    check_set("log-end", &dir);
    check_set("database", &dir);
    push(&daemon, 10..13);
    daemon.wait_until_drained();
    assert!(numbers(&cluster).into_iter().eq((0..10).chain(0..13)));
    assert!(daemon.terminate().success());
    assert!(!socket.exists());
    let refused = set("database", &dir);
    assert_eq!(refused.status.code(), Some(2), "without a daemon it is told of no database");
    assert!(!dir.join("postgres").exists());
    let offline = ["--data-dir", dir.to_str().unwrap(), "--postgres", &cluster.url()];
    let set = |to: &str| forebay(&[&["checkpoint", "set", "--to", to, "--yes"][..], &offline].concat()).status.code();
    assert_eq!((set("database"), set("mismatch")), (Some(0), Some(0)));
    let daemon = Daemon::start(&dir, &cluster.url(), &SMALL);
    push(&daemon, 13..14);
    daemon.wait_until_drained();
    assert!(numbers(&cluster).into_iter().eq((0..10).chain(0..14)));
}
