//! Rows and names that fail with errors that may be PostgreSQL's own: they are judged by what repeats with them alone.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{PATIENCE, random::Random, rows, stage::Stage, test_seed, wait_until};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// SQLSTATEs of which each may be raised by one row, and each by a server in trouble.
const FOREIGN: [&str; 12] =
    ["XX000", "XX001", "55000", "53400", "53100", "0A000", "42P01", "42703", "40001", "57014", "25006", "58030"];

/// A trigger that raises the SQLSTATE in a payload.
const RAISE: &str = "CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
     IF NEW.payload ? 'code' THEN RAISE EXCEPTION 'parse error' USING ERRCODE = NEW.payload->>'code'; END IF; \
     RETURN NEW; END$$; \
     CREATE TRIGGER raise BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION raise()";

/// The longest time that a message at fault may take to become a dead letter, with slack for a busy machine.
const LETTER_PATIENCE: Duration = Duration::from_secs(20);

fn push(stage: &Stage, path: &str, payload: &Value) -> Value {
    let answer = stage.daemon.connect().post(path, payload.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 201, "{}", answer.error());
    answer.json()
}

/// The dead letters as SQLSTATE and payload, in the order of the log.
fn letters(stage: &Stage) -> Vec<Vec<String>> {
    stage.rows("SELECT sqlstate, payload_text FROM forebay.dead_letters ORDER BY number")
}

/// The messages of a queue with their `seq`, which has no gap.
fn payloads(stage: &Stage, queue: &str) -> Vec<String> {
    let sql = format!("SELECT seq, payload FROM forebay.message_log WHERE queue = '{queue}' ORDER BY seq");
    let rows = stage.rows(&sql);
    for (row, seq) in rows.iter().zip(1..) {
        assert_eq!(row[0], seq.to_string(), "seq has no gaps");
    }
    rows.into_iter().map(|mut row| row.remove(1)).collect()
}

/// Lines of the log above level INFO.
fn complaints(stage: &Stage) -> Vec<String> {
    let log = stage.daemon.log();
    log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).map(str::to_owned).collect()
}

#[test]
fn case_56_a_row_that_raises_what_a_server_in_trouble_says_is_set_aside_and_all_others_are_delivered() {
    let stage = Stage::start(&[]);
    push(&stage, "/push/a?wait=postgres", &json!(0));
    stage.cluster.psql(RAISE).unwrap();
    let mut expected = vec!["0".to_owned()];
    for (n, code) in FOREIGN.into_iter().chain(["22023"]).enumerate() {
        let start = Instant::now();
        push(&stage, "/push/a", &json!({"code": code}));
        push(&stage, "/push/a", &json!(n));
        push(&stage, "/push/other", &json!(n));
        wait_until("it is a dead letter", || stage.daemon.figure("failed") == n as u64 + 1);
        assert!(start.elapsed() < LETTER_PATIENCE, "{code}: {:?}", start.elapsed());
        expected.push(n.to_string());
        stage.daemon.wait_until_drained();
        assert_eq!(push(&stage, "/push/other?wait=postgres", &json!(true))[0]["status"], "queued", "{code}");
    }
    assert_eq!(payloads(&stage, "a"), expected);
    let codes: Vec<String> = letters(&stage).into_iter().map(|mut row| row.remove(0)).collect();
    assert!(codes.iter().eq(FOREIGN.iter().chain(&["22023"])), "{codes:?}");
    let complaints = complaints(&stage);
    assert!(complaints.len() <= 2 * codes.len(), "{}", complaints.join("\n"));
    assert!(!complaints.iter().any(|line| line.contains("is held up")), "{}", complaints.join("\n"));
}

