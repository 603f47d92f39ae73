//! Before the first message: the TLS request, and its answer of one byte.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::error::TlsError;

/// The server's answer to the TLS request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslAnswer {
    /// The next byte of each side belongs to TLS.
    Accepted,
    /// The server has no TLS. Anybody between the client and the server can send this answer.
    Refused,
    /// The server reports an error. The text after it is not authenticated, so the client does not read it.
    Failed,
}

/// Appends the TLS request.
pub fn ssl_request(send: &mut BytesMut) {
    frontend::ssl_request(send);
}

/// Reads the answer from all bytes received since the request; `None` if there are none.
///
/// # Errors
/// - [`TlsError::BytesBeforeTls`] if more than the one byte was received. A server waits for the client at this point.
///   So somebody else has sent the rest, and wants it to be mistaken for bytes that the server sent under TLS, or
///   before the log-in.
/// - [`TlsError::BadAnswer`] for a byte that is not an answer.
pub fn ssl_answer(received: &[u8]) -> Result<Option<SslAnswer>, TlsError> {
    let Some((&byte, rest)) = received.split_first() else { return Ok(None) };
    match byte {
        b'S' | b'N' if !rest.is_empty() => Err(TlsError::BytesBeforeTls { bytes: rest.len() }),
        b'S' => Ok(Some(SslAnswer::Accepted)),
        b'N' => Ok(Some(SslAnswer::Refused)),
        b'E' => Ok(Some(SslAnswer::Failed)),
        _ => Err(TlsError::BadAnswer { byte }),
    }
}
