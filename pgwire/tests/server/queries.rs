//! Simple and extended queries, with errors between them.

use forebay_pgwire::{Connection, Error, Param, ProtocolError, Severity, SqlClass, SqlState, TransactionStatus, oid};

use crate::common::with_server;

async fn assert_usable(conn: &mut Connection) {
    assert!(!conn.is_broken());
    let rows = conn.query_once("SELECT 41::bigint + $1", &[Param::I64(1)]).await.unwrap();
    assert_eq!(rows[0].get_i64(0).unwrap(), 42);
}

#[test]
fn a_simple_query_gives_each_statements_rows_and_tag() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let results = conn
            .simple("CREATE TEMP TABLE t (n int, s text); INSERT INTO t VALUES (1, 'a'), (2, NULL); SELECT * FROM t;")
            .await
            .unwrap();
        let tags: Vec<&str> = results.iter().map(|result| result.tag.as_str()).collect();
        assert_eq!(tags, ["CREATE TABLE", "INSERT 0 2", "SELECT 2"]);
        assert_eq!(results.iter().map(|result| result.tag.rows()).collect::<Vec<_>>(), [0, 2, 2]);
        let select = &results[2];
        assert_eq!(select.columns[1].name, "s");
        assert_eq!(select.columns[0].type_oid, oid::INT4);
        assert_eq!(select.rows[0].get_str(0).unwrap(), "1");
        assert_eq!(select.rows[1].get_opt_str(1).unwrap(), None);
        assert!(matches!(select.rows[0].get_i32(0), Err(Error::Column(_))), "text is not read as binary");
    });
}

#[test]
fn an_empty_query_is_no_error_in_either_protocol() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        assert_eq!(conn.simple("").await.unwrap()[0].tag.as_str(), "");
        assert_eq!(conn.simple("; ;").await.unwrap().len(), 1);
        assert!(conn.query_once("", &[]).await.unwrap().is_empty());
        assert_usable(&mut conn).await;
    });
}

#[test]
fn a_prepared_statement_runs_again_and_again_and_can_be_closed() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let statement = conn.prepare("SELECT n, n::text FROM generate_series(1, $1) AS n", &[]).await.unwrap();
        assert_eq!(statement.params(), [oid::INT4]);
        assert_eq!(statement.columns().len(), 2);
        for count in [3, 0, 1] {
            let rows = conn.query(&statement, &[Param::I32(count)]).await.unwrap();
            assert_eq!(rows.len(), count as usize);
            assert!(rows.iter().all(|row| row.get_i32(0).unwrap().to_string() == row.get_str(1).unwrap()));
        }
        let mut other = server.connect().await;
        let misuse = other.query(&statement, &[Param::I32(1)]).await.unwrap_err();
        assert!(matches!(misuse, Error::Usage { .. }), "{misuse}");
        assert_usable(&mut other).await;

        let copy = statement.clone();
        conn.close_statement(statement).await.unwrap();
        let gone = conn.query(&copy, &[Param::I32(1)]).await.unwrap_err();
        assert_eq!(gone.sqlstate().unwrap().as_str(), "26000", "{gone}");
        assert_usable(&mut conn).await;
    });
}

#[test]
fn execute_counts_the_rows_of_its_command() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("CREATE TEMP TABLE t (n bigint)").await.unwrap();
        let insert = conn.prepare("INSERT INTO t SELECT generate_series(1, $1)", &[oid::INT8]).await.unwrap();
        assert_eq!(conn.execute(&insert, &[Param::I64(7)]).await.unwrap(), 7);
        assert_eq!(conn.execute_once("DELETE FROM t WHERE n > $1", &[Param::I64(4)]).await.unwrap(), 3);
        assert_eq!(conn.execute_once("CREATE TEMP TABLE u ()", &[]).await.unwrap(), 0);
    });
}

#[test]
fn parameters_that_do_not_fit_are_refused_before_anything_is_sent() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let statement = conn.prepare("SELECT $1::int4, $2::text", &[]).await.unwrap();
        for params in [
            &[Param::I32(1)][..],
            &[Param::I64(1), Param::Text("x")],
            &[Param::Text("1"), Param::Text("x")],
            &[Param::I32(1), Param::Text("x"), Param::Bool(true)],
        ] {
            let error = conn.query(&statement, params).await.unwrap_err();
            assert!(matches!(error, Error::Usage { .. }), "{params:?}: {error}");
        }
        assert!(matches!(conn.simple("SELECT '\0'").await, Err(Error::Usage { .. })), "a NUL cannot be sent");
        assert!(matches!(conn.query_once("SELECT '\0'", &[]).await, Err(Error::Usage { .. })));
        let rows = conn.query(&statement, &[Param::I32(1), Param::Null(oid::TEXT)]).await.unwrap();
        assert_eq!(rows[0].get_opt_str(1).unwrap(), None);
        assert_usable(&mut conn).await;
    });
}