/// A trigger meets a constraint of its own that is called as one of ours, or names one: it is the row's fault all the same.
#[test]
fn case_56_a_row_that_violates_a_constraint_of_the_user_s_is_set_aside_whatever_that_is_called() {
    let stage = Stage::start(&[]);
    push(&stage, "/push/a?wait=postgres", &json!(0));
    let trigger = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION public.archive() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
             IF NEW.payload = '\"bad\"' THEN {body}; END IF; RETURN NEW; END$$"
        )
    };
    let makes = "CREATE SCHEMA archive; CREATE TABLE archive.messages (id int PRIMARY KEY); \
                 CREATE TABLE archive.others (id int CONSTRAINT messages_transaction UNIQUE); \
                 INSERT INTO archive.messages VALUES (1); INSERT INTO archive.others VALUES (1)";
    stage.cluster.psql(makes).unwrap();
    let bodies = [
        "INSERT INTO archive.messages VALUES (1)",
        "INSERT INTO archive.others VALUES (1)",
        "RAISE unique_violation USING CONSTRAINT = 'messages_transaction', TABLE = 'messages', SCHEMA = 'forebay'",
        "RAISE unique_violation USING CONSTRAINT = 'messages_pkey', TABLE = 'messages', SCHEMA = 'forebay'",
    ];
    for (body, n) in bodies.into_iter().zip(1_u64..) {
        stage.cluster.psql(&trigger(body)).unwrap();
        if n == 1 {
            let set = "CREATE TRIGGER archive BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION public.archive()";
            stage.cluster.psql(set).unwrap();
        }
        push(&stage, "/push/a", &json!("bad"));
        push(&stage, "/push/a", &json!(n));
        push(&stage, "/push/other", &json!(n));
        wait_until("it is a dead letter", || stage.daemon.figure("failed") == n);
        stage.daemon.wait_until_drained();
    }
    assert_eq!(payloads(&stage, "a"), ["0", "1", "2", "3", "4"]);
    assert_eq!(payloads(&stage, "other"), ["1", "2", "3", "4"]);
    assert!(letters(&stage).iter().all(|letter| letter == &["23505", "\"bad\""]));
}

#[test]
fn case_56_a_row_that_waits_alone_is_set_aside_once_a_neighbour_commits_and_not_before() {
    let stage = Stage::start(&[]);
    push(&stage, "/push/a?wait=postgres", &json!(0));
    stage.cluster.psql(RAISE).unwrap();
    for (n, code) in ["XX000", "42P01", "40001"].into_iter().enumerate() {
        let pending = stage.daemon.figure("failed");
        push(&stage, "/push/a", &json!({"code": code}));
        wait_until("it is held up", || stage.daemon.buffers()["dbHealthy"] == false);
        assert_eq!((stage.daemon.figure("failed"), stage.daemon.figure("pending")), (pending, 1), "{code}");
        push(&stage, "/push/other", &json!(n));
        let start = Instant::now();
        stage.daemon.wait_until_drained();
        assert!(start.elapsed() < LETTER_PATIENCE, "{code}: {:?}", start.elapsed());
        assert_eq!(stage.daemon.figure("failed"), pending + 1);
    }
    assert_eq!(payloads(&stage, "other"), ["0", "1", "2"]);
}

#[test]
fn case_56_where_every_row_fails_with_it_nothing_is_set_aside_and_little_is_logged() {
    let stage = Stage::start(&[]);
    push(&stage, "/push/a?wait=postgres", &json!(0));
    let rule = "CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS \
                $$BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END$$; \
                CREATE TRIGGER raise BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION raise()";
    stage.cluster.psql(rule).unwrap();
    let lines: String = (0..2000).map(|n| format!("{n}\n")).collect();
    let mut client = stage.daemon.connect();
    assert_eq!(client.post_ndjson("/push/a", lines.as_bytes()).unwrap().status, 201);
    wait_until("it is held up", || stage.daemon.buffers()["dbHealthy"] == false);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((stage.daemon.figure("failed"), stage.daemon.figure("pending")), (0, 2000));
    let complaints = complaints(&stage);
    assert!(complaints.len() <= 3, "the back-off is not reset by a connect: {}", complaints.join("\n"));
    let connected = stage.daemon.log().matches("connected to PostgreSQL").count();
    assert!(connected <= 2, "{connected}");
    stage.cluster.psql("DROP TRIGGER raise ON forebay.messages").unwrap();
    stage.daemon.wait_until_drained();
    assert_eq!(payloads(&stage, "a").len(), 2001);
    assert_eq!(stage.daemon.figure("failed"), 0);
}

