//! Prepared statements.

use std::sync::Arc;

use crate::core::Described;
use crate::error::Error;
use crate::types::oid::Oid;
use crate::types::{Column, Param};

/// A statement the server has parsed for one connection. It stays there until the connection ends or
/// [`crate::Connection::close_statement`]; dropping the value frees nothing on the server.
#[derive(Debug, Clone)]
pub struct Statement {
    connection_id: u64,
    name: Arc<str>,
    described: Described,
}

impl Statement {
    pub(crate) fn new(connection_id: u64, name: String, described: Described) -> Self {
        Self { connection_id, name: name.into(), described }
    }

    /// Types of its parameters, as the server settled them.
    pub fn params(&self) -> &[Oid] {
        &self.described.params
    }

    /// Columns of its rows; empty if it returns none.
    pub fn columns(&self) -> &[Column] {
        &self.described.columns
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_columns(&self) -> Arc<[Column]> {
        Arc::clone(&self.described.columns)
    }

    pub(crate) fn belongs_to(&self, connection_id: u64) -> Result<(), Error> {
        if self.connection_id == connection_id {
            return Ok(());
        }
        Err(Error::Usage { what: "a statement prepared on another connection".to_owned() })
    }

    /// Checked here because the server would take eight bytes for a `smallint` as garbage, not as a mistake.
    pub(crate) fn check(&self, connection_id: u64, params: &[Param<'_>]) -> Result<(), Error> {
        self.belongs_to(connection_id)?;
        let expected = self.params();
        if params.len() != expected.len() {
            let what = format!("{} parameters for a statement of {}", params.len(), expected.len());
            return Err(Error::Usage { what });
        }
        match params.iter().zip(expected).position(|(param, &oid)| !param.fits(oid)) {
            None => Ok(()),
            Some(place) => {
                let (given, wanted) = (params[place].oid(), expected[place]);
                let what = format!("parameter ${} is of type {given}, the statement wants {wanted} (oids)", place + 1);
                Err(Error::Usage { what })
            }
        }
    }
}
