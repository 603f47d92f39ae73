//! A connection of a channel: pipelines go out, outcomes come in.

use super::{
    ChannelError, ChannelOptions, Unit, UnitResult,
    statements::{Statements, Use},
};
use crate::postgres::connect;
use forebay_pgwire::{Connection, Error, Flight, Oid, Param, PipelineOutcome, TransactionStatus};
use std::{collections::VecDeque, rc::Rc, sync::Arc, time::Instant};

/// A session, for one pipeline at a time.
pub(super) struct Session {
    connection: Connection,
    flight: Flight,
    statements: Statements,
    /// Statements that are being prepared behind the pipeline that is out, with the types of their parameters.
    preparing: VecDeque<(Rc<str>, Vec<Oid>)>,
    /// Whether its prepared statements do not fit any more.
    is_outdated: bool,
}

impl Session {
    /// Connects.
    pub(super) async fn connect(options: &ChannelOptions) -> Result<Self, ChannelError> {
        let mut config = (options.target)().ok_or(ChannelError::NotReady)?;
        config.application_name.get_or_insert_with(|| options.application_name.to_owned());
        let timeout = options.connect_timeout;
        config.connect_timeout = Some(config.connect_timeout.map_or(timeout, |own| own.min(timeout)));
        let connected = connect::connect(&config, options.statement_timeout).await;
        let connection = connected.map_err(|error| ChannelError::Connect(Arc::new(error)))?;
        Ok(Self {
            connection,
            flight: Flight::new(),
            statements: Statements::default(),
            preparing: VecDeque::new(),
            is_outdated: false,
        })
    }

    /// Whether it can carry a pipeline, while none is out. An idle session may have been closed by the server.
    pub(super) fn is_usable(&mut self) -> bool {
        match self.connection.check_idle() {
            Ok(()) => !self.is_outdated,
            Err(error) => {
                tracing::debug!(%error, "an idle connection to PostgreSQL was closed");
                false
            }
        }
    }

    /// Whether its prepared statements do not fit any more.
    pub(super) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Adds a unit to the next pipeline.
    pub(super) fn add(&mut self, unit: &Unit) -> Result<(), Error> {
        for (sql, params) in unit.statements() {
            match self.statements.look_up(sql, &params) {
                Use::Prepared(statement) => self.flight.statement(&self.connection, statement, &params)?,
                Use::Once { prepare } => {
                    if prepare {
                        self.preparing.push_back((Rc::clone(sql), params.iter().map(Param::oid).collect()));
                    }
                    self.flight.once(sql, &params)?;
                }
            }
        }
        self.flight.sync();
        Ok(())
    }

    /// Sends the pipeline, by the time `due`.
    pub(super) async fn send(&mut self, due: Instant) -> Result<(), Error> {
        for (sql, types) in &self.preparing {
            // A section for each: one that is refused leaves the others alone.
            self.flight.prepare(&mut self.connection, sql, types)?;
            self.flight.sync();
        }
        self.flight.set_deadline(Some(due));
        self.flight.send(&mut self.connection).await
    }

    /// Waits for the outcome of the pipeline's next unit, by the time `due`.
    ///
    /// # Errors
    /// Failures of the connection, which is of no more use then.
    pub(super) async fn receive(&mut self, due: Instant) -> Result<UnitResult, Error> {
        self.flight.set_deadline(Some(due));
        let outcome = self.flight.answer(&mut self.connection).await?;
        if self.connection.transaction_status() != TransactionStatus::Idle {
            return Ok(Err(ChannelError::LeftTransaction));
        }
        self.is_outdated |= makes_statements_outdated(&outcome);
        Ok(Ok(outcome))
    }

    /// Waits for what was prepared behind the pipeline's units.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(super) async fn finish_preparing(&mut self) -> Result<(), Error> {
        self.flight.set_deadline(None);
        while let Some((sql, types)) = self.preparing.pop_front() {
            let outcome = self.flight.answer(&mut self.connection).await?;
            self.statements.prepared(&sql, &types, outcome);
        }
        Ok(())
    }
}

/// Somebody let go of our prepared statements (26000), or a table has changed so that they do not fit any more (0A000).
fn makes_statements_outdated(outcome: &PipelineOutcome) -> bool {
    let failure = outcome.failure.as_ref();
    failure.is_some_and(|failure| matches!(failure.error.sqlstate.as_str(), "26000" | "0A000"))
}
