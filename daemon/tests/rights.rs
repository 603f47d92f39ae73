//! The rights that a daemon keeps: none. A helper process keeps what the private PostgreSQL takes.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{Daemon, NOWHERE, PATIENCE, data_dir, forebay, wait_until};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::json;
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    time::Instant,
};

/// `CAP_KILL`, `CAP_SETGID` and `CAP_SETUID`.
const HELPERS: u64 = 1 << 5 | 1 << 6 | 1 << 7;

/// `CAP_DAC_READ_SEARCH`.
const LENT: u64 = 1 << 2;

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("not root: there are no capabilities to give up, and only a part is tested");
    }
    is_root
}

/// A line of a status file of `/proc`.
fn status(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
}

fn capabilities(pid: u32, set: &str) -> u64 {
    u64::from_str_radix(&status(&format!("/proc/{pid}/status"), set), 16).unwrap()
}

/// Checks every thread of a daemon.
fn assert_no_rights(daemon: &Daemon) {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let mut names = Vec::new();
    for thread in threads {
        let file = thread.unwrap().path().join("status");
        // Threads for one connection come and go.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            let has = u64::from_str_radix(&value(set), 16).unwrap();
            assert_eq!(has, 0, "{set} of the thread {}: {has:x}", value("Name:"));
        }
        assert_eq!(value("NoNewPrivs:"), "1", "of the thread {}", value("Name:"));
        names.push(value("Name:"));
    }
    for name in ["log", "last-resort", "core-0", "signals", "watchdog"] {
        assert!(names.iter().any(|found| found == name), "{name} is among {names:?}");
    }
}

