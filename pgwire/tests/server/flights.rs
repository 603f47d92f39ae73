//! Flights: sections that are sent before the replies to earlier ones have arrived, also with COPY.

use std::time::{Duration, Instant};

use forebay_pgwire::{
    BinaryCopy, Connection, Error, Flight, Param, ProtocolError, SearchPath, SqlState, Statement, TransactionStatus,
    oid,
};

use crate::answers::proxy;
use crate::common::with_server;

/// Much longer than a busy machine needs, and much shorter than the statements that must not be waited for.
const PROMPTLY: Duration = Duration::from_secs(20);

struct Prepared {
    begin: Statement,
    insert: Statement,
    copy: Statement,
    commit: Statement,
}

async fn prepare(conn: &mut Connection) -> Prepared {
    conn.simple("CREATE TEMP TABLE t (n bigint PRIMARY KEY, filler text)").await.unwrap();
    Prepared {
        begin: conn.prepare("BEGIN", &[]).await.unwrap(),
        insert: conn.prepare("INSERT INTO t (n) VALUES ($1) RETURNING n", &[oid::INT8]).await.unwrap(),
        copy: conn.prepare("COPY t FROM STDIN (FORMAT binary)", &[]).await.unwrap(),
        commit: conn.prepare("COMMIT", &[]).await.unwrap(),
    }
}

fn rows(numbers: std::ops::Range<i64>, filler: &str) -> BinaryCopy {
    let mut rows = BinaryCopy::start();
    for n in numbers {
        rows.row(2);
        rows.i64(n);
        rows.text(filler);
    }
    rows.finish().unwrap();
    rows
}

/// Sends a transaction without its COMMIT. Returns whether all data was sent.
async fn send(flight: &mut Flight, conn: &mut Connection, with: &Prepared, first: i64, rows: &BinaryCopy) -> bool {
    flight.statement(conn, &with.begin, &[]).unwrap();
    flight.statement(conn, &with.insert, &[Param::I64(first)]).unwrap();
    flight.copy_in(conn, &with.copy).unwrap();
    flight.send(conn).await.unwrap();
    let taken = flight.copy_data(conn, rows.bytes()).await.unwrap();
    flight.copy_done();
    flight.sync();
    flight.send(conn).await.unwrap();
    taken
}

async fn count(conn: &mut Connection) -> i64 {
    conn.query_once("SELECT count(*) FROM t", &[]).await.unwrap()[0].get_i64(0).unwrap()
}

#[test]
fn a_commit_and_the_next_transaction_fly_together() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let with = prepare(&mut conn).await;
        let mut flight = Flight::new();
        for transaction in 0..5 {
            if transaction > 0 {
                flight.statement(&conn, &with.commit, &[]).unwrap();
                flight.sync();
            }
            let base = transaction * 1000;
            send(&mut flight, &mut conn, &with, base, &rows(base + 1..base + 1000, "")).await;
            if transaction > 0 {
                assert_eq!(flight.outstanding(), 2);
                assert!(flight.answer(&mut conn).await.unwrap().failure.is_none());
            }
            let results = flight.answer(&mut conn).await.unwrap().into_results().unwrap();
            assert_eq!(results[1].rows[0].get_i64(0).unwrap(), base);
            assert_eq!(results[2].tag.rows(), 999);
            assert_eq!(conn.transaction_status(), TransactionStatus::InTransaction);
        }
        flight.statement(&conn, &with.commit, &[]).unwrap();
        flight.sync();
        flight.send(&mut conn).await.unwrap();
        assert!(conn.is_broken(), "it belongs to the flight");
        flight.answer(&mut conn).await.unwrap().into_results().unwrap();
        assert_eq!(count(&mut conn).await, 5000);
    });
}

#[test]
fn an_error_before_a_copy_skips_the_copy_and_its_data() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let with = prepare(&mut conn).await;
        conn.simple("INSERT INTO t VALUES (7)").await.unwrap();
        let mut flight = Flight::new();
        // More than the socket's buffers hold. The server reads and discards it.
        let many = rows(100..20_000, &"x".repeat(500));
        send(&mut flight, &mut conn, &with, 7, &many).await;
        let outcome = flight.answer(&mut conn).await.unwrap();
        let failure = outcome.failure.unwrap();
        assert_eq!((failure.statement, failure.error.sqlstate), (1, SqlState::UNIQUE_VIOLATION));
        assert_eq!(conn.transaction_status(), TransactionStatus::Failed);
        conn.simple("ROLLBACK").await.unwrap();
        assert_eq!(count(&mut conn).await, 1);
    });
}