#[test]
fn case_56_a_row_that_ends_its_session_is_set_aside_and_its_neighbours_are_delivered() {
    let stage = Stage::start(&[]);
    push(&stage, "/push/a?wait=postgres", &json!(0));
    let rule = "CREATE FUNCTION kill() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
                IF NEW.payload = '\"kill\"' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; \
                RETURN NEW; END$$; \
                CREATE TRIGGER kill BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION kill()";
    stage.cluster.psql(rule).unwrap();
    let deliver = |killing: &[u64], letters_before: usize, first: u64| {
        let line = |n: u64| if killing.contains(&n) { "\"kill\"\n".to_owned() } else { format!("{n}\n") };
        let lines: String = (first..first + 500).map(line).collect();
        assert_eq!(stage.daemon.connect().post_ndjson("/push/a", lines.as_bytes()).unwrap().status, 201);
        stage.daemon.wait_until_drained();
        assert_eq!(letters(&stage).len(), letters_before + killing.len());
    };
    deliver(&[300], 0, 1);
    // Each session that is lost says more of which rows it is.
    deliver(&[550, 700, 701, 800, 999], 1, 501);
    let expected: Vec<String> =
        (0..1001).filter(|n| ![300, 550, 700, 701, 800, 999].contains(n)).map(|n: u64| n.to_string()).collect();
    assert_eq!(payloads(&stage, "a"), expected);
    assert!(letters(&stage).iter().all(|letter| letter == &["57P01", "\"kill\""]));
}

#[test]
fn case_56_a_row_that_takes_too_long_is_set_aside_soon_and_its_neighbours_are_delivered() {
    let stage = Stage::start(&["--postgres-timeout-ms", "6000"]);
    push(&stage, "/push/a?wait=postgres", &json!(0));
    let rule = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
                IF NEW.payload = '\"wait\"' THEN PERFORM pg_sleep(100); END IF; RETURN NEW; END$$; \
                CREATE TRIGGER wait BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION wait()";
    stage.cluster.psql(rule).unwrap();
    let deliver = |waiting: &[u64], first: u64, count: u64| {
        let line = |n: u64| if waiting.contains(&n) { "\"wait\"\n".to_owned() } else { format!("{n}\n") };
        let lines: String = (first..first + count).map(line).collect();
        assert_eq!(stage.daemon.connect().post_ndjson("/push/a", lines.as_bytes()).unwrap().status, 201);
        let start = Instant::now();
        wait_until("its age is told", || stage.daemon.figure("oldestPendingMs") > 1000);
        stage.daemon.wait_until_drained();
        start.elapsed()
    };
    // The first row as well as one in the middle, and one of two.
    let first = deliver(&[1], 1, 2);
    let second = deliver(&[300], 3, 3000);
    assert!(first < Duration::from_secs(20), "{first:?}");
    // The statement's whole time is not spent again.
    assert!(second < Duration::from_secs(12), "{second:?}");
    assert_eq!(letters(&stage), [["57014", "\"wait\""]; 2]);
    assert_eq!(payloads(&stage, "a").len(), 3001);
    let errors = complaints(&stage);
    assert!(errors.iter().any(|line| line.contains("rows_timed_out")), "{errors:?}");
}

