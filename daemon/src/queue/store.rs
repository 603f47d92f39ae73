//! Carries the dispatcher's batches out in PostgreSQL.

use super::{
    batch::{AckPair, Batch, BatchAnswer, LookRow, Outcome, PairId, ReadRange, TakePair, TakeRow, Then},
    statements::Statements,
    stored_message::StoredMessage,
};
use crate::{
    limits::REFUSALS_ERROR_INTERVAL,
    postgres::channel::{Channel, ChannelError, Reply, Unit},
    rt,
};
use forebay_pgwire::{Error, Param, Row};
use std::{
    cell::Cell,
    collections::HashMap,
    ops::RangeInclusive,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Cursors from which on a plan is right that was made with half as many.
const PLANNED_MIN: usize = 16;

/// The cursors in PostgreSQL.
pub struct CursorStore {
    channels: Vec<Channel>,
    statements: Statements,
    timeout: Duration,
    /// Cursors that were made, and how many there were when plans were made last.
    made: Cell<usize>,
    planned: Cell<usize>,
    /// When a refusal was logged last.
    told_at: Cell<Option<Instant>>,
}

impl CursorStore {
    /// Of the quoted `schema`, over these channels: one for each connection of the dispatcher. Each statement has `timeout`.
    #[must_use]
    pub fn new(channels: Vec<Channel>, schema: &str, timeout: Duration) -> Self {
        let statements = Statements::new(schema);
        let (made, planned) = (Cell::new(0), Cell::new(PLANNED_MIN));
        Self { channels, statements, timeout, made, planned, told_at: Cell::new(None) }
    }

    /// Carries a batch out on a connection: its statements travel together, one behind the other.
    pub async fn carry_out(&self, connection: usize, batch: &Batch) -> BatchAnswer<StoredMessage> {
        let submit = |is_empty: bool, unit: &dyn Fn() -> Unit| {
            (!is_empty).then(|| self.channels[connection].submit(unit(), Instant::now() + self.timeout, None))
        };
        let acks = submit(batch.acks.is_empty(), &|| self.ack(&batch.acks));
        let new: Vec<&TakePair> = batch.takes.iter().filter(|take| take.make_at.is_some()).collect();
        let made = submit(new.is_empty(), &|| self.make(&new));
        let takes = submit(batch.takes.is_empty(), &|| self.take(&batch.takes));
        let looks = submit(batch.looks.is_empty(), &|| self.look(&batch.looks));
        let reads = submit(batch.reads.is_empty(), &|| self.read(&batch.reads));
        let acks = self.outcome(acks, pairs).await;
        match self.outcome(made, |_| Ok(())).await {
            Outcome::Done(()) => self.has_made(new.len()),
            // The take finds no row then, and it is looked at.
            Outcome::Refused | Outcome::Lost => tracing::debug!("cursors could not be made"),
        }
        let (takes, looks) = (self.outcome(takes, taken).await, self.outcome(looks, looked).await);
        let reads = self.outcome(reads, taken).await;
        let takes = self.with_attempts(connection, takes).await;
        BatchAnswer { acks, takes, looks, reads: self.with_attempts(connection, reads).await }
    }

    /// Counts failures of messages of one lease, at most `may_fail` of each; those that failed more often become letters. Returns
    /// each number with whether it did; nothing if the lease is not held.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub async fn fail(
        &self,
        connection: usize,
        (pair, lease): (PairId, Uuid),
        failed: &[(i64, Option<&str>)],
        may_fail: i32,
    ) -> Result<Vec<(i64, bool)>, ChannelError> {
        let (seqs, errors): (Vec<i64>, Vec<Option<&str>>) = failed.iter().copied().unzip();
        let params = [
            Param::I64(pair.partition),
            Param::I64(pair.group),
            Param::Uuid(lease.into_bytes()),
            Param::I64Array(&seqs),
            Param::TextOptArray(&errors),
            Param::I32(may_fail),
        ];
        let rows = self.rows(connection, Unit::of(&self.statements.fail, &params)).await?;
        let row = |row: &Row| Ok((row.get_i64(0)?, row.get_bool(1)?));
        Ok(rows.iter().map(row).collect::<Result<_, Error>>()?)
    }

    /// Forgets the failures of messages.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub async fn forget(&self, connection: usize, pair: PairId, seqs: &[i64]) -> Result<(), ChannelError> {
        let params = [Param::I64(pair.partition), Param::I64(pair.group), Param::I64Array(seqs)];
        self.rows(connection, Unit::of(&self.statements.forget, &params)).await.map(drop)
    }

    /// Lets a lease go on for so many milliseconds from now. Returns its end in microseconds since 1970; `None`: it is not held.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub async fn extend(
        &self,
        connection: usize,
        (pair, lease): (PairId, Uuid),
        for_ms: u64,
    ) -> Result<Option<i64>, ChannelError> {
        let params = [
            Param::I64(pair.partition),
            Param::I64(pair.group),
            Param::Uuid(lease.into_bytes()),
            Param::I64(ms(for_ms)),
        ];
        let rows = self.rows(connection, Unit::of(&self.statements.extend, &params)).await?;
        Ok(rows.first().map(|row| row.get_timestamptz_us(0)).transpose()?)
    }

    /// The messages of a lease that is held: their numbers, and the keys of their transaction ids.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub async fn lease(
        &self,
        connection: usize,
        (pair, lease): (PairId, Uuid),
    ) -> Result<Vec<(i64, Uuid)>, ChannelError> {
        let params = [Param::I64(pair.partition), Param::I64(pair.group), Param::Uuid(lease.into_bytes())];
        let rows = self.rows(connection, Unit::of(&self.statements.lease, &params)).await?;
        let row = |row: &Row| {
            let key = row.get_opt_uuid(2)?.map_or_else(|| row.get_uuid(1), Ok)?;
            Ok((row.get_i64(0)?, Uuid::from_bytes(key)))
        };
        Ok(rows.iter().map(row).collect::<Result<_, Error>>()?)
    }

    async fn rows(&self, connection: usize, unit: Unit) -> Result<Vec<Row>, ChannelError> {
        let results =
            self.channels[connection].submit(unit, Instant::now() + self.timeout, None).await?.into_results()?;
        Ok(results.into_iter().next_back().map_or_else(Vec::new, |result| result.rows))
    }

    /// Reads how often messages failed, of pairs of which some did.
    async fn with_attempts(
        &self,
        connection: usize,
        taken: Outcome<Vec<Taken>>,
    ) -> Outcome<Vec<TakeRow<StoredMessage>>> {
        let mut taken = match taken {
            Outcome::Done(taken) => taken,
            Outcome::Refused => return Outcome::Refused,
            Outcome::Lost => return Outcome::Lost,
        };
        let retried: Vec<&TakeRow<StoredMessage>> =
            taken.iter().filter(|taken| taken.is_retried).map(|taken| &taken.row).collect();
        if !retried.is_empty() {
            let (partitions, groups) = ids(retried.iter().map(|row| row.pair));
            let from: Vec<i64> = retried.iter().map(|row| row.from).collect();
            let to: Vec<i64> = retried.iter().map(|row| row.to).collect();
            let params =
                [Param::I64Array(&partitions), Param::I64Array(&groups), Param::I64Array(&from), Param::I64Array(&to)];
            match self
                .rows(connection, Unit::read(&self.statements.attempts, &params))
                .await
                .and_then(|rows| Ok(attempts(&rows)?))
            {
                Ok(attempts) => {
                    for Taken { row, .. } in &mut taken {
                        for message in &mut row.messages {
                            message.attempts = attempts.get(&(row.pair, message.seq)).copied().unwrap_or(0);
                        }
                    }
                }
                // They are told to the consumer, and nothing depends on them.
                Err(error) => tracing::debug!(%error, "how often messages failed is not known"),
            }
        }
        Outcome::Done(taken.into_iter().map(|taken| taken.row).collect())
    }

    /// What became of a statement. Without one there are no rows.
    async fn outcome<T: Default>(&self, reply: Option<Reply>, rows: fn(&[Row]) -> Result<T, Error>) -> Outcome<T> {
        let Some(reply) = reply else { return Outcome::Done(T::default()) };
        let error = match reply.await {
            Ok(outcome) => match outcome.into_results() {
                Ok(results) => match rows(results.last().map_or(&[], |result| &result.rows)) {
                    Ok(rows) => return Outcome::Done(rows),
                    Err(error) => {
                        // It was carried out.
                        tracing::error!(code = "queue_row_unreadable", %error, "PostgreSQL answers what nobody asked for");
                        return Outcome::Lost;
                    }
                },
                Err(error) => ChannelError::from(error),
            },
            Err(error @ ChannelError::Lost(_)) => {
                tracing::debug!(%error, "the answer for consumers was lost");
                return Outcome::Lost;
            }
            Err(error) => error,
        };
        self.tell(&error);
        Outcome::Refused
    }

    /// Logs why a statement was not carried out: aloud, at times, if PostgreSQL refuses it.
    fn tell(&self, error: &ChannelError) {
        let is_refusal = matches!(error, ChannelError::Postgres(error) if error.db_error().is_some());
        let is_due = self.told_at.get().is_none_or(|at| at.elapsed() >= REFUSALS_ERROR_INTERVAL);
        if is_refusal && is_due {
            self.told_at.set(Some(Instant::now()));
            tracing::error!(code = "queue_refused", %error, "PostgreSQL refuses what consumers ask for; they get nothing meanwhile");
        } else {
            tracing::debug!(%error, "PostgreSQL did not carry out what consumers asked for");
        }
    }

    /// Cursors were made. A plan that was made while the table was empty reads the whole of it, so plans are made anew each time
    /// that it has doubled; later the server's own statistics see to that.
    fn has_made(&self, count: usize) {
        self.made.set(self.made.get() + count);
        if self.made.get() < 2 * self.planned.get() {
            return;
        }
        self.planned.set(self.made.get());
        for channel in &self.channels {
            let reply =
                channel.submit(Unit::of(&self.statements.forget_plans, &[]), Instant::now() + self.timeout, None);
            rt::spawn(async move {
                if let Err(error) = reply.await {
                    tracing::debug!(%error, "plans could not be forgotten");
                }
            });
        }
    }

    fn make(&self, new: &[&TakePair]) -> Unit {
        let (partitions, groups) = ids(new.iter().map(|take| take.pair));
        let at: Vec<i64> = new.iter().map(|take| take.make_at.unwrap_or(0)).collect();
        let params = [Param::I64Array(&partitions), Param::I64Array(&groups), Param::I64Array(&at)];
        Unit::of(&self.statements.make, &params)
    }

    fn take(&self, takes: &[TakePair]) -> Unit {
        let (partitions, groups) = ids(takes.iter().map(|take| take.pair));
        let counts: Vec<i64> = takes.iter().map(|take| take.count).collect();
        let lasts: Vec<i64> = takes.iter().map(|take| take.last).collect();
        let leases: Vec<[u8; 16]> = takes.iter().map(|take| take.lease.into_bytes()).collect();
        let lease_ms: Vec<Option<i64>> = takes.iter().map(|take| take.lease_ms.map(ms)).collect();
        let params = [
            Param::I64Array(&partitions),
            Param::I64Array(&groups),
            Param::I64Array(&counts),
            Param::I64Array(&lasts),
            Param::UuidArray(&leases),
            Param::I64OptArray(&lease_ms),
        ];
        Unit::of(&self.statements.take, &params)
    }

    fn ack(&self, acks: &[AckPair]) -> Unit {
        let (partitions, groups) = ids(acks.iter().map(|ack| ack.pair));
        let leases: Vec<[u8; 16]> = acks.iter().map(|ack| ack.lease.into_bytes()).collect();
        let before: Vec<i64> = acks.iter().map(|ack| ack.before).collect();
        let after: Vec<i64> = acks.iter().map(|ack| ack.cursor).collect();
        let acked_before: Vec<Option<String>> = acks.iter().map(|ack| bounds(&ack.acked_before)).collect();
        let acked: Vec<Option<String>> = acks.iter().map(|ack| bounds(&ack.acked)).collect();
        let acked_before: Vec<Option<&str>> = acked_before.iter().map(Option::as_deref).collect();
        let acked: Vec<Option<&str>> = acked.iter().map(Option::as_deref).collect();
        let ends: Vec<i64> = acks.iter().map(|ack| i64::from(ack.then != Then::Lease)).collect();
        let rest = |ack: &AckPair| if let Then::Rest(rest_ms) = ack.then { Some(ms(rest_ms)) } else { None };
        let rests: Vec<Option<i64>> = acks.iter().map(rest).collect();
        let params = [
            Param::I64Array(&partitions),
            Param::I64Array(&groups),
            Param::UuidArray(&leases),
            Param::I64Array(&before),
            Param::TextOptArray(&acked_before),
            Param::I64Array(&after),
            Param::TextOptArray(&acked),
            Param::I64Array(&ends),
            Param::I64OptArray(&rests),
        ];
        Unit::of(&self.statements.ack, &params)
    }

    fn look(&self, looks: &[PairId]) -> Unit {
        let (partitions, groups) = ids(looks.iter().copied());
        Unit::of(&self.statements.look, &[Param::I64Array(&partitions), Param::I64Array(&groups)])
    }

    fn read(&self, reads: &[ReadRange]) -> Unit {
        let (partitions, groups) = ids(reads.iter().map(|range| range.pair));
        let from: Vec<i64> = reads.iter().map(|range| range.from).collect();
        let to: Vec<i64> = reads.iter().map(|range| range.to).collect();
        let params =
            [Param::I64Array(&partitions), Param::I64Array(&groups), Param::I64Array(&from), Param::I64Array(&to)];
        Unit::of(&self.statements.read, &params)
    }
}

