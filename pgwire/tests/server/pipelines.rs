//! Several statements in one round trip.

use forebay_pgwire::{Error, Param, SqlState, TransactionStatus};

use crate::common::{SUPERUSER, with_server};

#[test]
fn a_pipeline_gives_each_result_in_order() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("CREATE TEMP TABLE t (n bigint)").await.unwrap();
        let insert = conn.prepare("INSERT INTO t VALUES ($1)", &[]).await.unwrap();
        let mut pipeline = conn.pipeline().once("BEGIN", &[]);
        for n in 0..50 {
            pipeline = pipeline.statement(&insert, &[Param::I64(n)]);
        }
        let outcome =
            pipeline.once("SELECT sum(n)::bigint, $1 FROM t", &[Param::Text("x")]).once("COMMIT", &[]).run().await;
        let results = outcome.unwrap().into_results().unwrap();
        assert_eq!(results.len(), 53);
        assert!(results[1..51].iter().all(|result| result.tag.as_str() == "INSERT 0 1" && result.rows.is_empty()));
        assert_eq!(results[51].rows[0].get_i64(0).unwrap(), 1225);
        assert_eq!(results[51].rows[0].get_str(1).unwrap(), "x");
        assert_eq!(results[52].tag.as_str(), "COMMIT");
        assert_eq!(conn.transaction_status(), TransactionStatus::Idle);
    });
}

#[test]
fn a_pipeline_stops_at_its_first_error_and_says_which() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("CREATE TEMP TABLE t (n bigint PRIMARY KEY)").await.unwrap();
        let insert = conn.prepare("INSERT INTO t VALUES ($1)", &[]).await.unwrap();
        let outcome = conn
            .pipeline()
            .statement(&insert, &[Param::I64(1)])
            .statement(&insert, &[Param::I64(1)])
            .statement(&insert, &[Param::I64(2)])
            .run()
            .await
            .unwrap();
        assert_eq!(outcome.results.len(), 1);
        let failure = outcome.failure.as_ref().unwrap();
        assert_eq!((failure.statement, failure.error.sqlstate), (1, SqlState::UNIQUE_VIOLATION));
        assert!(matches!(outcome.into_results(), Err(Error::Server(_))));
        assert_eq!(conn.transaction_status(), TransactionStatus::Idle);
        let rows = conn.query_once("SELECT count(*) FROM t", &[]).await.unwrap();
        assert_eq!(rows[0].get_i64(0).unwrap(), 0, "it was one transaction");
    });
}

#[test]
fn an_error_within_a_transaction_leaves_it_failed_until_rollback() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let outcome = conn.pipeline().once("BEGIN", &[]).once("SELECT 1 / 0", &[]).run().await.unwrap();
        assert_eq!(outcome.failure.unwrap().statement, 1);
        assert_eq!(conn.transaction_status(), TransactionStatus::Failed);
        conn.simple("ROLLBACK").await.unwrap();
        assert_eq!(conn.transaction_status(), TransactionStatus::Idle);
    });
}

#[test]
fn a_pipeline_with_a_misfit_sends_nothing() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("CREATE TEMP TABLE t (n bigint)").await.unwrap();
        let insert = conn.prepare("INSERT INTO t VALUES ($1)", &[]).await.unwrap();
        let refused = conn.pipeline().statement(&insert, &[Param::I64(1)]).statement(&insert, &[]).run().await;
        assert!(matches!(refused, Err(Error::Usage { .. })));
        assert!(conn.pipeline().run().await.unwrap().results.is_empty(), "an empty pipeline is only a Sync");
        let rows = conn.query_once("SELECT count(*) FROM t", &[]).await.unwrap();
        assert_eq!(rows[0].get_i64(0).unwrap(), 0);
    });
}

/// If the client did not read while it writes, both sides would wait with full buffers, which hold less than 32 MiB.
#[test]
fn a_pipeline_whose_answers_fill_the_socket_before_it_is_sent_does_not_hang() {
    with_server(|server| async move {
        for config in [server.config(), server.tcp_config(SUPERUSER, None)] {
            let mut conn =
                forebay_pgwire::Connection::connect(&config, forebay_pgwire::SearchPath::Inherited).await.unwrap();
            let text = "x".repeat(256 * 1024);
            let mut pipeline = conn.pipeline();
            for _ in 0..128 {
                pipeline = pipeline.once("SELECT $1", &[Param::Text(&text)]);
            }
            let results = pipeline.run().await.unwrap().into_results().unwrap();
            assert_eq!(results.len(), 128);
            assert!(results.iter().all(|result| result.rows[0].get_str(0).unwrap() == text));
        }
    });
}
