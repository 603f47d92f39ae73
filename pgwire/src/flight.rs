//! Statements sent without waiting for the answers to those before: sections with a Sync each, and COPY among them.

use std::collections::VecDeque;

use postgres_protocol::message::frontend;

use crate::conn::Connection;
use crate::copy_in::header;
use crate::core::limits::COPY_DATA_MAX_BYTES;
use crate::core::{Backend, Exchange, Extended, Progress};
use crate::error::{Error, ProtocolError};
use crate::pipeline::PipelineOutcome;
use crate::request::Request;
use crate::statement::Statement;
use crate::types::Param;

const FLIGHT: &str = "a flight";

/// Statements under way on one connection, in sections.
///
/// A section is what stands before a Sync. After an error of the server the rest of its section is skipped, and the next
/// one is carried out: a section that must not be, after one that failed, has to find out by itself. Answers are taken
/// section by section, in order; any number of sections may be sent before.
///
/// The connection belongs to the flight while answers are outstanding: it counts as broken for everything else, and
/// stays so if the flight is dropped then. A failure of the connection, from whichever call, ends both.
///
/// The answers to what is sent before [`Flight::answer`] is called are kept in memory: a statement that gives many rows
/// does not belong in front of a long COPY.
///
/// ```no_run
/// # use forebay_pgwire::{BinaryCopy, Connection, Error, Flight, Param, Statement};
/// # async fn store(conn: &mut Connection, insert: &Statement, copy: &Statement) -> Result<(), Error> {
/// let mut rows = BinaryCopy::start();
/// rows.row(1);
/// rows.i64(42);
/// let sent = rows.finish()?;
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
/// assert_eq!(results[1].tag.rows(), sent);
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Flight {
    request: Request,
    /// Oldest first; those that are ready wait to be taken.
    sections: VecDeque<Section>,
    /// The last section has no Sync yet.
    is_open: bool,
    /// The connection is ours.
    has_begun: bool,
    /// Set while bytes are being sent: still set when that future was dropped, with half a message on the wire.
    is_cut_off: bool,
}

#[derive(Default)]
struct Section {
    exchange: Extended,
    is_ready: bool,
}

impl Flight {
    /// With nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a prepared statement to the section.
    ///
    /// # Errors
    /// [`Error::Usage`], with nothing added, if the parameters do not fit.
    pub fn statement(
        &mut self,
        connection: &Connection,
        statement: &Statement,
        params: &[Param<'_>],
    ) -> Result<(), Error> {
        self.request.execute(connection.id(), statement, params)
    }

    /// Adds a prepared `COPY … FROM STDIN` to the section: [`Flight::send`], then [`Flight::copy_data`] any number of
    /// times and [`Flight::copy_done`] have to follow.
    ///
    /// # Errors
    /// [`Error::Usage`], with nothing added, if the statement has parameters.
    pub fn copy_in(&mut self, connection: &Connection, statement: &Statement) -> Result<(), Error> {
        self.request.copy_in(connection.id(), statement)
    }

    /// Adds data of a COPY, to travel with what is added around it: for a little of it.
    pub fn add_copy_data(&mut self, data: &[u8]) {
        for chunk in data.chunks(COPY_DATA_MAX_BYTES) {
            self.request.buffer.extend_from_slice(&header(chunk.len()));
            self.request.buffer.extend_from_slice(chunk);
        }
    }

    /// Adds the end of a COPY's data.
    pub fn copy_done(&mut self) {
        frontend::copy_done(&mut self.request.buffer);
    }

    /// Adds a Sync, which ends the section; nothing if there is none.
    pub fn sync(&mut self) {
        self.note_steps();
        if !self.is_open {
            return;
        }
        frontend::sync(&mut self.request.buffer);
        self.is_open = false;
    }

    /// Sends what was added. It returns when the kernel has taken all of it.
    ///
    /// # Errors
    /// Failures of the connection; [`Error::Closed`] if it is of no more use, or another operation has it.
    pub async fn send(&mut self, connection: &mut Connection) -> Result<(), Error> {
        if !self.has_begun {
            connection.begin()?;
            self.has_begun = true;
        }
        self.note_steps();
        self.check_whole(connection)?;
        let deadline = connection.deadline();
        self.is_cut_off = true;
        let result = connection.wire.send(&mut self.request.buffer, deadline, FLIGHT).await;
        self.is_cut_off = false;
        Self::or_give_up(connection, result)
    }

    /// Sends a piece of a COPY's data, cut anywhere; `false`, with nothing more sent, if the server has refused the
    /// section. It returns when the kernel has taken all of it, which is the back-pressure.
    ///
    /// # Errors
    /// Failures of the connection.
    pub async fn copy_data(&mut self, connection: &mut Connection, data: &[u8]) -> Result<bool, Error> {
        self.check_whole(connection)?;
        let deadline = connection.deadline();
        for chunk in data.chunks(COPY_DATA_MAX_BYTES) {
            let arrived = self.take_arrived(connection);
            Self::or_give_up(connection, arrived)?;
            if self.sections.back().is_some_and(|section| section.exchange.has_failed()) {
                return Ok(false);
            }
            self.is_cut_off = true;
            let result = connection.wire.send_pieces(&header(chunk.len()), chunk, deadline, FLIGHT).await;
            self.is_cut_off = false;
            Self::or_give_up(connection, result)?;
        }
        Ok(true)
    }

    fn check_whole(&self, connection: &mut Connection) -> Result<(), Error> {
        if self.is_cut_off || connection.is_given_up() {
            return connection.end(Err(Error::Closed));
        }
        Ok(())
    }

    /// Sections that were ended and whose answers were not taken.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.sections.len() - usize::from(self.is_open)
    }

