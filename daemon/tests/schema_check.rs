//! What the daemon relies on in PostgreSQL's catalogue, and whom it may belong to.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, data_dir, forebay, stage::Stage, wait_until};
use forebay_cluster::TestCluster;
use serde_json::{Value, json};

/// Runs `forebay schema check` and returns its exit code and what it printed.
fn check(cluster: &TestCluster, args: &[&str]) -> (i32, String) {
    let url = cluster.url();
    let output = forebay(&[&["schema", "check", "--postgres", &url], args].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn migrate(cluster: &TestCluster) {
    assert!(forebay(&["schema", "migrate", "--postgres", &cluster.url()]).status.success());
}

/// Changes of the schema: how, what `schema check` says of it, and whether it stops delivery.
const CHANGES: &[(&str, &str, bool)] = &[
    (
        "DROP INDEX forebay.messages_transaction",
        "messages has no unique index on (partition_id, transaction_key)",
        true,
    ),
    (
        "DROP INDEX forebay.messages_transaction; \
         CREATE INDEX messages_transaction ON forebay.messages (partition_id, transaction_key)",
        "messages has no unique index on (partition_id, transaction_key)",
        true,
    ),
    (
        "DROP INDEX forebay.messages_transaction; CREATE UNIQUE INDEX messages_transaction \
         ON forebay.messages (partition_id, transaction_key) WHERE transaction_key IS NOT NULL AND seq > 100",
        "messages has no unique index on (partition_id, transaction_key)",
        true,
    ),
    ("ALTER INDEX forebay.messages_transaction RENAME TO other_name", "with the name messages_transaction", true),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'forebay.messages_transaction'::regclass",
        "messages has no unique index on (partition_id, transaction_key)",
        true,
    ),
    (
        "ALTER TABLE forebay.messages DROP CONSTRAINT messages_pkey; \
         ALTER TABLE forebay.messages ADD PRIMARY KEY (partition_id, seq) DEFERRABLE",
        "messages has no unique index on (partition_id, seq)",
        true,
    ),
    ("ALTER TABLE forebay.queues DROP CONSTRAINT queues_name_key", "queues has no unique index on (name)", true),
    ("ALTER TABLE forebay.partitions DROP CONSTRAINT partitions_queue_id_name_key", "(queue_id, name)", true),
    (
        "DROP VIEW forebay.message_log; ALTER TABLE forebay.messages ALTER payload TYPE text",
        "the column messages.payload has the type text, not jsonb",
        true,
    ),
    (
        "DROP VIEW forebay.message_log; ALTER TABLE forebay.messages ALTER payload TYPE json",
        "the column messages.payload has the type json, not jsonb",
        true,
    ),
    (
        "DROP VIEW forebay.message_log; ALTER TABLE forebay.messages ALTER id TYPE text",
        "the column messages.id has the type text, not uuid",
        true,
    ),
    ("ALTER TABLE forebay.messages DROP COLUMN producer_sub", "messages has no column producer_sub", true),
    ("ALTER TABLE forebay.messages ADD tenant text NOT NULL", "messages.tenant is NOT NULL without a default", true),
    ("ALTER TABLE forebay.dead_letters ADD tenant text NOT NULL", "dead_letters.tenant is NOT NULL without", false),
    ("ALTER TABLE forebay.partitions ALTER last_seq DROP DEFAULT", "partitions.last_seq", true),
    ("ALTER TABLE forebay.partitions ALTER last_seq SET DEFAULT 7", "partitions.last_seq is 7, not 0", true),
    ("ALTER TABLE forebay.messages SET UNLOGGED", "the table messages is UNLOGGED", true),
    ("ALTER TABLE forebay.drain_checkpoints SET UNLOGGED", "the table drain_checkpoints is UNLOGGED", true),
    ("ALTER TABLE forebay.dead_letters RENAME TO gone", "there is no table dead_letters", false),
    ("ALTER TABLE forebay.dead_letters SET UNLOGGED", "the table dead_letters is UNLOGGED", true),
    (
        "CREATE RULE calm AS ON UPDATE TO forebay.partitions DO INSTEAD NOTHING",
        "the rule \"calm\" of the table partitions",
        true,
    ),
    (
        "CREATE RULE quiet AS ON INSERT TO forebay.dead_letters DO INSTEAD NOTHING",
        "the rule \"quiet\" of the table dead_letters",
        false,
    ),
    (
        "CREATE COLLATION public.lax (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
         DROP VIEW forebay.message_log; ALTER TABLE forebay.queues ALTER name TYPE text COLLATE public.lax",
        "queues.name has a collation",
        true,
    ),
    ("DROP VIEW forebay.message_log", "there is no view message_log", false),
    (
        "DROP VIEW forebay.dead_letters_log; CREATE VIEW forebay.dead_letters_log AS SELECT queue FROM forebay.dead_letters",
        "the column partition of the view dead_letters_log",
        false,
    ),
    ("ALTER TABLE forebay.messages ALTER trace_id SET NOT NULL", "messages.trace_id is NOT NULL, so rows", false),
    ("ALTER TABLE forebay.queues ALTER options DROP NOT NULL", "queues.options may be null", false),
    (
        "ALTER TABLE forebay.partitions DROP CONSTRAINT partitions_queue_id_fkey",
        "no valid foreign key to queues",
        false,
    ),
    (
        "ALTER TABLE forebay.dead_letters DROP CONSTRAINT dead_letters_pkey",
        "dead_letters has no unique index on (id)",
        false,
    ),
];

/// Changes with which messages are delivered as ever.
const HARMLESS: &[&str] = &[
    "ALTER TABLE forebay.messages ADD note text",
    "ALTER TABLE forebay.messages ADD tenant text NOT NULL DEFAULT 'none'",
    "ALTER TABLE forebay.messages ADD size integer GENERATED ALWAYS AS (octet_length(transaction_id)) STORED",
    "ALTER TABLE forebay.messages ADD serial bigint GENERATED ALWAYS AS IDENTITY",
    "CREATE INDEX ON forebay.messages (created_at)",
    "CREATE UNIQUE INDEX ON forebay.messages (id)",
    "ALTER TABLE forebay.messages ADD CONSTRAINT rule CHECK (payload ? 'v')",
    "ALTER TABLE forebay.messages ALTER producer_sub TYPE text COLLATE \"C\"",
    "CREATE OR REPLACE VIEW forebay.dead_letters_log AS SELECT queue, partition, transaction_id, payload_text, error, \
     failed_at, source, id FROM forebay.dead_letters",
    "CREATE TABLE forebay.mine (n int)",
    "DROP INDEX forebay.messages_transaction; CREATE UNIQUE INDEX messages_transaction \
     ON forebay.messages (partition_id, transaction_key)",
];

#[test]
fn schema_check_names_each_difference_and_passes_over_what_is_harmless() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let (code, text) = check(&cluster, &[]);
    assert!(code == 1 && text.contains("version 0"), "{code}: {text}");
    migrate(&cluster);
    assert_eq!(check(&cluster, &[]).0, 0);
    // Each change is undone by making the schema anew.
    let anew = |change: &str| {
        cluster.psql("DROP SCHEMA forebay CASCADE; DROP COLLATION IF EXISTS public.lax").unwrap();
        migrate(&cluster);
        cluster.psql(&format!("SET allow_system_table_mods = on; {change}")).unwrap();
        check(&cluster, &[])
    };
    for (change, told, stops) in CHANGES {
        let (code, text) = anew(change);
        let start = if *stops { "stops delivery: " } else { "differs: " };
        let is_told = |line: &str| line.starts_with(start) && line.contains(told);
        assert!(code == 1 && text.lines().any(is_told), "{change}: {code}: {text}");
        let stopping = text.lines().filter(|line| line.starts_with("stops delivery: ")).count();
        assert_eq!(stopping > 0, *stops, "{change}: {text}");
    }
    for change in HARMLESS {
        let (code, text) = anew(change);
        assert_eq!(code, 0, "{change}: {text}");
    }
    let nowhere = forebay(&["schema", "check", "--postgres", common::NOWHERE]);
    assert_eq!(nowhere.status.code(), Some(5));
}

