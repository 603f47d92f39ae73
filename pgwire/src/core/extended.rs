//! The extended query protocol: a pipeline of steps up to a Sync.

use std::collections::VecDeque;
use std::sync::Arc;

use postgres_protocol::Oid;

use super::message::{Backend, CommandTag};
use super::{Exchange, Progress};
use crate::db_error::DbError;
use crate::error::ProtocolError;
use crate::types::{Column, Row};

const DURING: &str = "an extended query";

/// A sent message that expects a reply.
#[derive(Debug, Clone)]
pub enum Step {
    /// Parse. The reply is ParseComplete.
    Parse,
    /// Bind. The reply is BindComplete.
    Bind,
    /// Describe of a statement. The reply is ParameterDescription, then RowDescription or NoData.
    DescribeStatement,
    /// Describe of a portal. The reply is RowDescription or NoData.
    DescribePortal,
    /// Execute. The reply is rows and CommandComplete.
    Execute {
        /// The columns of the rows. `None` stands for those of the preceding DescribePortal.
        columns: Option<Arc<[Column]>>,
    },
    /// Execute of a COPY FROM STDIN. The reply is CopyInResponse and, after the end of the data, CommandComplete.
    CopyIn,
    /// Close. The reply is CloseComplete.
    Close,
}

/// The result of an Execute.
#[derive(Debug, Clone)]
pub struct QueryResult {
    /// Its columns; empty for a statement that returns no rows.
    pub columns: Arc<[Column]>,
    /// Its rows, with all values in binary format.
    pub rows: Vec<Row>,
    /// Its command tag.
    pub tag: CommandTag,
}

/// The result of a DescribeStatement.
#[derive(Debug, Clone)]
pub struct StatementDescription {
    /// The types of the parameters.
    pub params: Arc<[Oid]>,
    /// The columns of the rows; empty for a statement that returns no rows.
    pub columns: Arc<[Column]>,
}

/// The error that ended a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The index, from 0, of the statement that failed: the number of statements that completed before it. The
    /// preparation of a statement counts as a statement.
    pub statement: usize,
    /// The server's error.
    pub error: Box<DbError>,
}

/// A pipeline in progress.
#[derive(Debug, Default)]
pub struct Extended {
    /// The steps whose reply is not complete.
    steps: VecDeque<Step>,
    /// The columns from the last DescribePortal, until its Execute takes them.
    portal_columns: Option<Arc<[Column]>>,
    /// The rows of the current Execute.
    rows: Vec<Row>,
    results: Vec<QueryResult>,
    /// The parameter types of the current DescribeStatement.
    param_types: Option<Vec<Oid>>,
    descriptions: Vec<StatementDescription>,
    failure: Option<Failure>,
}

impl Extended {
    /// A pipeline whose steps, followed by a Sync, were sent in this order.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::default() }
    }

    /// Adds a step that was sent before the Sync.
    pub fn expect(&mut self, step: Step) {
        self.steps.push_back(step);
    }

    /// Whether a statement has failed. The server then skips all steps up to the Sync.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The results of the statements that completed, the results of the DescribeStatements that completed, and the
    /// error that ended the pipeline early, if there was one.
    ///
    /// If the exchange is ready and there is no error, all steps have completed.
    pub fn into_parts(self) -> (Vec<QueryResult>, Vec<StatementDescription>, Option<Failure>) {
        (self.results, self.descriptions, self.failure)
    }

    fn on_step(&mut self, step: Step, message: Backend) -> Result<(), ProtocolError> {
        // The step stays at the front while its reply is not complete.
        let unfinished = match (step, message) {
            (Step::Parse, Backend::ParseComplete)
            | (Step::Bind, Backend::BindComplete)
            | (Step::Close, Backend::CloseComplete) => None,
            (Step::DescribeStatement, Backend::ParameterDescription(params)) if self.param_types.is_none() => {
                self.param_types = Some(params);
                Some(Step::DescribeStatement)
            }
            (Step::DescribeStatement, Backend::RowDescription(columns)) => self.describe(&columns)?,
            (Step::DescribeStatement, Backend::NoData) => self.describe(&[])?,
            (Step::DescribePortal, Backend::RowDescription(columns)) => {
                self.portal_columns = Some(columns);
                None
            }
            (Step::DescribePortal, Backend::NoData) => {
                self.portal_columns = None;
                None
            }
            (Step::Execute { columns }, message) => self.on_execute(columns, message)?,
            (Step::CopyIn, Backend::CopyInResponse) => Some(Step::CopyIn),
            (Step::CopyIn, Backend::CommandComplete(tag)) => {
                self.results.push(QueryResult { columns: Arc::from([]), rows: Vec::new(), tag });
                None
            }
            (_, other) => return Err(ProtocolError::unexpected(&other, DURING)),
        };
        if let Some(step) = unfinished {
            self.steps.push_front(step);
        }
        Ok(())
    }

    /// Completes a DescribeStatement. The server reports the columns in text format, but the client will ask for their
    /// values in binary format.
    fn describe(&mut self, columns: &[Column]) -> Result<Option<Step>, ProtocolError> {
        let Some(params) = self.param_types.take() else {
            return Err(ProtocolError::Unexpected { message: "RowDescription", during: DURING });
        };
        let columns = columns.iter().map(Column::in_binary).collect();
        self.descriptions.push(StatementDescription { params: params.into(), columns });
        Ok(None)
    }

    fn on_execute(&mut self, columns: Option<Arc<[Column]>>, message: Backend) -> Result<Option<Step>, ProtocolError> {
        let columns = columns.or_else(|| self.portal_columns.take()).unwrap_or_else(|| Arc::from([]));
        let tag = match message {
            Backend::DataRow(row) => {
                self.rows.push(Row::new(Arc::clone(&columns), row)?);
                return Ok(Some(Step::Execute { columns: Some(columns) }));
            }
            Backend::CommandComplete(tag) => tag,
            Backend::EmptyQuery => CommandTag::empty(),
            Backend::CopyInResponse | Backend::CopyOutResponse => return Err(ProtocolError::CopyNotExpected),
            other => return Err(ProtocolError::unexpected(&other, DURING)),
        };
        self.results.push(QueryResult { columns, rows: std::mem::take(&mut self.rows), tag });
        Ok(None)
    }
}

impl Exchange for Extended {
    fn on_message(&mut self, message: Backend) -> Result<Progress, ProtocolError> {
        match message {
            Backend::ReadyForQuery(status) if self.failure.is_some() || self.steps.is_empty() => {
                return Ok(Progress::Ready(status));
            }
            // After an error the server skips everything up to the Sync.
            _ if self.failure.is_some() => return Err(ProtocolError::unexpected(&message, DURING)),
            Backend::Error(error) => {
                self.rows.clear();
                self.failure = Some(Failure { statement: self.results.len() + self.descriptions.len(), error });
            }
            message => match self.steps.pop_front() {
                Some(step) => self.on_step(step, message)?,
                None => return Err(ProtocolError::unexpected(&message, DURING)),
            },
        }
        Ok(Progress::More)
    }
}