    /// Waits for the answers of the oldest section.
    ///
    /// # Errors
    /// Failures of the connection; [`Error::Usage`] if there is no section whose Sync was sent. An error of the server
    /// is part of the outcome.
    pub async fn answer(&mut self, connection: &mut Connection) -> Result<PipelineOutcome, Error> {
        if self.outstanding() == 0 || !self.request.buffer.is_empty() {
            return Err(Error::Usage { what: "no section was sent whose answer could be awaited".to_owned() });
        }
        let deadline = connection.deadline();
        while !self.sections.front().is_some_and(|section| section.is_ready) {
            let next = connection.wire.next(deadline, FLIGHT).await;
            let fed = next.and_then(|message| self.feed(message));
            Self::or_give_up(connection, fed)?;
        }
        let section = self.sections.pop_front().unwrap_or_default();
        if self.sections.is_empty() {
            self.has_begun = false;
            connection.end(Ok(()))?;
        }
        Ok(PipelineOutcome::new(section.exchange))
    }

    /// Moves what was encoded to the section that it belongs to.
    fn note_steps(&mut self) {
        if !self.is_open && !self.request.steps.is_empty() {
            self.sections.push_back(Section::default());
            self.is_open = true;
        }
        if let Some(section) = self.sections.back_mut() {
            self.request.steps.drain(..).for_each(|step| section.exchange.expect(step));
        }
    }

    /// Takes what the server has said so far, without waiting.
    fn take_arrived(&mut self, connection: &mut Connection) -> Result<(), Error> {
        while connection.wire.answer_has_begun(FLIGHT)? {
            // Whole, and not asynchronous: it is there.
            while let Some(message) = connection.wire.received.next_message().map_err(Error::from)? {
                match connection.wire.session.absorb(message) {
                    Some(Backend::Error(error)) if error.severity.ends_session() => return Err(Error::Server(error)),
                    Some(message) => self.feed(message)?,
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn feed(&mut self, message: Backend) -> Result<(), Error> {
        let Some(section) = self.sections.iter_mut().find(|section| !section.is_ready) else {
            return Err(ProtocolError::unexpected(&message, FLIGHT).into());
        };
        if let Progress::Ready(_) = section.exchange.on_message(message)? {
            section.is_ready = true;
        }
        Ok(())
    }

    fn or_give_up(connection: &mut Connection, result: Result<(), Error>) -> Result<(), Error> {
        match result {
            Ok(()) => Ok(()),
            Err(error) => connection.end(Err(error)),
        }
    }
}