#[test]
fn nothing_that_a_migration_makes_is_left_out_of_the_comparison() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    migrate(&cluster);
    cluster.psql("CREATE ROLE stranger").unwrap();
    let found = |change: &str, back: &str| {
        cluster.psql(change).unwrap();
        let (code, text) = check(&cluster, &[]);
        cluster.psql(back).unwrap();
        assert_eq!(code, 1, "{change}: {text}");
    };
    let relations = "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'forebay'::regnamespace \
                     AND relkind IN ('r', 'v') ORDER BY relname";
    let relations = common::rows(&cluster, relations);
    assert!(relations.len() >= 8, "{relations:?}");
    for row in &relations {
        let [name, kind] = &row[..] else { panic!("{row:?}") };
        let own = |role: &str| format!("ALTER TABLE forebay.{name} OWNER TO {role}");
        found(&own("stranger"), &own("forebay"));
        found(
            &format!("ALTER TABLE forebay.{name} RENAME TO renamed"),
            &format!("ALTER TABLE forebay.renamed RENAME TO {name}"),
        );
        // What a view lacks is told as its own, and the version is asked for before anything is compared.
        if kind == "v" || name == "schema_version" {
            continue;
        }
        let columns = format!(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'forebay.{name}'::regclass AND attnum > 0 ORDER BY attnum"
        );
        for column in common::rows(&cluster, &columns).into_iter().flatten() {
            let rename = |from: &str, to: &str| format!("ALTER TABLE forebay.{name} RENAME COLUMN {from} TO {to}");
            found(&rename(&column, "renamed"), &rename("renamed", &column));
        }
    }
    assert_eq!(check(&cluster, &[]).0, 0, "all changes were taken back");
}

