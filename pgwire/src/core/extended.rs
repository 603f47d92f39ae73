//! The extended query protocol: a pipeline of steps up to one Sync.

use std::collections::VecDeque;
use std::sync::Arc;

use postgres_protocol::Oid;

use super::message::{Backend, CommandTag};
use super::{Exchange, Progress};
use crate::db_error::DbError;
use crate::error::ProtocolError;
use crate::types::{Column, Row};

const DURING: &str = "an extended query";

/// A message sent whose answer is awaited.
#[derive(Debug, Clone)]
pub enum Step {
    /// Parse, answered by ParseComplete.
    Parse,
    /// Bind, answered by BindComplete.
    Bind,
    /// Describe of a statement, answered by ParameterDescription and RowDescription or NoData.
    DescribeStatement,
    /// Describe of a portal, answered by RowDescription or NoData.
    DescribePortal,
    /// Execute, answered by rows and CommandComplete.
    Execute {
        /// The rows' columns where a prepared statement knows them, else those of the DescribePortal before.
        columns: Option<Arc<[Column]>>,
    },
    /// Execute of a COPY FROM STDIN, answered by CopyInResponse and, once its data has ended, CommandComplete.
    CopyIn,
    /// Close, answered by CloseComplete.
    Close,
}

/// What one Execute gave.
#[derive(Debug, Clone)]
pub struct QueryResult {
    /// Its columns; empty for a statement that returns no rows.
    pub columns: Arc<[Column]>,
    /// Its rows, with every value in binary.
    pub rows: Vec<Row>,
    /// Its command tag.
    pub tag: CommandTag,
}

/// What DescribeStatement gave.
#[derive(Debug, Clone)]
pub struct Described {
    /// Types of the parameters.
    pub params: Arc<[Oid]>,
    /// Columns of the rows; empty if it returns none.
    pub columns: Arc<[Column]>,
}

/// The error that ended a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// How many statements had completed before it: the place, from 0, of the one that failed.
    pub statement: usize,
    /// What the server said.
    pub error: Box<DbError>,
}

/// A pipeline under way.
#[derive(Debug, Default)]
pub struct Extended {
    steps: VecDeque<Step>,
    portal_columns: Option<Arc<[Column]>>,
    rows: Vec<Row>,
    results: Vec<QueryResult>,
    described_params: Option<Vec<Oid>>,
    described: Option<Described>,
    failure: Option<Failure>,
}

impl Extended {
    /// A pipeline whose messages, followed by one Sync, were sent in this order.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::default() }
    }

    /// Notes that one more message was sent, before the Sync.
    pub fn expect(&mut self, step: Step) {
        self.steps.push_back(step);
    }

    /// Whether the server has refused a statement, and skips everything up to the Sync.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The results of the statements that completed, the last DescribeStatement's answer, and the error that ended the
    /// pipeline early if one did.
    pub fn into_parts(self) -> (Vec<QueryResult>, Option<Described>, Option<Failure>) {
        (self.results, self.described, self.failure)
    }

    fn on_step(&mut self, step: Step, message: Backend) -> Result<(), ProtocolError> {
        let again = match (step, message) {
            (Step::Parse, Backend::ParseComplete)
            | (Step::Bind, Backend::BindComplete)
            | (Step::Close, Backend::CloseComplete) => None,
            (Step::DescribeStatement, Backend::ParameterDescription(params)) if self.described_params.is_none() => {
                self.described_params = Some(params);
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
        if let Some(step) = again {
            self.steps.push_front(step);
        }
        Ok(())
    }

    /// Ends a DescribeStatement; its columns arrive marked as text, and are asked for in binary.
    fn describe(&mut self, columns: &[Column]) -> Result<Option<Step>, ProtocolError> {
        let Some(params) = self.described_params.take() else {
            return Err(ProtocolError::Unexpected { message: "RowDescription", during: DURING });
        };
        let columns = columns.iter().map(Column::in_binary).collect();
        self.described = Some(Described { params: params.into(), columns });
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
                self.failure = Some(Failure { statement: self.results.len(), error });
            }
            message => match self.steps.pop_front() {
                Some(step) => self.on_step(step, message)?,
                None => return Err(ProtocolError::unexpected(&message, DURING)),
            },
        }
        Ok(Progress::More)
    }
}
