//! Unusual replies of a server: in single bytes, in floods, unexpected.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use forebay_pgwire::core::limits;
use forebay_pgwire::{BinaryCopy, Config, Connection, Error, Host, Param, SearchPath, SqlState, SslMode};

use crate::common::{SUPERUSER, TestServer, run, with_server};

/// Relays one connection to the server. The server's bytes pass through `rewrite`, and are sent in pieces of one
/// length.
pub(crate) fn proxy(
    server: &TestServer,
    piece_bytes: usize,
    rewrite: impl Fn(Vec<u8>) -> Vec<u8> + Send + 'static,
) -> (Config, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = server.tcp_config(SUPERUSER, None);
    let upstream = config.port;
    config.port = listener.local_addr().unwrap().port();
    config.tls.mode = SslMode::Disable;
    let thread = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.set_nodelay(true).unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let questions = std::thread::spawn(move || {
            drop(std::io::copy(&mut from_client, &mut to_server));
            drop(to_server.shutdown(std::net::Shutdown::Both));
        });
        let mut chunk = vec![0; 64 * 1024];
        'answers: while let Ok(length @ 1..) = server.read(&mut chunk) {
            for piece in rewrite(chunk[..length].to_vec()).chunks(piece_bytes) {
                if client.write_all(piece).is_err() {
                    break 'answers;
                }
            }
        }
        drop(client.shutdown(std::net::Shutdown::Both));
        questions.join().unwrap();
    });
    (config, thread)
}

/// A message from the server.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

/// Some operations of each kind.
async fn work(conn: &mut Connection) {
    conn.simple("CREATE TEMP TABLE t (n bigint, s text)").await.unwrap();
    let mut encoder = BinaryCopy::start();
    for n in 0..100 {
        encoder.row(2);
        encoder.i64(n);
        encoder.text("žluť");
    }
    encoder.finish().unwrap();
    let mut copy = conn.copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap();
    copy.write(encoder.bytes()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 100);
    let statement = conn.prepare("SELECT n, s FROM t WHERE n >= $1 ORDER BY n", &[]).await.unwrap();
    let rows = conn.query(&statement, &[Param::I64(90)]).await.unwrap();
    assert_eq!(rows.len(), 10);
    assert_eq!((rows[0].get_i64(0).unwrap(), rows[9].get_str(1).unwrap()), (90, "žluť"));
    let error = conn.simple("SELECT nonsense").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some(SqlState::UNDEFINED_COLUMN), "{error}");
    let outcome = conn.pipeline().once("SELECT 1", &[]).once("SELECT 1/0", &[]).run().await.unwrap();
    assert_eq!((outcome.results.len(), outcome.failure.unwrap().statement), (1, 1));
    assert_eq!(conn.simple("SELECT 1; SELECT 2").await.unwrap().len(), 2);
}

#[test]
fn case_64_answers_in_single_bytes_are_the_same_answers() {
    with_server(|server| async move {
        let (config, thread) = proxy(&server, 1, |bytes| bytes);
        let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
        work(&mut conn).await;
        drop(conn);
        thread.join().unwrap();
    });
}

#[test]
fn case_64_notices_and_parameters_out_of_the_blue_change_no_answer() {
    with_server(|server| async move {
        // Each read from this server starts at the start of a message, because it gets one request at a time and its
        // replies are short.
        let (config, thread) = proxy(&server, usize::MAX, |bytes| {
            let between = [
                message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mout of the blue\0\0"),
                message(b'S', b"TimeZone\0Nowhere/Else\0"),
                message(b'S', b"a parameter of tomorrow\0on\0"),
                message(b'S', &[&b"long\0"[..], &vec![b'x'; 60_000], b"\0"].concat()),
                message(b'A', b"\0\0\0\x01bell\0ding\0"),
            ];
            [between.concat(), bytes].concat()
        });
        let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
        work(&mut conn).await;
        assert_eq!(conn.parameter("TimeZone"), Some("Nowhere/Else"));
        assert_eq!(conn.parameter("a parameter of tomorrow"), Some("on"));
        assert_eq!(conn.parameter("long"), None, "too long to be kept");
        let (notices, _) = conn.take_notices();
        assert!(notices.iter().any(|notice| notice.message == "out of the blue"));
        assert!(!conn.take_notifications().0.is_empty());
        drop(conn);
        thread.join().unwrap();
    });
}

#[test]
fn case_64_a_flood_of_notices_is_counted_and_only_the_last_are_kept() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let flood = "DO $$ BEGIN FOR i IN 1..200000 LOOP RAISE NOTICE 'notice %', i; END LOOP; END $$";
        conn.simple(flood).await.unwrap();
        let (notices, dropped) = conn.take_notices();
        assert_eq!(notices.len(), limits::NOTICES_MAX);
        assert_eq!(notices.len() as u64 + dropped, 200_000);
        assert_eq!(notices.last().unwrap().message, "notice 200000");
        conn.simple("SELECT 1").await.unwrap();
    });
}

#[test]
fn case_64_a_huge_error_is_cut_to_what_is_kept_and_the_connection_goes_on() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let huge = "DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = repeat('€', 10000000), DETAIL = repeat('d', 30000000), \
                    ERRCODE = '22P02'; END $$";
        let error = conn.simple(huge).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_TEXT_REPRESENTATION));
        let said = error.db_error().unwrap();
        for text in [&said.message, said.detail.as_ref().unwrap()] {
            let kept = limits::DIAGNOSTIC_FIELD_MAX_BYTES;
            assert!(text.len() <= kept + 16 && text.len() > kept / 2, "{}", text.len());
        }
        conn.simple("SELECT 1").await.unwrap();
    });
}

#[test]
fn case_64_an_error_too_large_to_be_one_during_the_log_in_is_refused_by_its_length() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::new(Host::Tcp("127.0.0.1".to_owned()), "u");
    config.port = listener.local_addr().unwrap().port();
    config.tls.mode = SslMode::Disable;
    let thread = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut begun = [0; 8];
        client.read_exact(&mut begun).unwrap();
        client.write_all(b"E\x7f\xff\xff\xff").unwrap();
        // The client closes the connection. That may be a reset, because not all of its bytes were read.
        drop(client.read_to_end(&mut Vec::new()));
    });
    let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
    thread.join().unwrap();
}
