//! A socket under TLS, as a stream like any other.

use super::{Interrupter, Transport, read_more};
use crate::tls::Session;
use monoio::{
    BufResult,
    buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut, RawBuf},
    io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt},
    net::TcpStream,
};
use std::io;

/// Room for records: one of the largest, and its header.
const RECORDS_BYTES: usize = 17 << 10;

/// A socket whose bytes are sealed. Reads and writes must be awaited to their end.
pub struct Sealed {
    stream: TcpStream,
    session: Session,
    /// Records that came and are not opened yet.
    incoming: Vec<u8>,
    /// Memory for records that leave.
    outgoing: Vec<u8>,
}

impl Sealed {
    /// A conversation that begins.
    #[must_use]
    pub fn new(stream: TcpStream, session: Session) -> Self {
        Self { stream, session, incoming: Vec::new(), outgoing: Vec::new() }
    }

    /// Settles who talks to whom. If that fails the client is told why.
    ///
    /// # Errors
    /// When the client is not to be trusted, does not speak TLS, or goes away.
    pub async fn shake_hands(&mut self) -> io::Result<()> {
        while self.session.is_handshaking() {
            self.send().await?;
            if self.session.is_handshaking() && !self.open_more(None).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.send().await
    }

    /// Gives memory back that nothing is in: nobody knows when the client says something again.
    fn rest(&mut self) {
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        self.outgoing = Vec::new();
    }

    /// Opens records that came, waiting for some if none did. Returns whether there were any; there are none at the end.
    async fn open_more(&mut self, interrupter: Option<&Interrupter>) -> io::Result<bool> {
        if self.incoming.is_empty() {
            let mut records = std::mem::take(&mut self.incoming);
            records.reserve(RECORDS_BYTES);
            let (outcome, records) = match interrupter {
                Some(interrupter) => self.stream.read_interruptibly(records, interrupter).await,
                None => read_more(&mut self.stream, records).await,
            };
            self.incoming = records;
            if outcome? == 0 {
                return Ok(false);
            }
        }
        match self.session.receive(&self.incoming) {
            Ok(opened) => {
                self.incoming.drain(..opened);
                // A client may ask for an answer within TLS itself.
                self.send().await?;
                // What was not opened stands behind a good-bye, or behind plain text that must be read first.
                Ok(opened > 0)
            }
            Err(error) => {
                self.incoming.clear();
                // Why is in what is sent; that it could not be sent would tell nothing more.
                self.send().await.unwrap_or_default();
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        let mut records = std::mem::take(&mut self.outgoing);
        self.session.send(&mut records);
        if records.is_empty() {
            self.outgoing = records;
            return Ok(());
        }
        let (outcome, mut records) = self.stream.write_all(records).await;
        records.clear();
        self.outgoing = records;
        outcome.map(drop)
    }

    async fn read_by<T: IoBufMut>(&mut self, mut buffer: T, interrupter: Option<&Interrupter>) -> BufResult<usize, T> {
        loop {
            if let Some(moved) = self.take_plain(&mut buffer) {
                return (Ok(moved), buffer);
            }
            match self.open_more(interrupter).await {
                Ok(true) => {}
                // Where a request ends is not for TLS to say, so an end without a good-bye cuts nothing off unseen.
                Ok(false) => return (Ok(0), buffer),
                Err(error) => return (Err(error), buffer),
            }
        }
    }

    /// Moves plain text that has come to `buffer`; `None`: none has.
    fn take_plain<T: IoBufMut>(&mut self, buffer: &mut T) -> Option<usize> {
        let plain = self.session.plain()?;
        let moved = plain.len().min(buffer.bytes_total());
        // SAFETY: `write_ptr` is valid for `bytes_total` bytes, which are the buffer's own, so no plain text overlaps them.
        unsafe { std::ptr::copy_nonoverlapping(plain.as_ptr(), buffer.write_ptr(), moved) };
        // SAFETY: so many bytes were written just now.
        unsafe { buffer.set_init(moved) };
        self.session.consume(moved);
        Some(moved)
    }
}

impl Transport for Sealed {
    async fn readable(&mut self) -> io::Result<()> {
        if self.session.plain().is_some() || !self.incoming.is_empty() {
            return Ok(());
        }
        self.rest();
        Transport::readable(&mut self.stream).await
    }

    async fn read_interruptibly(&mut self, buffer: Vec<u8>, interrupter: &Interrupter) -> (io::Result<usize>, Vec<u8>) {
        let (length, capacity) = (buffer.len(), buffer.capacity());
        debug_assert!(length < capacity, "there is room to read into");
        let (outcome, slice) = self.read_by(buffer.slice_mut(length..capacity), Some(interrupter)).await;
        (outcome, slice.into_inner())
    }
}

impl AsyncReadRent for Sealed {
    async fn read<T: IoBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        self.read_by(buffer, None).await
    }

    async fn readv<T: IoVecBufMut>(&mut self, mut buffer: T) -> BufResult<usize, T> {
        // SAFETY: the buffer stays where it is until the read of its first part, awaited here, has ended.
        let part = unsafe { RawBuf::new_from_iovec_mut(&mut buffer) };
        let outcome = match part {
            Some(part) => self.read(part).await.0,
            None => Ok(0),
        };
        if let Ok(moved) = outcome {
            // SAFETY: so many bytes were written to its first part.
            unsafe { buffer.set_init(moved) };
        }
        (outcome, buffer)
    }
}

impl AsyncWriteRent for Sealed {
    async fn write<T: IoBuf>(&mut self, buffer: T) -> BufResult<usize, T> {
        // SAFETY: `read_ptr` is valid for `bytes_init` bytes, and the buffer is not touched while they are sealed.
        let plain = unsafe { std::slice::from_raw_parts(buffer.read_ptr(), buffer.bytes_init()) };
        let sealed = match self.session.seal(plain) {
            Ok(0) if !plain.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            sealed => sealed,
        };
        let outcome = match sealed {
            Ok(sealed) => self.send().await.map(|()| sealed),
            Err(error) => Err(error),
        };
        (outcome, buffer)
    }

    async fn writev<T: IoVecBuf>(&mut self, buffer: T) -> BufResult<usize, T> {
        // SAFETY: the buffer stays where it is until the write of its first part, awaited here, has ended.
        let part = unsafe { RawBuf::new_from_iovec(&buffer) };
        let outcome = match part {
            Some(part) => self.write(part).await.0,
            None => Ok(0),
        };
        (outcome, buffer)
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.send().await
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.session.end();
        self.send().await?;
        self.stream.shutdown().await
    }
}
