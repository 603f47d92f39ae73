//! Tries the rows of a batch in its open transaction, and leaves that as it was: what [`Sift`] asks for.
//!
//! ```text
//!   SAVEPOINT sift; SET LOCAL statement_timeout; SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT kept
//!   for each group, one section   ROLLBACK TO kept, COPY, RELEASE kept, SAVEPOINT kept
//!   or for many single rows       ROLLBACK TO kept; SELECT … FROM try_messages(…); RELEASE kept; SAVEPOINT kept
//!   ROLLBACK TO sift; RELEASE sift
//! ```
//!
//! A group that is accepted stays until the end, so that rows that exclude each other are found. A group that fails is gone
//! with the next `ROLLBACK TO kept`. Deferred checks are made with each group: at COMMIT nobody could tell the row.

use super::{
    batch::Batch,
    bulk_trial::BulkTrial,
    copy_rows::{self, NumberedRow},
    obstacle::Obstacle,
    sift::{Sift, Tried},
    statements::{MESSAGES, Statements},
};
use crate::{
    limits::{SIFT_BULK_BYTES, SIFT_BULK_ROWS_MAX, SIFT_FLIGHT_BYTES, SIFT_GROUPS_MAX, SIFT_PATIENCE, trial_timeout},
    postgres::remedy::{Remedy, may_be_about_a_row, remedy},
};
use forebay_pgwire::{BinaryCopy, Connection, Error, Flight, PipelineOutcome, Statement};
use std::{
    collections::HashMap,
    ops::Range,
    time::{Duration, Instant},
};

/// Place of the COPY in a section.
const COPY_AT: usize = 1;

/// Single rows from which on one statement for all of them costs less.
const BULK_ROWS_MIN: usize = 8;

/// What a session needs to try rows.
pub(super) struct Trial {
    /// The statements with which a trial begins.
    begin: String,
    roll_back: Statement,
    release: Statement,
    savepoint: Statement,
    /// `None` where the database does not have the function, or the role may not call it.
    bulk: Option<BulkTrial>,
    /// Whether most rows of the last batch were refused.
    are_most_refused: bool,
}

/// The rows of a batch, by the indices of their records.
struct Rows<'a> {
    batch: &'a Batch,
    by_record: HashMap<usize, NumberedRow<'a>>,
}

