//! Others' operators, functions and views never take the place of the system's in a statement of the daemon, wherever they are in
//! the `search_path` that a role, a database or a URL sets.
//!
//! The names are not listed here. A first run of everything that the daemon does is logged by PostgreSQL. Each operator, function
//! and relation of the system whose name occurs in that log is then planted in `public` and in a schema with the name of the
//! role, for the types that the system has it for and for the types of the daemon's parameters and columns. Each plant says when
//! it is called. A second run must not call any.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, data_dir, forebay, wait_until};
use forebay_cluster::{TestCluster, TestOptions};
use serde_json::json;
use std::collections::BTreeSet;

/// What a plant says.
const CALLED: &str = "a plant was called:";

/// The role's own setting comes first, so that also a name that the system has for exactly these types is looked up elsewhere.
const PREPARE: &str = "CREATE ROLE drainer LOGIN; GRANT CREATE ON DATABASE forebay TO drainer; \
     CREATE SCHEMA drainer AUTHORIZATION drainer; GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC; \
     ALTER ROLE drainer SET search_path = drainer, public, pg_catalog; \
     CREATE TABLE public.loot (plant text, caller text); GRANT INSERT ON public.loot TO PUBLIC;";

/// Plants in the schema `%SPACE%` the operators of `%OPERATORS%`, the functions of `%FUNCTIONS%` and the relations of
/// `%RELATIONS%`.
const PLANT: &str = r#"
SET search_path = pg_catalog;
CREATE FUNCTION %SPACE%.call(plant text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $call$
    BEGIN
        RAISE LOG 'a plant was called: % by %', plant, current_user;
        INSERT INTO public.loot VALUES (plant, current_user);
        RETURN true;
    END $call$;
CREATE FUNCTION %SPACE%.make(name text, args text, result text) RETURNS void LANGUAGE plpgsql AS $make$
    BEGIN
        EXECUTE format('CREATE FUNCTION %SPACE%.%I(%s) RETURNS %s LANGUAGE plpgsql AS
            $body$ BEGIN PERFORM %SPACE%.call(%L); RETURN NULL; END $body$', name, args, result, name || '(' || args || ')');
    EXCEPTION WHEN others THEN NULL; -- some are there already, some types are the system's own
    END $make$;
DO $plant$
DECLARE
    mixed text[] := '{bigint,integer,smallint,double precision,numeric,interval,timestamptz,text,name,oid,boolean,regclass}';
    met text[] := mixed || '{uuid,bytea,jsonb,pg_lsn,"char",bigint[],integer[],smallint[],text[],uuid[],bytea[],timestamptz[]}'::text[];
    signature record;
    one text; two text; item text;
BEGIN
    FOREACH item IN ARRAY %OPERATORS% LOOP
        FOR signature IN
            SELECT oprleft::regtype::text AS l, oprright::regtype::text AS r FROM pg_operator
            WHERE oprname = item AND oprleft <> 0 AND oprnamespace = 'pg_catalog'::regnamespace
            UNION SELECT a, b FROM unnest(mixed) a CROSS JOIN unnest(mixed) b
            UNION SELECT a, a FROM unnest(met) a
        LOOP
            SELECT oprresult::regtype::text INTO two FROM pg_operator
                WHERE oprname = item AND oprleft = signature.l::regtype AND oprright = signature.r::regtype;
            one := CASE WHEN item IN ('+', '-', '*', '/', '%', '||') THEN signature.l ELSE 'boolean' END;
            BEGIN
                PERFORM %SPACE%.make('op ' || item, signature.l || ',' || signature.r, COALESCE(two, one));
                EXECUTE format('CREATE OPERATOR %SPACE%.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = %SPACE%.%I)',
                    item, signature.l, signature.r, 'op ' || item);
            EXCEPTION WHEN others THEN NULL; -- as above
            END;
        END LOOP;
    END LOOP;
    FOREACH item IN ARRAY %FUNCTIONS% LOOP
        FOR signature IN
            SELECT array_to_string(ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes) WITH ORDINALITY v(t, n)
                ORDER BY n), ',') AS args, prorettype::regtype::text AS result
            FROM pg_proc WHERE proname = item AND pronamespace = 'pg_catalog'::regnamespace
            UNION SELECT a, a FROM unnest(met) a
            UNION SELECT a || ',' || b, a FROM unnest(mixed) a CROSS JOIN unnest(mixed) b
        LOOP
            PERFORM %SPACE%.make(item, signature.args, signature.result);
        END LOOP;
    END LOOP;
    FOREACH item IN ARRAY %RELATIONS% LOOP
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO one FROM pg_attribute a
            JOIN pg_type t ON t.oid = a.atttypid
            WHERE attrelid = ('pg_catalog.' || item)::regclass AND attnum > 0 AND t.typtype <> 'p';
        EXECUTE format('CREATE VIEW %SPACE%.%I AS SELECT %s FROM pg_catalog.%I WHERE %SPACE%.call(%L)', item, one, item, item);
    END LOOP;
