//! COPY FROM STDIN.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::core::limits::COPY_DATA_MAX_BYTES;
use crate::core::{CopyInExchange, Progress};
use crate::error::{Error, usage};
use crate::link::Link;
use crate::request::copy_data_header;

const COPY: &str = "COPY";

/// A COPY in progress. End it with [`CopyIn::finish`] or [`CopyIn::abort`]. If it is dropped instead, the connection is
/// broken.
///
/// After an error of the server, from any call, the COPY has ended and the connection can be used again.
#[derive(Debug)]
#[must_use = "a COPY that is dropped leaves the connection broken"]
pub struct CopyIn<'a> {
    link: &'a mut Link,
    exchange: CopyInExchange,
    /// Set while a message is sent. It stays set if that future is dropped, after which half a message may be on the
    /// wire.
    is_write_pending: bool,
}

impl<'a> CopyIn<'a> {
    pub(crate) async fn begin(link: &'a mut Link, sql: &str) -> Result<Self, Error> {
        let deadline = link.begin()?;
        let mut exchange = CopyInExchange::new();
        let begun = async {
            let mut query = BytesMut::new();
            frontend::query(sql, &mut query).map_err(usage("the statement"))?;
            link.wire_mut().send(&mut query, deadline, COPY).await?;
            link.wire_mut().drive(&mut exchange, deadline, COPY).await
        }
        .await;
        match begun {
            // The operation continues, so the link stays busy.
            Ok(Progress::CopyIn) => Ok(Self { link, exchange, is_write_pending: false }),
            Ok(_) => link.end(Err(refusal(exchange))),
            Err(error) => link.end(Err(error)),
        }
    }

    /// Sends a piece of the data, which may be cut anywhere. 64 KiB to 1 MiB is a good size.
    ///
    /// It returns when the kernel has taken all of it. This is the back-pressure: a slow server makes it wait. Before
    /// each MiB it checks whether the server has refused the COPY, so at most 1 MiB, and the content of the kernel's
    /// buffers, is sent in vain.
    ///
    /// # Errors
    /// [`Error::Server`] if the server has refused this piece or an earlier one. The COPY has then ended.
    /// [`Error::Usage`] if it had ended before. Also failures of the connection.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        self.check_streaming()?;
        self.is_write_pending = true;
        let result = self.write_all(data).await;
        self.is_write_pending = false;
        result
    }

    /// Ends the data, and returns the number of rows that the server has taken.
    ///
    /// # Errors
    /// [`Error::Server`] if the server refuses a row or the whole COPY. The table then has none of the rows.
    /// [`Error::Usage`] if the COPY had ended before. Also failures of the connection.
    pub async fn finish(mut self) -> Result<u64, Error> {
        self.check_streaming()?;
        let mut message = BytesMut::new();
        frontend::copy_done(&mut message);
        self.end(message).await?;
        self.exchange.into_rows().map_err(Error::Server)
    }

    /// Aborts the COPY. The table has none of the rows, and an open transaction has failed. The server logs the reason.
    ///
    /// # Errors
    /// [`Error::Usage`] if the COPY had ended before, and failures of the connection. The server's error is not an error
    /// here, because it is the expected result.
    pub async fn abort(mut self, reason: &str) -> Result<(), Error> {
        self.check_streaming()?;
        // A NUL would end the text on the wire.
        let reason = reason.replace('\0', " ");
        let mut message = BytesMut::new();
        frontend::copy_fail(&reason, &mut message).map_err(usage("the reason"))?;
        self.end(message).await
    }

    async fn write_all(&mut self, data: &[u8]) -> Result<(), Error> {
        let deadline = self.link.deadline();
        for chunk in data.chunks(COPY_DATA_MAX_BYTES) {
            let has_reply = self.link.wire_mut().has_reply(COPY);
            if self.link.end_on_error(has_reply)? {
                return self.take_refusal().await;
            }
            let sent = self.link.wire_mut().send_pieces(&copy_data_header(chunk), chunk, deadline, COPY).await;
            self.link.end_on_error(sent)?;
        }
        Ok(())
    }

    /// Sends the last message, and waits until the server is ready.
    async fn end(&mut self, mut message: BytesMut) -> Result<(), Error> {
        let deadline = self.link.deadline();
        self.exchange.data_ended();
        let wire = self.link.wire_mut();
        let ended = async {
            wire.send(&mut message, deadline, COPY).await?;
            wire.drive(&mut self.exchange, deadline, COPY).await
        }
        .await;
        self.link.end(ended.map(drop))
    }

    /// Waits for the end of a COPY to which the server has replied before the data ended: the server has refused it.
    async fn take_refusal(&mut self) -> Result<(), Error> {
        let deadline = self.link.deadline();
        // What is left behind is not streaming, so no more data can be sent.
        let mut exchange = std::mem::take(&mut self.exchange);
        let error = match self.link.wire_mut().drive(&mut exchange, deadline, COPY).await {
            Ok(_) => refusal(exchange),
            Err(error) => error,
        };
        self.link.end(Err(error))
    }

    fn check_streaming(&mut self) -> Result<(), Error> {
        if self.is_write_pending || self.link.is_closed() {
            return self.link.end(Err(Error::Closed));
        }
        if !self.exchange.is_streaming() {
            return Err(Error::Usage { what: "the COPY is over: the server has refused it".to_owned() });
        }
        Ok(())
    }
}

/// The server's error, after an exchange that has become ready before its data ended.
fn refusal(exchange: CopyInExchange) -> Error {
    match exchange.into_rows() {
        Err(error) => Error::Server(error),
        // The exchange takes CommandComplete only after `data_ended`.
        Ok(rows) => unreachable!("a COPY of {rows} rows is complete before its data has ended"),
    }
}