impl Trial {
    /// Prepares the statements, for the quoted `schema`. `statement_timeout` is that of the session. A transaction is open.
    pub(super) async fn prepare(
        conn: &mut Connection,
        schema: &str,
        statement_timeout: Duration,
    ) -> Result<Self, Error> {
        let roll_back = conn.prepare("ROLLBACK TO SAVEPOINT kept", &[]).await?;
        let release = conn.prepare("RELEASE SAVEPOINT kept", &[]).await?;
        let savepoint = conn.prepare("SAVEPOINT kept", &[]).await?;
        conn.simple("SAVEPOINT kept").await?;
        let bulk = match BulkTrial::prepare(conn, schema).await {
            Ok(bulk) => Some(bulk),
            Err(error) if error.db_error().is_none() || error.ends_connection() => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "the function try_messages cannot be used");
                None
            }
        };
        conn.simple("ROLLBACK TO SAVEPOINT kept; RELEASE SAVEPOINT kept").await?;
        let begin = format!(
            "SAVEPOINT sift; SET LOCAL statement_timeout = {}; SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT kept",
            trial_timeout(statement_timeout).as_millis()
        );
        Ok(Self { begin, roll_back, release, savepoint, bulk, are_most_refused: false })
    }

    /// Tries the rows of `batch` that `sift` does not know. Its partitions are locked, and their numbers known.
    pub(super) async fn run(
        &mut self,
        conn: &mut Connection,
        statements: &Statements,
        batch: &Batch,
        sift: &mut Sift,
    ) -> Result<(), Error> {
        let by_record = copy_rows::numbered(batch).map(|row| (row.index(), row)).collect();
        let rows = Rows { batch, by_record };
        sift.start(batch.copy_order(), self.are_most_refused);
        let start = Instant::now();
        let mut is_begun = false;
        loop {
            let singles_max = if self.bulk.is_some() { SIFT_BULK_ROWS_MAX } else { SIFT_GROUPS_MAX };
            let groups = sift.next_groups(start.elapsed() >= SIFT_PATIENCE, singles_max);
            if groups.is_empty() {
                break;
            }
            if !std::mem::replace(&mut is_begun, true) {
                conn.simple(&self.begin).await?;
            }
            let are_many_singles = groups.len() >= BULK_ROWS_MIN && groups.iter().all(|group| group.len() == 1);
            if are_many_singles && self.bulk.is_some() && !sift.needs_separate_answers() {
                self.try_singles(conn, &rows, sift, groups).await?;
            } else {
                self.try_groups(conn, statements.copy_of(batch), &rows, sift, groups).await?;
            }
        }
        if is_begun {
            conn.simple("ROLLBACK TO SAVEPOINT sift; RELEASE SAVEPOINT sift").await?;
            self.are_most_refused = sift.are_most_refused();
        }
        Ok(())
    }

    /// Tries groups of a single row with one statement. Those that are too large together are put back.
    async fn try_singles(
        &mut self,
        conn: &mut Connection,
        rows: &Rows<'_>,
        sift: &mut Sift,
        groups: Vec<Range<usize>>,
    ) -> Result<(), Error> {
        let Some(bulk) = &self.bulk else { unreachable!("single rows are tried with a function that is there") };
        let mut bytes = 0;
        let mut numbered = Vec::with_capacity(groups.len());
        for group in &groups {
            let row = &rows.by_record[&sift.group(group)[0]];
            bytes += row.row().message.payload().len();
            if bytes > SIFT_BULK_BYTES && !numbered.is_empty() {
                break;
            }
            numbered.push(row);
        }
        conn.simple("ROLLBACK TO SAVEPOINT kept").await?;
        let outcomes = match bulk.run(conn, &numbered).await {
            Ok(outcomes) => outcomes,
            Err(error) if error.db_error().is_none() || error.ends_connection() => {
                sift.lost(&groups, numbered.len(), Obstacle::of(&error));
                return Err(error);
            }
            Err(error) => {
                // A single row, such as one that is cancelled, ends the call; or it may not be called at all.
                tracing::debug!(%error, "the function try_messages cannot be used");
                self.bulk = None;
                sift.put_back(groups);
                return Ok(());
            }
        };
        conn.simple("RELEASE SAVEPOINT kept; SAVEPOINT kept").await?;
        let mut groups = groups.into_iter();
        for (outcome, group) in outcomes.into_iter().zip(&mut groups) {
            sift.tried(group, outcome.map_or_else(|error| failed(error, None), |()| Ok(Tried::Accepted))?);
        }
        sift.put_back(groups);
        Ok(())
    }

    /// Sends `groups`, or the first ones if they are large, and tells `sift` what PostgreSQL answers.
    async fn try_groups(
        &self,
        conn: &mut Connection,
        copy: &Statement,
        rows: &Rows<'_>,
        sift: &mut Sift,
        groups: Vec<Range<usize>>,
    ) -> Result<(), Error> {
        let mut flight = Flight::new();
        let mut data = BinaryCopy::start();
        let mut sent = 0;
        for group in &groups {
            if flight.unsent_bytes() >= SIFT_FLIGHT_BYTES {
                break;
            }
            flight.statement(conn, &self.roll_back, &[])?;
            flight.copy_in(conn, copy)?;
            data = BinaryCopy::start_in(data.into_buffer());
            for record in sift.group(group) {
                copy_rows::encode(rows.batch, &rows.by_record[record], &mut data);
            }
            data.finish()?;
            flight.add_copy_data(data.bytes());
            flight.copy_done();
            flight.statement(conn, &self.release, &[])?;
            flight.statement(conn, &self.savepoint, &[])?;
            flight.sync();
            sent += 1;
        }
        sift.put_back(groups[sent..].iter().cloned());
        let groups = &groups[..sent];
        if let Err(error) = flight.send(conn).await {
            sift.lost(groups, 1, Obstacle::of(&error));
            return Err(error);
        }
        for (index, group) in groups.iter().enumerate() {
            match flight.answer(conn).await {
                Ok(outcome) => sift.tried(group.clone(), tried(outcome)?),
                Err(error) => {
                    sift.lost(&groups[index..], 1, Obstacle::of(&error));
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// What a section came to.
///
/// # Errors
/// One that is about no row.
fn tried(outcome: PipelineOutcome) -> Result<Tried, Error> {
    let Some(failure) = outcome.failure else { return Ok(Tried::Accepted) };
    let row = failure.error.copy_row(MESSAGES).and_then(|row| (row as usize).checked_sub(1));
    let error = Error::Server(failure.error);
    if failure.statement == COPY_AT { failed(error, row) } else { Err(error) }
}

/// What an error that a group met means; `row` is what PostgreSQL says about which of its rows it was.
///
/// # Errors
/// The error, if it is about no row.
fn failed(error: Error, row: Option<usize>) -> Result<Tried, Error> {
    match remedy(&error) {
        Remedy::Probe => Ok(Tried::Repeat { row }),
        _ if may_be_about_a_row(&error) => Ok(Tried::Failed { row, obstacle: Obstacle::of(&error) }),
        _ => Err(error),
    }
}
