//! Something that the drain needs is missing in PostgreSQL. The drain pauses, names it, keeps all messages, and
//! continues once it is restored.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{proxy::Rig, wait_until};
use forebay_cluster::TestCluster;

/// Something that may be missing, in the schema `{s}`: the statements that remove and restore it, and PostgreSQL's name
/// for it.
struct Missing {
    name: &'static str,
    away: &'static str,
    back: &'static str,
    sqlstate: &'static str,
}

const ALL: [Missing; 8] = [
    Missing {
        name: "queues",
        away: "ALTER TABLE {s}.queues RENAME TO gone",
        back: "ALTER TABLE {s}.gone RENAME TO queues",
        sqlstate: "42P01",
    },
    Missing {
        name: "partitions",
        away: "ALTER TABLE {s}.partitions RENAME TO gone",
        back: "ALTER TABLE {s}.gone RENAME TO partitions",
        sqlstate: "42P01",
    },
    Missing {
        name: "messages",
        away: "ALTER TABLE {s}.messages RENAME TO gone",
        back: "ALTER TABLE {s}.gone RENAME TO messages",
        sqlstate: "42P01",
    },
    Missing {
        name: "checkpoints",
        away: "ALTER TABLE {s}.drain_checkpoints RENAME TO gone",
        back: "ALTER TABLE {s}.gone RENAME TO drain_checkpoints",
        sqlstate: "42P01",
    },
    Missing {
        name: "payload",
        away: "ALTER TABLE {s}.messages RENAME COLUMN payload TO gone",
        back: "ALTER TABLE {s}.messages RENAME COLUMN gone TO payload",
        sqlstate: "42703",
    },
    Missing {
        name: "last_seq",
        away: "ALTER TABLE {s}.partitions RENAME COLUMN last_seq TO gone",
        back: "ALTER TABLE {s}.partitions RENAME COLUMN gone TO last_seq",
        sqlstate: "42703",
    },
    // Dropped with its content, which is empty here.
    Missing {
        name: "trace_id",
        away: "ALTER TABLE {s}.messages DROP COLUMN trace_id CASCADE",
        back: "ALTER TABLE {s}.messages ADD COLUMN trace_id uuid",
        sqlstate: "42703",
    },
    Missing {
        name: "schema",
        away: "ALTER SCHEMA {s} RENAME TO {s}_gone",
        back: "ALTER SCHEMA {s}_gone RENAME TO {s}",
        sqlstate: "42P01",
    },
];

#[test]
fn case_60_whatever_is_missing_pauses_the_drain_and_is_named_and_nothing_is_let_go_of_until_it_is_back() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    // Each daemon has its own schema, and their pauses overlap.
    std::thread::scope(|scope| {
        for missing in &ALL {
            let cluster = &cluster;
            scope.spawn(move || check(cluster, missing));
        }
    });
}

fn check(cluster: &TestCluster, missing: &Missing) {
    let Missing { name, away, back, sqlstate } = missing;
    let schema = format!("for_{name}");
    let sql = |text: &str| cluster.psql(&text.replace("{s}", &schema)).unwrap();
    let args = ["--log", "info,forebay::drain=debug", "--commit-wait-ms", "500"];
    let mut rig = Rig::start_in(cluster, &schema, name, &args);
    rig.push("known", 10);
    rig.wait_until_drained();
    let lanes = rig.daemon.buffers()["lanes"].clone();
    // The view depends on what is dropped, so it is dropped first and restored afterwards.
    let view = cluster.psql(&format!("SELECT pg_get_viewdef('{schema}.message_log'::regclass)")).unwrap();
    sql(away);
    for n in 0..10 {
        // A new partition comes first: its creation needs what is missing, if nothing earlier does.
        assert_eq!(rig.push(&format!("new{n}"), 1)[0]["status"], "buffered", "{name}");
        rig.push("known", 1);
    }
    wait_until("the pause is told", || !rig.is_healthy());
    wait_until("what is missing is told", || {
        let log = rig.daemon.log();
        log.contains("postgres_refuses") && log.contains(sqlstate) || log.contains("schema_mismatch")
    });
    assert_eq!(rig.daemon.figure("pending"), 20, "{name}: nothing is let go of");
    for (then, now) in lanes.as_array().unwrap().iter().zip(rig.daemon.buffers()["lanes"].as_array().unwrap()) {
        assert_eq!(then["drainedOrdinal"], now["drainedOrdinal"], "{name}");
    }
    assert_eq!(rig.daemon.connect().get("/ready").unwrap().status, 200);
    sql(back);
    sql(&format!("CREATE OR REPLACE VIEW {{s}}.message_log AS {}", view.trim_end_matches(';')));
    rig.push("known", 3);
    assert_eq!(rig.check(cluster), 33, "{name}");
}

#[test]
fn case_60_a_right_that_is_taken_away_pauses_the_drain_until_it_is_given_back() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.psql("CREATE ROLE limited LOGIN; GRANT CREATE ON DATABASE forebay TO limited").unwrap();
    let dir = common::data_dir();
    let url = cluster.url().replace("forebay@", "limited@");
    let daemon = common::Daemon::start(dir.path(), &url, &["--cores", "1"]);
    let push = |n: u64| {
        let body = serde_json::json!({"items": [{"queue": "rights", "payload": n}]});
        assert_eq!(daemon.connect().push(&body).unwrap().status, 201);
    };
    push(0);
    daemon.wait_until_drained();
    cluster.psql("REVOKE INSERT ON forebay.messages FROM limited").unwrap();
    (1..10).for_each(push);
    wait_until("the missing right is told", || {
        let log = daemon.log();
        log.contains("postgres_refuses") && log.contains("42501")
    });
    assert_eq!(daemon.figure("pending"), 9, "nothing is let go of");
    cluster.psql("GRANT INSERT ON forebay.messages TO limited").unwrap();
    let expected: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(common::stage::payload_texts(&daemon, &cluster, "rights", 10), expected);
    assert_eq!(daemon.figure("failed"), 0);
}