fn pairs(rows: &[Row]) -> Result<Vec<PairId>, Error> {
    rows.iter().map(pair).collect()
}

fn pair(row: &Row) -> Result<PairId, Error> {
    Ok(PairId { partition: row.get_i64(0)?, group: row.get_i64(1)? })
}

/// What was taken of a pair.
struct Taken {
    row: TakeRow<StoredMessage>,
    /// Whether messages of the pair may have failed.
    is_retried: bool,
}

/// There is a row for each message, and one for a pair without messages.
fn taken(rows: &[Row]) -> Result<Vec<Taken>, Error> {
    let mut taken: Vec<Taken> = Vec::new();
    let mut places: HashMap<PairId, usize> = HashMap::new();
    for row in rows {
        let pair = pair(row)?;
        let place = match places.get(&pair) {
            Some(place) => *place,
            None => {
                let (from, to) = (row.get_i64(2)?, row.get_i64(3)?);
                let of_pair = TakeRow { pair, from, to, acked: ranges(row, 4)?, messages: Vec::new() };
                taken.push(Taken { row: of_pair, is_retried: row.get_bool(5)? });
                places.insert(pair, taken.len() - 1);
                taken.len() - 1
            }
        };
        taken[place].row.messages.extend(StoredMessage::of(row)?);
    }
    for Taken { row, .. } in &mut taken {
        row.messages.sort_unstable_by_key(|message| message.seq);
    }
    Ok(taken)
}

