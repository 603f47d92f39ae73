//! One conversation as bytes: records come in and plain text goes out, and the other way round. No socket is touched here.

use rustls::{ServerConfig, ServerConnection};
use std::{
    io::{self, BufRead, Write},
    sync::Arc,
};

/// Bytes of plain text that are sealed at once, so that memory does not follow the size of an answer.
const SEAL_BYTES: usize = 64 << 10;

/// An encrypted conversation, from its first byte.
pub struct Session {
    connection: ServerConnection,
}

impl Session {
    pub(super) fn new(server: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = ServerConnection::new(server)?;
        Ok(Self { connection })
    }

    /// Whether it is not settled yet who talks to whom.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes what came from the client, and returns how many bytes of it: all, save for what stands behind its good-bye.
    ///
    /// # Errors
    /// When it is not what TLS expects, or the client is not to be trusted. What is then to be sent says why.
    pub fn receive(&mut self, mut records: &[u8]) -> Result<usize, rustls::Error> {
        let all = records.len();
        while !records.is_empty() {
            // From memory, so it fails only where the plain text that nobody has read yet takes too much room.
            match self.connection.read_tls(&mut records) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            self.connection.process_new_packets()?;
        }
        Ok(all - records.len())
    }

    /// Plain text that has come: some bytes of it; none at the end, or where more records must come first (`None`).
    pub fn plain(&mut self) -> Option<&[u8]> {
        // Only an end without a good-bye is an error beside that there is nothing yet, and sockets tell that themselves.
        self.connection.reader().into_first_chunk().ok()
    }

    /// Lets go of plain text that was read.
    pub fn consume(&mut self, bytes: usize) {
        self.connection.reader().consume(bytes);
    }

    /// Seals the beginning of `plain`, and returns how many bytes of it.
    ///
    /// # Errors
    /// When nothing can be sealed any more.
    pub fn seal(&mut self, plain: &[u8]) -> io::Result<usize> {
        self.connection.writer().write(&plain[..plain.len().min(SEAL_BYTES)])
    }

    /// Says good-bye: nothing is sealed behind it.
    pub fn end(&mut self) {
        self.connection.send_close_notify();
    }

    /// Appends all records that are to be sent.
    pub fn send(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // To memory, so it does not fail; were it to write nothing, the loop would not end.
            if !self.connection.write_tls(out).is_ok_and(|written| written > 0) {
                break;
            }
        }
    }
}
