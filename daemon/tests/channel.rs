//! Channels: one connection to a real PostgreSQL that many tasks share.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use forebay::{
    limits::CHANNEL_UNITS_MAX,
    postgres::{
        channel::{Channel, ChannelError, ChannelOptions, Unit, UnitResult},
        schema::owner::SchemaSettings,
    },
    rt,
    state::cancel_flag::CancelFlag,
};
use forebay_cluster::{StopMode, TestCluster};
use forebay_pgwire::{Config, Connection, Error, Param, SearchPath};
use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long anything may take that is expected to happen: far more than it does, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn with_channel(test: impl AsyncFnOnce(Channel, &TestCluster)) {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.psql("CREATE TABLE public.t (n bigint PRIMARY KEY, who text)").unwrap();
    rt::runtime(64).unwrap().block_on(async { test(channel(&cluster), &cluster).await });
}

fn channel(cluster: &TestCluster) -> Channel {
    let config = Config::from_url(&cluster.url()).unwrap();
    Channel::open(ChannelOptions {
        target: Arc::new(move || Some(config.clone())),
        schema: SchemaSettings::own("forebay"),
        application_name: "channel test",
        connect_timeout: PATIENCE,
        statement_timeout: PATIENCE,
    })
}

fn unit(sql: &str, params: &[Param<'_>]) -> Unit {
    Unit::of(&sql.into(), params)
}

async fn run(channel: &Channel, unit: Unit) -> UnitResult {
    channel.submit(unit, Instant::now() + PATIENCE, None).await
}

/// The number in the first column of the first row of a unit's last statement.
fn number(result: UnitResult) -> i64 {
    let results = result.unwrap().into_results().unwrap();
    results.last().unwrap().rows[0].get_i64(0).unwrap()
}

fn sqlstate(result: UnitResult) -> String {
    result.unwrap().failure.unwrap().error.sqlstate.as_str().to_owned()
}

async fn count(channel: &Channel) -> i64 {
    number(run(channel, unit("SELECT count(*) FROM public.t", &[])).await)
}

/// Counts twice: the second answer comes when the statement is prepared, so nothing but a unit waits for a lock from then on.
async fn warm_up(channel: &Channel) {
    for _ in 0..2 {
        count(channel).await;
    }
}

/// Waits until a session of the channel waits for a lock.
async fn until_it_waits(cluster: &TestCluster) {
    let give_up = Instant::now() + PATIENCE;
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'channel test' AND wait_event_type = 'Lock'";
    while cluster.psql(waiting).unwrap().trim() == "0" {
        assert!(Instant::now() < give_up, "the session waits for a lock");
        rt::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn every_task_gets_its_own_answer_and_the_errors_of_others_do_not_reach_it() {
    with_channel(async |channel, cluster| {
        const TASKS: i64 = 40;
        const EACH: i64 = 50;
        let done = Rc::new(Cell::new(0));
        for task in 0..TASKS {
            let (channel, done) = (channel.clone(), Rc::clone(&done));
            rt::spawn(async move {
                for n in 0..EACH {
                    // Every third unit fails behind a row that it has inserted; some fail before they are prepared.
                    let id = task * EACH + n;
                    let insert = unit("INSERT INTO public.t VALUES ($1, $2)", &[Param::I64(id), Param::Text("task")]);
                    if n % 3 == 0 {
                        let failing = insert.and(&"SELECT 1 / ($1 - $1)".into(), &[Param::I64(id)]);
                        assert_eq!(sqlstate(run(&channel, failing).await), "22012");
                    } else {
                        let reading = insert.and(&"SELECT n FROM public.t WHERE n = $1".into(), &[Param::I64(id)]);
                        assert_eq!(number(run(&channel, reading).await), id);
                    }
                }
                done.set(done.get() + 1);
            });
        }
        let give_up = Instant::now() + PATIENCE;
        while done.get() < TASKS {
            assert!(Instant::now() < give_up);
            rt::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(count(&channel).await, (0..TASKS * EACH).filter(|id| id % EACH % 3 != 0).count() as i64);
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'channel test'";
        assert_eq!(cluster.psql(sessions).unwrap().trim(), "1");
    });
}

/// A session beside the channel's.
async fn other_session(cluster: &TestCluster) -> Connection {
    Connection::connect(&Config::from_url(&cluster.url()).unwrap(), SearchPath::Inherited).await.unwrap()
}

#[test]
fn a_unit_is_one_transaction_and_each_of_its_statements_sees_what_was_committed_before_it() {
    with_channel(async |channel, cluster| {
        // Neither a database's default nor the role's own setting reaches the channel.
        cluster.psql("ALTER DATABASE forebay SET default_transaction_isolation TO serializable").unwrap();
        cluster.psql("ALTER ROLE CURRENT_USER SET default_transaction_read_only TO on").unwrap();
        let mut other = other_session(cluster).await;
        other.simple("BEGIN READ WRITE; INSERT INTO public.t VALUES (1, 'locked')").await.unwrap();
        other.simple("COMMIT; BEGIN READ WRITE; UPDATE public.t SET who = 'held' WHERE n = 1").await.unwrap();
        let lock = unit("SELECT n FROM public.t WHERE n = 1 FOR UPDATE", &[]);
        let look = lock
            .and(&"SELECT count(*) FROM public.t".into(), &[])
            .and(&"INSERT INTO public.t VALUES (3, 'unit')".into(), &[]);
        let looked = channel.submit(look, Instant::now() + PATIENCE, None);
        until_it_waits(cluster).await;
        other.simple("INSERT INTO public.t VALUES (2, 'meanwhile'); COMMIT").await.unwrap();
        let results = looked.await.unwrap().into_results().unwrap();
        assert_eq!(results[1].rows[0].get_i64(0).unwrap(), 2, "a snapshot of its own, behind the lock");
        assert_eq!(count(&channel).await, 3);
    });
}

#[test]
fn a_unit_that_leaves_a_transaction_open_is_refused_and_others_work_on() {
    with_channel(async |channel, _| {
        let open = unit("BEGIN", &[]).and(&"INSERT INTO public.t VALUES (1, 'open')".into(), &[]);
        assert!(matches!(run(&channel, open).await, Err(ChannelError::LeftTransaction)));
        let failed = unit("BEGIN", &[]).and(&"SELECT 1 / (SELECT 0)".into(), &[]);
        assert!(matches!(run(&channel, failed).await, Err(ChannelError::LeftTransaction)));
        // What travels behind it was in that transaction, and fails with it.
        let deadline = Instant::now() + PATIENCE;
        let open = channel.submit(unit("BEGIN", &[]), deadline, None);
        let behind = channel.submit(unit("INSERT INTO public.t VALUES (2, 'behind')", &[]), deadline, None);
        assert!(matches!(open.await, Err(ChannelError::LeftTransaction)));
        assert!(matches!(behind.await, Err(ChannelError::Lost(_))));
        assert_eq!(count(&channel).await, 0);
    });
}

#[test]
fn when_a_unit_is_overdue_all_that_was_sent_is_lost_and_what_waited_goes_on_another_connection() {
    with_channel(async |channel, cluster| {
        warm_up(&channel).await;
        let mut other = other_session(cluster).await;
        other.simple("BEGIN; LOCK TABLE public.t").await.unwrap();
        let soon = Instant::now() + Duration::from_millis(500);
        let slow = channel.submit(unit("SELECT count(*) FROM public.t", &[]), soon, None);
        let behind = channel.submit(unit("SELECT 1::bigint", &[]), Instant::now() + PATIENCE, None);
        until_it_waits(cluster).await;
        let waiting = channel.submit(unit("SELECT 2::bigint", &[]), Instant::now() + PATIENCE, None);
        let late = channel.submit(unit("SELECT 3::bigint", &[]), soon, None);
        for lost in [slow.await, behind.await] {
            assert!(matches!(lost, Err(ChannelError::Lost(error)) if matches!(*error, Error::Timeout { .. })));
        }
        assert!(Instant::now() >= soon);
        assert!(matches!(late.await, Err(ChannelError::Overdue)));
        assert_eq!(number(waiting.await), 2);
    });
}

#[test]
fn a_request_that_was_given_up_before_it_was_sent_is_not_sent() {
    with_channel(async |channel, cluster| {
        warm_up(&channel).await;
        let mut other = other_session(cluster).await;
        other.simple("BEGIN; LOCK TABLE public.t").await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        let insert = |n: i64| unit("INSERT INTO public.t VALUES ($1, 'insert')", &[Param::I64(n)]);
        let flag = CancelFlag::default();
        let sent = channel.submit(insert(1), deadline, Some(&flag));
        until_it_waits(cluster).await;
        let abandoned = channel.submit(insert(2), deadline, None);
        let cancelled = channel.submit(insert(3), deadline, Some(&flag));
        let kept = channel.submit(insert(4), deadline, None);
        drop(abandoned);
        flag.set();
        other.simple("COMMIT").await.unwrap();
        sent.await.unwrap().into_results().unwrap();
        assert!(matches!(cancelled.await, Err(ChannelError::Cancelled)));
        kept.await.unwrap().into_results().unwrap();
        assert_eq!(cluster.psql("SELECT string_agg(n::text, ' ' ORDER BY n) FROM public.t").unwrap().trim(), "1 4");
    });
}

#[test]
fn an_idle_connection_that_the_server_has_closed_is_replaced_and_one_in_use_is_lost() {
    with_channel(async |channel, cluster| {
        count(&channel).await;
        cluster.stop(StopMode::Fast, PATIENCE).unwrap();
        cluster.start().unwrap();
        assert_eq!(count(&channel).await, 0, "nobody hears of the restart");
        let sleeping = channel.submit(unit("SELECT pg_sleep(60)", &[]), Instant::now() + PATIENCE, None);
        let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                         WHERE application_name = 'channel test' AND state = 'active'";
        let mut other = other_session(cluster).await;
        while number_of(&mut other, terminate).await == 0 {
            rt::sleep(Duration::from_millis(5)).await;
        }
        let waiting = channel.submit(unit("SELECT count(*) FROM public.t", &[]), Instant::now() + PATIENCE, None);
        match sleeping.await {
            Err(ChannelError::Lost(error)) => assert_eq!(error.sqlstate().unwrap().as_str(), "57P01"),
            other => panic!("{other:?}"),
        }
        assert_eq!(number(waiting.await), 0);
    });
}

async fn number_of(session: &mut Connection, sql: &str) -> i64 {
    session.query_once(sql, &[]).await.unwrap()[0].get_i64(0).unwrap()
}

#[test]
fn where_no_connection_can_be_made_all_who_wait_hear_of_it_and_the_next_ones_have_one_again() {
    with_channel(async |channel, cluster| {
        cluster.stop(StopMode::Fast, PATIENCE).unwrap();
        for _ in 0..3 {
            let deadline = Instant::now() + PATIENCE;
            let [first, second] = [1, 2].map(|_| channel.submit(unit("SELECT 1::bigint", &[]), deadline, None));
            assert!(matches!(first.await, Err(ChannelError::Connect(_))));
            assert!(matches!(second.await, Err(ChannelError::Connect(_))));
        }
        cluster.start().unwrap();
        assert_eq!(count(&channel).await, 0);
    });
}

#[test]
fn a_statement_is_prepared_once_and_again_when_it_does_not_fit_any_more() {
    with_channel(async |channel, cluster| {
        let select = |n: i64| unit("SELECT n FROM public.t WHERE n = $1", &[Param::I64(n)]);
        let prepared =
            "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT n FROM public.t WHERE n = $1'";
        cluster.psql("INSERT INTO public.t SELECT generate_series(1, 9)").unwrap();
        for n in 1..10 {
            assert_eq!(number(run(&channel, select(n)).await), n);
        }
        assert_eq!(number(run(&channel, unit(prepared, &[])).await), 1);
        // The first one hears of it; the connection is another one then.
        for change in ["DEALLOCATE ALL", "ALTER TABLE public.t ALTER n TYPE integer"] {
            let mut other = other_session(cluster).await;
            match change {
                "DEALLOCATE ALL" => drop(run(&channel, unit(change, &[])).await.unwrap().into_results().unwrap()),
                change => drop(other.simple(change).await.unwrap()),
            }
            let refused = sqlstate(run(&channel, select(1)).await);
            assert_eq!(refused, if change == "DEALLOCATE ALL" { "26000" } else { "0A000" });
            for n in 1..4 {
                assert_eq!(number(run(&channel, select(n)).await), n);
            }
            assert_eq!(number(run(&channel, unit(prepared, &[])).await), 1);
        }
        // One that cannot be prepared does not hold up others, and is prepared once it can be.
        let later = || unit("SELECT n FROM public.later", &[]);
        let deadline = Instant::now() + PATIENCE;
        let (refused, good) = (channel.submit(later(), deadline, None), channel.submit(select(5), deadline, None));
        assert_eq!((sqlstate(refused.await), number(good.await)), ("42P01".to_owned(), 5));
        cluster.psql("CREATE TABLE public.later AS SELECT 7::bigint AS n").unwrap();
        assert_eq!((number(run(&channel, later()).await), number(run(&channel, later()).await)), (7, 7));
    });
}

#[test]
fn an_error_among_units_that_only_read_hits_none_of_those_that_share_its_transaction() {
    with_channel(async |channel, cluster| {
        cluster.psql("INSERT INTO public.t SELECT generate_series(1, 9)").unwrap();
        let sql: Rc<str> = "SELECT 12 / n FROM public.t WHERE n = $1 + 0 * (1 / $1)".into();
        let read = |n: i64| Unit::read(&sql, &[Param::I64(n)]);
        // The first time unprepared, then prepared.
        for _ in 0..3 {
            let units =
                [read(1), read(0), read(2), read(0), read(0), unit("INSERT INTO public.t VALUES (10)", &[]), read(3)];
            let deadline = Instant::now() + PATIENCE;
            let replies = units.map(|unit| channel.submit(unit, deadline, None));
            let mut answers = Vec::new();
            for reply in replies {
                let outcome = reply.await.unwrap();
                let value = outcome.results.first().and_then(|result| result.rows.first()).map(|row| row.get_i64(0));
                let failure = outcome.failure.map(|failure| (failure.statement, failure.error.sqlstate.to_string()));
                answers.push((value.map(Result::unwrap), failure));
            }
            let division = || (None, Some((0, "22012".to_owned())));
            let expected =
                [(Some(12), None), division(), (Some(6), None), division(), division(), (None, None), (Some(4), None)];
            assert_eq!(answers, expected);
            cluster.psql("DELETE FROM public.t WHERE n = 10").unwrap();
        }
    });
}

#[test]
fn a_full_queue_refuses_at_once() {
    with_channel(async |channel, _| {
        let deadline = Instant::now() + PATIENCE;
        let one = || channel.submit(unit("SELECT 1::bigint", &[]), deadline, None);
        let replies: Vec<_> = (0..=CHANNEL_UNITS_MAX).map(|_| one()).collect();
        assert_eq!(channel.open_units(), CHANNEL_UNITS_MAX);
        let mut results = Vec::new();
        for reply in replies {
            results.push(reply.await);
        }
        assert!(matches!(results.pop().unwrap(), Err(ChannelError::Full)));
        assert!(results.into_iter().all(|result| number(result) == 1));
        assert!(one().await.is_ok());
    });
}

#[test]
fn a_channel_ends_with_its_last_handle_and_answers_what_it_was_asked_before() {
    with_channel(async |channel, cluster| {
        let reply = channel.submit(unit("SELECT count(*) FROM public.t", &[]), Instant::now() + PATIENCE, None);
        drop(channel);
        assert_eq!(number(reply.await), 0);
        let give_up = Instant::now() + PATIENCE;
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'channel test'";
        while cluster.psql(sessions).unwrap().trim() != "0" {
            assert!(Instant::now() < give_up);
            rt::sleep(Duration::from_millis(10)).await;
        }
    });
}
