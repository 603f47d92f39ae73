//! A connection under TLS, as a stream like any other.

use super::{Interrupter, Socket, Transport, read_more};
use crate::{
    ignore::ignore,
    tls::{TlsSession, WHOLE_RECORD_BYTES_MAX},
};
use monoio::{
    BufResult,
    buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut, RawBuf},
    io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt},
};
use std::io;

/// Least room for a read of records, in bytes: usual requests fit, and all messages of a handshake.
const READ_BYTES_MIN: usize = 4 << 10;

/// Most room for one: a record of the largest, and some of the next.
const READ_BYTES_MAX: usize = 17 << 10;

const _: () = assert!(WHOLE_RECORD_BYTES_MAX < READ_BYTES_MAX);

/// A stream of plain text over a socket that carries TLS records. Reads and writes must be awaited to their end.
pub struct TlsStream {
    socket: Socket,
    session: TlsSession,
    /// Received records that are not decrypted yet, and what has come of another one.
    incoming: Vec<u8>,
    /// Bytes that came with the last read. The next one has room for twice as many.
    last_read_bytes: usize,
    /// Memory for records that are sent.
    outgoing: Vec<u8>,
}

impl TlsStream {
    /// A stream whose handshake has not begun.
    #[must_use]
    pub fn new(socket: Socket, session: TlsSession) -> Self {
        Self { socket, session, incoming: Vec::new(), last_read_bytes: 0, outgoing: Vec::new() }
    }

    /// Does the handshake. If it fails the client is sent an alert.
    ///
    /// # Errors
    /// When the client is not trusted, does not speak TLS, or goes away.
    pub async fn handshake(&mut self) -> io::Result<()> {
        while self.session.is_handshaking() {
            self.send().await?;
            if !self.session.is_handshaking() {
                break;
            }
            if !self.wait_for_record().await? || !self.receive(None).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.send().await
    }

    /// Frees what is not used: the client may send nothing for a long time.
    fn free_buffers(&mut self) {
        self.incoming.shrink_to_fit();
        self.last_read_bytes = 0;
        self.outgoing = Vec::new();
    }

    /// Waits until a whole record is there, and holds what has come of it meanwhile and nothing else. Returns whether there is one;
    /// at the end of the stream there is none.
    async fn wait_for_record(&mut self) -> io::Result<bool> {
        while !self.session.has_record(&self.incoming) {
            self.free_buffers();
            Transport::readable(&mut self.socket).await?;
            if self.read_records(None).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads more records behind those that are there. Returns the number of bytes, 0 at the end of the stream.
    async fn read_records(&mut self, interrupter: Option<&Interrupter>) -> io::Result<usize> {
        let mut records = std::mem::take(&mut self.incoming);
        let room = (2 * self.last_read_bytes).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        if records.is_empty() && records.capacity() > 2 * room {
            records = Vec::new();
        }
        // A record that is not whole leaves room behind it.
        records.reserve_exact(room.min(READ_BYTES_MAX - records.len()));
        let (outcome, records) = match interrupter {
            Some(interrupter) => self.socket.read_interruptibly(records, interrupter).await,
            None => read_more(&mut self.socket, records).await,
        };
        self.incoming = records;
        self.last_read_bytes = *outcome.as_ref().unwrap_or(&0);
        outcome
    }

    /// Decrypts the records at hand, and waits for some if there are none. Returns whether there were any; at the end of the
    /// stream there are none.
    async fn receive(&mut self, interrupter: Option<&Interrupter>) -> io::Result<bool> {
        while !self.session.has_record(&self.incoming) {
            if self.read_records(interrupter).await? == 0 {
                return Ok(false);
            }
        }
        match self.session.receive(&self.incoming) {
            Ok(decrypted) => {
                self.incoming.drain(..decrypted);
                // TLS has messages of its own that ask for a reply.
                self.send().await?;
                // Bytes that were not decrypted follow a close_notify, or plain text that must be read first.
                Ok(decrypted > 0)
            }
            Err(error) => {
                self.incoming.clear();
                ignore(self.send().await, "a TLS alert could not be sent");
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
        let (outcome, mut records) = self.socket.write_all(records).await;
        records.clear();
        self.outgoing = records;
        outcome.map(drop)
    }

    async fn read_by<T: IoBufMut>(&mut self, mut buffer: T, interrupter: Option<&Interrupter>) -> BufResult<usize, T> {
        loop {
            if let Some(moved) = self.take_plain(&mut buffer) {
                return (Ok(moved), buffer);
            }
            match self.receive(interrupter).await {
                Ok(true) => {}
                // HTTP says where a request ends, so an end without close_notify truncates nothing unseen.
                Ok(false) => return (Ok(0), buffer),
                Err(error) => return (Err(error), buffer),
            }
        }
    }

    /// Moves decrypted plain text to `buffer`; `None` if there is none.
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

impl Transport for TlsStream {
    async fn readable(&mut self) -> io::Result<()> {
        if self.session.plain().is_none() {
            // At the end of the stream a read says so.
            self.wait_for_record().await?;
        }
        Ok(())
    }

    async fn read_interruptibly(&mut self, buffer: Vec<u8>, interrupter: &Interrupter) -> (io::Result<usize>, Vec<u8>) {
        let (length, capacity) = (buffer.len(), buffer.capacity());
        debug_assert!(length < capacity, "there is room to read into");
        let (outcome, slice) = self.read_by(buffer.slice_mut(length..capacity), Some(interrupter)).await;
        (outcome, slice.into_inner())
    }
}

impl AsyncReadRent for TlsStream {
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

impl AsyncWriteRent for TlsStream {
    async fn write<T: IoBuf>(&mut self, buffer: T) -> BufResult<usize, T> {
        // SAFETY: `read_ptr` is valid for `bytes_init` bytes, and the buffer is not touched while they are encrypted.
        let plain = unsafe { std::slice::from_raw_parts(buffer.read_ptr(), buffer.bytes_init()) };
        let outcome = match self.session.encrypt(plain) {
            Ok(0) if !plain.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            Ok(encrypted) => self.send().await.map(|()| encrypted),
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
        self.session.close();
        self.send().await?;
        self.socket.shutdown().await
    }
}