/// Pushes so many lines, and returns how long it took until PostgreSQL had them.
fn deliver(stage: &Stage, queue: &str, line: &str, count: usize) -> Duration {
    let lines: String = std::iter::repeat_n(line, count).flat_map(|line| [line, "\n"]).collect();
    let mut client = stage.daemon.connect();
    let start = Instant::now();
    let path = format!("/push/{queue}");
    assert_eq!(client.post_ndjson(&path, lines.as_bytes()).unwrap().status, 201);
    while stage.daemon.figure("pending") > 0 {
        assert!(start.elapsed() < PATIENCE, "{}", stage.daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

#[test]
fn case_58_eight_thousand_refused_rows_take_no_more_than_three_times_as_long_as_good_ones() {
    /// What the contract allows, and as much again for a busy machine.
    const RATIO_MAX: f64 = 6.0;
    const COUNT: usize = 8000;
    let stage = Stage::start(&[]);
    let rule = "ALTER TABLE forebay.messages ADD CONSTRAINT v CHECK (payload ? 'v')";
    stage.cluster.psql(rule).unwrap();
    deliver(&stage, "warm", "{\"v\":1}", COUNT);
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let good = deliver(&stage, "good", "{\"v\":1}", COUNT);
        let bad = deliver(&stage, "bad", "{\"w\":1}", COUNT);
        println!("{COUNT} good rows: {good:?}, {COUNT} refused rows: {bad:?}");
        ratios.push(bad.as_secs_f64() / good.as_secs_f64());
    }
    assert!(ratios.iter().copied().fold(f64::MAX, f64::min) <= RATIO_MAX, "{ratios:?}");
    assert_eq!(stage.daemon.figure("failed"), 3 * COUNT as u64);
    assert_eq!(rows(&stage.cluster, "SELECT count(*) FROM forebay.dead_letters"), [[(3 * COUNT).to_string()]]);
    assert_eq!(payloads(&stage, "good").len(), 3 * COUNT);
    let complaints = complaints(&stage);
    assert!(complaints.len() < 20, "{}", complaints.join("\n"));
    assert_eq!(complaints.iter().filter(|line| line.contains("rows_refused")).count(), 1, "{}", complaints.join("\n"));
}

/// Messages of a random run.
const RANDOM_COUNT: u64 = 600;

/// What a message of a random run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Good,
    /// It fails with this code whenever it is sent.
    Bad(&'static str),
    /// It fails so many times, also together with others.
    Passing(u64),
    /// It ends its session.
    Kills,
}

/// A trigger that does what a payload says. Sequences count how often: they are not rolled back.
const DO_AS_TOLD: &str = "CREATE FUNCTION do_as_told() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
     IF NEW.payload ? 'kill' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; \
     IF NEW.payload ? 'code' THEN RAISE EXCEPTION 'told' USING ERRCODE = NEW.payload->>'code'; END IF; \
     IF NEW.payload ? 'times' AND nextval('public.n' || (NEW.payload->>'n')) <= (NEW.payload->>'times')::int \
     THEN RAISE EXCEPTION 'not yet' USING ERRCODE = '55000'; END IF; \
     RETURN NEW; END$$; \
     CREATE TRIGGER do_as_told BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION do_as_told()";

/// The payload of message `n`, and the SQL that it needs.
fn told(n: u64, kind: Kind) -> (Value, String) {
    match kind {
        Kind::Good => (json!({"n": n}), String::new()),
        Kind::Bad(code) => (json!({"n": n, "code": code}), String::new()),
        Kind::Passing(times) => (json!({"n": n, "times": times}), format!("CREATE SEQUENCE public.n{n};")),
        Kind::Kills => (json!({"n": n, "kill": true}), String::new()),
    }
}

#[test]
fn any_rows_may_fail_with_any_code_and_each_message_is_once_a_row_a_duplicate_or_a_dead_letter() {
    let mut random = Random::new(test_seed());
    let stage = Stage::start(&[]);
    push(&stage, "/push/warm?wait=postgres", &json!(0));
    stage.cluster.psql(DO_AS_TOLD).unwrap();
    let codes = FOREIGN.iter().chain(&["22P02", "23514", "P0001", "23505"]).copied().collect::<Vec<_>>();
    let mut kinds = Vec::new();
    let mut items = Vec::new();
    let mut setup = String::new();
    // The key of a message, and the messages with that key in order.
    let mut by_key = BTreeMap::<(u64, u64), Vec<u64>>::new();
    for n in 0..RANDOM_COUNT {
        let kind = match random.below(20) {
            0..14 => Kind::Good,
            14..18 => Kind::Bad(codes[random.below(codes.len() as u64) as usize]),
            18 => Kind::Passing(1 + random.below(6)),
            _ if n % 200 == 100 => Kind::Kills,
            _ => Kind::Good,
        };
        let partition = random.below(12);
        let (payload, sql) = told(n, kind);
        setup += &sql;
        let mut item = json!({"queue": "q", "partition": format!("p{partition}"), "payload": payload});
        if matches!(kind, Kind::Good | Kind::Bad(_)) && random.below(3) == 0 {
            let key = random.below(30);
            item["transactionId"] = json!(key.to_string());
            by_key.entry((partition, key)).or_default().push(n);
        }
        kinds.push(kind);
        items.push(item);
    }
    if !setup.is_empty() {
        stage.cluster.psql(&setup).unwrap();
    }
    for items in items.chunks(150) {
        let answer = stage.daemon.connect().push(&json!({"items": items, "bufferMs": 1})).unwrap();
        assert_eq!(answer.status, 201);
    }
    stage.daemon.wait_until_drained();
    let numbers = |sql: &str| -> Vec<u64> { stage.rows(sql).iter().map(|row| row[0].parse().unwrap()).collect() };
    let stored: Vec<u64> =
        numbers("SELECT payload->>'n' FROM forebay.message_log WHERE queue = 'q' ORDER BY partition, seq");
    let letters = numbers("SELECT payload_text::jsonb->>'n' FROM forebay.dead_letters");
    let stored_set: BTreeSet<u64> = stored.iter().copied().collect();
    let letter_set: BTreeSet<u64> = letters.iter().copied().collect();
    assert_eq!((stored_set.len(), letter_set.len()), (stored.len(), letters.len()), "each once");
    assert!(stored_set.is_disjoint(&letter_set));
    let duplicates: BTreeSet<u64> = by_key
        .values()
        .flat_map(|same| same.iter().skip_while(|n| kinds[**n as usize] != Kind::Good).skip(1))
        .copied()
        .collect();
    for n in 0..RANDOM_COUNT {
        let expected = match kinds[n as usize] {
            _ if duplicates.contains(&n) => (false, false),
            Kind::Good => (true, false),
            Kind::Bad(_) | Kind::Kills => (false, true),
            // It depends on how often it was sent.
            Kind::Passing(_) => (stored_set.contains(&n), !stored_set.contains(&n)),
        };
        assert_eq!((stored_set.contains(&n), letter_set.contains(&n)), expected, "{n}: {:?}", items[n as usize]);
    }
    let orders = stage.rows(
        "SELECT partition FROM (SELECT partition, seq, (payload->>'n')::int AS n, row_number() OVER w AS place, \
         lag((payload->>'n')::int) OVER w AS before FROM forebay.message_log WHERE queue = 'q' \
         WINDOW w AS (PARTITION BY partition ORDER BY seq)) o WHERE seq <> place OR before > n",
    );
    assert!(orders.is_empty(), "in order and without gaps: {orders:?}");
    assert_eq!(stage.daemon.figure("duplicateMessages"), duplicates.len() as u64);
}

#[test]
fn refused_rows_in_a_round_over_ten_thousand_partitions_cost_their_neighbours_nothing() {
    const PARTITIONS: usize = 10_000;
    let stage = Stage::start(&["--flush-ms", "3600000", "--flush-max", "1000000"]);
    stage.cluster.psql(RAISE).unwrap();
    let payload = |n: usize| match n % 1000 {
        7 => json!({"code": "XX000"}),
        8 => json!({"code": "22P02"}),
        _ => json!(n),
    };
    let item =
        |n: usize| json!({"queue": "wide", "partition": n.to_string(), "payload": payload(n), "transactionId": "t"});
    for first in (0..PARTITIONS).step_by(1000) {
        // Each twice, so that there are duplicates in the round as well.
        let items: Vec<Value> = (first..first + 1000).flat_map(|n| [item(n), item(n)]).collect();
        let answer = stage.daemon.connect().push(&json!({"items": items, "qos0": true})).unwrap();
        assert_eq!(answer.status, 201);
    }
    assert_eq!(stage.daemon.figure("pending"), 2 * PARTITIONS as u64, "all in one round");
    push(&stage, "/push/last?wait=postgres", &json!(1));
    stage.daemon.wait_until_drained();
    let figures = ["failed", "duplicateMessages"].map(|name| stage.daemon.figure(name));
    assert_eq!(figures, [2 * 20, PARTITIONS as u64 - 20], "a bad one is no duplicate of a bad one");
    let sql = "SELECT count(*), count(DISTINCT partition) FROM forebay.message_log WHERE queue = 'wide'";
    assert_eq!(stage.rows(sql), [["9980", "9980"]]);
}

/// Changes the table so that it takes no message, and checks that delivery waits and goes on once that is mended.
fn check_schema_pause(change: &str, back: &str) {
    let stage = Stage::start(&[]);
    push(&stage, "/push/a?wait=postgres", &json!(0));
    stage.cluster.psql(change).unwrap();
    for n in 1..100 {
        push(&stage, "/push/a", &json!(n));
    }
    wait_until("the pause is told", || stage.daemon.log().contains("schema_takes_no_row"));
    assert_eq!(stage.daemon.connect().get("/ready").unwrap().status, 200);
    push(&stage, "/push/a", &json!(100));
    assert_eq!((stage.daemon.figure("failed"), stage.daemon.figure("pending")), (0, 100), "nothing is set aside");
    stage.cluster.psql(back).unwrap();
    stage.daemon.wait_until_drained();
    assert_eq!(stage.daemon.figure("failed"), 0);
    assert!(payloads(&stage, "a").into_iter().eq((0..=100).map(|n| n.to_string())));
}

#[test]
fn case_60_a_column_that_no_message_fills_pauses_delivery_and_sets_nothing_aside() {
    let table = "ALTER TABLE forebay.messages";
    check_schema_pause(
        &format!("{table} ADD tenant text NOT NULL DEFAULT ''; {table} ALTER tenant DROP DEFAULT"),
        &format!("{table} ALTER tenant SET DEFAULT 'none'"),
    );
}

#[test]
fn case_60_a_payload_of_another_type_pauses_delivery_and_sets_nothing_aside() {
    let view = "CREATE VIEW forebay.message_log AS SELECT q.name AS queue, p.name AS partition, m.seq, m.id, \
                NULL::text AS transaction_id, m.trace_id, m.payload, m.created_at FROM forebay.messages m \
                JOIN forebay.partitions p ON p.id = m.partition_id JOIN forebay.queues q ON q.id = p.queue_id";
    let alter = |kind: &str| format!("ALTER TABLE forebay.messages ALTER payload TYPE {kind} USING payload::{kind}");
    check_schema_pause(
        &format!("DROP VIEW forebay.message_log; {}", alter("json")),
        &format!("{}; {view}", alter("jsonb")),
    );
}

#[test]
fn a_column_that_a_trigger_fills_is_no_reason_to_pause_when_a_rule_refuses_messages() {
    let stage = Stage::start(&[]);
    let rules = "ALTER TABLE forebay.messages ADD tenant text NOT NULL; \
                 CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.tenant := 'me'; RETURN NEW; END$$; \
                 CREATE TRIGGER fill BEFORE INSERT ON forebay.messages FOR EACH ROW EXECUTE FUNCTION fill(); \
                 ALTER TABLE forebay.messages ADD CONSTRAINT good CHECK (payload <> '\"bad\"')";
    stage.cluster.psql(rules).unwrap();
    for n in 0..3 {
        assert_eq!(push(&stage, "/push/a?wait=postgres", &json!(n))[0]["status"], "queued");
        assert_eq!(push(&stage, "/push/a?wait=postgres", &json!("bad"))[0]["status"], "failed");
    }
    assert!(!stage.daemon.log().contains("schema_takes_no_row"), "{}", stage.daemon.log());
    assert_eq!(payloads(&stage, "a"), ["0", "1", "2"]);
}
