//! Statements that are sent without waiting for the replies to earlier ones: sections with a Sync each, also with COPY.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;

use crate::conn::Connection;
use crate::core::limits::{COPY_DATA_MAX_BYTES, SEND_BUFFER_KEEP_BYTES};
use crate::core::{Backend, Exchange, Extended, Progress};
use crate::deadline::Deadline;
use crate::error::{Error, ProtocolError};
use crate::link::Link;
use crate::pipeline::PipelineOutcome;
use crate::request::{Request, copy_data_header};
use crate::statement::Statement;
use crate::types::Param;
use crate::types::oid::Oid;

const FLIGHT: &str = "a flight";

/// Statements in flight on one connection, divided into sections.
///
/// A section ends with a Sync. Without a BEGIN, the statements of a section are one transaction. After an error of the
/// server, the server skips the rest of the section and continues with the next section. If a section depends on an
/// earlier one, its own statements must check that the earlier one succeeded. Any number of sections can be sent before
/// the first outcome is taken. [`Flight::answer`] returns the outcomes in order, one for each section. An outcome says
/// which statement failed, if one did ([`PipelineOutcome::failure`]). After [`Flight::answer`],
/// [`Connection::transaction_status`] is the status at the end of that section, unless [`Flight::copy_data`] has taken
/// replies to later sections.
///
/// From the first [`Flight::send`] until the last outcome is taken, the connection belongs to the flight. During that
/// time it counts as broken for every other operation. It stays broken if the flight, or the future of one of its
/// methods, is dropped too early. A failure of the connection, in any method, ends the flight: outcomes that have not
/// arrived by then are lost.
///
/// Replies that arrive before [`Flight::answer`] is called are kept in memory. Do not put a statement that returns many
/// rows in front of a long COPY.
///
/// ```no_run
/// # use forebay_pgwire::{BinaryCopy, Connection, Error, Flight, Param, Statement};
/// # async fn store(conn: &mut Connection, insert: &Statement, copy: &Statement) -> Result<(), Error> {
/// let mut rows = BinaryCopy::start();
/// rows.row(1);
/// rows.i64(42);
/// let row_count = rows.finish()?;
///
/// let mut flight = Flight::new();
/// flight.statement(conn, insert, &[Param::Text("before the rows")])?;
/// flight.copy_in(conn, copy)?;
/// flight.send(conn).await?;
/// flight.copy_data(conn, rows.bytes()).await?;
/// flight.copy_done();
/// flight.sync();
/// flight.send(conn).await?;
/// // One round trip for all of it.
/// let results = flight.answer(conn).await?.into_results()?;
/// assert_eq!(results[1].tag.rows(), row_count);
/// # Ok(())
/// # }
/// ```
///
/// **Invariant:** `replied_sections <= sent_sections <= sections.len()`. `feed` and `send` keep it;
/// `a_reply_before_the_sync_was_sent_is_a_protocol_error` in `tests/server/flights.rs` shows that a server cannot break
/// it.
#[derive(Default)]
pub struct Flight {
    /// Messages that were not sent yet.
    request: Request,
    /// The sections whose outcome was not taken, oldest first.
    sections: VecDeque<Section>,
    /// The number of sections, from the oldest on, whose replies have arrived completely.
    replied_sections: usize,
    /// The number of sections, from the oldest on, whose Sync was sent.
    sent_sections: usize,
    /// Whether the last section has no Sync yet.
    is_last_open: bool,
    /// The connection that belongs to the flight.
    connection_id: Option<u64>,
    deadline_at: Option<Instant>,
    /// Set while bytes are sent or received. It stays set if that future is dropped, after which a message may be cut
    /// off.
    is_io_pending: bool,
}

#[derive(Default)]
struct Section {
    exchange: Extended,
    statement_names: Vec<String>,
}

impl Flight {
    /// An empty flight.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the instant by which each later call of [`Flight::send`], [`Flight::copy_data`] and [`Flight::answer`] must
    /// have ended. It can be set anew before each call. With `None`, the default, each call may take as long as
    /// [`Connection::set_deadline`] allows.
    ///
    /// A call that is late returns [`Error::Timeout`] and closes the connection, which ends the flight.
    pub fn set_deadline(&mut self, at: Option<Instant>) {
        self.deadline_at = at;
    }

