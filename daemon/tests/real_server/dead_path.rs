//! A network path to PostgreSQL that loses every packet: neither side learns that the other is gone.

use crate::{
    common::{Daemon, data_dir, rows, wait_until},
    namespace::enter_network,
    numbers, push,
};
use forebay_cluster::{TestCluster, TestOptions};
use serde_json::json;
use std::process::Command;

const NAME: &str = "dead_path::case_57_on_a_path_that_loses_all_both_sides_give_up_by_themselves_and_no_lock_stays";

/// The address of PostgreSQL, as long as the path works.
const ADDRESS: &str = "192.0.2.1";

/// The daemon's own limits cannot end anything here: PostgreSQL's timeouts and the daemon's deadline are too long.
const ARGS: [&str; 6] = ["--cores", "1", "--commit-wait-ms", "200", "--postgres-timeout-ms", "600000"];

/// The daemon's side gives up after a few seconds, and PostgreSQL's after half a minute.
const WAY: &str = "sslmode=disable&connect_timeout=2&tcp_user_timeout=2000&keepalives_idle=1&keepalives_interval=1";

fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().unwrap().success(), "ip {args:?}");
}

#[test]
fn case_57_on_a_path_that_loses_all_both_sides_give_up_by_themselves_and_no_lock_stays() {
    if !enter_network(NAME) {
        return;
    }
    ip(&["link", "set", "lo", "up"]);
    let path = [&format!("{ADDRESS}/32"), "dev", "lo"];
    ip(&[&["addr", "add"][..], &path].concat());
    let cluster = TestCluster::start_with(TestOptions {
        fsync: false,
        tcp: true,
        hba_lines: vec![format!("host all all {ADDRESS}/32 trust")],
        settings: vec![("listen_addresses".to_owned(), format!("127.0.0.1,{ADDRESS}"))],
        ..TestOptions::default()
    })
    .unwrap();
    let url = format!("postgres://forebay@{ADDRESS}:{}/forebay?{WAY}", cluster.port());
    let dirs = [data_dir(), data_dir()];
    // One daemon is in a transaction whose reply will be lost; the other one is idle.
    let [busy, idle] = [0, 1].map(|index| Daemon::start(dirs[index].path(), &url, &ARGS));
    for (daemon, queue) in [(&busy, "busy"), (&idle, "idle")] {
        daemon.wait_until_drained();
        assert_eq!(push(&mut daemon.connect(), queue, 0, 0), "queued");
    }
    // A table that says when the COPY may continue.
    let gate = "CREATE TABLE public.gate (); \
                CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
                WHILE NOT EXISTS (SELECT FROM public.gate) LOOP PERFORM pg_sleep(0.02); END LOOP; RETURN NULL; END$$; \
                CREATE TRIGGER wait BEFORE INSERT ON forebay.messages FOR EACH STATEMENT EXECUTE FUNCTION wait()";
    cluster.psql(gate).unwrap();
    let item = |n: u64| json!({"queue": "busy", "payload": {"n": n}});
    let items: Vec<_> = (1..50).map(item).collect();
    assert_eq!(busy.connect().push(&json!({"items": items, "bufferMs": 1})).unwrap().status, 201);
    let sessions = |further: &str| {
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'forebay'";
        rows(&cluster, &format!("{sql} {further}")).len()
    };
    wait_until("it waits in the COPY", || sessions("AND wait_event = 'PgSleep'") == 1);
    ip(&[&["addr", "del"][..], &path].concat());
    cluster.psql("INSERT INTO gate DEFAULT VALUES").unwrap();
    wait_until("it waits for a COMMIT that does not come", || sessions("AND state = 'idle in transaction'") == 1);
    for daemon in [&busy, &idle] {
        wait_until("the daemon gives up", || daemon.buffers()["dbHealthy"] == false);
        wait_until("it is told", || daemon.log().contains("code=\"postgres_away\""));
    }
    assert_eq!(sessions(""), 2, "PostgreSQL has not heard of it");
    assert_eq!(sessions("AND state = 'idle in transaction'"), 1);
    for (daemon, queue) in [(&busy, "busy"), (&idle, "idle")] {
        let last = if queue == "busy" { 50 } else { 1 };
        assert_eq!(push(&mut daemon.connect(), queue, last, 0), "buffered");
    }
    wait_until("PostgreSQL gives both up", || sessions("") == 0);
    let locked = "SELECT log_id FROM forebay.drain_checkpoints FOR UPDATE NOWAIT";
    assert_eq!(cluster.psql(locked).unwrap().lines().count(), 2, "no lock stays");
    ip(&[&["addr", "add"][..], &path].concat());
    for (daemon, queue, count) in [(&busy, "busy", 51), (&idle, "idle", 2)] {
        daemon.wait_until_drained();
        assert!(numbers(&cluster, queue).into_iter().eq(0..count), "{queue}: each once and in order");
        assert_eq!((daemon.figure("failed"), daemon.figure("duplicateMessages")), (0, 0));
    }
}