fn children(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |child: &u32| {
        let text = fs::read_to_string(format!("/proc/{child}/status")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()
    };
    pids.filter(|child| parent(child) == Some(pid)).collect()
}

fn postmaster(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postgres/pgdata/postmaster.pid")).ok()?;
    let pid = text.lines().next()?.parse().ok()?;
    Path::new(&format!("/proc/{pid}/status")).exists().then_some(pid)
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn is_gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn with_a_private_postgresql_in_a_directory_that_its_account_can_pass_daemon_and_server_keep_no_capability() {
    let parent = data_dir();
    fs::set_permissions(parent.path(), Permissions::from_mode(0o711)).unwrap();
    let data = parent.path().join("data");
    let args = ["--cores", "2", "--drain-connections", "2"];
    let daemon = Daemon::start(&data, "embedded", &args);
    daemon.wait_until_drained();
    assert_no_rights(&daemon);
    let server = postmaster(&data).unwrap();
    for pid in children(server).into_iter().chain([server]) {
        assert_eq!(capabilities(pid, "CapEff:") | capabilities(pid, "CapPrm:"), 0);
        assert_eq!(status(&format!("/proc/{pid}/status"), "NoNewPrivs:"), "1");
    }
    assert!(!daemon.log().contains("capability_lent"), "{}", daemon.log());
    let helpers = children(daemon.pid());
    assert_eq!(helpers.len(), 1, "one helper");
    if is_root() {
        for set in ["CapPrm:", "CapEff:"] {
            assert_eq!(capabilities(helpers[0], set), HELPERS);
        }
        assert_eq!((mode(&data), mode(&data.join("wal"))), (0o711, 0o700));
    }

    // A killed server is started again, with as little.
    kill(server);
    wait_until("another server runs", || postmaster(&data).is_some_and(|pid| pid != server));
    let server = postmaster(&data).unwrap();
    assert_eq!(capabilities(server, "CapEff:"), 0);
    let item = json!({"queue": "q", "payload": 1});
    assert_eq!(daemon.connect().push(&json!({"items": [item]})).unwrap().status, 201);
    daemon.wait_until_drained();

    // A killed daemon leaves the server, and its helper goes.
    daemon.kill9();
    wait_until("the helper is gone", || is_gone(helpers[0]));
    let daemon = Daemon::start(&data, "embedded", &args);
    assert_eq!(postmaster(&data), Some(server), "adopted, not started");
    daemon.wait_until_drained();
    assert_no_rights(&daemon);
    let helpers = children(daemon.pid());
    assert!(daemon.terminate().success());
    wait_until("server and helper end with the daemon", || is_gone(server) && is_gone(helpers[0]));
}

#[test]
fn the_daemon_is_no_superuser_of_the_private_postgresql() {
    let parent = data_dir();
    fs::set_permissions(parent.path(), Permissions::from_mode(0o711)).unwrap();
    let data = parent.path().join("data");
    let daemon = Daemon::start(&data, "embedded", &["--cores", "1"]);
    daemon.wait_until_drained();
    let psql = forebay_cluster::find_binaries().unwrap().path("psql");
    let ask = |role: &str, sql: &str| {
        let run = data.join("postgres/run");
        let output = Command::new(&psql)
            .args(["-X", "-q", "-A", "-t", "-h", run.to_str().unwrap(), "-U", role, "forebay", "-c", sql])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let roles = "SELECT rolname, rolsuper FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1";
    assert_eq!(ask("forebay", roles), "forebay|f\npostgres|t");
    let sessions = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name LIKE 'forebay%'";
    assert_eq!(ask("postgres", sessions), "forebay");
    assert_eq!(ask("forebay", "SELECT pg_read_file('/etc/passwd')"), "", "refused");
    assert_eq!(ask("forebay", "SELECT count(*) > 0 FROM forebay.schema_version"), "t");
    assert!(daemon.terminate().success());
}

#[test]
fn with_another_postgresql_the_daemon_keeps_no_capability_and_reads_its_files_again() {
    let parent = data_dir();
    let (data, tokens) = (parent.path().join("data"), parent.path().join("tokens.toml"));
    let tokens_path = tokens.to_str().unwrap();
    let create = |name: &str| {
        let output = forebay(&["token", "new", "--tokens-file", tokens_path, "--name", name, "--scopes", "push"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap().trim().to_owned()
    };
    create("first");
    assert_eq!(mode(&tokens), 0o600);
    let daemon = Daemon::start(&data, NOWHERE, &["--cores", "1", "--tokens-file", tokens_path]);
    assert_no_rights(&daemon);
    assert_eq!(children(daemon.pid()).len(), 0);
    assert_eq!(mode(&data), 0o700);
    let second = create("second");
    daemon.signal(Signal::HUP);
    let status = || {
        let request = format!(
            "POST /push/q HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {second}\r\nContent-Length: 1\r\n\r\n1",
            daemon.address
        );
        let mut client = daemon.connect();
        client.send(request.as_bytes()).unwrap();
        client.receive(false).unwrap().status
    };
    wait_until("the file is read again", || status() == 201);
    assert!(daemon.terminate().success());
}

#[test]
fn below_a_directory_that_its_account_cannot_pass_the_server_is_lent_one_capability_and_the_log_says_so() {
    if !is_root() {
        return;
    }
    let parent = data_dir();
    fs::set_permissions(parent.path(), Permissions::from_mode(0o700)).unwrap();
    let data = parent.path().join("data");
    let daemon = Daemon::start(&data, "embedded", &["--cores", "1"]);
    daemon.wait_until_drained();
    assert_no_rights(&daemon);
    assert!(daemon.log().contains("capability_lent"), "{}", daemon.log());
    let server = postmaster(&data).unwrap();
    assert_eq!(capabilities(server, "CapEff:"), LENT);
    assert_eq!(capabilities(children(daemon.pid())[0], "CapEff:"), HELPERS | LENT);
    kill(server);
    let give_up = Instant::now() + PATIENCE;
    while postmaster(&data).is_none_or(|pid| pid == server) {
        assert!(Instant::now() < give_up, "another server runs");
        std::thread::yield_now();
    }
    wait_until("it has what it is lent", || postmaster(&data).is_some_and(|pid| capabilities(pid, "CapEff:") == LENT));
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
}
