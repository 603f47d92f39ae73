//! The driver: moves bytes between a socket and the core, within deadlines.

use bytes::{Buf, BytesMut};

use crate::core::{Backend, Exchange, Progress, ReadBuffer, Session};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::socket::{self, Socket};

/// A socket with what was read from it.
pub(crate) struct Wire {
    pub(crate) socket: Socket,
    pub(crate) received: ReadBuffer,
    pub(crate) session: Session,
}

impl Wire {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket, received: ReadBuffer::new(), session: Session::default() }
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
        while !(first.is_empty() && second.is_empty()) {
            match self.socket.try_send(first, second) {
                Ok(Some(sent_bytes)) => {
                    let of_first = sent_bytes.min(first.len());
                    first.advance(of_first);
                    second.advance(sent_bytes - of_first);
                }
                Ok(None) => {
                    self.answer_has_begun(during)?;
                    deadline
                        .bound(during, self.socket.writable_or_readable())
                        .await?
                        .map_err(|source| Error::Io { during, source })?;
                }
                Err(source) => return Err(self.last_words(Error::Io { during, source })),
            }
        }
        Ok(())
    }

    /// Takes what has arrived, without waiting. `true` if a message is there that is not asynchronous: the server has
    /// begun to answer.
    pub(crate) fn answer_has_begun(&mut self, during: &'static str) -> Result<bool, Error> {
        let Self { socket, received, .. } = self;
        match socket.try_recv(|bytes| received.push(bytes)) {
            Ok(Some(0)) => return Err(self.last_words(Error::end_of_stream(during))),
            Ok(_) => {}
            Err(source) => return Err(self.last_words(Error::Io { during, source })),
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
        let lent = self.received.lend();
        let control = self.socket.control();
        let (result, lent) =
            deadline.bound_or_end(during, self.socket.read(lent), || socket::shutdown(&control)).await?;
        self.received.restore(lent);
        match result {
            Ok(0) => Err(Error::end_of_stream(during)),
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Io { during, source }),
        }
    }

    /// What the server said before it closed, if it said why; else the failure itself.
    fn last_words(&mut self, failure: Error) -> Error {
        let Self { socket, received, .. } = self;
        while let Ok(Some(1..)) = socket.try_recv(|bytes| received.push(bytes)) {}
        while let Ok(Some(message)) = self.received.next_message() {
            match self.session.absorb(message) {
                Some(Backend::Error(error)) if error.severity.ends_session() => return Error::Server(error),
                _ => {}
            }
        }
        failure
    }
}
