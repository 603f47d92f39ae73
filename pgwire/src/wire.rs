//! The driver: moves bytes between a socket and the protocol's core, through TLS where it is used, within deadlines.

use bytes::{Buf, BytesMut};

use crate::core::{Backend, Exchange, Progress, ReadBuffer, Session, SslAnswer};
use crate::deadline::Deadline;
use crate::error::{Error, ProtocolError};
use crate::socket::{self, Socket};
use crate::tls::Tls;

/// A socket, the bytes that were read from it, and the state of its session.
pub(crate) struct Wire {
    socket: Socket,
    read_buffer: ReadBuffer,
    session: Session,
    /// Stands between the socket and `read_buffer` on an encrypted connection.
    tls: Option<Box<Tls>>,
}

impl Wire {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket, read_buffer: ReadBuffer::new(), session: Session::default(), tls: None }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Sets the length of the longest message that the server may send, in bytes.
    pub(crate) fn set_message_max_bytes(&mut self, bytes: usize) {
        self.read_buffer.set_message_max_bytes(bytes);
    }

    /// Closes both directions of the socket, so that every operation on it ends.
    pub(crate) fn shut_down(&self) {
        self.socket.shut_down();
    }

    /// Waits for the server's answer to the TLS request.
    pub(crate) async fn read_ssl_answer(
        &mut self,
        deadline: Deadline,
        during: &'static str,
    ) -> Result<SslAnswer, Error> {
        while self.read_buffer.is_empty() {
            self.read(deadline, during).await?;
        }
        Ok(self.read_buffer.take_ssl_answer()?)
    }

    /// Performs the TLS handshake. All later bytes are encrypted.
    pub(crate) async fn start_tls(&mut self, tls: Tls, deadline: Deadline, during: &'static str) -> Result<(), Error> {
        assert!(self.read_buffer.is_empty(), "bytes from before TLS do not count as bytes under TLS");
        self.tls = Some(Box::new(tls));
        loop {
            self.send_encrypted(&[], deadline, during).await?;
            if !self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
                return Ok(());
            }
            self.read(deadline, during).await?;
        }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// The hash of the server's certificate for channel binding, if there is one.
    pub(crate) fn end_point_hash(&self) -> Option<Vec<u8>> {
        self.tls.as_ref().and_then(|tls| tls.end_point_hash())
    }

    /// Sends the buffer's content and empties the buffer.
    pub(crate) async fn send(
        &mut self,
        buffer: &mut BytesMut,
        deadline: Deadline,
        during: &'static str,
    ) -> Result<(), Error> {
        let result = self.send_pieces(buffer, &[], deadline, during).await;
        buffer.clear();
        result
    }

    /// Sends two pieces, one after the other.
    ///
    /// While the socket is full, it reads what the server sends. Otherwise a server that sends many rows or notices
    /// before it reads on would wait for the client while the client waits for the server.
    pub(crate) async fn send_pieces(
        &mut self,
        mut first: &[u8],
        mut second: &[u8],
        deadline: Deadline,
        during: &'static str,
    ) -> Result<(), Error> {
        if self.tls.is_some() {
            self.send_encrypted(first, deadline, during).await?;
            return self.send_encrypted(second, deadline, during).await;
        }
        while !(first.is_empty() && second.is_empty()) {
            match self.socket.try_send(first, second) {
                Ok(Some(sent_bytes)) => {
                    let of_first = sent_bytes.min(first.len());
                    first.advance(of_first);
                    second.advance(sent_bytes - of_first);
                }
                Ok(None) => self.read_until_writable(deadline, during).await?,
                Err(source) => return Err(self.final_error(Error::Io { during, source })),
            }
        }
        Ok(())
    }

    /// Sends the pending TLS records, then encrypts and sends the piece.
    async fn send_encrypted(
        &mut self,
        mut piece: &[u8],
        deadline: Deadline,
        during: &'static str,
    ) -> Result<(), Error> {
        while let Some(tls) = &mut self.tls {
            let records = tls.outgoing_records();
            if records.is_empty() {
                if piece.is_empty() {
                    break;
                }
                let encrypted_bytes = tls.encrypt(piece)?;
                piece.advance(encrypted_bytes);
                continue;
            }
            match self.socket.try_send(records, &[]) {
                Ok(Some(sent_bytes)) => tls.consume_outgoing(sent_bytes),
                Ok(None) => self.read_until_writable(deadline, during).await?,
                Err(source) => return Err(self.final_error(Error::Io { during, source })),
            }
        }
        Ok(())
    }

    async fn read_until_writable(&mut self, deadline: Deadline, during: &'static str) -> Result<(), Error> {
        // Besides reading, this takes notices out of the buffer, so that a flood of them does not fill memory.
        self.has_reply(during)?;
        let ready = deadline.bound(during, self.socket.writable_or_readable()).await?;
        ready.map_err(|source| Error::Io { during, source })
    }

    /// Sends as much of the piece as the socket takes at once. Failures are ignored: the server then sees the end of
    /// the stream instead.
    pub(crate) fn try_send_once(&mut self, piece: &[u8]) {
        let _ignored = match &mut self.tls {
            None => self.socket.try_send(piece, &[]),
            Some(tls) => match tls.encrypt(piece) {
                Ok(_) => self.socket.try_send(tls.outgoing_records(), &[]),
                Err(_) => return,
            },
        };
    }

    /// Reads the bytes that have arrived, without waiting.
    fn take_arrived_bytes(&mut self, during: &'static str) -> Result<(), Error> {
        match self.try_recv(during) {
            Ok(Some(0)) => Err(self.final_error(Error::end_of_stream(during))),
            Ok(_) => Ok(()),
            Err(error) => Err(self.final_error(error)),
        }
    }

    /// Reads some of the bytes that have arrived, without waiting. `None` if there are none, 0 at the end of the
    /// stream.
    fn try_recv(&mut self, during: &'static str) -> Result<Option<usize>, Error> {
        let Self { socket, read_buffer, tls, .. } = self;
        let mut decrypted = Ok(());
        let received = socket.try_recv(|bytes| match tls {
            None => read_buffer.push(bytes),
            Some(tls) => decrypted = tls.decrypt(bytes, read_buffer),
        });
        decrypted?;
        // The server may have ended the TLS session and left the socket open.
        if tls.as_mut().is_some_and(|tls| tls.is_closed_by_peer()) {
            return Ok(Some(0));
        }
        received.map_err(|source| Error::Io { during, source })
    }

    /// Reads what has arrived, without waiting. Returns whether the server has begun to reply: whether the next message
    /// is complete and not an asynchronous one.
    pub(crate) fn has_reply(&mut self, during: &'static str) -> Result<bool, Error> {
        self.take_arrived_bytes(during)?;
        while let Some(tag) = self.read_buffer.peek_tag()? {
            if !Backend::is_asynchronous_tag(tag) {
                return Ok(true);
            }
            let message = self.read_buffer.next_message()?;
            let reply = message.and_then(|message| self.session.absorb(message));
            assert!(reply.is_none(), "the session keeps every message with an asynchronous tag");
        }
        Ok(false)
    }

    /// The next message that has arrived and is not asynchronous, without waiting. Errors as for [`Wire::next`].
    pub(crate) fn try_next(&mut self, during: &'static str) -> Result<Option<Backend>, Error> {
        if let Some(message) = self.next_in_buffer()? {
            return Ok(Some(message));
        }
        self.take_arrived_bytes(during)?;
        self.next_in_buffer()
    }

    /// Waits for the next message that is not asynchronous.
    ///
    /// A FATAL error is returned as an error, because the server closes the connection after it and does not send
    /// ReadyForQuery.
    pub(crate) async fn next(&mut self, deadline: Deadline, during: &'static str) -> Result<Backend, Error> {
        loop {
            if let Some(message) = self.next_in_buffer()? {
                return Ok(message);
            }
            self.read(deadline, during).await?;
        }
    }

    fn next_in_buffer(&mut self) -> Result<Option<Backend>, Error> {
        while let Some(message) = self.read_buffer.next_message()? {
            match self.session.absorb(message) {
                Some(Backend::Error(error)) if error.severity.ends_session() => return Err(Error::Server(error)),
                Some(message) => return Ok(Some(message)),
                None => {}
            }
        }
        Ok(None)
    }

    /// Passes messages to an exchange until it is ready or wants CopyData.
    pub(crate) async fn drive(
        &mut self,
        exchange: &mut impl Exchange,
        deadline: Deadline,
        during: &'static str,
    ) -> Result<Progress, Error> {
        loop {
            let message = self.next(deadline, during).await?;
            match exchange.on_message(message)? {
                Progress::More => {}
                progress => return Ok(progress),
            }
        }
    }

    /// Waits until a notification has arrived, or the time has passed. The future may be dropped at any point without
    /// loss.
    pub(crate) async fn wait_for_notification(&mut self, wait: Deadline, during: &'static str) -> Result<(), Error> {
        loop {
            if let Some(message) = self.try_next(during)? {
                return Err(ProtocolError::unexpected(&message, during).into());
            }
            if self.session.has_notifications() {
                return Ok(());
            }
            match wait.bound(during, self.socket.readable()).await {
                Ok(ready) => ready.map_err(|source| Error::Io { during, source })?,
                Err(_time_has_passed) => return Ok(()),
            }
        }
    }

    /// Reads until the end of the stream, and discards the bytes. A connection that the server resets has ended, too.
    pub(crate) async fn read_to_end(&mut self, deadline: Deadline, during: &'static str) -> Result<(), Error> {
        loop {
            match self.read(deadline, during).await {
                Ok(()) => self.read_buffer.restore(BytesMut::new()),
                Err(Error::Io { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for bytes, and decrypts them if the connection is encrypted.
    async fn read(&mut self, deadline: Deadline, during: &'static str) -> Result<(), Error> {
        let buffer = match &mut self.tls {
            None => self.read_buffer.lend(),
            Some(tls) => {
                if tls.is_closed_by_peer() {
                    return Err(Error::end_of_stream(during));
                }
                tls.lend()
            }
        };
        let control = self.socket.control();
        let (result, buffer) =
            deadline.bound_or_end(during, self.socket.read(buffer), || socket::shut_down(&control)).await?;
        match &mut self.tls {
            None => self.read_buffer.restore(buffer),
            Some(tls) => {
                if let Err(error) = tls.restore(buffer, &mut self.read_buffer) {
                    // The alert lets the server log the reason, too. Nothing is lost if it cannot be sent.
                    let _ignored = self.socket.try_send(tls.outgoing_records(), &[]);
                    return Err(error);
                }
            }
        }
        match result {
            Ok(0) => Err(Error::end_of_stream(during)),
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Io { during, source }),
        }
    }

    /// The error to report after a failure: the FATAL error or TLS alert that the server sent before it closed the
    /// connection, if there is one, else the failure.
    fn final_error(&mut self, failure: Error) -> Error {
        // The loop ends: the socket's buffer is bounded, and the server sends no more.
        let alert = loop {
            match self.try_recv("the last messages") {
                Ok(Some(1..)) => {}
                Err(alert @ Error::Tls(_)) => break Some(alert),
                _ => break None,
            }
        };
        while let Ok(Some(message)) = self.read_buffer.next_message() {
            match self.session.absorb(message) {
                Some(Backend::Error(error)) if error.severity.ends_session() => return Error::Server(error),
                _ => {}
            }
        }
        alert.unwrap_or(failure)
    }
}
