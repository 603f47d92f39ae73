//! A connection of a channel: pipelines go out, outcomes come in.

use super::{
    ChannelError, ChannelOptions, Unit, UnitResult,
    statements::{Statements, Use},
};
use crate::postgres::connect;
use forebay_pgwire::{Connection, Error, Failure, Flight, Oid, Param, PipelineOutcome, TransactionStatus};
use std::{collections::VecDeque, rc::Rc, time::Instant};

/// A session, for one pipeline at a time.
pub(super) struct Session {
    connection: Connection,
    flight: Flight,
    statements: Statements,
    /// How many units each section of the pipeline that is out has, oldest first.
    sections: VecDeque<usize>,
    /// Units that only read and that share the section which is being added to.
    open_reads: usize,
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
        let connection = connect::connect(&config, &options.schema, options.statement_timeout).await?;
        Ok(Self {
            connection,
            flight: Flight::new(),
            statements: Statements::default(),
            sections: VecDeque::new(),
            open_reads: 0,
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

    /// Adds a unit to the next pipeline. Units that only read share a section, unless they are to be `alone`.
    pub(super) fn add(&mut self, unit: &Unit, alone: bool) -> Result<(), Error> {
        let shares = unit.is_read() && !alone;
        if !shares {
            self.end_reads();
        }
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
        if shares {
            self.open_reads += 1;
        } else {
            self.flight.sync();
            self.sections.push_back(1);
        }
        Ok(())
    }

    /// Ends the section of units that only read, if there is one.
    fn end_reads(&mut self) {
        if self.open_reads > 0 {
            self.flight.sync();
            self.sections.push_back(std::mem::take(&mut self.open_reads));
        }
    }

    /// Sends the pipeline, by the time `due`.
    pub(super) async fn send(&mut self, due: Instant) -> Result<(), Error> {
        self.end_reads();
        for (sql, types) in &self.preparing {
            // A section for each: one that is refused leaves the others alone.
            self.flight.prepare(&mut self.connection, sql, types)?;
            self.flight.sync();
        }
        self.flight.set_deadline(Some(due));
        self.flight.send(&mut self.connection).await
    }

    /// Waits for the outcome of the pipeline's next section, by the time `due`.
    ///
    /// # Errors
    /// Failures of the connection, which is of no more use then.
    pub(super) async fn receive(&mut self, due: Instant) -> Result<SectionOutcome, Error> {
        self.flight.set_deadline(Some(due));
        let outcome = self.flight.answer(&mut self.connection).await?;
        let Some(units) = self.sections.pop_front() else { panic!("a section that is answered was sent") };
        if self.connection.transaction_status() != TransactionStatus::Idle {
            let results = (0..units).map(|_| Err(ChannelError::LeftTransaction)).collect();
            return Ok(SectionOutcome { results, skipped: 0, left_transaction: true });
        }
        self.is_outdated |= makes_statements_outdated(&outcome);
        Ok(SectionOutcome::of(outcome, units))
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

/// What the units of a section come to.
pub(super) struct SectionOutcome {
    /// The results of the first units.
    pub(super) results: Vec<UnitResult>,
    /// So many units behind them were not carried out, since one before them has failed.
    pub(super) skipped: usize,
    /// Whether a unit has left a transaction open.
    pub(super) left_transaction: bool,
}

impl SectionOutcome {
    /// Divides the outcome of a section among its units: where there are several, each has one statement.
    fn of(outcome: PipelineOutcome, units: usize) -> Self {
        if units == 1 {
            return Self { results: vec![Ok(outcome)], skipped: 0, left_transaction: false };
        }
        let one = |results, failure| Ok(PipelineOutcome { results, statements: Vec::new(), failure });
        let mut results: Vec<UnitResult> = outcome.results.into_iter().map(|result| one(vec![result], None)).collect();
        match outcome.failure {
            // At the end of their transaction all of them fail.
            Some(failure) if results.len() == units => {
                let error = ChannelError::from(Error::Server(failure.error));
                results = (0..units).map(|_| Err(error.clone())).collect();
            }
            Some(failure) => results.push(one(Vec::new(), Some(Failure { statement: 0, ..failure }))),
            None => assert!(results.len() == units, "a section without an error has carried out its statements"),
        }
        Self { skipped: units - results.len(), results, left_transaction: false }
    }
}

/// Somebody let go of our prepared statements (26000), or a table has changed so that they do not fit any more (0A000).
fn makes_statements_outdated(outcome: &PipelineOutcome) -> bool {
    let failure = outcome.failure.as_ref();
    failure.is_some_and(|failure| matches!(failure.error.sqlstate.as_str(), "26000" | "0A000"))
}
