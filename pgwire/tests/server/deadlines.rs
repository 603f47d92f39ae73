//! Deadlines, with a slow server and without a server.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use forebay_pgwire::{Config, Connection, Error, Host, SearchPath};
use rustix::net::{AddressFamily, SocketType};

use crate::common::{SUPERUSER, run, with_server};

const DEADLINE: Duration = Duration::from_millis(200);

/// Much shorter than the statements take, and much longer than a busy machine needs.
const PROMPTLY: Duration = Duration::from_secs(20);

fn assert_timeout<T: std::fmt::Debug>(result: Result<T, Error>, began: Instant) {
    assert!(matches!(result, Err(Error::Timeout { after: DEADLINE, .. })), "{result:?}");
    assert!(began.elapsed() >= DEADLINE && began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
}

#[test]
fn a_query_past_its_deadline_ends_soon_and_breaks_the_connection() {
    with_server(|server| async move {
        for mut config in [server.config(), server.tcp_config(SUPERUSER, None)] {
            config.statement_deadline = Some(DEADLINE);
            let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
            conn.simple("SELECT 1").await.unwrap();
            let began = Instant::now();
            assert_timeout(conn.simple("SELECT pg_sleep(60)").await, began);
            assert!(conn.is_broken());
            assert!(matches!(conn.simple("SELECT 1").await, Err(Error::Closed)));
        }
    });
}

#[test]
fn a_deadline_can_be_set_for_each_operation() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.set_deadline(Some(Duration::from_secs(60)));
        conn.query_once("SELECT pg_sleep(0.3)", &[]).await.unwrap();
        conn.set_deadline(None);
        conn.query_once("SELECT pg_sleep(0.3)", &[]).await.unwrap();
        conn.set_deadline(Some(DEADLINE));
        let began = Instant::now();
        assert_timeout(conn.query_once("SELECT pg_sleep(60)", &[]).await, began);
    });
}

#[test]
fn a_server_that_never_stops_talking_is_cut_off_at_the_deadline() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.set_deadline(Some(DEADLINE));
        let began = Instant::now();
        let endless = "DO $$ BEGIN FOR i IN 1..1000000000 LOOP RAISE NOTICE 'again'; END LOOP; END $$";
        assert_timeout(conn.simple(endless).await, began);
    });
}

#[test]
fn a_copy_that_the_server_does_not_take_ends_at_the_deadline() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        // The first row waits in its trigger, and the following rows fill the socket's buffers.
        conn.simple(
            "CREATE TEMP TABLE t (s text);
             CREATE FUNCTION pg_temp.wait() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
             CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.wait()",
        )
        .await
        .unwrap();
        conn.set_deadline(Some(DEADLINE));
        let mut copy = conn.copy_in("COPY t FROM STDIN").await.unwrap();
        let line = format!("{}\n", "x".repeat(65_535));
        let mut sent_bytes = 0;
        let error = loop {
            match copy.write(line.as_bytes()).await {
                Ok(()) => sent_bytes += line.len(),
                Err(error) => break error,
            }
            assert!(sent_bytes < 1 << 30, "no socket holds that much");
        };
        assert!(matches!(error, Error::Timeout { during: "COPY", .. }), "{error}");
        drop(copy);
        assert!(conn.is_broken());
    });
}

fn config_for(host: Host, port: u16) -> Config {
    let mut config = Config::new(host, "nobody");
    config.port = port;
    config.connect_timeout = Some(DEADLINE);
    config
}

#[test]
fn a_peer_that_accepts_and_says_nothing_is_given_up_at_the_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let began = Instant::now();
    let result = run(async {
        Connection::connect(&config_for(Host::Tcp("127.0.0.1".to_owned()), port), SearchPath::Inherited).await
    });
    assert_timeout(result, began);
}

#[test]
fn a_peer_that_does_not_accept_is_given_up_at_the_connect_timeout() {
    // The backlog is full, so further SYNs are dropped, as a firewall would drop them.
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let fillers: Vec<_> = std::iter::from_fn(|| TcpStream::connect_timeout(&address, DEADLINE).ok()).take(16).collect();
    assert!(fillers.len() < 16, "the backlog never fills");
    let began = Instant::now();
    let host = Host::Tcp("127.0.0.1".to_owned());
    assert_timeout(
        run(async { Connection::connect(&config_for(host, address.port()), SearchPath::Inherited).await }),
        began,
    );
}

#[test]
fn a_unix_socket_with_a_full_backlog_is_given_up_at_the_connect_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".s.PGSQL.1");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
    let flags = rustix::net::SocketFlags::NONBLOCK;
    let filler = || -> Option<OwnedFd> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
        rustix::net::connect(&socket, &address).ok().map(|()| socket)
    };
    let fillers: Vec<_> = std::iter::from_fn(filler).take(16).collect();
    assert!(fillers.len() < 16, "the backlog never fills");
    let began = Instant::now();
    let host = Host::Unix(dir.path().to_owned());
    assert_timeout(run(async { Connection::connect(&config_for(host, 1), SearchPath::Inherited).await }), began);
}