#[test]
fn an_error_in_the_middle_of_a_copy_ends_the_sending() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let with = prepare(&mut conn).await;
        let mut flight = Flight::new();
        flight.statement(&conn, &with.begin, &[]).unwrap();
        flight.copy_in(&conn, &with.copy).unwrap();
        flight.send(&mut conn).await.unwrap();
        // A row of three fields for two columns.
        let mut wrong = BinaryCopy::start();
        wrong.row(3);
        (0..3).for_each(|n| wrong.i64(n));
        assert!(flight.copy_data(&mut conn, wrong.bytes()).await.unwrap());
        let filler = vec![0; 1 << 20];
        let mut sent_mib = 0;
        while flight.copy_data(&mut conn, &filler).await.unwrap() {
            sent_mib += 1;
            assert!(sent_mib < 1000, "the refusal is noticed");
        }
        flight.copy_done();
        flight.sync();
        flight.send(&mut conn).await.unwrap();
        let failure = flight.answer(&mut conn).await.unwrap().failure.unwrap();
        assert_eq!((failure.statement, failure.error.sqlstate), (1, SqlState::BAD_COPY_FILE_FORMAT));
        conn.simple("ROLLBACK").await.unwrap();
        assert_eq!(count(&mut conn).await, 0);
    });
}

#[test]
fn a_failed_section_does_not_keep_the_next_one_from_being_carried_out() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let with = prepare(&mut conn).await;
        let mut flight = Flight::new();
        for n in [1, 1, 2] {
            flight.statement(&conn, &with.insert, &[Param::I64(n)]).unwrap();
            flight.sync();
        }
        flight.send(&mut conn).await.unwrap();
        let mut failed = Vec::new();
        while flight.outstanding() > 0 {
            failed.push(flight.answer(&mut conn).await.unwrap().failure.is_some());
        }
        assert_eq!(failed, [false, true, false]);
        assert_eq!(count(&mut conn).await, 2);
    });
}

#[test]
fn a_flight_that_is_dropped_leaves_the_connection_broken() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let with = prepare(&mut conn).await;
        let mut flight = Flight::new();
        assert!(matches!(flight.answer(&mut conn).await, Err(Error::Usage { .. })), "nothing was sent");
        flight.statement(&conn, &with.insert, &[Param::I64(1)]).unwrap();
        flight.sync();
        flight.send(&mut conn).await.unwrap();
        drop(flight);
        assert!(matches!(conn.simple("SELECT 1").await, Err(Error::Closed)));
        assert!(matches!(Flight::new().send(&mut conn).await, Err(Error::Closed)));
    });
}

/// Adds a section with this statement.
fn add_section(flight: &mut Flight, sql: &str, params: &[Param<'_>]) {
    flight.once(sql, params).unwrap();
    flight.sync();
}

/// The number in the only row of the oldest section's last result.
async fn answer_number(flight: &mut Flight, conn: &mut Connection) -> i64 {
    let results = flight.answer(conn).await.unwrap().into_results().unwrap();
    results.last().unwrap().rows[0].get_i64(0).unwrap()
}

#[test]
fn a_statement_that_is_parsed_once_runs_beside_prepared_ones() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let with = prepare(&mut conn).await;
        let mut flight = Flight::new();
        flight.statement(&conn, &with.insert, &[Param::I64(1)]).unwrap();
        flight.once("INSERT INTO t (n, filler) VALUES ($1, $2)", &[Param::I64(2), Param::Text("x")]).unwrap();
        flight.once("SELECT sum(n)::bigint FROM t", &[]).unwrap();
        flight.sync();
        add_section(&mut flight, "SELECT $1 + 1", &[Param::I64(41)]);
        flight.send(&mut conn).await.unwrap();
        let results = flight.answer(&mut conn).await.unwrap().into_results().unwrap();
        assert_eq!(results.len(), 3);
        assert_eq!(results[1].tag.rows(), 1);
        assert_eq!(results[2].rows[0].get_i64(0).unwrap(), 3);
        assert_eq!(answer_number(&mut flight, &mut conn).await, 42);
        assert!(!conn.is_broken(), "the flight has given it back");
    });
}

#[test]
fn a_statement_that_cannot_be_encoded_leaves_the_others_alone() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let with = prepare(&mut conn).await;
        let mut flight = Flight::new();
        add_section(&mut flight, "SELECT 1::bigint", &[]);
        let unsent_bytes = flight.unsent_bytes();
        for refused in [
            flight.once("SELECT '\0'", &[]),
            flight.once("SELECT $1", &[Param::I32(1); 65_536]),
            flight.prepare(&mut conn, "SELECT '\0'", &[]),
            flight.statement(&conn, &with.insert, &[]),
            flight.statement(&conn, &with.insert, &[Param::Text("1")]),
            flight.copy_in(&conn, &with.insert),
        ] {
            assert!(matches!(refused, Err(Error::Usage { .. })), "{refused:?}");
        }
        assert_eq!(flight.unsent_bytes(), unsent_bytes);
        flight.sync();
        assert_eq!(flight.outstanding(), 1, "a section without statements needs no Sync");
        add_section(&mut flight, "SELECT 2::bigint", &[]);
        flight.send(&mut conn).await.unwrap();
        assert_eq!(answer_number(&mut flight, &mut conn).await, 1);
        assert_eq!(answer_number(&mut flight, &mut conn).await, 2);
    });
}

