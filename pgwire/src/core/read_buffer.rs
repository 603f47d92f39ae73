//! The buffer that turns a byte stream into whole backend messages.

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend;

use super::limits::{READ_CHUNK_BYTES, STARTUP_MESSAGE_MAX_BYTES};
use super::message::Backend;
use super::ssl::{SslAnswer, ssl_answer};
use crate::error::{ProtocolError, TlsError};

/// Length of a message's tag and length word, in bytes.
const HEADER_BYTES: usize = 5;

/// Bytes received and not yet taken as messages.
#[derive(Debug)]
pub struct ReadBuffer {
    received: BytesMut,
    message_max_bytes: usize,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl ReadBuffer {
    /// An empty buffer with the bound of the start-up phase.
    pub fn new() -> Self {
        Self { received: BytesMut::new(), message_max_bytes: STARTUP_MESSAGE_MAX_BYTES }
    }

    /// Sets the longest message taken, in bytes, header included.
    pub fn set_message_max_bytes(&mut self, bytes: usize) {
        self.message_max_bytes = bytes;
    }

    /// Appends bytes of the server.
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Bytes held and not yet taken.
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Takes the answer to the request for TLS, which must be all that was received.
    ///
    /// # Errors
    /// As [`ssl_answer`]; [`TlsError::BadAnswer`] if nothing was received.
    pub fn take_ssl_answer(&mut self) -> Result<SslAnswer, TlsError> {
        let answer = ssl_answer(&self.received)?.ok_or(TlsError::BadAnswer { byte: 0 })?;
        self.received.clear();
        Ok(answer)
    }

    /// The tag of the next message, if that message is here whole.
    ///
    /// # Errors
    /// [`ProtocolError::MessageLength`] as [`ReadBuffer::next_message`].
    pub fn peek_tag(&self) -> Result<Option<u8>, ProtocolError> {
        Ok(self.whole_message()?.map(|(tag, _)| tag))
    }

    /// Takes the next message, or `None` until more bytes came.
    ///
    /// # Errors
    /// [`ProtocolError::MessageLength`] if the length word is below its minimum or above the bound (decided by the
    /// header alone, before room is made), [`ProtocolError::Malformed`] if the content is not what the tag promises.
    pub fn next_message(&mut self) -> Result<Option<Backend>, ProtocolError> {
        let Some((tag, _)) = self.whole_message()? else { return Ok(None) };
        match backend::Message::parse(&mut self.received) {
            Ok(Some(message)) => Backend::from_wire(message).map(Some),
            // It was found whole, so the parser's view of the length differs from ours.
            Ok(None) => Err(ProtocolError::Malformed { tag, reason: "length word".to_owned() }),
            Err(error) => Err(ProtocolError::Malformed { tag, reason: error.to_string() }),
        }
    }

    /// Lends the buffer to a read, with room for the message that is on its way.
    ///
    /// Give it back with [`ReadBuffer::restore`]; a lent buffer that is dropped is lost, and its bytes with it.
    pub fn lend(&mut self) -> BytesMut {
        let mut lent = std::mem::take(&mut self.received);
        let missing_bytes = match declared_bytes(&lent) {
            Some((_, total_bytes)) if total_bytes <= self.message_max_bytes => total_bytes.saturating_sub(lent.len()),
            _ => 0,
        };
        lent.reserve(missing_bytes.max(READ_CHUNK_BYTES));
        lent
    }

    /// Takes a lent buffer back, with what was read appended.
    pub fn restore(&mut self, lent: BytesMut) {
        self.received = lent;
    }

    fn whole_message(&self) -> Result<Option<(u8, usize)>, ProtocolError> {
        let Some((tag, total_bytes)) = declared_bytes(&self.received) else { return Ok(None) };
        // The length word counts itself.
        if total_bytes < HEADER_BYTES || total_bytes > self.message_max_bytes {
            return Err(ProtocolError::MessageLength {
                tag,
                length_bytes: total_bytes,
                max_bytes: self.message_max_bytes,
            });
        }
        Ok((self.received.len() >= total_bytes).then_some((tag, total_bytes)))
    }
}

/// Tag and whole length in bytes, as the header at the front declares them.
fn declared_bytes(received: &[u8]) -> Option<(u8, usize)> {
    if received.len() < HEADER_BYTES {
        return None;
    }
    let mut header = received;
    let tag = header.get_u8();
    let length_bytes = header.get_u32() as usize;
    Some((tag, length_bytes.saturating_add(1)))
}
