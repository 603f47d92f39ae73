//! Flights: sections sent ahead of their answers, with COPY among them.

use forebay_pgwire::{BinaryCopy, Connection, Error, Flight, Param, SqlState, Statement, TransactionStatus, oid};

use crate::common::with_server;

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

/// Sends a transaction without its COMMIT; whether the server took all data.
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
        // More than the socket holds: the server reads and drops it.
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
        // A row of three fields into two columns.
        let mut wrong = BinaryCopy::start();
        wrong.row(3);
        (0..3).for_each(|n| wrong.i64(n));
        assert!(flight.copy_data(&mut conn, wrong.bytes()).await.unwrap());
        let filler = vec![0; 1 << 20];
        let mut sent_mib = 0;
        while flight.copy_data(&mut conn, &filler).await.unwrap() {
            sent_mib += 1;
            assert!(sent_mib < 1000, "it hears of the refusal");
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
