//! Encrypted connections under load, with cancel requests and with deadlines.

use std::time::{Duration, Instant};

use forebay_pgwire::{Connection, Error, Param, SearchPath, SqlState};

use super::middle::terminate;
use super::server::{ADDRESS, TlsServer};
use crate::common::run;

async fn connect(server: &TlsServer) -> Connection {
    Connection::connect(&server.config("forebay"), SearchPath::Inherited).await.unwrap()
}

#[test]
fn megabytes_go_both_ways() {
    let server = TlsServer::shared();
    run(async {
        let mut conn = connect(&server).await;
        let large = "x".repeat(9_999_999);
        let rows = conn.query_once("SELECT $1::text, length($1)", &[Param::Text(&large)]).await.unwrap();
        assert!(rows[0].get_str(0).unwrap() == large && rows[0].get_i32(1).unwrap() == 9_999_999);
        conn.simple("CREATE TEMP TABLE t (s text)").await.unwrap();
        let mut copy = conn.copy_in("COPY t FROM STDIN").await.unwrap();
        for _ in 0..30 {
            copy.write(format!("{}\n", "y".repeat(999_999)).as_bytes()).await.unwrap();
        }
        assert_eq!(copy.finish().await.unwrap(), 30);
        let rows = conn.query_once("SELECT sum(length(s)) FROM t", &[]).await.unwrap();
        assert_eq!(rows[0].get_i64(0).unwrap(), 30 * 999_999);
    });
}

#[test]
fn a_server_that_talks_while_it_is_talked_to_does_not_stall_the_copy() {
    let server = TlsServer::shared();
    run(async {
        let mut conn = connect(&server).await;
        conn.simple(
            "CREATE TEMP TABLE t (s text);
             CREATE FUNCTION pg_temp.shout() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE NOTICE '%', repeat('!', 2000); RETURN NULL; END $$;
             CREATE TRIGGER shout BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.shout()",
        )
        .await
        .unwrap();
        let mut copy = conn.copy_in("COPY t FROM STDIN").await.unwrap();
        copy.write("x\n".repeat(50_000).as_bytes()).await.unwrap();
        copy.finish().await.unwrap();
        let (notices, dropped) = conn.take_notices();
        assert_eq!(notices.len() as u64 + dropped, 50_000);
    });
}

#[test]
fn a_statement_is_cancelled_over_tls_and_the_connection_goes_on() {
    let server = TlsServer::shared();
    run(async {
        let mut conn = connect(&server).await;
        let token = conn.cancel_token();
        let (result, ()) = monoio::join!(conn.query_once("SELECT pg_sleep(60)", &[]), async {
            monoio::time::sleep(Duration::from_millis(200)).await;
            token.cancel().await.unwrap();
        });
        let error = result.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::QUERY_CANCELED), "{error}");
        conn.simple("SELECT 1").await.unwrap();
    });
}

#[test]
fn a_query_past_its_deadline_ends_soon() {
    let server = TlsServer::shared();
    run(async {
        let mut conn = connect(&server).await;
        conn.set_deadline(Some(Duration::from_millis(200)));
        let began = Instant::now();
        let result = conn.simple("SELECT pg_sleep(60)").await;
        assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
        assert!(began.elapsed() < Duration::from_secs(20) && conn.is_broken());
    });
}

#[test]
fn a_backend_that_is_killed_still_says_why() {
    let server = TlsServer::shared();
    run(async {
        let mut conn = connect(&server).await;
        let mut killer = connect(&server).await;
        let process_id = Param::I32(conn.process_id().unwrap());
        killer.query_once("SELECT pg_terminate_backend($1, 30000)", &[process_id]).await.unwrap();
        let error = conn.simple("SELECT 1").await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::ADMIN_SHUTDOWN), "{error}");
    });
}

#[test]
fn a_connection_that_is_dropped_says_good_bye() {
    let server = TlsServer::shared();
    run(async {
        let conn = connect(&server).await;
        let process_id = conn.process_id().unwrap();
        drop(conn);
        let mut watcher = connect(&server).await;
        let sql = "SELECT 1 FROM pg_stat_activity WHERE pid = $1";
        while !watcher.query_once(sql, &[Param::I32(process_id)]).await.unwrap().is_empty() {
            monoio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_notification_arrives_while_nothing_is_asked() {
    let server = TlsServer::shared();
    run(async {
        let mut conn = connect(&server).await;
        conn.simple("LISTEN encrypted_bell").await.unwrap();
        let mut ringer = connect(&server).await;
        let (heard, _) = monoio::join!(conn.wait_for_notification(None), async {
            monoio::time::sleep(Duration::from_millis(50)).await;
            ringer.simple("NOTIFY encrypted_bell, 'ding'").await.unwrap();
        });
        assert_eq!(heard.unwrap().unwrap().payload, "ding");
    });
}

#[test]
fn case_64_answers_are_read_whatever_records_they_come_in() {
    let server = TlsServer::shared();
    // The server's bytes arrive complete, but in records of another size.
    let middle = terminate(&server.ca.server(ADDRESS), server.cluster.port(), |bytes| bytes);
    let mut config = server.config("trusted");
    config.port = middle.port;
    run(async {
        let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
        let rows = conn.query_once("SELECT repeat('z', 300000)", &[]).await.unwrap();
        assert_eq!(rows[0].get_str(0).unwrap().len(), 300_000);
    });
    middle.saw();
}