    /// Adds a prepared statement to the section.
    ///
    /// # Errors
    /// [`Error::Usage`], with nothing added, if the parameters do not match the statement.
    pub fn statement(
        &mut self,
        connection: &Connection,
        statement: &Statement,
        params: &[Param<'_>],
    ) -> Result<(), Error> {
        self.request.execute(connection.id(), statement, params)
    }

    /// Adds a statement to the section that is parsed for this use only.
    ///
    /// # Errors
    /// [`Error::Usage`], with nothing added, if the statement contains a NUL or has too many parameters.
    pub fn once(&mut self, sql: &str, params: &[Param<'_>]) -> Result<(), Error> {
        self.request.execute_once(sql, params)
    }

    /// Adds the preparation of a statement to the section. The outcome of the section contains the statement
    /// ([`PipelineOutcome::statements`]), which can be used in later sections. In [`PipelineOutcome::failure`] it
    /// counts as a statement of its own. The server chooses the types of parameters whose type is 0 or missing at the
    /// end.
    ///
    /// # Errors
    /// [`Error::Usage`], with nothing added, if the statement contains a NUL or has too many parameters.
    pub fn prepare(&mut self, connection: &mut Connection, sql: &str, types: &[Oid]) -> Result<(), Error> {
        self.request.prepare(connection.next_statement_name(), sql, types)
    }

    /// Adds a prepared `COPY … FROM STDIN` to the section. [`Flight::send`], any number of [`Flight::copy_data`], and
    /// [`Flight::copy_done`] must follow.
    ///
    /// # Errors
    /// [`Error::Usage`], with nothing added, if the statement has parameters.
    pub fn copy_in(&mut self, connection: &Connection, statement: &Statement) -> Result<(), Error> {
        self.request.copy_in(connection.id(), statement)
    }

    /// Adds data of a COPY without sending it. This is for small amounts, which then travel together with other
    /// messages.
    pub fn add_copy_data(&mut self, data: &[u8]) {
        self.request.copy_data(data);
    }

    /// Adds the end of a COPY's data.
    pub fn copy_done(&mut self) {
        self.request.copy_done();
    }

    /// Adds a Sync, which ends the section. Does nothing if the section has no statements.
    pub fn sync(&mut self) {
        self.assign_steps();
        if self.is_last_open {
            self.request.sync();
            self.is_last_open = false;
        }
    }

    /// The number of bytes that were added and not sent yet.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.request.buffer.len()
    }

    /// The number of sections that have a Sync and whose outcome was not taken.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.sections.len() - usize::from(self.is_last_open)
    }

    /// Sends everything that was added. It returns when the kernel has taken all of it.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection is broken or belongs to another operation; [`Error::Usage`] if the flight is
    /// in progress on another connection; other failures of the connection.
    pub async fn send(&mut self, connection: &mut Connection) -> Result<(), Error> {
        if self.connection_id.is_none() {
            connection.link_mut().begin()?;
            self.connection_id = Some(connection.id());
        }
        let (link, deadline) = self.checked_link(connection)?;
        self.assign_steps();
        self.is_io_pending = true;
        let sent = link.wire_mut().send(&mut self.request.buffer, deadline, FLIGHT).await;
        self.is_io_pending = false;
        link.end_on_error(sent)?;
        self.sent_sections = self.outstanding();
        if self.request.buffer.capacity() > SEND_BUFFER_KEEP_BYTES {
            self.request.buffer = BytesMut::new();
        }
        self.release_if_empty(link)
    }

    /// Sends a piece of a COPY's data, which may be cut anywhere. Returns `false` if the server has refused the
    /// section; the rest of the data is then not sent.
    ///
    /// It returns when the kernel has taken all of the data. This is the back-pressure.
    ///
    /// # Errors
    /// [`Error::Usage`] if the COPY itself was not sent before; failures of the connection.
    pub async fn copy_data(&mut self, connection: &mut Connection, data: &[u8]) -> Result<bool, Error> {
        let (link, deadline) = self.checked_link(connection)?;
        for chunk in data.chunks(COPY_DATA_MAX_BYTES) {
            let taken = self.take_arrived_replies(link);
            link.end_on_error(taken)?;
            if self.sections.back().is_some_and(|section| section.exchange.has_failed()) {
                return Ok(false);
            }
            self.is_io_pending = true;
            let sent = link.wire_mut().send_pieces(&copy_data_header(chunk), chunk, deadline, FLIGHT).await;
            self.is_io_pending = false;
            link.end_on_error(sent)?;
        }
        Ok(true)
    }

