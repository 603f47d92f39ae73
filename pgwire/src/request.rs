//! Outgoing messages of the extended protocol, and the replies that they expect.

use bytes::BytesMut;
use postgres_protocol::message::frontend::{self, BindError};

use crate::core::Step;
use crate::core::limits::{COPY_DATA_MAX_BYTES, PARAMS_MAX};
use crate::error::{Error, usage};
use crate::statement::Statement;
use crate::types::oid::Oid;
use crate::types::{Param, encode_param};

/// The format codes that ask for all parameters and all results in binary format.
const BINARY: [i16; 1] = [1];

/// What Describe and Close refer to.
const STATEMENT: u8 = b'S';
const PORTAL: u8 = b'P';

/// The tag of CopyData.
const COPY_DATA: u8 = b'd';

/// Encoded messages that were not sent yet.
///
/// **Invariant:** a method that returns an error leaves the request as it was, so that the statements of other callers
/// in the same request can still be sent. `a_statement_that_cannot_be_encoded_leaves_the_others_alone` in
/// `tests/server/flights.rs` checks this.
#[derive(Default)]
pub(crate) struct Request {
    pub(crate) buffer: BytesMut,
    pub(crate) steps: Vec<Step>,
    /// The names of the statements that the request prepares, in order.
    pub(crate) statement_names: Vec<String>,
}

impl Request {
    /// An empty request that reuses a buffer.
    pub(crate) fn in_buffer(mut buffer: BytesMut) -> Self {
        buffer.clear();
        Self { buffer, ..Self::default() }
    }

    /// Parses and describes a statement.
    pub(crate) fn prepare(&mut self, name: String, sql: &str, types: &[Oid]) -> Result<(), Error> {
        self.encode(|request| {
            request.parse(&name, sql, types.iter().copied(), types.len())?;
            frontend::describe(STATEMENT, &name, &mut request.buffer).map_err(usage("Describe"))?;
            request.steps.push(Step::DescribeStatement);
            Ok(())
        })?;
        self.statement_names.push(name);
        Ok(())
    }

    pub(crate) fn close(&mut self, name: &str) -> Result<(), Error> {
        self.encode(|request| {
            frontend::close(STATEMENT, name, &mut request.buffer).map_err(usage("Close"))?;
            request.steps.push(Step::Close);
            Ok(())
        })
    }

    pub(crate) fn execute(
        &mut self,
        connection_id: u64,
        statement: &Statement,
        params: &[Param<'_>],
    ) -> Result<(), Error> {
        statement.check(connection_id, params)?;
        self.encode(|request| {
            request.bind(statement.name(), params)?;
            request.run(Step::Execute { columns: Some(statement.shared_columns()) })
        })
    }

    /// Starts a prepared COPY FROM STDIN, whose data must follow.
    pub(crate) fn copy_in(&mut self, connection_id: u64, statement: &Statement) -> Result<(), Error> {
        statement.check(connection_id, &[])?;
        self.encode(|request| {
            request.bind(statement.name(), &[])?;
            request.run(Step::CopyIn)
        })
    }

    pub(crate) fn copy_data(&mut self, data: &[u8]) {
        for chunk in data.chunks(COPY_DATA_MAX_BYTES) {
            self.buffer.extend_from_slice(&copy_data_header(chunk));
            self.buffer.extend_from_slice(chunk);
        }
    }

    pub(crate) fn copy_done(&mut self) {
        frontend::copy_done(&mut self.buffer);
    }

    pub(crate) fn execute_once(&mut self, sql: &str, params: &[Param<'_>]) -> Result<(), Error> {
        self.encode(|request| {
            request.parse("", sql, params.iter().map(Param::oid), params.len())?;
            request.bind("", params)?;
            frontend::describe(PORTAL, "", &mut request.buffer).map_err(usage("Describe"))?;
            request.steps.push(Step::DescribePortal);
            request.run(Step::Execute { columns: None })
        })
    }

    pub(crate) fn sync(&mut self) {
        frontend::sync(&mut self.buffer);
    }

    /// Encodes messages, and removes them again if one of them cannot be encoded.
    fn encode(&mut self, messages: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        let (bytes, steps) = (self.buffer.len(), self.steps.len());
        let result = messages(self);
        if result.is_err() {
            self.buffer.truncate(bytes);
            self.steps.truncate(steps);
        }
        result
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

/// The header of a CopyData message with this payload of at most [`COPY_DATA_MAX_BYTES`].
pub(crate) fn copy_data_header(payload: &[u8]) -> [u8; 5] {
    assert!(payload.len() <= COPY_DATA_MAX_BYTES, "the length fits the message's signed length word");
    let [a, b, c, d] = (payload.len() as u32 + 4).to_be_bytes();
    [COPY_DATA, a, b, c, d]
}
