//! COPY FROM STDIN.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::conn::Connection;
use crate::core::limits::COPY_DATA_MAX_BYTES;
use crate::core::{CopyInExchange, Progress};
use crate::error::{Error, ProtocolError, usage};

const COPY: &str = "COPY";

/// Tag of CopyData.
const COPY_DATA: u8 = b'd';

/// A COPY under way. End it with [`CopyIn::finish`] or [`CopyIn::abort`]: dropped, it leaves the connection broken.
///
/// After an error of the server, from whichever call, the COPY is over and the connection usable again.
#[derive(Debug)]
#[must_use = "a COPY that is dropped leaves the connection broken"]
pub struct CopyIn<'a> {
    connection: &'a mut Connection,
    exchange: CopyInExchange,
    /// Set while a message is being sent: still set when that future was dropped, with half a message on the wire.
    cut_off: bool,
}

impl<'a> CopyIn<'a> {
    pub(crate) async fn begin(connection: &'a mut Connection, sql: &str) -> Result<Self, Error> {
        let deadline = connection.begin()?;
        let mut exchange = CopyInExchange::new();
        let progress = async {
            connection.send.clear();
            frontend::query(sql, &mut connection.send).map_err(usage("the statement"))?;
            connection.wire.send(&mut connection.send, deadline, COPY).await?;
            connection.wire.drive(&mut exchange, deadline, COPY).await
        }
        .await;
        match progress {
            // The operation goes on, so it is not ended here.
            Ok(Progress::CopyIn) => Ok(Self { connection, exchange, cut_off: false }),
            Ok(_) => {
                let result = refusal(exchange);
                connection.end(result)
            }
            Err(error) => connection.end(Err(error)),
        }
    }

    /// Sends a piece of the data, cut anywhere. It returns when the kernel has taken all of it, which is the
    /// back-pressure: a slow server makes it wait. 64 KiB to 1 MiB at a time is a good size.
    ///
    /// Before each MiB it looks whether the server has refused the COPY, so no more than that, and what the kernel
    /// holds, is sent in vain.
    ///
    /// # Errors
    /// [`Error::Server`] if the server has refused, perhaps because of an earlier piece: the COPY is over.
    /// [`Error::Usage`] if it was over before.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        self.check_streaming()?;
        self.cut_off = true;
        let result = self.write_all(data).await;
        self.cut_off = false;
        result
    }

    /// Ends the data and gives the number of rows the server took.
    ///
    /// # Errors
    /// [`Error::Server`] if the server refuses a row or the whole; no row is in the table then.
    pub async fn finish(mut self) -> Result<u64, Error> {
        self.check_streaming()?;
        self.end(|send| {
            frontend::copy_done(send);
            Ok(())
        })
        .await?;
        self.exchange.into_rows().map_err(Error::Server)
    }

    /// Gives the COPY up: no row is in the table, and a transaction that is open has failed. The reason is written to
    /// the server's log.
    ///
    /// # Errors
    /// Only failures of the connection: that the server refuses the COPY is what was asked for.
    pub async fn abort(mut self, reason: &str) -> Result<(), Error> {
        self.check_streaming()?;
        // A NUL would end the text on the wire.
        let reason = reason.replace('\0', " ");
        self.end(|send| frontend::copy_fail(&reason, send).map_err(usage("the reason"))).await
    }

    async fn write_all(&mut self, data: &[u8]) -> Result<(), Error> {
        let deadline = self.connection.deadline();
        for chunk in data.chunks(COPY_DATA_MAX_BYTES) {
            let sent = async {
                if self.connection.wire.answer_has_begun(COPY)? {
                    return Ok(false);
                }
                self.connection.wire.send_pieces(&header(chunk.len()), chunk, deadline, COPY).await?;
                Ok(true)
            }
            .await;
            match sent {
                Ok(true) => {}
                Ok(false) => return self.take_refusal().await,
                Err(error) => return self.connection.end(Err(error)),
            }
        }
        Ok(())
    }

    /// Sends the last message and waits until the server is ready.
    async fn end(&mut self, encode: impl FnOnce(&mut BytesMut) -> Result<(), Error>) -> Result<(), Error> {
        let deadline = self.connection.deadline();
        let Connection { wire, send, .. } = &mut *self.connection;
        let ended = async {
            send.clear();
            encode(send)?;
            self.exchange.ended();
            wire.send(send, deadline, COPY).await?;
            wire.drive(&mut self.exchange, deadline, COPY).await
        }
        .await;
        self.connection.end(ended.map(|_| ()))
    }

    /// The server has begun to answer while we were sending: it has refused.
    async fn take_refusal(&mut self) -> Result<(), Error> {
        let deadline = self.connection.deadline();
        let result = match self.connection.wire.drive(&mut self.exchange, deadline, COPY).await {
            Ok(_) => refusal(std::mem::take(&mut self.exchange)),
            Err(error) => Err(error),
        };
        self.exchange.ended();
        self.connection.end(result)
    }

    fn check_streaming(&mut self) -> Result<(), Error> {
        if self.cut_off || self.connection.is_given_up() {
            return self.connection.end(Err(Error::Closed));
        }
        if !self.exchange.is_streaming() {
            return Err(Error::Usage { what: "the COPY is over: the server has refused it".to_owned() });
        }
        Ok(())
    }
}

/// The error of an exchange that became ready without taking data.
fn refusal<T>(exchange: CopyInExchange) -> Result<T, Error> {
    match exchange.into_rows() {
        Err(error) => Err(Error::Server(error)),
        Ok(_) => Err(ProtocolError::Unexpected { message: "ReadyForQuery", during: COPY }.into()),
    }
}

pub(crate) fn header(length_bytes: usize) -> [u8; 5] {
    // `COPY_DATA_MAX_BYTES` fits a signed word with room to spare.
    let [a, b, c, d] = (length_bytes as u32 + 4).to_be_bytes();
    [COPY_DATA, a, b, c, d]
}
