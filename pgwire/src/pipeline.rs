//! Several statements in one round trip.

use crate::conn::Connection;
use crate::core::{Extended, Failure, QueryResult};
use crate::error::Error;
use crate::request::Request;
use crate::statement::Statement;
use crate::types::Param;

/// Statements gathered to be sent together, with one Sync.
///
/// Unless there is a BEGIN among them or before them, they are one transaction. At the first error the server skips the
/// rest, and rolls back what is not committed.
#[must_use = "nothing is sent before run"]
pub struct Pipeline<'a> {
    connection: &'a mut Connection,
    request: Request,
    refused: Option<Error>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(connection: &'a mut Connection) -> Self {
        let request = connection.request();
        Self { connection, request, refused: None }
    }

    /// Adds a prepared statement.
    pub fn statement(mut self, statement: &Statement, params: &[Param<'_>]) -> Self {
        let id = self.connection.id();
        self.add(|request| request.execute(id, statement, params));
        self
    }

    /// Adds a statement that is parsed for this once.
    pub fn once(mut self, sql: &str, params: &[Param<'_>]) -> Self {
        self.add(|request| request.execute_once(sql, params));
        self
    }

    /// Sends all, and takes all answers. The deadline is for all together.
    ///
    /// # Errors
    /// [`Error::Usage`], with nothing sent, if a statement's parameters do not fit; else failures of the connection.
    /// An error of the server is part of the outcome, beside the results before it.
    pub async fn run(self) -> Result<PipelineOutcome, Error> {
        match self.refused {
            Some(error) => Err(error),
            None => Ok(PipelineOutcome::new(self.connection.run(self.request).await?)),
        }
    }

    fn add(&mut self, encode: impl FnOnce(&mut Request) -> Result<(), Error>) {
        if self.refused.is_none() {
            self.refused = encode(&mut self.request).err();
        }
    }
}

/// What a pipeline gave.
#[derive(Debug, Clone)]
pub struct PipelineOutcome {
    /// Results of the statements that completed, in order.
    pub results: Vec<QueryResult>,
    /// The error that ended it early. Results before it may have been rolled back.
    pub failure: Option<Failure>,
}

impl PipelineOutcome {
    pub(crate) fn new(exchange: Extended) -> Self {
        let (results, _, failure) = exchange.into_parts();
        Self { results, failure }
    }

    /// All results.
    ///
    /// # Errors
    /// [`Error::Server`] if one failed.
    pub fn into_results(self) -> Result<Vec<QueryResult>, Error> {
        match self.failure {
            Some(failure) => Err(Error::Server(failure.error)),
            None => Ok(self.results),
        }
    }
}
