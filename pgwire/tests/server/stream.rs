//! The recorded bytes of a real server, cut into pieces in every way.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use bytes::BytesMut;
use forebay_pgwire::core::{Authentication, Backend, ReadBuffer, limits};
use postgres_protocol::message::frontend;

use crate::common::{SUPERUSER, TestServer};

/// Sends these bytes, and returns the server's bytes up to the end of the stream.
fn record(server: &TestServer, say: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(server.socket_dir().join(format!(".s.PGSQL.{}", server.port))).unwrap();
    stream.write_all(say).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    said
}

fn startup_of(user: &str) -> BytesMut {
    let mut say = BytesMut::new();
    frontend::startup_message([("user", user), ("database", SUPERUSER)], &mut say).unwrap();
    say
}

/// The server's bytes in a session with every message that this client accepts.
fn record_session(server: &TestServer) -> Vec<u8> {
    let mut say = startup_of(SUPERUSER);
    for sql in [
        "CREATE TEMP TABLE t (n int PRIMARY KEY, s text); LISTEN bell; NOTIFY bell, 'ding'",
        "INSERT INTO t VALUES (1, NULL), (2, 'žluť'); SELECT * FROM t",
        "SELECT nonsense",
        "DO $$ BEGIN RAISE NOTICE 'hm' USING HINT = 'none', DETAIL = 'little'; END $$",
        "",
        "COPY t TO STDOUT",
        "COPY t FROM STDIN",
    ] {
        frontend::query(sql, &mut say).unwrap();
    }
    frontend::CopyData::new(&b"3\tx\n1\ty\n"[..]).unwrap().write(&mut say);
    frontend::copy_done(&mut say);
    frontend::parse("s", "SELECT $1::int, now()", [], &mut say).unwrap();
    frontend::describe(b'S', "s", &mut say).unwrap();
    frontend::close(b'S', "s", &mut say).unwrap();
    frontend::parse("", "SELECT generate_series(1, 3)", [], &mut say).unwrap();
    frontend::bind("", "", [], [(); 0], |(), _| unreachable!(), [1], &mut say).ok().unwrap();
    frontend::describe(b'P', "", &mut say).unwrap();
    frontend::execute("", 2, &mut say).unwrap();
    frontend::parse("", "SET lock_timeout = 0", [], &mut say).unwrap();
    frontend::describe(b'S', "", &mut say).unwrap();
    frontend::sync(&mut say);
    frontend::terminate(&mut say);
    record(server, &say)
}

/// A buffer that accepts all messages of a session.
fn buffer() -> ReadBuffer {
    let mut buffer = ReadBuffer::new();
    buffer.set_message_max_bytes(limits::MESSAGE_MAX_BYTES);
    buffer
}

fn take_all(buffer: &mut ReadBuffer, messages: &mut Vec<Backend>) {
    while let Some(message) = buffer.next_message().unwrap() {
        messages.push(message);
    }
}

#[test]
fn a_recorded_stream_gives_the_same_messages_however_it_is_cut() {
    let stream = record_session(&TestServer::shared());
    let mut whole = Vec::new();
    let mut received = buffer();
    received.push(&stream);
    take_all(&mut received, &mut whole);
    assert!(received.is_empty(), "the session ends with a whole message");
    for name in [
        "Authentication",
        "BackendKeyData",
        "ParameterStatus",
        "ReadyForQuery",
        "RowDescription",
        "DataRow",
        "CommandComplete",
        "ErrorResponse",
        "NoticeResponse",
        "NotificationResponse",
        "EmptyQueryResponse",
        "CopyOutResponse",
        "CopyData",
        "CopyDone",
        "CopyInResponse",
        "ParseComplete",
        "BindComplete",
        "CloseComplete",
        "ParameterDescription",
        "PortalSuspended",
        "NoData",
    ] {
        assert!(whole.iter().any(|message| message.name() == name), "the session has no {name}");
    }

    let mut bytewise = Vec::new();
    let mut received = buffer();
    for byte in &stream {
        received.push(std::slice::from_ref(byte));
        take_all(&mut received, &mut bytewise);
    }
    assert!(bytewise == whole, "byte by byte");

    for cut in 0..=stream.len() {
        let mut in_two = Vec::new();
        let mut received = buffer();
        received.push(&stream[..cut]);
        take_all(&mut received, &mut in_two);
        assert!(in_two == whole[..in_two.len()], "a prefix of {cut} bytes gives a prefix of the messages");
        // The rest of the buffer is lent and restored, as a driver does it.
        let lent = received.lend();
        received.restore(lent);
        received.push(&stream[cut..]);
        take_all(&mut received, &mut in_two);
        assert!(in_two == whole, "cut at {cut}");
    }
}

#[test]
fn the_server_asks_each_role_for_the_method_that_it_is_here_to_test() {
    let server = TestServer::shared();
    for (role, expected) in [
        ("by_cleartext", "CleartextPassword"),
        ("by_md5", "Md5Password"),
        ("by_scram", "Sasl([\"SCRAM-SHA-256\"])"),
        ("trusted", "Ok"),
    ] {
        let mut received = buffer();
        received.push(&record(&server, &startup_of(role)));
        match received.next_message().unwrap() {
            Some(Backend::Authentication(Authentication::Md5Password(_))) => assert_eq!(expected, "Md5Password"),
            Some(Backend::Authentication(asked)) => assert_eq!(format!("{asked:?}"), expected, "{role}"),
            other => panic!("{role}: {other:?}"),
        }
    }
}
