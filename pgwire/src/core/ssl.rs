//! Before the first message: the request for TLS, and its answer of one byte.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::error::TlsError;

/// What the server says to the request for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslAnswer {
    /// The next byte of either side belongs to TLS.
    Accepted,
    /// There is no TLS. Anybody on the way can say so.
    Refused,
    /// The server cannot serve us now; what it says to that is not to be trusted, and not read.
    Failed,
}

/// Appends the request for TLS.
pub fn ssl_request(send: &mut BytesMut) {
    frontend::ssl_request(send);
}

/// Reads the answer from all that was received since the request; `None` until there is something.
///
/// # Errors
/// [`TlsError::BytesBeforeTls`] if there is more than the one byte. A server has nothing to say before we go on, so the
/// rest was put there by somebody who wants it taken for words of the server's under TLS, or before the log-in.
/// [`TlsError::BadAnswer`] for a byte that is no answer.
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