    /// Waits for the outcome of the oldest section. An error of the server is part of the outcome.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no section whose Sync was sent; failures of the connection.
    pub async fn answer(&mut self, connection: &mut Connection) -> Result<PipelineOutcome, Error> {
        self.check_connection(connection)?;
        if self.replied_sections == 0 {
            let (link, deadline) = self.checked_link(connection)?;
            if self.sent_sections == 0 {
                return Err(nothing_sent());
            }
            self.is_io_pending = true;
            let replied = self.wait_for_oldest(link, deadline).await;
            self.is_io_pending = false;
            link.end_on_error(replied)?;
        }
        let Some(section) = self.sections.pop_front() else { unreachable!("a section that was sent is in the queue") };
        self.replied_sections -= 1;
        self.sent_sections -= 1;
        self.release_if_empty(connection.link_mut())?;
        Ok(PipelineOutcome::new(section.exchange, connection.id(), section.statement_names))
    }

    async fn wait_for_oldest(&mut self, link: &mut Link, deadline: Deadline) -> Result<(), Error> {
        while self.replied_sections == 0 {
            let message = link.wire_mut().next(deadline, FLIGHT).await?;
            self.feed(message)?;
        }
        Ok(())
    }

    fn check_connection(&self, connection: &Connection) -> Result<(), Error> {
        if self.connection_id == Some(connection.id()) { Ok(()) } else { Err(nothing_sent()) }
    }

    /// The link of the flight's connection, which must be open and in step, and the deadline of a call that starts now.
    fn checked_link<'c>(&self, connection: &'c mut Connection) -> Result<(&'c mut Link, Deadline), Error> {
        self.check_connection(connection)?;
        let link = connection.link_mut();
        if self.is_io_pending || link.is_closed() {
            return link.end(Err(Error::Closed));
        }
        let deadline = self.deadline_at.map_or_else(|| link.deadline(), Deadline::at);
        Ok((link, deadline))
    }

    /// Gives the connection back after the last outcome.
    fn release_if_empty(&mut self, link: &mut Link) -> Result<(), Error> {
        if self.sections.is_empty() {
            self.connection_id = None;
            return link.end(Ok(()));
        }
        Ok(())
    }

    /// Moves the steps of the encoded messages to the section that they belong to.
    fn assign_steps(&mut self) {
        let Request { steps, statement_names, .. } = &mut self.request;
        if steps.is_empty() {
            return;
        }
        if !self.is_last_open {
            self.sections.push_back(Section::default());
            self.is_last_open = true;
        }
        let Some(section) = self.sections.back_mut() else { unreachable!("an open section is in the queue") };
        steps.drain(..).for_each(|step| section.exchange.expect(step));
        section.statement_names.append(statement_names);
    }

    /// Takes the replies that have arrived, without waiting.
    fn take_arrived_replies(&mut self, link: &mut Link) -> Result<(), Error> {
        while let Some(message) = link.wire_mut().try_next(FLIGHT)? {
            self.feed(message)?;
        }
        Ok(())
    }

    /// Passes a message to the oldest section that is still in progress.
    fn feed(&mut self, message: Backend) -> Result<(), Error> {
        let is_sync_sent = self.replied_sections < self.sent_sections;
        match self.sections.get_mut(self.replied_sections) {
            Some(_) if !is_sync_sent && matches!(message, Backend::ReadyForQuery(_)) => {}
            Some(section) => {
                if let Progress::Ready(_) = section.exchange.on_message(message)? {
                    self.replied_sections += 1;
                }
                return Ok(());
            }
            None => {}
        }
        Err(ProtocolError::unexpected(&message, FLIGHT).into())
    }
}

fn nothing_sent() -> Error {
    Error::Usage { what: "the flight has sent no section on this connection whose answer is outstanding".to_owned() }
}
