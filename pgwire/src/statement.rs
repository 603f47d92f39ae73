//! Prepared statements.

use std::sync::Arc;

use crate::core::StatementDescription;
use crate::error::Error;
use crate::types::oid::Oid;
use crate::types::{Column, Param};

/// A statement that the server has parsed for one connection.
///
/// The server keeps it until the connection ends, or until [`crate::Connection::close_statement`]. Dropping this value
/// frees nothing on the server.
#[derive(Debug, Clone)]
pub struct Statement {
    connection_id: u64,
    name: Arc<str>,
    description: StatementDescription,
}

impl Statement {
    pub(crate) fn new(connection_id: u64, name: String, description: StatementDescription) -> Self {
        Self { connection_id, name: name.into(), description }
    }

    /// The types of its parameters, as the server determined them.
    pub fn params(&self) -> &[Oid] {
        &self.description.params
    }

    /// The columns of its rows; empty for a statement that returns no rows.
    pub fn columns(&self) -> &[Column] {
        &self.description.columns
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_columns(&self) -> Arc<[Column]> {
        Arc::clone(&self.description.columns)
    }

    pub(crate) fn check_connection(&self, connection_id: u64) -> Result<(), Error> {
        if self.connection_id == connection_id {
            return Ok(());
        }
        Err(Error::Usage { what: "a statement prepared on another connection".to_owned() })
    }

    /// Checks that the statement can be run on this connection with these parameters.
    ///
    /// The client checks the types because the server cannot: it would take the bytes of a `timestamptz` for a `bigint`
    /// without an error.
    pub(crate) fn check(&self, connection_id: u64, params: &[Param<'_>]) -> Result<(), Error> {
        self.check_connection(connection_id)?;
        let expected = self.params();
        if params.len() != expected.len() {
            let what = format!("{} parameters for a statement of {}", params.len(), expected.len());
            return Err(Error::Usage { what });
        }
        match params.iter().zip(expected).position(|(param, &oid)| !param.fits(oid)) {
            None => Ok(()),
            Some(index) => {
                let (given, wanted) = (params[index].oid(), expected[index]);
                let what = format!("parameter ${} is of type {given}, the statement wants {wanted} (oids)", index + 1);
                Err(Error::Usage { what })
            }
        }
    }
}
