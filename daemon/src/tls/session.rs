//! A TLS session as bytes: records in and plain text out, and the other way round. No socket is touched here.

use rustls::{ServerConfig, ServerConnection};
use std::{
    io::{self, BufRead, Write},
    sync::Arc,
};

/// Bytes of plain text that are encrypted at once, so that memory does not grow with the size of an answer.
const ENCRYPT_BYTES_MAX: usize = 64 << 10;

/// A TLS session, from its first byte.
pub struct Session {
    connection: ServerConnection,
}

impl Session {
    pub(super) fn new(server: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = ServerConnection::new(server)?;
        Ok(Self { connection })
    }

    /// Whether the handshake is not complete yet.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes records that the client sent, and returns how many bytes were taken: all, except those after its `close_notify`.
    ///
    /// # Errors
    /// When the records are not what TLS expects, or the client's certificate is not accepted. [`send`](Self::send) then has the
    /// alert that says why.
    pub fn receive(&mut self, mut records: &[u8]) -> Result<usize, rustls::Error> {
        let all = records.len();
        while !records.is_empty() {
            // Reading from memory fails only when too much plain text waits to be read.
            match self.connection.read_tls(&mut records) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            self.connection.process_new_packets()?;
        }
        Ok(all - records.len())
    }

    /// Some of the plain text that has come; empty at the end, `None` if more records must come first.
    pub fn plain(&mut self) -> Option<&[u8]> {
        // The other error is an end without `close_notify`. The socket reports that end itself.
        self.connection.reader().into_first_chunk().ok()
    }

    /// Removes plain text that was read.
    pub fn consume(&mut self, bytes: usize) {
        self.connection.reader().consume(bytes);
    }

    /// Encrypts the beginning of `plain`, and returns how many bytes were taken.
    ///
    /// # Errors
    /// When the session takes no more plain text.
    pub fn seal(&mut self, plain: &[u8]) -> io::Result<usize> {
        self.connection.writer().write(&plain[..plain.len().min(ENCRYPT_BYTES_MAX)])
    }

    /// Ends the session with `close_notify`. Nothing is encrypted after it.
    pub fn end(&mut self) {
        self.connection.send_close_notify();
    }

    /// Appends all records that are to be sent.
    pub fn send(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Writing to memory does not fail. A write of nothing would repeat for ever.
            if !self.connection.write_tls(out).is_ok_and(|written| written > 0) {
                break;
            }
        }
    }
}