#[test]
fn statements_are_prepared_without_stopping_the_flight() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let mut flight = Flight::new();
        flight.prepare(&mut conn, "SELECT $1 + 1", &[oid::INT8]).unwrap();
        flight.prepare(&mut conn, "SELECT $1 || 'x'", &[oid::TEXT]).unwrap();
        flight.sync();
        add_section(&mut flight, "SELECT 7::bigint", &[]);
        flight.send(&mut conn).await.unwrap();
        let outcome = flight.answer(&mut conn).await.unwrap();
        assert!(outcome.failure.is_none() && outcome.results.is_empty());
        let [add, append] = &outcome.statements[..] else { panic!("two statements: {outcome:?}") };
        assert_eq!((add.params(), append.params()), (&[oid::INT8][..], &[oid::TEXT][..]));

        // The other section is still in flight.
        assert_eq!(flight.outstanding(), 1);
        flight.statement(&conn, add, &[Param::I64(41)]).unwrap();
        flight.statement(&conn, append, &[Param::Text("y")]).unwrap();
        flight.sync();
        flight.send(&mut conn).await.unwrap();
        assert_eq!(answer_number(&mut flight, &mut conn).await, 7);
        let results = flight.answer(&mut conn).await.unwrap().into_results().unwrap();
        assert_eq!(results[0].rows[0].get_i64(0).unwrap(), 42);
        assert_eq!(results[1].rows[0].get_str(0).unwrap(), "yx");
        assert_eq!(conn.query(add, &[Param::I64(1)]).await.unwrap()[0].get_i64(0).unwrap(), 2);
    });
}

#[test]
fn a_section_that_fails_says_at_which_statement_and_keeps_what_it_has_prepared() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let mut flight = Flight::new();
        flight.once("SELECT 1", &[]).unwrap();
        flight.prepare(&mut conn, "SELECT 5::bigint", &[]).unwrap();
        flight.once("SELECT 1/0", &[]).unwrap();
        flight.prepare(&mut conn, "SELECT 6::bigint", &[]).unwrap();
        flight.sync();
        flight.prepare(&mut conn, "SELECT nonsense", &[]).unwrap();
        flight.sync();
        flight.send(&mut conn).await.unwrap();
        let outcome = flight.answer(&mut conn).await.unwrap();
        let failure = outcome.failure.unwrap();
        assert_eq!((failure.statement, failure.error.sqlstate.as_str()), (2, "22012"));
        assert_eq!((outcome.results.len(), outcome.statements.len()), (1, 1));
        let outcome_of_prepare = flight.answer(&mut conn).await.unwrap();
        let failure = outcome_of_prepare.failure.unwrap();
        assert_eq!((failure.statement, failure.error.sqlstate), (0, SqlState::UNDEFINED_COLUMN));
        assert!(outcome_of_prepare.statements.is_empty());
        assert_eq!(conn.query(&outcome.statements[0], &[]).await.unwrap()[0].get_i64(0).unwrap(), 5);
    });
}

#[test]
fn sections_are_added_and_sent_while_others_are_outstanding() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let mut flight = Flight::new();
        for n in 0..100 {
            add_section(&mut flight, "SELECT $1", &[Param::I64(2 * n)]);
            flight.send(&mut conn).await.unwrap();
            assert_eq!(flight.unsent_bytes(), 0);
            add_section(&mut flight, "SELECT $1", &[Param::I64(2 * n + 1)]);
            assert!(flight.unsent_bytes() > 0);
            if n % 10 == 9 {
                // The last section is not sent, and does not keep the others from being answered.
                for expected in 2 * (n - 9)..=2 * n {
                    assert_eq!(answer_number(&mut flight, &mut conn).await, expected);
                }
                assert_eq!(flight.outstanding(), 1);
                assert!(matches!(flight.answer(&mut conn).await, Err(Error::Usage { .. })), "nothing was sent");
                flight.send(&mut conn).await.unwrap();
                assert_eq!(answer_number(&mut flight, &mut conn).await, 2 * n + 1);
            }
        }
        conn.simple("SELECT 1").await.unwrap();
    });
}