fn delivery(daemon: &Daemon) -> Value {
    let ready = daemon.connect().get("/ready").unwrap();
    assert_eq!(ready.status, 200);
    ready.json()["delivery"].take()
}

fn push_twice(daemon: &Daemon, transaction_id: &str) {
    for _ in 0..2 {
        let item = json!({"queue": "q", "payload": 1, "transactionId": transaction_id});
        assert_eq!(daemon.connect().push(&json!({"items": [item], "qos0": true})).unwrap().status, 201);
    }
}

/// Between two runs of the daemon `change` breaks the schema; `mended` takes that back.
fn check_pause(change: &str, told: &str, mended: &str) {
    let Stage { daemon, cluster, dir } = Stage::start(&[]);
    push_twice(&daemon, "before");
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
    cluster.psql(change).unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]);
    wait_until("the pause is told", || delivery(&daemon) == "paused");
    push_twice(&daemon, "meanwhile");
    assert_eq!(daemon.figure("pending"), 2, "nothing is delivered");
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("schema_mismatch")).collect();
    assert!(lines.len() == 1 && lines[0].contains(told), "told once: {log}");
    cluster.psql(mended).unwrap();
    daemon.wait_until_drained();
    let count = "SELECT count(*) FROM forebay.messages";
    assert_eq!((common::rows(&cluster, count), daemon.figure("failed")), (vec![vec!["2".to_owned()]], 0));
}

/// A connected daemon, idle or under load, notices that `change` breaks the schema; `mended` takes that back.
fn check_pause_under_a_session(change: &str, told: &str, mended: &str, is_under_load: bool) {
    let Stage { daemon, cluster, dir: _dir } = Stage::start(&[]);
    push_twice(&daemon, "before");
    daemon.wait_until_drained();
    cluster.psql(change).unwrap();
    wait_until("the pause is told", || {
        if is_under_load {
            let item = json!({"queue": "q", "payload": 1});
            assert_eq!(daemon.connect().push(&json!({"items": [item], "qos0": true})).unwrap().status, 201);
        }
        delivery(&daemon) == "paused"
    });
    push_twice(&daemon, "meanwhile");
    assert!(daemon.figure("pending") >= 2, "nothing is delivered");
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("schema_mismatch")).collect();
    assert!(lines.len() == 1 && lines[0].contains(told), "told once: {log}");
    cluster.psql(mended).unwrap();
    daemon.wait_until_drained();
    let count = "SELECT count(*) FROM forebay.messages WHERE transaction_id IS NOT NULL";
    assert_eq!((common::rows(&cluster, count), daemon.figure("failed")), (vec![vec!["2".to_owned()]], 0));
}

