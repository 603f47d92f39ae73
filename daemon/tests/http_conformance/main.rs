//! RFC 9110 and 9112, rule by rule, against a running daemon. The table in `docs/http-api.md` names a test for each
//! rule, in this directory or beside the parser.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod connections;
mod dates;
mod expectations;
mod fields;
mod messages;
mod methods;
mod table;

use common::{Client, PATIENCE, Response, stage::Stage};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
};

/// A path for each route that supports GET; the last one gets 404.
const GET_PATHS: [&str; 5] =
    ["/health", "/ready", "/api/v1/status/buffers", "/api/v1/dead-letters?limit=1", "/api/v1/dead-letters/999999999"];

/// Sends these bytes on a new connection and returns the first reply.
#[track_caller]
fn ask(stage: &Stage, bytes: impl AsRef<[u8]>) -> (Client, Response) {
    let mut client = stage.daemon.connect();
    client.send(bytes.as_ref()).unwrap();
    let response = client.receive(false).unwrap();
    (client, response)
}

/// Like [`ask`]. Also checks that the connection persists: the next request on it gets a reply.
#[track_caller]
fn ask_kept(stage: &Stage, bytes: impl AsRef<[u8]>) -> Response {
    let shown = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    let (mut client, response) = ask(stage, bytes);
    let next = client.get("/health").unwrap_or_else(|error| panic!("{shown:?} is answered {response:?}, then {error}"));
    assert_eq!(next.status, 200, "after {shown:?}");
    response
}

/// Checks that these bytes are refused with this status and that the connection is closed after the reply.
#[track_caller]
fn assert_refused_and_closed(stage: &Stage, bytes: impl AsRef<[u8]>, status: u16) -> Response {
    let shown = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    let (mut client, response) = ask(stage, bytes);
    assert_eq!(response.status, status, "{shown:?}: {}", String::from_utf8_lossy(&response.body));
    assert!(says_close(&response), "{shown:?} is told of the close");
    assert!(client.is_closed(), "{shown:?} is the last request");
    response
}

/// All bytes that the daemon sends in reply before it closes.
fn all_that_comes_back(stage: &Stage, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(stage.daemon.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    received
}

fn says_close(response: &Response) -> bool {
    response.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
}

/// A GET of `/health` with these header lines.
fn health(lines: &str) -> String {
    format!("GET /health HTTP/1.1\r\nHost: t\r\n{lines}\r\n")
}

/// A push of the number 1 to a queue, with these header lines.
fn push(queue: &str, lines: &str) -> String {
    format!("POST /push/{queue} HTTP/1.1\r\nHost: t\r\n{lines}Content-Length: 1\r\n\r\n1")
}

/// A push with a chunked body; `lines` are additional header lines.
fn push_chunks(queue: &str, lines: &str, chunks: &str) -> String {
    format!("POST /push/{queue} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n{lines}\r\n{chunks}")
}
