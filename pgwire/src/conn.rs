//! A connection and its operations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::config::Config;
use crate::connect::{self, CancelToken};
use crate::copy_in::CopyIn;
use crate::core::limits::SEND_BUFFER_KEEP_BYTES;
use crate::core::{Extended, Notification, QueryResult, SimpleQuery, StatementResult, TransactionStatus};
use crate::db_error::DbError;
use crate::deadline::Deadline;
use crate::error::{Error, PassFileWarning, ProtocolError, usage};
use crate::link::Link;
use crate::options::SearchPath;
use crate::pipeline::{Pipeline, PipelineOutcome};
use crate::request::Request;
use crate::statement::Statement;
use crate::types::oid::Oid;
use crate::types::{Param, Row};
use crate::wire::Wire;

const QUERY: &str = "a query";
const LISTEN: &str = "LISTEN";
const IDLE: &str = "idleness";

/// The id of the next connection. A statement knows the connection that it belongs to by this id.
static NEXT_CONNECTION_ID: AtomicU64 = AtomicU64::new(0);

/// A session with a PostgreSQL server. It carries one request at a time, on the thread that opened it.
///
/// A failure of the connection itself (see [`Error::ends_connection`]) breaks the connection. So does a future that is
/// dropped before it has completed. [`Connection::is_broken`] is true then, and every later operation returns
/// [`Error::Closed`]. After an error of the server the connection can still be used.
///
/// Dropping a connection sends Terminate to the server, without waiting.
pub struct Connection {
    link: Link,
    /// The memory for the next request.
    send_buffer: BytesMut,
    cancel_token: CancelToken,
    pass_file_warning: Option<PassFileWarning>,
    id: u64,
    statements_prepared: u64,
}

impl Connection {
    /// Connects and logs in, within `connect_timeout`. The hosts are tried in turn, and so are the addresses of a host.
    ///
    /// The system's resolver looks up a host's name, on a separate thread. The calling thread reads the files of
    /// certificates, keys and passwords at each connect. The thread must run a monoio runtime on io_uring with its
    /// timer enabled.
    ///
    /// # Errors
    /// - [`Error::Config`] if the settings cannot work,
    /// - [`Error::Connect`] or [`Error::Timeout`] if no server answers,
    /// - [`Error::Tls`] if the connection cannot be encrypted as required,
    /// - [`Error::Server`] if the server refuses the log-in: 28P01 for a wrong password, 3D000 for an unknown database,
    ///   57P03 while the server starts, 53300 if it has no free connection slot,
    /// - [`Error::Auth`] if the client refuses the server,
    /// - [`Error::TargetSessionMismatch`] if no session is of the kind that `target_session_attrs` asks for,
    /// - [`Error::Server`] if the server refuses a setting of [`Config::session_settings`].
    pub async fn connect(config: &Config, search_path: SearchPath) -> Result<Self, Error> {
        connect::connect(config, search_path).await
    }

    pub(crate) fn open(
        wire: Wire,
        cancel_token: CancelToken,
        pass_file_warning: Option<PassFileWarning>,
        operation_timeout: Option<Duration>,
    ) -> Self {
        Self {
            link: Link::new(wire, operation_timeout),
            send_buffer: BytesMut::new(),
            cancel_token,
            pass_file_warning,
            id: NEXT_CONNECTION_ID.fetch_add(1, Ordering::Relaxed),
            statements_prepared: 0,
        }
    }