#[test]
fn a_schema_that_is_changed_under_a_session_pauses_delivery() {
    let index = "CREATE UNIQUE INDEX messages_transaction ON forebay.messages (partition_id, transaction_key) \
                 WHERE transaction_key IS NOT NULL";
    let told = "no unique index on (partition_id, transaction_key)";
    check_pause_under_a_session("DROP INDEX forebay.messages_transaction", told, index, false);
    check_pause_under_a_session("DROP INDEX forebay.messages_transaction", told, index, true);
    let change = "DROP VIEW forebay.message_log; ALTER TABLE forebay.messages ALTER payload TYPE text";
    let mended = "ALTER TABLE forebay.messages ALTER payload TYPE jsonb USING payload::jsonb";
    check_pause_under_a_session(change, "has the type text, not jsonb", mended, false);
    let change = "ALTER TABLE forebay.queues DROP CONSTRAINT queues_name_key";
    let mended = "ALTER TABLE forebay.queues ADD CONSTRAINT queues_name_key UNIQUE (name)";
    check_pause_under_a_session(change, "queues has no unique index on (name)", mended, true);
}

#[test]
fn a_lost_unique_index_pauses_delivery_and_no_message_comes_twice() {
    let index = "CREATE UNIQUE INDEX messages_transaction ON forebay.messages (partition_id, transaction_key) \
                 WHERE transaction_key IS NOT NULL";
    check_pause("DROP INDEX forebay.messages_transaction", "no unique index on (partition_id, transaction_key)", index);
}

#[test]
fn a_payload_of_another_type_pauses_delivery_and_no_payload_is_spoiled() {
    let change = "DROP VIEW forebay.message_log; ALTER TABLE forebay.messages ALTER payload TYPE text";
    let mended = "ALTER TABLE forebay.messages ALTER payload TYPE jsonb USING payload::jsonb";
    check_pause(change, "has the type text, not jsonb", mended);
}

#[test]
fn row_security_pauses_delivery_by_name() {
    // It is in force for an owner who is no superuser.
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.psql("CREATE ROLE drainer LOGIN; GRANT CREATE ON DATABASE forebay TO drainer").unwrap();
    let url = cluster.url().replacen("forebay@", "drainer@", 1);
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &url, &["--cores", "1"]);
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
    let tables = "ALTER TABLE forebay.messages ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY";
    cluster.psql(tables).unwrap();
    let daemon = Daemon::start(dir.path(), &url, &["--cores", "1"]);
    wait_until("the pause is told", || delivery(&daemon) == "paused");
    assert!(daemon.log().contains("row security of the table messages"), "{}", daemon.log());
    push_twice(&daemon, "t");
    cluster.psql("ALTER TABLE forebay.messages DISABLE ROW LEVEL SECURITY").unwrap();
    daemon.wait_until_drained();
    assert_eq!(common::rows(&cluster, "SELECT count(*) FROM forebay.messages"), [["1"]]);
}

#[test]
fn a_missing_view_is_made_again_or_told_and_delivery_goes_on() {
    let Stage { daemon, cluster, dir } = Stage::start(&[]);
    assert!(daemon.terminate().success());
    let drop_views = "DROP VIEW forebay.message_log, forebay.dead_letters_log";
    cluster.psql(drop_views).unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--migrate", "false"]);
    push_twice(&daemon, "told");
    daemon.wait_until_drained();
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("schema_differs")).collect();
    assert!(lines.len() == 1 && lines[0].contains("message_log") && lines[0].contains("dead_letters_log"), "{log}");
    migrate(&cluster);
    let count = || common::rows(&cluster, "SELECT count(*) FROM forebay.message_log");
    assert_eq!(count(), [["1"]]);
    assert!(daemon.terminate().success());
    cluster.psql(drop_views).unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &[]);
    push_twice(&daemon, "made again");
    daemon.wait_until_drained();
    assert_eq!(count(), [["2"]]);
}

