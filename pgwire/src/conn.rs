//! A connection and its operations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::config::Config;
use crate::connect::{self, CancelToken};
use crate::copy_in::CopyIn;
use crate::core::{Extended, Notification, QueryResult, SimpleQuery, StatementResult, TransactionStatus};
use crate::db_error::DbError;
use crate::deadline::Deadline;
use crate::error::{Error, PassFileWarning, usage};
use crate::pipeline::{Pipeline, PipelineOutcome};
use crate::request::Request;
use crate::statement::Statement;
use crate::types::oid::Oid;
use crate::types::{Param, Row};
use crate::wire::Wire;

const QUERY: &str = "a query";

/// Room kept for the next request, in bytes; a larger buffer is let go once it was sent.
const SEND_BUFFER_KEEP_BYTES: usize = 256 * 1024;

/// Tells connections apart, for statements that are used on the wrong one.
static NEXT_CONNECTION_ID: AtomicU64 = AtomicU64::new(0);

/// A session with a PostgreSQL server, for one request at a time, on the thread that opened it.
///
/// An operation that fails on the connection itself (see [`Error::ends_connection`]), and one whose future is dropped
/// before its end, leaves the connection broken: [`Connection::is_broken`] says so, and each later operation gives
/// [`Error::Closed`]. An error of the server leaves it usable.
///
/// Dropping it says good-bye to the server, without waiting.
pub struct Connection {
    pub(crate) wire: Wire,
    pub(crate) send: BytesMut,
    token: CancelToken,
    pass_file_warning: Option<PassFileWarning>,
    deadline: Option<Duration>,
    id: u64,
    statements_prepared: u64,
    /// From the beginning of an operation to its end: still set when a future was dropped between.
    busy: bool,
    broken: bool,
}