    /// Sets the time that each later operation may take; `None` sets no limit. For a COPY or a
    /// [`Flight`](crate::Flight) the limit applies to each step.
    ///
    /// The deadline closes the connection, but it does not cancel the statement. The server may continue to run the
    /// statement and hold its locks until it notices. To limit that time too, set `statement_timeout` in
    /// [`Config::session_settings`], and from PostgreSQL 14 on `client_connection_check_interval`.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.link.set_operation_timeout(deadline);
    }

    /// Whether the connection can no longer be used.
    pub fn is_broken(&self) -> bool {
        self.link.is_broken()
    }

    /// Checks, without waiting, whether the server has closed an idle connection. It reads what the server has sent
    /// without being asked.
    ///
    /// # Errors
    /// [`Error::Server`] with the reason, if the server gave one; failures of the connection. Each of them breaks the
    /// connection.
    pub fn check_idle(&mut self) -> Result<(), Error> {
        self.link.begin()?;
        let arrived = match self.link.wire_mut().try_next(IDLE) {
            Ok(Some(message)) => Err(ProtocolError::unexpected(&message, IDLE).into()),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.link.end(arrived)
    }

    /// The status of the transaction, as reported at the end of the last operation.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.link.wire().session().transaction_status()
    }

    /// The last reported value of a run-time parameter that the server reports on its own, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.link.wire().session().parameter(name)
    }

    /// The process id of the session's backend, as in `pg_stat_activity`, if the server reported it.
    pub fn process_id(&self) -> Option<i32> {
        self.cancel_token.process_id()
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.link.wire().is_encrypted()
    }

    /// Why the password file ([`Config::passfile`]) was ignored, if it exists and was ignored. The server did not ask
    /// for a password.
    pub fn pass_file_warning(&self) -> Option<&PassFileWarning> {
        self.pass_file_warning.as_ref()
    }

    /// The notices since the last call, oldest first, and the number of older notices that were dropped. At most
    /// [`crate::core::limits::NOTICES_MAX`] notices are kept.
    pub fn take_notices(&mut self) -> (Vec<DbError>, u64) {
        self.link.wire_mut().session_mut().take_notices()
    }

    /// The notifications since the last call, oldest first, and the number of older notifications that were dropped. At
    /// most [`crate::core::limits::NOTIFICATIONS_MAX`] notifications are kept.
    pub fn take_notifications(&mut self) -> (Vec<Notification>, u64) {
        self.link.wire_mut().session_mut().take_notifications()
    }

    /// Waits for the next notification on a channel that this session listens to (by `LISTEN channel`), at most this
    /// long; `None` waits without a limit. Returns `Ok(None)` if none has arrived. The connection can then still be
    /// used.
    ///
    /// Notifications that arrived during other operations come first. The future may be dropped without loss.
    ///
    /// # Errors
    /// [`Error::Server`] if the server ends the session, and failures of the connection. Each of them breaks the
    /// connection.
    pub async fn wait_for_notification(&mut self, wait: Option<Duration>) -> Result<Option<Notification>, Error> {
        if let Some(notification) = self.link.wire_mut().session_mut().pop_notification() {
            return Ok(Some(notification));
        }
        if self.is_broken() {
            return Err(Error::Closed);
        }
        let waited = self.link.wire_mut().wait_for_notification(Deadline::after(wait), LISTEN).await;
        self.link.end_on_error(waited)?;
        Ok(self.link.wire_mut().session_mut().pop_notification())
    }

    /// A token that can cancel an operation of this connection while the operation is in progress.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel_token.clone()
    }

    /// Runs a string of statements, without parameters. Returns a result for each statement, with values in text
    /// format.
    ///
    /// The string is one transaction, unless it contains transaction commands.
    ///
    /// # Errors
    /// [`Error::Server`] if a statement fails. The statements after it do not run, and the results before it are lost.
    /// Also failures of the connection.
    pub async fn simple(&mut self, sql: &str) -> Result<Vec<StatementResult>, Error> {
        let deadline = self.link.begin()?;
        let result = self.run_simple(sql, deadline).await;
        self.link.end(result)
    }

    /// Lets the server parse a statement, which can then be run any number of times. The server chooses the types of
    /// parameters whose type is 0 or missing at the end.
    ///
    /// # Errors
    /// [`Error::Server`], [`Error::Usage`], and failures of the connection.
    pub async fn prepare(&mut self, sql: &str, types: &[Oid]) -> Result<Statement, Error> {
        let name = self.next_statement_name();
        let mut request = self.request();
        request.prepare(name, sql, types)?;
        Ok(only(self.run(request).await?.into_success()?.statements))
    }

    /// Frees a prepared statement on the server.
    ///
    /// # Errors
    /// As [`Connection::prepare`].
    pub async fn close_statement(&mut self, statement: Statement) -> Result<(), Error> {
        statement.check_connection(self.id)?;
        let mut request = self.request();
        request.close(statement.name())?;
        self.run(request).await?.into_success().map(drop)
    }

    /// Runs a prepared statement. Returns its rows, with values in binary format.
    ///
    /// # Errors
    /// [`Error::Usage`], with nothing sent, if the parameters do not match the statement; [`Error::Server`]; failures
    /// of the connection.
    pub async fn query(&mut self, statement: &Statement, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        let mut request = self.request();
        request.execute(self.id, statement, params)?;
        Ok(self.run_one(request).await?.rows)
    }

    /// Runs a prepared statement. Returns the number of rows in its command tag.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn execute(&mut self, statement: &Statement, params: &[Param<'_>]) -> Result<u64, Error> {
        let mut request = self.request();
        request.execute(self.id, statement, params)?;
        Ok(self.run_one(request).await?.tag.rows())
    }

    /// Parses and runs a statement in one round trip. Returns its rows, with values in binary format. The values
    /// determine the types of the parameters.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn query_once(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        let mut request = self.request();
        request.execute_once(sql, params)?;
        Ok(self.run_one(request).await?.rows)
    }

    /// Parses and runs a statement in one round trip. Returns the number of rows in its command tag.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn execute_once(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64, Error> {
        let mut request = self.request();
        request.execute_once(sql, params)?;
        Ok(self.run_one(request).await?.tag.rows())
    }

    /// Starts a pipeline: statements that run in one round trip.
    pub fn pipeline(&mut self) -> Pipeline<'_> {
        Pipeline::new(self)
    }

    /// Starts a `COPY … FROM STDIN`.
    ///
    /// # Errors
    /// [`Error::Server`] if the server refuses the statement, [`Error::Protocol`] if the statement is not a COPY FROM
    /// STDIN, and failures of the connection.
    pub async fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, Error> {
        CopyIn::begin(&mut self.link, sql).await
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn link_mut(&mut self) -> &mut Link {
        &mut self.link
    }

    /// A name that no other statement of this connection has.
    pub(crate) fn next_statement_name(&mut self) -> String {
        let name = format!("forebay_{}", self.statements_prepared);
        self.statements_prepared += 1;
        name
    }

    pub(crate) fn request(&mut self) -> Request {
        Request::in_buffer(std::mem::take(&mut self.send_buffer))
    }

    /// Sends a request with its Sync, and waits for all replies.
    pub(crate) async fn run(&mut self, request: Request) -> Result<PipelineOutcome, Error> {
        let deadline = self.link.begin()?;
        let result = self.run_extended(request, deadline).await;
        self.link.end(result)
    }

    async fn run_simple(&mut self, sql: &str, deadline: Deadline) -> Result<Vec<StatementResult>, Error> {
        self.send_buffer.clear();
        frontend::query(sql, &mut self.send_buffer).map_err(usage("the statement"))?;
        let wire = self.link.wire_mut();
        wire.send(&mut self.send_buffer, deadline, QUERY).await?;
        let mut exchange = SimpleQuery::default();
        wire.drive(&mut exchange, deadline, QUERY).await?;
        exchange.into_results().map_err(Error::Server)
    }

    async fn run_extended(&mut self, mut request: Request, deadline: Deadline) -> Result<PipelineOutcome, Error> {
        request.sync();
        let wire = self.link.wire_mut();
        wire.send(&mut request.buffer, deadline, QUERY).await?;
        if request.buffer.capacity() <= SEND_BUFFER_KEEP_BYTES {
            self.send_buffer = request.buffer;
        }
        let mut exchange = Extended::new(request.steps);
        wire.drive(&mut exchange, deadline, QUERY).await?;
        Ok(PipelineOutcome::new(exchange, self.id, request.statement_names))
    }

    async fn run_one(&mut self, request: Request) -> Result<QueryResult, Error> {
        Ok(only(self.run(request).await?.into_results()?))
    }
}

/// The only element of the outcome of a request with one statement.
fn only<T>(elements: Vec<T>) -> T {
    match <[T; 1]>::try_from(elements) {
        Ok([element]) => element,
        // The core reports success only after the server has answered every step.
        Err(elements) => unreachable!("{} results of one statement that succeeded", elements.len()),
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_broken() {
            self.send_buffer.clear();
            frontend::terminate(&mut self.send_buffer);
            self.link.wire_mut().try_send_once(&self.send_buffer);
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("cancel_token", &self.cancel_token)
            .field("transaction_status", &self.transaction_status())
            .field("is_broken", &self.is_broken())
            .finish_non_exhaustive()
    }
}
