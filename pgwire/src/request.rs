//! Messages of the extended protocol on their way out, and the answers they will have.

use bytes::BytesMut;
use postgres_protocol::message::frontend::{self, BindError};

use crate::core::Step;
use crate::core::limits::PARAMS_MAX;
use crate::error::{Error, usage};
use crate::statement::Statement;
use crate::types::oid::Oid;
use crate::types::{Param, encode_param};

/// All parameters and results in binary.
const BINARY: [i16; 1] = [1];

/// Which object Describe and Close mean.
const STATEMENT: u8 = b'S';
const PORTAL: u8 = b'P';

#[derive(Default)]
pub(crate) struct Request {
    pub(crate) buffer: BytesMut,
    pub(crate) steps: Vec<Step>,
}

impl Request {
    /// A request in a buffer to use again.
    pub(crate) fn in_buffer(mut buffer: BytesMut) -> Self {
        buffer.clear();
        Self { buffer, steps: Vec::new() }
    }

    pub(crate) fn prepare(&mut self, name: &str, sql: &str, types: &[Oid]) -> Result<(), Error> {
        self.parse(name, sql, types.iter().copied(), types.len())?;
        frontend::describe(STATEMENT, name, &mut self.buffer).map_err(usage("Describe"))?;
        self.steps.push(Step::DescribeStatement);
        Ok(())
    }

    pub(crate) fn close(&mut self, name: &str) -> Result<(), Error> {
        frontend::close(STATEMENT, name, &mut self.buffer).map_err(usage("Close"))?;
        self.steps.push(Step::Close);
        Ok(())
    }

    pub(crate) fn execute(
        &mut self,
        connection_id: u64,
        statement: &Statement,
        params: &[Param<'_>],
    ) -> Result<(), Error> {
        statement.check(connection_id, params)?;
        self.bind(statement.name(), params)?;
        self.run(Step::Execute { columns: Some(statement.shared_columns()) })
    }

    /// A COPY FROM STDIN; its data follows.
    pub(crate) fn copy_in(&mut self, connection_id: u64, statement: &Statement) -> Result<(), Error> {
        statement.check(connection_id, &[])?;
        self.bind(statement.name(), &[])?;
        self.run(Step::CopyIn)
    }

    pub(crate) fn execute_once(&mut self, sql: &str, params: &[Param<'_>]) -> Result<(), Error> {
        self.parse("", sql, params.iter().map(Param::oid), params.len())?;
        self.bind("", params)?;
        frontend::describe(PORTAL, "", &mut self.buffer).map_err(usage("Describe"))?;
        self.steps.push(Step::DescribePortal);
        self.run(Step::Execute { columns: None })
    }

    fn parse(&mut self, name: &str, sql: &str, types: impl Iterator<Item = Oid>, params: usize) -> Result<(), Error> {
        if params > PARAMS_MAX {
            return Err(Error::Usage { what: format!("{params} parameters, at most {PARAMS_MAX} are possible") });
        }
        frontend::parse(name, sql, types, &mut self.buffer).map_err(usage("the statement"))?;
        self.steps.push(Step::Parse);
        Ok(())
    }

    fn bind(&mut self, name: &str, params: &[Param<'_>]) -> Result<(), Error> {
        frontend::bind("", name, BINARY, params, encode_param, BINARY, &mut self.buffer).map_err(|error| {
            let what = match error {
                BindError::Conversion(error) => error.to_string(),
                BindError::Serialization(error) => error.to_string(),
            };
            Error::Usage { what: format!("a parameter: {what}") }
        })?;
        self.steps.push(Step::Bind);
        Ok(())
    }

    fn run(&mut self, step: Step) -> Result<(), Error> {
        frontend::execute("", 0, &mut self.buffer).map_err(usage("Execute"))?;
        self.steps.push(step);
        Ok(())
    }
}
