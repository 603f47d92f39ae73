//! TLS as bytes. No socket is used here.
//!
//! rustls does the work, with `ring` as its cryptography. The alternative, aws-lc-rs, requires more tools to build on
//! some machines, and has no algorithm that PostgreSQL's TLS needs and `ring` lacks.

mod end_point;
mod records;
mod settings;
mod verify;

use bytes::{Buf, BytesMut};
use rustls::ClientConnection;

pub use records::TlsRecords;
pub(crate) use settings::{HostTls, TlsSettings};

use crate::core::ReadBuffer;
use crate::core::limits::READ_CHUNK_BYTES;
use crate::error::{Error, TlsError};

/// The client's side of one TLS connection, with its buffers.
pub(crate) struct Tls {
    records: TlsRecords<ClientConnection>,
    /// The records to send.
    outgoing: BytesMut,
    /// The buffer that is lent to reads.
    incoming: BytesMut,
}

impl Tls {
    pub(crate) fn new(connection: ClientConnection) -> Self {
        Self { records: TlsRecords::new(connection), outgoing: BytesMut::new(), incoming: BytesMut::new() }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.records.is_handshaking()
    }

    /// Whether the server has sent a close_notify.
    pub(crate) fn is_closed_by_peer(&mut self) -> bool {
        // `decrypt` takes all plain text at once, so the first piece is either missing or the empty one at the end.
        self.records.plain_text().is_some()
    }

    /// The hash of the server's certificate for channel binding, if the certificate allows it.
    pub(crate) fn end_point_hash(&self) -> Option<Vec<u8>> {
        end_point::hash(self.records.connection().peer_certificates()?.first()?)
    }

    /// The records that are to be sent.
    pub(crate) fn outgoing_records(&mut self) -> &[u8] {
        self.records.append_records(&mut self.outgoing);
        &self.outgoing
    }

    /// Removes records that were sent.
    pub(crate) fn consume_outgoing(&mut self, bytes: usize) {
        self.outgoing.advance(bytes);
    }

    /// Encrypts the beginning of a piece, which is not empty, and returns the length of that beginning in bytes. The
    /// earlier records must have been taken by [`Tls::outgoing_records`].
    pub(crate) fn encrypt(&mut self, piece: &[u8]) -> Result<usize, Error> {
        match self.records.encrypt(piece) {
            Ok(0) => unreachable!("rustls takes plain text while no records are pending"),
            Ok(encrypted_bytes) => Ok(encrypted_bytes),
            Err(error) => Err(TlsError::Failed { reason: error.to_string() }.into()),
        }
    }

    /// Decrypts records, and appends the plain text to `read_buffer`. Bytes after the server's close_notify are
    /// ignored.
    pub(crate) fn decrypt(&mut self, mut records: &[u8], read_buffer: &mut ReadBuffer) -> Result<(), Error> {
        while !records.is_empty() {
            let decrypted = self.records.decrypt(records);
            while let Some(text @ [_, ..]) = self.records.plain_text() {
                read_buffer.push(text);
                let text_bytes = text.len();
                self.records.consume(text_bytes);
            }
            let taken_bytes = decrypted.map_err(TlsError::from)?;
            if taken_bytes == 0 {
                return Ok(());
            }
            records = &records[taken_bytes..];
        }
        Ok(())
    }

    /// Lends a buffer to a read.
    pub(crate) fn lend(&mut self) -> BytesMut {
        let mut lent = std::mem::take(&mut self.incoming);
        lent.clear();
        lent.reserve(READ_CHUNK_BYTES);
        lent
    }

    /// Takes the lent buffer back, and decrypts its content.
    pub(crate) fn restore(&mut self, lent: BytesMut, read_buffer: &mut ReadBuffer) -> Result<(), Error> {
        let result = self.decrypt(&lent, read_buffer);
        self.incoming = lent;
        result
    }
}
