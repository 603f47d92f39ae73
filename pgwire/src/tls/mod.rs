//! TLS as bytes: what is to be sealed goes in and records come out, and the other way round. No socket is touched here.
//!
//! rustls does the work, on `ring`: of its two usual foundations the one that needs only a C compiler to build. The
//! other, aws-lc-rs, wants more tools on some machines, and brings nothing that PostgreSQL's TLS uses.

mod end_point;
mod plan;
mod verify;

use std::io::{BufRead, Write};

use bytes::{Buf, BytesMut};
use rustls::ClientConnection;

pub(crate) use plan::{Plan, Target};

use crate::core::ReadBuffer;
use crate::core::limits::{READ_CHUNK_BYTES, TLS_SEAL_BYTES};
use crate::error::{Error, TlsError};

/// One encrypted conversation.
pub(crate) struct Tls {
    session: ClientConnection,
    /// Records to send.
    sealed: BytesMut,
    /// The buffer that is lent to reads.
    incoming: BytesMut,
}

impl Tls {
    pub(crate) fn new(session: ClientConnection) -> Self {
        Self { session, sealed: BytesMut::new(), incoming: BytesMut::new() }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether the peer has said that nothing follows.
    pub(crate) fn is_ended(&mut self) -> bool {
        // With all that was received taken out, an empty chunk means the end, and no chunk that more may come.
        self.session.reader().fill_buf().is_ok_and(<[u8]>::is_empty)
    }

    /// Hash of the server's certificate to bind to, if its signature names one.
    pub(crate) fn end_point_hash(&self) -> Option<Vec<u8>> {
        end_point::hash(self.session.peer_certificates()?.first()?)
    }

    /// Records that are to be sent: sealed before, or of the protocol's own.
    pub(crate) fn sealed(&mut self) -> &[u8] {
        let mut sink = Sink(&mut self.sealed);
        while self.session.wants_write() {
            // Into memory, so it does not fail; were it to write nothing, the loop would not end.
            if !self.session.write_tls(&mut sink).is_ok_and(|written| written > 0) {
                break;
            }
        }
        &self.sealed
    }

    /// Lets go of records that were sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sealed.advance(bytes);
    }

    /// Seals a piece, and gives the number of its bytes that were taken: at most [`TLS_SEAL_BYTES`], so that memory does
    /// not follow the size of what is sent.
    pub(crate) fn seal(&mut self, piece: &[u8]) -> Result<usize, Error> {
        let piece = &piece[..piece.len().min(TLS_SEAL_BYTES)];
        let failed = |reason: String| Error::from(TlsError::Failed { reason });
        match self.session.writer().write(piece) {
            // It takes some while nothing waits to be sent, which is when it is asked.
            Ok(0) if !piece.is_empty() => Err(failed("nothing more can be sealed".to_owned())),
            Ok(taken) => Ok(taken),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Opens records, and appends what was in them to `received`.
    pub(crate) fn open(&mut self, mut records: &[u8], received: &mut ReadBuffer) -> Result<(), Error> {
        let failed = |reason: &dyn ToString| TlsError::Failed { reason: reason.to_string() };
        while !records.is_empty() {
            let taken = self.session.read_tls(&mut records).map_err(|error| failed(&error))?;
            self.session.process_new_packets().map_err(TlsError::from)?;
            let mut reader = self.session.reader();
            while let Ok(chunk @ [_, ..]) = reader.fill_buf() {
                received.push(chunk);
                let chunk_bytes = chunk.len();
                reader.consume(chunk_bytes);
            }
            if taken == 0 {
                // Nothing is read behind the peer's good-bye.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Lends a buffer for records to a read.
    pub(crate) fn lend(&mut self) -> BytesMut {
        let mut lent = std::mem::take(&mut self.incoming);
        lent.clear();
        lent.reserve(READ_CHUNK_BYTES);
        lent
    }

    /// Takes the lent buffer back and opens what is in it.
    pub(crate) fn restore(&mut self, lent: BytesMut, received: &mut ReadBuffer) -> Result<(), Error> {
        let result = self.open(&lent, received);
        self.incoming = lent;
        result
    }
}

/// Memory to write to.
struct Sink<'a>(&'a mut BytesMut);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