#[test]
fn an_error_of_the_server_is_typed_and_the_connection_goes_on() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("CREATE TEMP TABLE t (n int CONSTRAINT positive CHECK (n > 0), k int PRIMARY KEY)").await.unwrap();
        let error = conn.simple("SELECT 1; SELECT nonsense; SELECT 2").await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::UNDEFINED_COLUMN));
        assert_eq!(error.db_error().unwrap().position, Some(18));
        assert_usable(&mut conn).await;

        let error = conn.query_once("SELECT 1 / $1", &[Param::I32(0)]).await.unwrap_err();
        assert_eq!(error.sqlstate().unwrap().class(), SqlClass::DATA_EXCEPTION, "{error}");
        assert_usable(&mut conn).await;

        let error = conn.prepare("SELEC 1", &[]).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::SYNTAX_ERROR));
        assert_usable(&mut conn).await;

        let error = conn.execute_once("INSERT INTO t VALUES ($1, 1)", &[Param::I32(-1)]).await.unwrap_err();
        let said = error.db_error().unwrap();
        assert_eq!(said.sqlstate, SqlState::CHECK_VIOLATION);
        assert_eq!((said.constraint.as_deref(), said.table.as_deref()), (Some("positive"), Some("t")));
        assert_eq!(said.severity, Severity::Error);
        assert!(said.detail.is_some() && !error.ends_connection());
        assert_usable(&mut conn).await;
    });
}

#[test]
fn an_error_at_the_implicit_commit_is_not_taken_for_success() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("CREATE TEMP TABLE t (k int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)").await.unwrap();
        let twice = "INSERT INTO t SELECT 1 FROM generate_series(1, 2)";
        for error in [conn.simple(twice).await.unwrap_err(), conn.execute_once(twice, &[]).await.unwrap_err()] {
            assert_eq!(error.sqlstate(), Some(SqlState::UNIQUE_VIOLATION), "{error}");
        }
        assert_usable(&mut conn).await;
    });
}

#[test]
fn the_transaction_status_follows_the_server() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("BEGIN").await.unwrap();
        assert_eq!(conn.transaction_status(), TransactionStatus::InTransaction);
        conn.query_once("SELECT 1 / 0", &[]).await.unwrap_err();
        assert_eq!(conn.transaction_status(), TransactionStatus::Failed);
        let error = conn.simple("SELECT 1").await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::IN_FAILED_SQL_TRANSACTION));
        conn.simple("ROLLBACK").await.unwrap();
        assert_eq!(conn.transaction_status(), TransactionStatus::Idle);
        assert_usable(&mut conn).await;
    });
}

#[test]
fn a_flood_of_notices_is_bounded_and_the_newest_stay() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("DO $$ BEGIN FOR i IN 1..10000 LOOP RAISE NOTICE 'number %', i; END LOOP; END $$").await.unwrap();
        let (notices, dropped) = conn.take_notices();
        assert_eq!(notices.len(), forebay_pgwire::core::limits::NOTICES_MAX);
        assert_eq!(notices.len() as u64 + dropped, 10_000);
        assert_eq!(notices.last().unwrap().message, "number 10000");
        assert_eq!(notices[0].severity, Severity::Notice);
        assert_eq!(conn.take_notices(), (vec![], 0));
        assert_usable(&mut conn).await;
    });
}

#[test]
fn a_notification_is_kept_and_disturbs_nothing() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("LISTEN bell").await.unwrap();
        let mut other = server.connect().await;
        other.simple("NOTIFY bell, 'ding'").await.unwrap();
        assert_usable(&mut conn).await;
        let (notifications, dropped) = conn.take_notifications();
        assert_eq!((notifications.len(), dropped), (1, 0));
        assert_eq!((notifications[0].channel.as_str(), notifications[0].payload.as_str()), ("bell", "ding"));
        assert_eq!(Some(notifications[0].process_id), other.process_id());
    });
}

#[test]
fn a_copy_that_was_not_asked_for_ends_the_connection_and_not_the_process() {
    with_server(|server| async move {
        for sql in ["COPY (SELECT 1) TO STDOUT", "CREATE TEMP TABLE t (n int); COPY t FROM STDIN"] {
            let mut conn = server.connect().await;
            let error = conn.simple(sql).await.unwrap_err();
            assert!(matches!(error, Error::Protocol(ProtocolError::CopyNotExpected)), "{error}");
            assert!(conn.is_broken());
            assert!(matches!(conn.simple("SELECT 1").await, Err(Error::Closed)));
        }
    });
}
