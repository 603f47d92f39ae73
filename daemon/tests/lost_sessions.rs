//! Connections other than the drain's, and the effects of losing one.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Daemon, data_dir, forebay,
    proxy::{Deed, From, Point, Rig, Since},
    rows,
};
use forebay_cluster::{TestCluster, TestOptions};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn case_57_checkpoint_set_ends_the_lost_session_of_a_stopped_daemon_which_has_the_checkpoint_locked() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let mut rig = Rig::start(&cluster, "stopped", &[]);
    rig.push("p", 1);
    rig.wait_until_drained();
    rig.proxy.arm_one(From::Client, Point::Tag(b'c'), Since::Transaction, Deed::Hold);
    rig.push_buffered("p", 20);
    rig.proxy.wait_until_holding();
    rig.proxy.fall_silent(&[From::Client, From::Server]);
    rig.proxy.release();
    // Its end is awaited below.
    rig.daemon.signal(Signal::KILL);
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'forebay' AND xact_start IS NOT NULL";
    assert_eq!(rows(&cluster, open), [["1"]], "PostgreSQL has not heard of it");
    let at = ["--data-dir", rig.daemon.data_dir().to_str().unwrap(), "--postgres", &cluster.url()];
    let set = forebay(&[&["checkpoint", "set", "--to", "database", "--yes"][..], &at].concat());
    assert_eq!(set.status.code(), Some(0), "{}", String::from_utf8_lossy(&set.stderr));
    assert_eq!(rows(&cluster, open), [["0"]]);
    rig.proxy.give_up_lost();
    rig.proxy.open();
    rig.kill9_and_restart();
    rig.push_buffered("p", 3);
    rig.check(&cluster);
}

#[test]
fn the_sessions_of_requests_and_commands_are_bounded_like_the_drain_s() {
    const TIMEOUT: [&str; 2] = ["--postgres-timeout-ms", "7000"];
    let hba_lines = vec!["host all all 127.0.0.1/32 trust".to_owned()];
    let cluster =
        TestCluster::start_with(TestOptions { fsync: false, tcp: true, hba_lines, ..TestOptions::default() }).unwrap();
    let url = format!("postgres://forebay@127.0.0.1:{}/forebay", cluster.port());
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &url, &[&["--cores", "1"], &TIMEOUT[..]].concat());
    daemon.wait_until_drained();
    let rule = "ALTER TABLE forebay.messages ADD CONSTRAINT only_good CHECK (payload->>'bad' IS NULL)";
    cluster.psql(rule).unwrap();
    let push = |payload: serde_json::Value| {
        let response = daemon.connect().push(&json!({"items": [{"queue": "q", "payload": payload}]})).unwrap();
        assert_eq!(response.status, 201);
        response.json()[0]["status"].clone()
    };
    (0..2).for_each(|n| assert_eq!(push(json!({"bad": n})), "failed"));
    // PostgreSQL shows the TCP settings of the socket itself.
    let look = "ALTER TABLE forebay.messages DROP CONSTRAINT only_good; \
                CREATE TABLE public.seen (who text, name text, setting text); \
                CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
                INSERT INTO public.seen SELECT current_setting('application_name'), name, setting FROM pg_settings \
                WHERE name LIKE 'tcp%' OR name IN ('lock_timeout', 'statement_timeout', \
                'idle_in_transaction_session_timeout', 'synchronous_commit'); RETURN NULL; END$$; \
                CREATE TRIGGER look AFTER INSERT ON forebay.messages FOR EACH STATEMENT EXECUTE FUNCTION look()";
    cluster.psql(look).unwrap();
    assert_eq!(push(json!("good")), "queued");
    let letter = &daemon.connect().get("/api/v1/dead-letters?limit=1").unwrap().json()["deadLetters"][0]["id"];
    let path = format!("/api/v1/dead-letters/{}/retry", letter.as_str().unwrap());
    assert_eq!(daemon.connect().post(&path, b"").unwrap().json()["status"], "queued");
    let at = ["--data-dir", dir.path().to_str().unwrap(), "--postgres", &url];
    let retried = forebay(&[&["dead-letters", "retry", "--all"], &at[..], &TIMEOUT].concat());
    assert_eq!(retried.status.code(), Some(0), "{}", String::from_utf8_lossy(&retried.stderr));
    let who = "SELECT DISTINCT who FROM seen ORDER BY who";
    assert_eq!(rows(&cluster, who), [["forebay"], ["forebay admin"], ["forebay command"]]);
    let settings =
        "SELECT name, string_agg(DISTINCT setting, ' '), count(DISTINCT who) FROM seen GROUP BY name ORDER BY name";
    let expected = [
        ["idle_in_transaction_session_timeout", "7000", "3"],
        ["lock_timeout", "5000", "3"],
        ["statement_timeout", "7000", "3"],
        ["synchronous_commit", "on", "3"],
        ["tcp_keepalives_count", "4", "3"],
        ["tcp_keepalives_idle", "10", "3"],
        ["tcp_keepalives_interval", "5", "3"],
        ["tcp_user_timeout", "30000", "3"],
    ];
    assert_eq!(rows(&cluster, settings), expected);
}