END $plant$;
GRANT USAGE ON SCHEMA %SPACE% TO PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA %SPACE% TO PUBLIC;
"#;

/// Names that occur in what PostgreSQL has logged: runs of the characters of operators, words before a parenthesis, and words
/// that begin as the system's relations do.
fn names(log: &str) -> (BTreeSet<String>, BTreeSet<String>, BTreeSet<String>) {
    let is_operator = |c: char| "+-*/<>=~!@#%^&|?".contains(c);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let operators = log.split(|c| !is_operator(c)).filter(|name| (1..=3).contains(&name.len())).map(str::to_owned);
    let before = |text: &str| text.rsplit(|c| !is_word(c)).next().unwrap().to_lowercase();
    let functions = log.match_indices('(').map(|(at, _)| before(log[..at].trim_end())).filter(|name| !name.is_empty());
    let relations = log.split(|c| !is_word(c)).filter(|word| word.starts_with("pg_")).map(str::to_lowercase);
    (operators.collect(), functions.collect(), relations.collect())
}

/// Those of `names` that `sql` finds in the system's catalogue, as an array.
fn of_system(cluster: &TestCluster, sql: &str, names: &BTreeSet<String>) -> (usize, String) {
    let list = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let found = cluster.psql(&format!("SET search_path = pg_catalog; {}", sql.replace("%NAMES%", &list))).unwrap();
    let quoted: Vec<String> = found.lines().map(|name| format!("'{name}'")).collect();
    (quoted.len(), format!("ARRAY[{}]::text[]", quoted.join(", ")))
}

/// Plants every name that the log has, and returns how many operators and functions there are.
fn plant(cluster: &TestCluster, log: &str) -> (usize, usize) {
    let (operators, functions, relations) = names(log);
    let space = "'pg_catalog'::regnamespace";
    let sql = format!("SELECT DISTINCT oprname FROM pg_operator WHERE oprnamespace = {space} AND oprname IN (%NAMES%)");
    let operators = of_system(cluster, &sql, &operators);
    let sql = format!("SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = {space} AND proname IN (%NAMES%)");
    let functions = of_system(cluster, &sql, &functions);
    let sql = format!(
        "SELECT relname FROM pg_class WHERE relnamespace = {space} AND relkind IN ('r', 'v') AND relname IN (%NAMES%)"
    );
    let relations = of_system(cluster, &sql, &relations);
    for space in ["public", "drainer"] {
        let sql = PLANT.replace("%SPACE%", space).replace("%OPERATORS%", &operators.1);
        let sql = sql.replace("%FUNCTIONS%", &functions.1).replace("%RELATIONS%", &relations.1);
        cluster.psql(&sql).unwrap();
    }
    (operators.0, functions.0)
}

