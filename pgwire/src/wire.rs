//! The driver: moves bytes between a socket and the core, within deadlines, and through TLS where there is any.

use bytes::{Buf, BytesMut};

use crate::core::{Backend, Exchange, Progress, ReadBuffer, Session};
use crate::deadline::Deadline;
use crate::error::{Error, ProtocolError};
use crate::socket::{self, Socket};
use crate::tls::Tls;

/// A socket with what was read from it.
pub(crate) struct Wire {
    pub(crate) socket: Socket,
    pub(crate) received: ReadBuffer,
    pub(crate) session: Session,
    /// Between `received` and the socket, where the connection is encrypted.
    tls: Option<Box<Tls>>,
}

impl Wire {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket, received: ReadBuffer::new(), session: Session::default(), tls: None }
    }

    /// Waits until something was received.
    pub(crate) async fn read_first(&mut self, deadline: Deadline, during: &'static str) -> Result<(), Error> {
        while self.received.is_empty() {
            self.read(deadline, during).await?;
        }
        Ok(())
    }

    /// Encrypts all that follows. What was received before must have been taken out.
    pub(crate) async fn begin_tls(&mut self, tls: Tls, deadline: Deadline, during: &'static str) -> Result<(), Error> {
        self.tls = Some(Box::new(tls));
        loop {
            self.send_sealed(&mut &[][..], deadline, during).await?;
            if self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking()) {
                return Ok(());
            }
            self.read(deadline, during).await?;
        }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Hash of the server's certificate to bind to; `None` without one.
    pub(crate) fn end_point_hash(&self) -> Option<Vec<u8>> {
        self.tls.as_ref().and_then(|tls| tls.end_point_hash())
    }

    /// Sends all of the buffer and empties it.
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

    /// Sends two pieces. While the socket is full it takes what the server says: were it left, a server that answers
    /// much before it reads on (rows, notices) would wait for us as we wait for it.
    pub(crate) async fn send_pieces(
        &mut self,
        mut first: &[u8],
        mut second: &[u8],
        deadline: Deadline,
        during: &'static str,
    ) -> Result<(), Error> {
        if self.tls.is_some() {
            self.send_sealed(&mut first, deadline, during).await?;
            return self.send_sealed(&mut second, deadline, during).await;
        }
        while !(first.is_empty() && second.is_empty()) {
            match self.socket.try_send(first, second) {
                Ok(Some(sent_bytes)) => {
                    let of_first = sent_bytes.min(first.len());
                    first.advance(of_first);
                    second.advance(sent_bytes - of_first);
                }
                Ok(None) => self.listen_until_writable(deadline, during).await?,
                Err(source) => return Err(self.last_words(Error::Io { during, source })),
            }
        }
        Ok(())
    }

    /// Sends what is sealed, then seals and sends the piece.
    async fn send_sealed(&mut self, piece: &mut &[u8], deadline: Deadline, during: &'static str) -> Result<(), Error> {
        while let Some(tls) = &mut self.tls {
            let sealed = tls.sealed();
            if sealed.is_empty() {
                if piece.is_empty() {
                    break;
                }
                let taken = tls.seal(piece)?;
                piece.advance(taken);
                continue;
            }
            match self.socket.try_send(sealed, &[]) {
                Ok(Some(sent_bytes)) => tls.sent(sent_bytes),
                Ok(None) => self.listen_until_writable(deadline, during).await?,
                Err(source) => return Err(self.last_words(Error::Io { during, source })),
            }
        }
        Ok(())
    }

    async fn listen_until_writable(&mut self, deadline: Deadline, during: &'static str) -> Result<(), Error> {
        self.answer_has_begun(during)?;
        let ready = deadline.bound(during, self.socket.writable_or_readable()).await?;
        ready.map_err(|source| Error::Io { during, source })
    }

    /// Sends what fits the socket, as a courtesy to a server that is left.
    pub(crate) fn try_send_once(&mut self, piece: &[u8]) {
        // Where it does not fit, or is not possible any more, the server sees the end of the stream instead.
        let _courtesy = match &mut self.tls {
            None => self.socket.try_send(piece, &[]),
            Some(tls) => match tls.seal(piece) {
                Ok(_) => self.socket.try_send(tls.sealed(), &[]),
                Err(_) => return,
            },
        };
    }

    /// Takes what has arrived, without waiting; `None` if nothing has, 0 at the end of the stream.
    fn take_arrived(&mut self, during: &'static str) -> Result<Option<usize>, Error> {
        let Self { socket, received, tls, .. } = self;
        let mut opened = Ok(());
        let arrived = socket.try_recv(|bytes| match tls {
            None => received.push(bytes),
            Some(tls) => opened = tls.open(bytes, received),
        });
        opened?;
        // The peer may have said good-bye under TLS and left the socket open.
        if tls.as_mut().is_some_and(|tls| tls.is_ended()) {
            return Ok(Some(0));
        }
        arrived.map_err(|source| Error::Io { during, source })
    }

    /// Takes what has arrived, without waiting. `true` if a message is there that is not asynchronous: the server has
    /// begun to answer.
    pub(crate) fn answer_has_begun(&mut self, during: &'static str) -> Result<bool, Error> {
        match self.take_arrived(during) {
            Ok(Some(0)) => return Err(self.last_words(Error::end_of_stream(during))),
            Ok(_) => {}
            Err(error) => return Err(self.last_words(error)),
        }
        while let Some(tag) = self.received.peek_tag()? {
            if !Backend::is_asynchronous_tag(tag) {
                return Ok(true);
            }
            if let Some(message) = self.received.next_message()? {
                // Nothing comes back: the tag said that the session keeps it.
                self.session.absorb(message);
            }
        }
        Ok(false)
    }

    /// The next message that is not asynchronous.
    ///
    /// A FATAL error is an error here: the server closes the connection after it, and ReadyForQuery never comes.
    pub(crate) async fn next(&mut self, deadline: Deadline, during: &'static str) -> Result<Backend, Error> {
        loop {
            while let Some(message) = self.received.next_message()? {
                match self.session.absorb(message) {
                    Some(Backend::Error(error)) if error.severity.ends_session() => return Err(Error::Server(error)),
                    Some(message) => return Ok(message),
                    None => {}
                }
            }
            self.read(deadline, during).await?;
        }
    }

    /// Feeds an exchange until it is ready or wants CopyData.
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

    /// Waits until a notification is there, or the time is over. It may be dropped at any point without loss.
    pub(crate) async fn notified(&mut self, wait: Deadline, during: &'static str) -> Result<bool, Error> {
        loop {
            if self.answer_has_begun(during)? {
                return match self.received.next_message()? {
                    Some(Backend::Error(error)) if error.severity.ends_session() => Err(Error::Server(error)),
                    Some(other) => Err(ProtocolError::unexpected(&other, during).into()),
                    // A tag is seen only of a message that is here whole.
                    None => Ok(false),
                };
            }
            if self.session.has_notifications() {
                return Ok(true);
            }
            match wait.bound(during, self.socket.readable()).await {
                Ok(ready) => ready.map_err(|source| Error::Io { during, source })?,
                Err(_) => return Ok(false),
            }
        }
    }

    /// Reads until the end of the stream, and drops what comes.
    pub(crate) async fn read_to_end(&mut self, deadline: Deadline, during: &'static str) -> Result<(), Error> {
        loop {
            match self.read(deadline, during).await {
                Ok(()) => self.received.restore(BytesMut::new()),
                Err(Error::Io { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    async fn read(&mut self, deadline: Deadline, during: &'static str) -> Result<(), Error> {
        let lent = match &mut self.tls {
            None => self.received.lend(),
            Some(tls) => {
                if tls.is_ended() {
                    return Err(Error::end_of_stream(during));
                }
                tls.lend()
            }
        };
        let control = self.socket.control();
        let (result, lent) =
            deadline.bound_or_end(during, self.socket.read(lent), || socket::shutdown(&control)).await?;
        match &mut self.tls {
            None => self.received.restore(lent),
            Some(tls) => {
                if let Err(error) = tls.restore(lent, &mut self.received) {
                    // The server's log says why, too, if the alert gets through.
                    let _courtesy = self.socket.try_send(tls.sealed(), &[]);
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

    /// What the server said before it closed, if it said why; else the failure itself.
    fn last_words(&mut self, failure: Error) -> Error {
        // Bounded: what the socket's buffer holds, and no more is coming.
        let alert = loop {
            match self.take_arrived("the last words") {
                Ok(Some(1..)) => {}
                Err(alert @ Error::Tls(_)) => break Some(alert),
                _ => break None,
            }
        };
        while let Ok(Some(message)) = self.received.next_message() {
            match self.session.absorb(message) {
                Some(Backend::Error(error)) if error.severity.ends_session() => return Error::Server(error),
                _ => {}
            }
        }
        alert.unwrap_or(failure)
    }
}
