//! The buffer that divides a byte stream into messages.

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend;

use super::limits::{READ_CHUNK_BYTES, STARTUP_MESSAGE_MAX_BYTES};
use super::message::Backend;
use super::ssl::{SslAnswer, ssl_answer};
use crate::error::{ProtocolError, TlsError};

/// The size of a message's header, in bytes: its tag and its length word.
const HEADER_BYTES: usize = 5;

/// The bytes that were received and not yet taken as messages.
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
    /// An empty buffer with the message length limit of the start-up phase.
    pub fn new() -> Self {
        Self { received: BytesMut::new(), message_max_bytes: STARTUP_MESSAGE_MAX_BYTES }
    }

    /// Sets the length of the longest message that is accepted, in bytes, header included.
    pub fn set_message_max_bytes(&mut self, bytes: usize) {
        self.message_max_bytes = bytes;
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The number of bytes in the buffer.
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Takes the answer to the TLS request, which must be the buffer's only content.
    ///
    /// # Errors
    /// As [`ssl_answer`]; [`TlsError::BadAnswer`] if the buffer is empty.
    pub fn take_ssl_answer(&mut self) -> Result<SslAnswer, TlsError> {
        let answer = ssl_answer(&self.received)?.ok_or(TlsError::BadAnswer { byte: 0 })?;
        self.received.clear();
        Ok(answer)
    }

    /// The tag of the next message, if that message is complete.
    ///
    /// # Errors
    /// [`ProtocolError::MessageLength`], as for [`ReadBuffer::next_message`].
    pub fn peek_tag(&self) -> Result<Option<u8>, ProtocolError> {
        Ok(self.whole_message()?.map(|(tag, _)| tag))
    }

    /// Takes the next message; `None` if it is not complete.
    ///
    /// # Errors
    /// - [`ProtocolError::MessageLength`] if the length word is below its minimum or above the limit. The header alone
    ///   decides this, before memory is reserved.
    /// - [`ProtocolError::Malformed`] if the content does not have the form that the tag requires.
    pub fn next_message(&mut self) -> Result<Option<Backend>, ProtocolError> {
        let Some((tag, _)) = self.whole_message()? else { return Ok(None) };
        match backend::Message::parse(&mut self.received) {
            Ok(Some(message)) => Backend::from_wire(message).map(Some),
            // The message is complete, so `postgres-protocol` must read its length in another way.
            Ok(None) => Err(ProtocolError::Malformed { tag, reason: "length word".to_owned() }),
            Err(error) => Err(ProtocolError::Malformed { tag, reason: error.to_string() }),
        }
    }

    /// Lends the buffer to a read, with free space for the rest of the next message.
    ///
    /// [`ReadBuffer::restore`] gives it back. If a lent buffer is dropped, its bytes are lost.
    pub fn lend(&mut self) -> BytesMut {
        let mut lent = std::mem::take(&mut self.received);
        let missing_bytes = match declared_bytes(&lent) {
            Some((_, total_bytes)) if total_bytes <= self.message_max_bytes => total_bytes.saturating_sub(lent.len()),
            _ => 0,
        };
        lent.reserve(missing_bytes.max(READ_CHUNK_BYTES));
        lent
    }

    /// Takes a lent buffer back, to which the read has appended bytes.
    pub fn restore(&mut self, lent: BytesMut) {
        self.received = lent;
    }

    /// The tag and length in bytes of the next message, if it is complete.
    fn whole_message(&self) -> Result<Option<(u8, usize)>, ProtocolError> {
        let Some((tag, total_bytes)) = declared_bytes(&self.received) else { return Ok(None) };
        // The length word includes itself.
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

/// The tag and the whole length in bytes in the header of the next message.
fn declared_bytes(received: &[u8]) -> Option<(u8, usize)> {
    if received.len() < HEADER_BYTES {
        return None;
    }
    let mut header = received;
    let tag = header.get_u8();
    let length_bytes = header.get_u32() as usize;
    Some((tag, length_bytes.saturating_add(1)))
}