#[test]
fn a_flight_with_nothing_to_send_leaves_the_connection_free() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let mut flight = Flight::new();
        flight.sync();
        flight.send(&mut conn).await.unwrap();
        conn.simple("SELECT 1").await.unwrap();
        assert!(matches!(flight.answer(&mut conn).await, Err(Error::Usage { .. })));
    });
}

#[test]
fn a_flight_stays_on_one_connection_until_its_last_answer() {
    with_server(|server| async move {
        let (mut conn, mut other) = (server.connect().await, server.connect().await);
        let mut flight = Flight::new();
        add_section(&mut flight, "SELECT 1::bigint", &[]);
        flight.send(&mut conn).await.unwrap();
        assert!(matches!(flight.send(&mut other).await, Err(Error::Usage { .. })));
        assert!(matches!(flight.answer(&mut other).await, Err(Error::Usage { .. })));
        assert_eq!(answer_number(&mut flight, &mut conn).await, 1);
        add_section(&mut flight, "SELECT 2::bigint", &[]);
        flight.send(&mut other).await.unwrap();
        assert_eq!(answer_number(&mut flight, &mut other).await, 2);
    });
}

#[test]
fn a_flight_has_a_deadline_of_its_own_that_ends_the_connection() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.set_deadline(Some(Duration::from_millis(1)));
        let mut flight = Flight::new();
        flight.set_deadline(Some(Instant::now() + PROMPTLY));
        add_section(&mut flight, "SELECT 1::bigint FROM pg_sleep(0.3)", &[]);
        flight.send(&mut conn).await.unwrap();
        assert_eq!(answer_number(&mut flight, &mut conn).await, 1, "the connection's deadline does not apply");

        add_section(&mut flight, "SELECT 2::bigint", &[]);
        add_section(&mut flight, "SELECT pg_sleep(600)", &[]);
        add_section(&mut flight, "SELECT 4::bigint", &[]);
        flight.send(&mut conn).await.unwrap();
        assert_eq!(answer_number(&mut flight, &mut conn).await, 2);
        let began = Instant::now();
        flight.set_deadline(Some(began + Duration::from_millis(200)));
        let late = flight.answer(&mut conn).await;
        assert!(matches!(late, Err(Error::Timeout { during: "a flight", .. })), "{late:?}");
        assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < PROMPTLY);
        assert!(conn.is_broken());
        assert!(matches!(flight.answer(&mut conn).await, Err(Error::Closed)));
        assert!(matches!(flight.send(&mut conn).await, Err(Error::Closed)));
    });
}

#[test]
fn a_flight_without_its_own_deadline_has_that_of_the_connection_for_each_call() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let mut flight = Flight::new();
        flight.set_deadline(Some(Instant::now()));
        flight.set_deadline(None);
        conn.set_deadline(Some(Duration::from_millis(200)));
        add_section(&mut flight, "SELECT pg_sleep(600)", &[]);
        flight.send(&mut conn).await.unwrap();
        let late = flight.answer(&mut conn).await;
        assert!(matches!(late, Err(Error::Timeout { after, .. }) if after == Duration::from_millis(200)), "{late:?}");
    });
}

#[test]
fn a_wait_for_an_answer_that_is_dropped_leaves_the_connection_broken() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let mut flight = Flight::new();
        add_section(&mut flight, "SELECT pg_sleep(600)", &[]);
        flight.send(&mut conn).await.unwrap();
        assert!(monoio::time::timeout(Duration::from_millis(50), flight.answer(&mut conn)).await.is_err());
        assert!(matches!(flight.answer(&mut conn).await, Err(Error::Closed)));
        assert!(conn.is_broken());
    });
}

#[test]
fn a_reply_before_the_sync_was_sent_is_a_protocol_error() {
    with_server(|server| async move {
        // After an error, this server is ready for the next query although it has got no Sync.
        let (config, thread) = proxy(&server, usize::MAX, |mut bytes| {
            if bytes.windows(6).any(|code| code == b"C42P01") {
                bytes.extend_from_slice(b"Z\0\0\0\x05E");
            }
            bytes
        });
        let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
        let with = prepare(&mut conn).await;
        conn.simple("DROP TABLE t").await.unwrap();
        let mut flight = Flight::new();
        flight.copy_in(&conn, &with.copy).unwrap();
        flight.send(&mut conn).await.unwrap();
        let error = loop {
            match flight.copy_data(&mut conn, &[0]).await {
                Ok(_) => monoio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => break error,
            }
        };
        let unexpected = ProtocolError::Unexpected { message: "ReadyForQuery", during: "a flight" };
        assert!(matches!(&error, Error::Protocol(error) if *error == unexpected), "{error}");
        assert!(conn.is_broken());
        drop(conn);
        thread.join().unwrap();
    });
}
