//! Just enough of PostgreSQL's protocol to ask whether a server accepts, and to make a database.
//!
//! Source: PostgreSQL's manual, chapter "Frontend/Backend Protocol", version 3.0. Blocking, on a unix socket, and
//! without a password: the server is ours.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::{ClusterError, IoContext};
use crate::limits::{CREATE_DATABASE_TIMEOUT, PING_TIMEOUT};

/// Protocol version 3.0, as the start-up message carries it.
const PROTOCOL_3_0: i32 = 3 << 16;

/// Longest message taken from the server, in bytes; what it says at the start-up is far shorter.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// SQLSTATE `cannot_connect_now`: starting, recovering or shutting down.
const CANNOT_CONNECT_NOW: &str = "57P03";

/// SQLSTATE `invalid_catalog_name`: no such database.
const NO_SUCH_DATABASE: &str = "3D000";

/// SQLSTATE `duplicate_database`.
const DUPLICATE_DATABASE: &str = "42P04";

/// What a server answers to a new connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It let us in.
    Ready,
    /// It accepts connections, but refused this one.
    Refused { sqlstate: String, message: String },
    /// It is there, but does not accept connections now.
    Starting,
    /// Nobody listens, or nobody answers.
    Away,
}

/// Asks the server behind `socket` for a connection to `database`, and closes it again.
pub(crate) fn ping(socket: &Path, user: &str, database: &str) -> Answer {
    match connect(socket, user, database, PING_TIMEOUT) {
        Ok((answer, stream)) => {
            close(stream);
            answer
        }
        Err(_) => Answer::Away,
    }
}

/// Creates `database`, owned by `user`, unless it exists.
pub(crate) fn create_database(socket: &Path, user: &str, database: &str) -> Result<(), ClusterError> {
    match ping(socket, user, database) {
        Answer::Refused { sqlstate, .. } if sqlstate == NO_SUCH_DATABASE => {}
        Answer::Ready => return Ok(()),
        other => return Err(as_error(other, socket)),
    }
    let (answer, mut stream) =
        connect(socket, user, "postgres", CREATE_DATABASE_TIMEOUT).context("connecting to", socket)?;
    if answer != Answer::Ready {
        return Err(as_error(answer, socket));
    }
    let sql = format!("CREATE DATABASE \"{}\"\0", database.replace('"', "\"\""));
    let answer = send(&mut stream, b'Q', sql.as_bytes())
        .and_then(|()| read_until_ready(&mut stream))
        .context("creating the database through", socket)?;
    close(stream);
    match answer {
        Answer::Ready => Ok(()),
        Answer::Refused { sqlstate, .. } if sqlstate == DUPLICATE_DATABASE => Ok(()),
        other => Err(as_error(other, socket)),
    }
}

fn as_error(answer: Answer, socket: &Path) -> ClusterError {
    match answer {
        Answer::Refused { sqlstate, message } => ClusterError::Refused { sqlstate, message },
        _ => ClusterError::io("connecting to", socket, io::ErrorKind::ConnectionRefused.into()),
    }
}

/// Says goodbye, so that the server does not log a lost connection.
fn close(mut stream: UnixStream) {
    // The server may have hung up already, which is as good.
    drop(send(&mut stream, b'X', &[]));
}

fn connect(socket: &Path, user: &str, database: &str, timeout: Duration) -> io::Result<(Answer, UnixStream)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
    for text in ["user", user, "database", database, "application_name", "forebay", ""] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    stream.write_all(&with_length(&body)?)?;
    let answer = read_until_ready(&mut stream)?;
    Ok((answer, stream))
}

fn send(stream: &mut UnixStream, kind: u8, body: &[u8]) -> io::Result<()> {
    let mut message = vec![kind];
    message.extend_from_slice(&with_length(body)?);
    stream.write_all(&message)
}

/// The body behind its length, which counts itself.
fn with_length(body: &[u8]) -> io::Result<Vec<u8>> {
    let length = i32::try_from(body.len() + 4).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(body);
    Ok(message)
}

/// Reads messages up to ReadyForQuery; or to the end of the connection, if an error was reported before.
fn read_until_ready(stream: &mut impl Read) -> io::Result<Answer> {
    let mut answer = Answer::Ready;
    loop {
        let (kind, body) = match read_message(stream) {
            Ok(message) => message,
            Err(_) if answer != Answer::Ready => return Ok(answer),
            Err(error) => return Err(error),
        };
        match (kind, body.as_slice()) {
            (b'Z', _) => return Ok(answer),
            (b'E', fields) => answer = refusal(fields),
            // AuthenticationRequest of any kind but Ok: it accepts connections, and wants a password from this one.
            (b'R', [a, b, c, d, ..]) if [*a, *b, *c, *d] != [0; 4] => {
                let message = "the private server asks its superuser for a password".to_owned();
                return Ok(Answer::Refused { sqlstate: "28000".to_owned(), message });
            }
            _ => {}
        }
    }
}

fn read_message(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, a, b, c, d] = head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..=MAX_MESSAGE_BYTES).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}

/// Reads the fields of an ErrorResponse: a letter and a zero-terminated text each.
fn refusal(fields: &[u8]) -> Answer {
    let field = |letter: u8| {
        let text = fields.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[letter]));
        String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
    };
    let sqlstate = field(b'C');
    if sqlstate == CANNOT_CONNECT_NOW {
        return Answer::Starting;
    }
    Answer::Refused { sqlstate, message: field(b'M') }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &with_length(body).unwrap()].concat()
    }

    #[test]
    fn a_server_that_lets_us_in_is_ready() {
        let bytes = [message(b'R', &[0; 4]), message(b'S', b"a\0b\0"), message(b'Z', b"I")].concat();
        assert_eq!(read_until_ready(&mut bytes.as_slice()).unwrap(), Answer::Ready);
    }

    #[test]
    fn a_server_in_recovery_is_starting_and_any_other_refusal_is_told() {
        let starting = message(b'E', b"SFATAL\0C57P03\0Mthe database system is starting up\0\0");
        assert_eq!(read_until_ready(&mut starting.as_slice()).unwrap(), Answer::Starting);
        let refused = message(b'E', b"SFATAL\0C3D000\0Mno such database\0\0");
        let expected = Answer::Refused { sqlstate: "3D000".to_owned(), message: "no such database".to_owned() };
        assert_eq!(read_until_ready(&mut refused.as_slice()).unwrap(), expected);
    }

    #[test]
    fn a_connection_that_ends_or_lies_about_its_length_is_an_error() {
        assert!(read_until_ready(&mut [].as_slice()).is_err());
        assert!(read_until_ready(&mut message(b'R', &[0; 4]).as_slice()).is_err());
        for length in [0_u32, 3, u32::MAX] {
            let bytes = [&b"S"[..], &length.to_be_bytes(), &[0; 8]].concat();
            let error = read_until_ready(&mut bytes.as_slice()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
