//! The TLS session of one connection as bytes: records in, plain text out, and the other way round. It touches no socket.

use rustls::{ServerConfig, ServerConnection};
use std::{
    io::{self, BufRead, Write},
    sync::Arc,
};

/// Bytes of plain text that are encrypted at once, so that memory does not grow with a reply.
const ENCRYPT_BYTES_MAX: usize = 64 << 10;

/// The server's side of a TLS session.
pub struct TlsSession {
    connection: ServerConnection,
}

impl TlsSession {
    pub(super) fn new(server: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = ServerConnection::new(server)?;
        Ok(Self { connection })
    }

    /// Whether the handshake is not complete.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Decrypts received records. Returns how many bytes it took: all of them, save for what follows a close_notify.
    ///
    /// # Errors
    /// When the records break the protocol, or the client is not trusted. The alert is then ready to be sent.
    pub fn receive(&mut self, mut records: &[u8]) -> Result<usize, rustls::Error> {
        let all = records.len();
        while !records.is_empty() {
            // Reading from memory fails only when too much plain text is still unread.
            match self.connection.read_tls(&mut records) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            self.connection.process_new_packets()?;
        }
        Ok(all - records.len())
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