fn run(url: &str, dir: &str, schema: &str, args: &[&str]) -> String {
    let output = forebay(&[args, &["--postgres", url, "--data-dir", dir, "--schema", schema]].concat());
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

/// Everything that makes the daemon and its commands talk to PostgreSQL, in a schema of its own.
fn do_everything(cluster: &TestCluster, url: &str, schema: &str) {
    let rule = |sql: &str| {
        cluster.psql(&format!("SET search_path = pg_catalog; {}", sql.replace("%SCHEMA%", schema))).unwrap();
    };
    let dir = data_dir();
    let path = dir.path().to_str().unwrap().to_owned();
    run(url, &path, schema, &["schema", "migrate"]);
    run(url, &path, schema, &["schema", "check"]);
    let start = |args: &[&str]| Daemon::start(dir.path(), url, &[&["--cores", "1", "--schema", schema], args].concat());
    let push = |daemon: &Daemon, numbers: std::ops::Range<u64>| {
        let item = |n: u64| {
            json!({"queue": format!("q{}", n % 3), "partition": format!("p{}", n % 5), "payload": {"n": n},
                   "transactionId": format!("t{n}"), "namespace": "n", "task": "k"})
        };
        let items: Vec<_> = numbers.map(item).collect();
        assert_eq!(daemon.connect().push(&json!({ "items": items })).unwrap().status, 201);
    };
    let daemon = start(&["--probe-duplicates", "always", "--auto-create-queues", "true"]);
    push(&daemon, 0..20);
    // Duplicates in the table, and in one round.
    push(&daemon, 10..30);
    push(&daemon, 10..30);
    rule("ALTER TABLE %SCHEMA%.messages ADD CONSTRAINT rule CHECK (payload->>'n' NOT IN ('40', '41', '42'))");
    push(&daemon, 35..45);
    wait_until("there are dead letters", || daemon.figure("failed") == 3);
    let mut client = daemon.connect();
    assert_eq!(client.get("/api/v1/dead-letters?queue=q1").unwrap().status, 200);
    let id = cluster.psql(&format!("SET search_path = pg_catalog; SELECT min(id) FROM {schema}.dead_letters")).unwrap();
    assert_eq!(client.get(&format!("/api/v1/dead-letters/{id}")).unwrap().status, 200);
    // Refused again, then put back.
    let retry = |client: &mut common::Client| client.post(&format!("/api/v1/dead-letters/{id}/retry"), b"").unwrap();
    assert!(retry(&mut client).status < 500);
    rule("ALTER TABLE %SCHEMA%.messages DROP CONSTRAINT rule");
    assert_eq!(retry(&mut client).status, 200);
    run(url, &path, schema, &["dead-letters", "ls"]);
    run(url, &path, schema, &["dead-letters", "retry", "--all"]);
    wait_until("they are put back", || daemon.figure("failed") == 0);
    rule("ALTER TABLE %SCHEMA%.messages ADD CONSTRAINT rule CHECK (payload->>'n' NOT IN ('46', '47'))");
    push(&daemon, 45..50);
    wait_until("there are dead letters", || daemon.figure("failed") == 2);
    run(url, &path, schema, &["dead-letters", "drop", "--all", "--yes"]);
    // A session that is lost without a word, and a queue list that is read.
    daemon.kill9();
    let daemon = start(&["--drain-connections", "2", "--auto-create-queues", "false"]);
    daemon.wait_until_drained();
    push(&daemon, 50..60);
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
    run(url, &path, schema, &["checkpoint", "show"]);
    run(url, &path, schema, &["checkpoint", "set", "--to", "database", "--yes"]);
    run(url, &path, schema, &["checkpoint", "set", "--to", "log-end", "--yes"]);
    let daemon = start(&[]);
    push(&daemon, 60..70);
    daemon.wait_until_drained();
    assert!(daemon.terminate().success());
}

#[test]
fn no_planted_operator_function_or_relation_is_called() {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let settings = vec![setting("log_statement", "all"), setting("log_min_messages", "log")];
    let cluster = TestCluster::start_with(TestOptions { fsync: false, settings, ..TestOptions::default() }).unwrap();
    cluster.psql(PREPARE).unwrap();
    let url = cluster.url().replacen("forebay@", "drainer@", 1);
    do_everything(&cluster, &url, "first");
    let log = std::fs::read_to_string(cluster.log_file()).unwrap();
    let (operators, functions) = plant(&cluster, &log);
    assert!(operators >= 10 && functions >= 15, "{operators} operators, {functions} functions");
    let planted = "SET search_path = pg_catalog; SELECT count(*) > 1000 FROM pg_operator o JOIN pg_namespace n \
                   ON n.oid = o.oprnamespace WHERE n.nspname IN ('public', 'drainer')";
    assert_eq!(cluster.psql(planted).unwrap(), "t");
    let loot = || cluster.psql("SET search_path = pg_catalog; SELECT count(*) FROM public.loot").unwrap();
    assert_eq!(loot(), "0");
    do_everything(&cluster, &url, "second");
    // Also where the URL asks for them.
    let options = format!("{url}&options=-csearch_path%3Dpublic,drainer,pg_catalog");
    do_everything(&cluster, &options, "third");
    let log = std::fs::read_to_string(cluster.log_file()).unwrap();
    let called: BTreeSet<&str> =
        log.lines().filter_map(|line| line.split_once(CALLED)).map(|(_, plant)| plant).collect();
    // The function that makes the plants has the text, too.
    let called: Vec<&&str> = called.iter().filter(|plant| !plant.contains("% by %")).collect();
    assert!(called.is_empty(), "{called:#?}");
    assert_eq!(loot(), "0");
    // The plants are alive: a session of the role that leaves its search_path as it is calls them.
    let careless = "SET SESSION AUTHORIZATION drainer; SET search_path = drainer, public, pg_catalog; ";
    for statement in ["SELECT ARRAY[1] = ARRAY[1]", "SELECT now()", "SELECT pid FROM pg_stat_activity"] {
        let before = loot();
        cluster.psql(&format!("{careless}{statement}")).unwrap();
        assert_ne!(loot(), before, "{statement}");
    }
}