#[test]
fn a_trigger_that_would_not_find_its_names_is_told() {
    let Stage { daemon, cluster, dir } = Stage::start(&[]);
    assert!(daemon.terminate().success());
    let function = |name: &str, settings: &str, target: &str| {
        format!(
            "CREATE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql {settings} AS \
             $$BEGIN INSERT INTO {target} VALUES (NEW.seq); RETURN NULL; END$$; \
             CREATE TRIGGER {name} AFTER INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION public.{name}();"
        )
    };
    let sql = [
        "CREATE TABLE public.audit (seq bigint);".to_owned(),
        function("qualified", "", "public.audit"),
        function("with_path", "SET search_path = public", "audit"),
        function("lost", "", "audit"),
    ];
    cluster.psql(&sql.concat()).unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &[]);
    let told = || {
        let log = daemon.log();
        log.lines().filter(|line| line.contains("a trigger may fail")).map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("the trigger is told", || !told().is_empty());
    let told = told();
    assert!(told.len() == 1 && told[0].contains("public.lost()") && told[0].contains("audit"), "{told:?}");
    // The two others work.
    cluster.psql("DROP TRIGGER lost ON forebay.messages").unwrap();
    push_twice(&daemon, "t");
    daemon.wait_until_drained();
    assert_eq!(common::rows(&cluster, "SELECT count(*) FROM public.audit"), [["2"]]);
}

#[test]
fn a_trigger_that_undoes_what_the_drain_writes_pauses_delivery_by_name() {
    for (table, event, is_connected) in [
        ("partitions", "UPDATE", true),
        ("drain_checkpoints", "UPDATE", true),
        ("drain_checkpoints", "UPDATE", false),
        ("log_owners", "INSERT", false),
    ] {
        let Stage { daemon, cluster, dir } = Stage::start(&[]);
        push_twice(&daemon, "before");
        daemon.wait_until_drained();
        let stopped = (!is_connected).then(|| daemon.data_dir().to_path_buf());
        let mut daemon = Some(daemon);
        if stopped.is_some() {
            assert!(daemon.take().unwrap().terminate().success());
        }
        cluster
            .psql(&format!(
                "CREATE FUNCTION public.undo() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
                 CREATE TRIGGER undoing BEFORE {event} ON forebay.{table} FOR EACH ROW EXECUTE FUNCTION public.undo()"
            ))
            .unwrap();
        let (code, text) = check(&cluster, &[]);
        let note = format!("note: there is a trigger of others, \"undoing\" on {table}, which calls public.undo()");
        assert!(code == 0 && text.contains(&note), "{text}");
        let daemon = daemon.unwrap_or_else(|| Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]));
        push_twice(&daemon, "meanwhile");
        wait_until("the pause is told", || delivery(&daemon) == "paused");
        let log = daemon.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("schema_takes_no_row")).collect();
        let told = format!("\\\"undoing\\\" on {table}, which calls public.undo()");
        assert!(lines.len() == 1 && lines[0].contains(&told), "{told}: {log}");
        if table == "drain_checkpoints" {
            let dir = daemon.data_dir().to_str().unwrap();
            let decided = forebay(&["checkpoint", "set", "--to", "log-end", "--yes", "--data-dir", dir]);
            let error = String::from_utf8_lossy(&decided.stderr);
            assert!(decided.status.code() == Some(5) && error.contains("without an error"), "{error}");
        }
        cluster.psql(&format!("DROP TRIGGER undoing ON forebay.{table}")).unwrap();
        daemon.wait_until_drained();
        assert_eq!(common::rows(&cluster, "SELECT count(*) FROM forebay.messages"), [["2"]]);
    }
}

#[test]
fn triggers_of_others_are_named_at_connect() {
    let Stage { daemon, cluster, dir } = Stage::start(&[]);
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
    cluster
        .psql(
            "CREATE FUNCTION public.watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
             CREATE TRIGGER watching BEFORE UPDATE ON forebay.partitions FOR EACH ROW EXECUTE FUNCTION public.watch(); \
             CREATE TRIGGER listening AFTER INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION public.watch()",
        )
        .unwrap();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &[]);
    let has_line = |level: &str, trigger: &str| {
        daemon
            .log()
            .lines()
            .any(|line| line.contains(level) && line.contains("triggers of others") && line.contains(trigger))
    };
    wait_until("both are named", || has_line("WARN", "watching") && has_line("INFO", "listening"));
}
