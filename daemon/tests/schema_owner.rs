//! A schema over which a stranger has power is not used: nothing of the stranger's runs with the rights of the daemon.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, data_dir, forebay, wait_until};
use forebay_cluster::TestCluster;
use tempfile::TempDir;

/// The daemon's role has no rights but its own. `stranger` may make schemas.
fn cluster() -> TestCluster {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster
        .psql(
            "CREATE ROLE drainer LOGIN; CREATE ROLE stranger LOGIN; CREATE ROLE team; GRANT team TO drainer; \
             GRANT CREATE ON DATABASE forebay TO drainer, stranger, team; \
             CREATE TABLE public.loot (who text); GRANT INSERT ON public.loot TO PUBLIC",
        )
        .unwrap();
    cluster
}

fn url(cluster: &TestCluster, role: &str) -> String {
    cluster.url().replacen("forebay@", &format!("{role}@"), 1)
}

/// What a stranger lays out who is there before the daemon: views that run a function of theirs.
const TRAP: &str = "SET SESSION AUTHORIZATION stranger; CREATE SCHEMA forebay; GRANT USAGE ON SCHEMA forebay TO PUBLIC; \
     CREATE FUNCTION forebay.evil() RETURNS integer LANGUAGE plpgsql AS \
     $$BEGIN INSERT INTO public.loot VALUES (current_user); RETURN 4; END$$; \
     CREATE VIEW forebay.schema_version AS SELECT forebay.evil() AS version; \
     CREATE VIEW forebay.dead_letters AS SELECT forebay.evil()::bigint AS id; \
     CREATE VIEW forebay.drain_checkpoints AS SELECT forebay.evil() AS drainer; \
     GRANT SELECT ON ALL TABLES IN SCHEMA forebay TO PUBLIC";

/// Runs each command that looks into the schema as `role`, and checks that it is refused with a word about `told`.
fn check_commands_refused(cluster: &TestCluster, role: &str, dir: &TempDir, told: &str) {
    let (url, data_dir) = (url(cluster, role), dir.path().to_str().unwrap());
    let commands: [(&[&str], i32); 6] = [
        (&["schema", "migrate"], 5),
        (&["schema", "check"], 1),
        (&["dead-letters", "ls"], 5),
        (&["dead-letters", "retry", "--all"], 5),
        (&["checkpoint", "show"], 5),
        (&["checkpoint", "set", "--to", "log-oldest", "--yes"], 5),
    ];
    for (command, code) in commands {
        let output = forebay(&[command, &["--postgres", &url, "--data-dir", data_dir]].concat());
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
        assert!(text.contains(told), "{command:?}: {text}");
    }
}

fn check_refused(role: &str, told: &str, prepare: impl Fn(&TestCluster)) {
    let cluster = cluster();
    prepare(&cluster);
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &url(&cluster, role), &["--cores", "1"]);
    wait_until("the refusal is told", || daemon.log().contains("postgres_refuses"));
    let log = daemon.log().replace("\\\"", "\"");
    assert!(log.contains(told), "{log}");
    assert!(log.contains("--schema-owner"), "it says what to do: {}", daemon.log());
    let mut client = daemon.connect();
    assert_eq!(client.post("/push/q", b"1").unwrap().status, 201, "pushes go on");
    let ready = client.get("/ready").unwrap();
    assert_eq!((ready.status, &ready.json()["delivery"]), (200, &"paused".into()));
    // A person who looks does not walk into it either.
    client.get("/api/v1/dead-letters").unwrap();
    client.get("/api/v1/dead-letters/1").unwrap();
    assert!(daemon.terminate().success());
    check_commands_refused(&cluster, role, &dir, told);
    assert_eq!(cluster.psql("SELECT count(*) FROM public.loot").unwrap(), "0");
}

#[test]
fn a_schema_of_a_stranger_is_refused_by_name_and_nothing_of_theirs_runs() {
    check_refused("drainer", "the schema belongs to the role \"stranger\"", |cluster| {
        cluster.psql(TRAP).unwrap();
    });
}

#[test]
fn a_superuser_does_not_take_a_stranger_s_schema_for_its_own() {
    check_refused("forebay", "the schema belongs to the role \"stranger\"", |cluster| {
        cluster.psql(TRAP).unwrap();
    });
}

fn migrated(cluster: &TestCluster) {
    assert!(forebay(&["schema", "migrate", "--postgres", &url(cluster, "drainer")]).status.success());
}

#[test]
fn a_table_of_a_stranger_is_refused_by_name() {
    check_refused("drainer", "dead_letters belongs to the role \"stranger\"", |cluster| {
        migrated(cluster);
        let change = "ALTER TABLE forebay.dead_letters OWNER TO stranger";
        cluster.psql(&format!("GRANT CREATE, USAGE ON SCHEMA forebay TO stranger; {change}")).unwrap();
        cluster.psql("REVOKE CREATE ON SCHEMA forebay FROM stranger").unwrap();
    });
}

#[test]
fn a_stranger_who_may_create_in_the_schema_is_refused_by_name() {
    check_refused("drainer", "the role \"stranger\" may create objects in the schema", |cluster| {
        migrated(cluster);
        cluster.psql("GRANT CREATE ON SCHEMA forebay TO stranger").unwrap();
    });
    check_refused("drainer", "everybody (PUBLIC) may create objects in the schema", |cluster| {
        migrated(cluster);
        cluster.psql("GRANT CREATE ON SCHEMA forebay TO PUBLIC").unwrap();
    });
}

#[test]
fn the_role_itself_its_groups_superusers_and_a_named_owner_are_trusted() {
    let cluster = cluster();
    cluster.psql("CREATE ROLE keeper; CREATE ROLE others; GRANT team TO others").unwrap();
    let drainer = url(&cluster, "drainer");
    migrated(&cluster);
    let check = |args: &[&str]| forebay(&[&["schema", "check", "--postgres", &drainer], args].concat()).status.code();
    assert_eq!(check(&[]), Some(0), "its own");
    let tables = ["schema_version", "queues", "partitions", "messages", "dead_letters", "drain_checkpoints"];
    let views = ["message_log", "dead_letters_log"];
    let give = |role: &str| {
        let schema = format!("ALTER SCHEMA forebay OWNER TO {role};");
        let each = tables.iter().chain(&views).map(|name| format!("ALTER TABLE forebay.{name} OWNER TO {role};"));
        cluster.psql(&(schema + &each.collect::<String>())).unwrap();
        let rights = "GRANT USAGE ON SCHEMA forebay TO drainer; GRANT ALL ON ALL TABLES IN SCHEMA forebay TO drainer";
        cluster.psql(rights).unwrap();
    };
    give("team");
    assert_eq!(check(&[]), Some(0), "a role that it is a member of");
    give("forebay");
    assert_eq!(check(&[]), Some(0), "a superuser");
    give("keeper");
    assert_eq!(check(&[]), Some(1), "a stranger");
    assert_eq!(check(&["--schema-owner", "keeper"]), Some(0), "a named owner");
    let dir = data_dir();
    let daemon =
        Daemon::start(dir.path(), &drainer, &["--cores", "1", "--schema-owner", "keeper", "--migrate", "false"]);
    assert_eq!(daemon.connect().post("/push/q?wait=postgres", b"1").unwrap().status, 201);
    daemon.wait_until_drained();
}
