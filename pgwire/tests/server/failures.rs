//! Lost connections and cancelled operations.

use std::time::Duration;

use forebay_pgwire::{BinaryCopy, Config, Connection, Error, Param, SearchPath, SqlState};

use crate::common::{SUPERUSER, TestServer, with_server};

/// Waits until a backend runs a statement, or waits for the data of a COPY.
async fn wait_until_active(server: &TestServer, process_id: i32) {
    let mut watcher = server.connect().await;
    loop {
        let sql = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND state = 'active'";
        if !watcher.query_once(sql, &[Param::I32(process_id)]).await.unwrap().is_empty() {
            return;
        }
        monoio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Terminates a backend, and waits until it has ended.
async fn terminate(server: &TestServer, process_id: i32) {
    let mut killer = server.connect().await;
    let rows = killer.query_once("SELECT pg_terminate_backend($1, 30000)", &[Param::I32(process_id)]).await.unwrap();
    assert!(rows[0].get_bool(0).unwrap());
}

fn both_ways(server: &TestServer) -> [Config; 2] {
    [server.config(), server.tcp_config(SUPERUSER, None)]
}

#[test]
fn a_backend_killed_during_a_query_is_an_error_and_not_a_hang() {
    with_server(|server| async move {
        for config in both_ways(&server) {
            let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
            let process_id = conn.process_id().unwrap();
            let (result, ()) = monoio::join!(conn.simple("SELECT pg_sleep(60)"), async {
                wait_until_active(&server, process_id).await;
                terminate(&server, process_id).await;
            });
            let error = result.unwrap_err();
            assert_eq!(error.sqlstate(), Some(SqlState::ADMIN_SHUTDOWN), "{error}");
            assert!(error.ends_connection() && conn.is_broken());
            assert!(matches!(conn.simple("SELECT 1").await, Err(Error::Closed)));
            assert!(matches!(conn.copy_in("COPY t FROM STDIN").await, Err(Error::Closed)));
        }
    });
}

#[test]
fn an_idle_connection_that_the_server_has_closed_is_found_without_waiting() {
    with_server(|server| async move {
        for config in both_ways(&server) {
            let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
            conn.check_idle().unwrap();
            conn.simple("SELECT 1").await.unwrap();
            terminate(&server, conn.process_id().unwrap()).await;
            let error = conn.check_idle().unwrap_err();
            assert_eq!(error.sqlstate(), Some(SqlState::ADMIN_SHUTDOWN), "{error}");
            assert!(conn.is_broken());
        }
    });
}

#[test]
fn a_backend_killed_while_idle_still_says_why() {
    with_server(|server| async move {
        for config in both_ways(&server) {
            let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
            terminate(&server, conn.process_id().unwrap()).await;
            let error = conn.simple("SELECT 1").await.unwrap_err();
            assert_eq!(error.sqlstate(), Some(SqlState::ADMIN_SHUTDOWN), "{error}");
            assert!(conn.is_broken());
        }
    });
}

#[test]
fn a_backend_killed_during_a_copy_is_an_error_and_not_a_hang() {
    with_server(|server| async move {
        for config in both_ways(&server) {
            let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
            conn.simple("CREATE TEMP TABLE t (n bigint)").await.unwrap();
            let process_id = conn.process_id().unwrap();
            let mut copy = conn.copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap();
            copy.write(BinaryCopy::start().bytes()).await.unwrap();
            terminate(&server, process_id).await;
            let mut row = BinaryCopy::start();
            row.clear();
            (0..10_000).for_each(|n| {
                row.row(1);
                row.i64(n);
            });
            let error = loop {
                if let Err(error) = copy.write(row.bytes()).await {
                    break error;
                }
            };
            assert!(error.ends_connection(), "{error}");
            assert!(matches!(copy.write(row.bytes()).await, Err(Error::Closed)));
            assert!(matches!(copy.finish().await, Err(Error::Closed)));
            assert!(conn.is_broken());
        }
    });
}

#[test]
fn a_cancelled_statement_is_57014_and_the_connection_goes_on() {
    with_server(|server| async move {
        for config in both_ways(&server) {
            let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
            let (token, process_id) = (conn.cancel_token(), conn.process_id().unwrap());
            let (result, ()) = monoio::join!(conn.query_once("SELECT pg_sleep(60)", &[]), async {
                wait_until_active(&server, process_id).await;
                token.cancel().await.unwrap();
            });
            let error = result.unwrap_err();
            assert_eq!(error.sqlstate(), Some(SqlState::QUERY_CANCELED), "{error}");
            assert!(!conn.is_broken());
            conn.simple("SELECT 1").await.unwrap();
        }
    });
}

#[test]
fn a_dropped_operation_leaves_the_connection_broken() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let dropped = monoio::time::timeout(Duration::from_millis(50), conn.simple("SELECT pg_sleep(60)")).await;
        assert!(dropped.is_err());
        assert!(conn.is_broken());
        assert!(matches!(conn.simple("SELECT 1").await, Err(Error::Closed)));
    });
}

#[test]
fn a_copy_whose_write_was_dropped_halfway_cannot_go_on() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        // The first row waits in its trigger, so the socket's buffers fill up and the write stops within a message.
        conn.simple(
            "CREATE TEMP TABLE t (s text);
             CREATE FUNCTION pg_temp.wait() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
             CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.wait()",
        )
        .await
        .unwrap();
        let lines = "x\n".repeat(8 << 20);
        let mut copy = conn.copy_in("COPY t FROM STDIN").await.unwrap();
        assert!(monoio::time::timeout(Duration::from_millis(200), copy.write(lines.as_bytes())).await.is_err());
        assert!(matches!(copy.write(b"y\n").await, Err(Error::Closed)));
        assert!(matches!(copy.finish().await, Err(Error::Closed)));
        assert!(conn.is_broken());
    });
}

#[test]
fn a_dropped_connection_says_good_bye() {
    with_server(|server| async move {
        let conn = server.connect().await;
        let process_id = conn.process_id().unwrap();
        drop(conn);
        let mut watcher = server.connect().await;
        let sql = "SELECT 1 FROM pg_stat_activity WHERE pid = $1";
        while !watcher.query_once(sql, &[Param::I32(process_id)]).await.unwrap().is_empty() {
            monoio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn nobody_listening_is_a_connect_error_that_names_the_address() {
    with_server(|server| async move {
        let mut config = server.config();
        config.port = 1;
        let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
        assert!(matches!(&error, Error::Connect { address, .. } if address.ends_with("/.s.PGSQL.1")), "{error}");
        // A port that is bound without a listener refuses connections.
        let bound =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::bind(&bound, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = std::net::TcpStream::from(bound).local_addr().map(|address| (address.ip(), address.port()));
        let mut config = server.tcp_config(SUPERUSER, None);
        config.port = address.unwrap().1;
        let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
        assert!(matches!(&error, Error::Connect { address, .. } if address.starts_with("127.0.0.1:")), "{error}");
    });
}
