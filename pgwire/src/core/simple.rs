//! The simple query protocol: one string with any number of statements, and values in text format.

use std::sync::Arc;

use super::message::{Backend, CommandTag};
use super::{Exchange, Progress};
use crate::db_error::DbError;
use crate::error::ProtocolError;
use crate::types::{Column, Row};

const DURING: &str = "a simple query";

/// The result of a statement in a simple query.
#[derive(Debug, Clone)]
pub struct StatementResult {
    /// Its columns; empty for a statement that returns no rows.
    pub columns: Arc<[Column]>,
    /// Its rows, with all values in text format.
    pub rows: Vec<Row>,
    /// Its command tag.
    pub tag: CommandTag,
}

/// A simple query in progress.
#[derive(Debug, Default)]
pub struct SimpleQuery {
    results: Vec<StatementResult>,
    columns: Option<Arc<[Column]>>,
    rows: Vec<Row>,
    error: Option<Box<DbError>>,
}

impl SimpleQuery {
    /// The results in order.
    ///
    /// # Errors
    /// The server's error, which ended the string of statements. Earlier statements are rolled back, unless the string
    /// contains a COMMIT after them.
    pub fn into_results(self) -> Result<Vec<StatementResult>, Box<DbError>> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.results),
        }
    }

    fn complete(&mut self, tag: CommandTag) {
        let columns = self.columns.take().unwrap_or_else(|| Arc::from([]));
        self.results.push(StatementResult { columns, rows: std::mem::take(&mut self.rows), tag });
    }
}

impl Exchange for SimpleQuery {
    fn on_message(&mut self, message: Backend) -> Result<Progress, ProtocolError> {
        match message {
            Backend::ReadyForQuery(status) => return Ok(Progress::Ready(status)),
            _ if self.error.is_some() => return Err(ProtocolError::unexpected(&message, DURING)),
            Backend::RowDescription(columns) => self.columns = Some(columns),
            Backend::DataRow(row) => match &self.columns {
                Some(columns) => self.rows.push(Row::new(Arc::clone(columns), row)?),
                None => return Err(ProtocolError::unexpected(&Backend::DataRow(row), DURING)),
            },
            Backend::CommandComplete(tag) => self.complete(tag),
            Backend::EmptyQuery => self.complete(CommandTag::empty()),
            Backend::Error(error) => self.error = Some(error),
            Backend::CopyInResponse | Backend::CopyOutResponse => return Err(ProtocolError::CopyNotExpected),
            other => return Err(ProtocolError::unexpected(&other, DURING)),
        }
        Ok(Progress::More)
    }
}