impl Connection {
    /// Connects and logs in, within `connect_timeout`. Each host is tried in turn, and each address of its name.
    ///
    /// A host's name is looked up by the system's resolver, on a thread of its own. Files of certificates, keys and
    /// passwords are read by the calling thread, at each connect. The thread must run a monoio runtime on io_uring with
    /// its timer enabled.
    ///
    /// # Errors
    /// [`Error::Config`] if the settings cannot work, [`Error::Connect`] and [`Error::Timeout`] if nobody answers,
    /// [`Error::Tls`] if the connection cannot be encrypted as asked, [`Error::Server`] if the server refuses us (28P01 for a wrong password, 3D000 for an unknown database, 57P03
    /// while it starts, 53300 when it is full), [`Error::Auth`] if we refuse the server.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        connect::connect(config).await
    }

    pub(crate) fn open(
        wire: Wire,
        token: CancelToken,
        pass_file_warning: Option<PassFileWarning>,
        deadline: Option<Duration>,
    ) -> Self {
        Self {
            wire,
            send: BytesMut::new(),
            token,
            pass_file_warning,
            deadline,
            id: NEXT_CONNECTION_ID.fetch_add(1, Ordering::Relaxed),
            statements_prepared: 0,
            busy: false,
            broken: false,
        }
    }

    /// Sets the time each later operation may take; `None` waits for ever. A COPY has this time for each of its steps.
    ///
    /// The deadline ends the connection, not the statement: the server may go on with it, locks and all, until it
    /// notices. Set `statement_timeout`, and `client_connection_check_interval` from PostgreSQL 14 on, through
    /// [`Config::options`] to bound that too.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline;
    }

    /// Whether the connection is of no more use.
    pub fn is_broken(&self) -> bool {
        self.broken || self.busy
    }

    /// Whether a transaction is open, as the server said at the end of the last operation.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.wire.session.transaction_status()
    }

    /// A run-time parameter that the server reports by itself, such as `server_version`, as last heard.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.wire.session.parameter(name)
    }

    /// Process id of the session's backend, as in `pg_stat_activity`, if the server told it.
    pub fn process_id(&self) -> Option<i32> {
        self.token.process_id()
    }

    /// Whether what is sent and received is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.wire.is_encrypted()
    }

    /// Why the file of passwords ([`Config::passfile`]) was not used, if it is there and could not be. The server let
    /// us in without a password.
    pub fn pass_file_warning(&self) -> Option<&PassFileWarning> {
        self.pass_file_warning.as_ref()
    }

    /// The notices that came with the operations since the last call, oldest first, and how many older ones were
    /// dropped: at most [`crate::core::limits::NOTICES_MAX`] are kept.
    pub fn take_notices(&mut self) -> (Vec<DbError>, u64) {
        self.wire.session.take_notices()
    }

    /// The notifications that came with the operations since the last call, as [`Connection::take_notices`].
    pub fn take_notifications(&mut self) -> (Vec<Notification>, u64) {
        self.wire.session.take_notifications()
    }

    /// What is needed to cancel an operation of this connection while it is under way.
    pub fn cancel_token(&self) -> CancelToken {
        self.token.clone()
    }

    /// Runs a string of statements, without parameters, and gives each one's result with values as text.
    ///
    /// Without BEGIN in it the string is one transaction.
    ///
    /// # Errors
    /// The server's error ends the string; results before it are not given.
    pub async fn simple(&mut self, sql: &str) -> Result<Vec<StatementResult>, Error> {
        let deadline = self.begin()?;
        let result = self.run_simple(sql, deadline).await;
        self.end(result)
    }

    /// Has the server parse a statement, to be run any number of times. Types that are 0, or missing at the end, are
    /// left to the server.
    ///
    /// # Errors
    /// As for any operation.
    pub async fn prepare(&mut self, sql: &str, types: &[Oid]) -> Result<Statement, Error> {
        let name = format!("forebay_{}", self.statements_prepared);
        self.statements_prepared += 1;
        let mut request = self.request();
        request.prepare(&name, sql, types)?;
        let (_, described, failure) = self.run(request).await?.into_parts();
        match (described, failure) {
            (_, Some(failure)) => Err(Error::Server(failure.error)),
            (Some(described), None) => Ok(Statement::new(self.id, name, described)),
            // Not reached: a pipeline is ready only when each of its steps was answered.
            (None, None) => Err(Error::Closed),
        }
    }

    /// Frees a prepared statement on the server.
    ///
    /// # Errors
    /// As for any operation.
    pub async fn close_statement(&mut self, statement: Statement) -> Result<(), Error> {
        statement.belongs_to(self.id)?;
        let mut request = self.request();
        request.close(statement.name())?;
        match self.run(request).await?.into_parts() {
            (_, _, Some(failure)) => Err(Error::Server(failure.error)),
            _ => Ok(()),
        }
    }

    /// Runs a prepared statement and gives its rows, with values in binary.
    ///
    /// # Errors
    /// [`Error::Usage`], with nothing sent, if the parameters do not fit; else as for any operation.
    pub async fn query(&mut self, statement: &Statement, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        let mut request = self.request();
        request.execute(self.id, statement, params)?;
        Ok(self.run_one(request).await?.rows)
    }

    /// Runs a prepared statement and gives the number of rows its command tag counts.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn execute(&mut self, statement: &Statement, params: &[Param<'_>]) -> Result<u64, Error> {
        let mut request = self.request();
        request.execute(self.id, statement, params)?;
        Ok(self.run_one(request).await?.tag.rows())
    }

    /// Runs a statement once, in one round trip, and gives its rows, with values in binary. The parameters' types are
    /// those of the values.
    ///
    /// # Errors
    /// As for any operation.
    pub async fn query_once(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        let mut request = self.request();
        request.execute_once(sql, params)?;
        Ok(self.run_one(request).await?.rows)
    }

    /// Runs a statement once, in one round trip, and gives the number of rows its command tag counts.
    ///
    /// # Errors
    /// As for any operation.
    pub async fn execute_once(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64, Error> {
        let mut request = self.request();
        request.execute_once(sql, params)?;
        Ok(self.run_one(request).await?.tag.rows())
    }

    /// Gathers statements to be run in one round trip.
    pub fn pipeline(&mut self) -> Pipeline<'_> {
        Pipeline::new(self)
    }

    /// Begins a `COPY … FROM STDIN`.
    ///
    /// # Errors
    /// As for any operation; [`Error::Protocol`] if the statement is something else.
    pub async fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, Error> {
        CopyIn::begin(self, sql).await
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn request(&mut self) -> Request {
        Request::in_buffer(std::mem::take(&mut self.send))
    }

    /// Sends a request with its Sync and takes all answers.
    pub(crate) async fn run(&mut self, request: Request) -> Result<Extended, Error> {
        let deadline = self.begin()?;
        let result = self.run_extended(request, deadline).await;
        self.end(result)
    }

    /// Begins an operation: from here to [`Connection::end`] the connection counts as broken.
    pub(crate) fn begin(&mut self) -> Result<Deadline, Error> {
        if self.is_broken() {
            self.break_off();
            return Err(Error::Closed);
        }
        self.busy = true;
        Ok(self.deadline())
    }

    /// Ends an operation.
    pub(crate) fn end<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.busy = false;
        if result.as_ref().is_err_and(Error::ends_connection) {
            self.break_off();
        }
        result
    }

    /// Whether an earlier failure has closed it.
    pub(crate) fn is_given_up(&self) -> bool {
        self.broken
    }

    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.deadline)
    }

    async fn run_simple(&mut self, sql: &str, deadline: Deadline) -> Result<Vec<StatementResult>, Error> {
        self.send.clear();
        frontend::query(sql, &mut self.send).map_err(usage("the statement"))?;
        self.wire.send(&mut self.send, deadline, QUERY).await?;
        let mut exchange = SimpleQuery::default();
        self.wire.drive(&mut exchange, deadline, QUERY).await?;
        exchange.into_results().map_err(Error::Server)
    }

    async fn run_extended(&mut self, mut request: Request, deadline: Deadline) -> Result<Extended, Error> {
        frontend::sync(&mut request.buffer);
        self.wire.send(&mut request.buffer, deadline, QUERY).await?;
        if request.buffer.capacity() <= SEND_BUFFER_KEEP_BYTES {
            self.send = request.buffer;
        }
        let mut exchange = Extended::new(request.steps);
        self.wire.drive(&mut exchange, deadline, QUERY).await?;
        Ok(exchange)
    }

    async fn run_one(&mut self, request: Request) -> Result<QueryResult, Error> {
        let outcome = PipelineOutcome::new(self.run(request).await?);
        // One Execute was sent, so one result or an error is there, and the fallback is not reached.
        outcome.into_results()?.pop().ok_or(Error::Closed)
    }

    fn break_off(&mut self) {
        self.broken = true;
        self.wire.socket.shutdown();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_broken() {
            self.send.clear();
            frontend::terminate(&mut self.send);
            self.wire.try_send_once(&self.send);
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("token", &self.token)
            .field("transaction_status", &self.transaction_status())
            .field("is_broken", &self.is_broken())
            .finish_non_exhaustive()
    }
}
