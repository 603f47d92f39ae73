//! The TLS session of one connection as bytes: records in, plain text out, and the other way round. It touches no socket.
//!
//! rustls is given whole records only: what has come of another one is held once, by the caller, and by what has really come. What
//! rustls itself holds is bounded, too. A message of the handshake may come in many records, and it keeps them until they are
//! whole: a client may send [`UNANSWERED_BYTES_MAX`] without anything that comes of it.

use rustls::{Error, ServerConfig, ServerConnection};
use std::{
    io::{self, BufRead, Read, Write},
    sync::Arc,
};

/// Bytes of plain text that are encrypted at once, so that memory does not grow with a reply.
const ENCRYPT_BYTES_MAX: usize = 64 << 10;

/// Bytes of a record's header: its type, a version, and its length.
const HEADER_BYTES: usize = 5;

/// Bytes of a record behind its header at most (RFC 8446, section 5.2). TLS 1.2 allows for more, which no cipher of ours takes.
const RECORD_BYTES_MAX: usize = (16 << 10) + 256;

/// Bytes of a record with its header at most.
pub const WHOLE_RECORD_BYTES_MAX: usize = HEADER_BYTES + RECORD_BYTES_MAX;

/// Bytes that a client may send, in records, before they make plain text or an answer: a ClientHello. The largest of usual clients,
/// with two shares of keys of which one is post-quantum, has two thousand, and rustls takes up to 4 KiB more for them.
const UNANSWERED_BYTES_MAX: usize = 8 << 10;

/// The same during the handshake where clients show certificates: a chain of several large ones.
const UNANSWERED_CERTIFICATES_BYTES_MAX: usize = 32 << 10;

/// The server's side of a TLS session.
pub struct TlsSession {
    /// With memory of its own: a task holds what it passes on several times.
    connection: Box<ServerConnection>,
    asks_for_certificate: bool,
    /// Bytes of records since something came of them.
    unanswered_bytes: usize,
}

impl TlsSession {
    pub(super) fn new(server: Arc<ServerConfig>, asks_for_certificate: bool) -> Result<Self, Error> {
        let connection = Box::new(ServerConnection::new(server)?);
        Ok(Self { connection, asks_for_certificate, unanswered_bytes: 0 })
    }

    /// Whether the handshake is not complete.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether received bytes are to be [taken](Self::receive): a whole record is there, or something that is none.
    #[must_use]
    pub fn has_record(&self, bytes: &[u8]) -> bool {
        !matches!(self.record_bytes(bytes), Ok(None))
    }

    /// Decrypts received records as far as they are whole. Returns how many bytes it took; others follow a close_notify, or plain
    /// text that must be read first.
    ///
    /// # Errors
    /// When the records break the protocol, or the client is not trusted. The alert is then ready to be sent. Without an alert when
    /// the client sends too much of which nothing comes.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut taken = 0;
        while let Some(length) = self.record_bytes(&bytes[taken..])? {
            let mut record = &bytes[taken..taken + length];
            while !record.is_empty() {
                // Reading from memory fails only when too much plain text is still unread, before a record begins.
                match self.connection.read_tls(&mut record) {
                    Ok(0) | Err(_) => return Ok(taken),
                    Ok(_) => {}
                }
            }
            taken += length;
            let before_bytes = self.unanswered_bytes;
            let state = self.connection.process_new_packets()?;
            let has_come_of_it = state.plaintext_bytes_to_read() > 0 || self.connection.wants_write();
            self.unanswered_bytes = if has_come_of_it { 0 } else { before_bytes + length };
            if self.unanswered_bytes > self.unanswered_bytes_max() {
                return Err(too_much());
            }
        }
        self.shrink();
        Ok(taken)
    }

    /// How many bytes at the start are to be taken: a whole record, or all where they are none and rustls is to say so. `None`: more
    /// has to come first.
    fn record_bytes(&self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let Some(&[content_type, major, _, high, low]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !matches!(content_type, 20..=23) || major != 3 || length == 0 {
            return Ok(Some(bytes.len()));
        }
        let whole = HEADER_BYTES + length;
        let is_too_much = self.is_handshaking() && self.unanswered_bytes + whole > self.unanswered_bytes_max();
        if length > RECORD_BYTES_MAX || is_too_much {
            return Err(too_much());
        }
        Ok((bytes.len() >= whole).then_some(whole))
    }

    fn unanswered_bytes_max(&self) -> usize {
        if self.asks_for_certificate && self.is_handshaking() {
            UNANSWERED_CERTIFICATES_BYTES_MAX
        } else {
            UNANSWERED_BYTES_MAX
        }
    }

    /// Lets rustls give back what its buffer has grown by: it does so when it is about to read.
    fn shrink(&mut self) {
        let outcome = self.connection.read_tls(&mut NothingYet);
        debug_assert!(!matches!(outcome, Ok(1..)), "there is nothing to read");
    }

    /// Decrypted plain text, some bytes of it. `None` at the end, and when more records must be received first.
    pub fn plain(&mut self) -> Option<&[u8]> {
        // The errors are `WouldBlock` and an end without close_notify, which the socket reports as well.
        self.connection.reader().into_first_chunk().ok()
    }

    /// Removes plain text that was read.
    pub fn consume(&mut self, bytes: usize) {
        self.connection.reader().consume(bytes);
    }

    /// Encrypts the beginning of `plain`. Returns how many bytes it took.
    ///
    /// # Errors
    /// When the session is closed.
    pub fn encrypt(&mut self, plain: &[u8]) -> io::Result<usize> {
        self.connection.writer().write(&plain[..plain.len().min(ENCRYPT_BYTES_MAX)])
    }

    /// Ends the session with a close_notify: nothing is encrypted after it.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Appends all records that are ready to be sent.
    pub fn send(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Writing to memory does not fail; if it wrote nothing, the loop would not end.
            if !self.connection.write_tls(out).is_ok_and(|written| written > 0) {
                break;
            }
        }
    }
}

fn too_much() -> Error {
    Error::General("the client sends more than any handshake has".into())
}

/// A source from which nothing has come yet.
struct NothingYet;

impl Read for NothingYet {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}