fn attempts(rows: &[Row]) -> Result<HashMap<(PairId, i64), i32>, Error> {
    rows.iter().map(|row| Ok(((pair(row)?, row.get_i64(2)?), row.get_i32(3)?))).collect()
}

fn looked(rows: &[Row]) -> Result<Vec<LookRow>, Error> {
    let look = |row: &Row| {
        let of = row.get_opt_i64(2)?.zip(row.get_opt_i64(3)?);
        Ok(LookRow {
            pair: pair(row)?,
            of,
            start: row.get_i64(4)?,
            cursor: row.get_opt_i64(5)?,
            lease: row.get_opt_uuid(6)?.map(Uuid::from_bytes),
            lease_seq: row.get_opt_i64(7)?,
            free_in_ms: row.get_opt_i64(8)?.map(|ms| ms.max(0) as u64),
            acked: ranges(row, 9)?,
        })
    };
    rows.iter().map(look).collect()
}

fn ids(pairs: impl Iterator<Item = PairId>) -> (Vec<i64>, Vec<i64>) {
    pairs.map(|pair| (pair.partition, pair.group)).unzip()
}

fn ms(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// Ranges as `bigint[]` writes them: the first and the last number of each. `None`: there are none.
fn bounds(ranges: &[RangeInclusive<i64>]) -> Option<String> {
    let bounds: Vec<String> = ranges.iter().map(|range| format!("{},{}", range.start(), range.end())).collect();
    (!bounds.is_empty()).then(|| format!("{{{}}}", bounds.join(",")))
}

fn ranges(row: &Row, column: usize) -> Result<Vec<RangeInclusive<i64>>, Error> {
    let bounds = row.get_opt_i64_array(column)?.unwrap_or_default();
    Ok(bounds.chunks_exact(2).map(|bounds| bounds[0]..=bounds[1]).collect())
}
