//! A channel as one request uses it: each of its units has the same time, and all end with the request.

use super::{
    channel::{Channel, ChannelError, Reply, Unit, UnitResult},
    work_room::{NoRoom, TakenRoom, WorkRoom},
};
use crate::state::cancel_flag::CancelFlag;
use forebay_pgwire::{Param, QueryResult, Row};
use std::{
    rc::Rc,
    time::{Duration, Instant},
};

/// A channel, a time for each unit, and a flag that gives up what was not sent yet.
#[derive(Clone)]
pub struct PgClient {
    channel: Channel,
    unit_timeout: Duration,
    cancel_flag: CancelFlag,
    room: Rc<WorkRoom>,
}

impl PgClient {
    /// A client whose units must each be answered within `unit_timeout`. It shares `room` with the others of its thread.
    #[must_use]
    pub fn new(channel: Channel, unit_timeout: Duration, cancel_flag: CancelFlag, room: Rc<WorkRoom>) -> Self {
        Self { channel, unit_timeout, cancel_flag, room }
    }

    /// Waits for room for a value of so many bytes; see [`WorkRoom::take`].
    ///
    /// # Errors
    /// [`NoRoom`].
    pub async fn room(&self, bytes: usize) -> Result<TakenRoom, NoRoom> {
        self.room.take(bytes, || self.cancel_flag.is_set()).await
    }

    /// Queues a unit. Several that are submitted one after the other travel together.
    pub fn submit(&self, unit: Unit) -> Reply {
        self.channel.submit(unit, Instant::now() + self.unit_timeout, Some(&self.cancel_flag))
    }

    /// Runs a unit whose statements must all succeed, and returns their results.
    ///
    /// # Errors
    /// See [`ChannelError`]; an error of the server is [`ChannelError::Postgres`].
    pub async fn run(&self, unit: Unit) -> Result<Vec<QueryResult>, ChannelError> {
        results(self.submit(unit).await)
    }

    /// Runs one statement that only reads, and returns its rows.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn rows(&self, sql: &Rc<str>, params: &[Param<'_>]) -> Result<Vec<Row>, ChannelError> {
        let last = self.run(Unit::read(sql, params)).await?.pop();
        Ok(last.map_or_else(Vec::new, |result| result.rows))
    }
}

/// The results of a unit whose statements must all succeed.
///
/// # Errors
/// As [`PgClient::run`].
pub fn results(result: UnitResult) -> Result<Vec<QueryResult>, ChannelError> {
    Ok(result?.into_results()?)
}
