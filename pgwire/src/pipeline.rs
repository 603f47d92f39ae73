//! Several statements in one round trip.

use crate::conn::Connection;
use crate::core::{Extended, Failure, QueryResult};
use crate::error::Error;
use crate::request::Request;
use crate::statement::Statement;
use crate::types::Param;

/// Statements that are sent together, with one Sync.
///
/// They are one transaction, unless a BEGIN is among them or precedes them. After the first error the server skips the
/// remaining statements and rolls back everything that is not committed.
#[must_use = "nothing is sent before run"]
pub struct Pipeline<'a> {
    connection: &'a mut Connection,
    request: Request,
    /// The error of the first statement that could not be encoded. Nothing is sent then.
    error: Option<Error>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(connection: &'a mut Connection) -> Self {
        let request = connection.request();
        Self { connection, request, error: None }
    }

    /// Adds a prepared statement.
    pub fn statement(mut self, statement: &Statement, params: &[Param<'_>]) -> Self {
        let id = self.connection.id();
        self.add(|request| request.execute(id, statement, params));
        self
    }

    /// Adds a statement that is parsed for this use only.
    pub fn once(mut self, sql: &str, params: &[Param<'_>]) -> Self {
        self.add(|request| request.execute_once(sql, params));
        self
    }

    /// Sends all statements, and waits for all replies. The deadline applies to all of them together.
    ///
    /// # Errors
    /// [`Error::Usage`], with nothing sent, if the parameters of a statement do not match it; else failures of the
    /// connection. An error of the server is part of the outcome, and so are the results before it.
    pub async fn run(self) -> Result<PipelineOutcome, Error> {
        match self.error {
            Some(error) => Err(error),
            None => self.connection.run(self.request).await,
        }
    }

    fn add(&mut self, encode: impl FnOnce(&mut Request) -> Result<(), Error>) {
        if self.error.is_none() {
            self.error = encode(&mut self.request).err();
        }
    }
}

/// The outcome of a pipeline, or of one section of a [`Flight`](crate::Flight).
#[derive(Debug, Clone)]
pub struct PipelineOutcome {
    /// The results of the statements that completed, in order.
    pub results: Vec<QueryResult>,
    /// The statements that were prepared, in order. They stay prepared even if a later statement fails.
    pub statements: Vec<Statement>,
    /// The error that ended the pipeline early, and the statement that caused it. The effects of the results before it
    /// may have been rolled back.
    pub failure: Option<Failure>,
}

impl PipelineOutcome {
    /// The outcome of an exchange that is ready, with the names of the statements that it prepared.
    pub(crate) fn new(exchange: Extended, connection_id: u64, statement_names: Vec<String>) -> Self {
        let (results, descriptions, failure) = exchange.into_parts();
        assert!(
            descriptions.len() <= statement_names.len()
                && (failure.is_some() || descriptions.len() == statement_names.len()),
            "an exchange that succeeded has described each of its statements"
        );
        let statements = statement_names.into_iter().zip(descriptions);
        let statements = statements.map(|(name, description)| Statement::new(connection_id, name, description));
        Self { results, statements: statements.collect(), failure }
    }

    /// All results.
    ///
    /// # Errors
    /// [`Error::Server`] if a statement failed.
    pub fn into_results(self) -> Result<Vec<QueryResult>, Error> {
        Ok(self.into_success()?.results)
    }

    /// The outcome, or the error if a statement failed.
    pub(crate) fn into_success(self) -> Result<Self, Error> {
        match self.failure {
            Some(failure) => Err(Error::Server(failure.error)),
            None => Ok(self),
        }
    }
}
