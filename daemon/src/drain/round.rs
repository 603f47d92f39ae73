//! One drain transaction: move the checkpoint, reserve sequence numbers, COPY the rows, COMMIT.
//!
//! ```text
//!   straight   [BEGIN, move checkpoint, lock partitions, reserve, COPY]                          one answer, then COMMIT
//!   careful    [BEGIN, move checkpoint, read partitions, probe] … [dead letters, reserve, COPY]  two, then COMMIT
//! ```
//!
//! A straight round numbers its rows by what the session believes of the partitions, and PostgreSQL reserves only where that
//! is so. A careful one asks first: after somebody else has written to the same partitions, or where transaction ids may be
//! there already. The COMMIT travels with the next round where there is one.
//!
//! Lock order, for everybody: checkpoint row, then partition rows by id, then messages.

use super::{batch::Batch, checkpoint::Checkpoint, session::Session};
use crate::limits::{CAREFUL_ROUNDS, COPY_CHUNK_BYTES};
use crate::postgres::remedy::{Remedy, remedy};
use forebay_pgwire::{BinaryCopy, Error, Param, PipelineOutcome};

/// The table's name as COPY's error context gives it.
const MESSAGES: &str = "messages";

/// How an attempt ended that did not commit. It was rolled back, unless the connection was lost: then the checkpoint tells.
#[derive(Debug)]
pub enum RoundError {
    /// PostgreSQL refused, or was lost.
    Postgres(Error),
    /// A row was refused: which one in the order of COPY, if that is known.
    Row {
        /// Index among the batch's records.
        record: Option<usize>,
        /// What PostgreSQL said.
        error: Error,
    },
    /// The checkpoint is not where it was left.
    CheckpointMoved,
    /// A partition is not numbered as was believed: somebody else writes to it. The same again finds out.
    Misjudged,
    /// A partition that was known is not there any more.
    PartitionGone,
    /// PostgreSQL took another number of rows than it was sent.
    CountDiffers {
        /// Rows sent.
        sent: u64,
        /// Rows it says it has.
        taken: u64,
    },
    /// PostgreSQL takes no dead letters, and neither does the disk.
    LettersNotKept(std::io::Error),
}

impl From<Error> for RoundError {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

/// A round that was sent and not settled.
pub(crate) struct Sent {
    after: Checkpoint,
    probe: bool,
    /// What it copies; `None` while a careful one has to be told of the partitions.
    rows: Option<RowsSent>,
}

/// What the last section of a round holds behind its first statements.
struct RowsSent {
    /// Place of the reservation among the section's statements; the COPY follows it.
    reserve_at: usize,
    /// Partitions it reserves in.
    partitions: u64,
    /// Rows copied.
    rows: u64,
}

/// Partitions in which a round has rows.
struct Reservation {
    ids: Vec<i64>,
    last_seqs: Vec<i64>,
    counts: Vec<i64>,
}

impl Reservation {
    fn of(batch: &Batch) -> Self {
        let mut reservation = Self { ids: Vec::new(), last_seqs: Vec::new(), counts: Vec::new() };
        for partition in &batch.partitions {
            let count = batch.rows(partition).count() as i64;
            if count > 0 {
                reservation.ids.push(partition.id);
                reservation.last_seqs.push(partition.last_seq);
                reservation.counts.push(count);
            }
        }
        reservation
    }
}

impl Session {
    /// Whether a round of `batch` can only be sent once all before it is answered.
    pub(crate) fn must_wait(&self, batch: &Batch) -> bool {
        !self.partitions.know(batch)
            || self.are_queues_due()
            || self.are_dead_letters_due()
            || self.is_remembering_due(false)
    }

    /// Sends the round of `batch`; with `probe` it looks first for transaction ids that are there already.
    ///
    /// # Errors
    /// See [`RoundError`].
    pub(crate) async fn send(&mut self, batch: &mut Batch, probe: bool) -> Result<(), RoundError> {
        if self.flight.outstanding() == 0 {
            self.read_queues().await?;
            self.count_dead_letters().await?;
        }
        self.find_partitions(batch).await?;
        batch.forget_duplicates();
        batch.find_repeats();
        for (progress, mark) in self.shared.log.lanes.iter().zip(&batch.after) {
            progress.set_reachable(mark.position);
        }
        let after = Checkpoint::of(&self.shared.log.lanes, &batch.after);
        self.add_begin(&after)?;
        let careful = probe || self.careful_left > 0 || batch.refused().next().is_some();
        if careful {
            self.add_questions(batch, probe)?;
            self.flight.sync();
            self.flight.send(&mut self.conn).await?;
        }
        let rows = if careful { None } else { Some(self.send_rows(batch, 2).await?) };
        self.sent = Some(Sent { after, probe, rows });
        Ok(())
    }

    /// Waits until the round that was sent needs nothing but its COMMIT.
    ///
    /// # Errors
    /// See [`RoundError`]; the transaction is rolled back, or the connection lost.
    pub(crate) async fn settle(&mut self, batch: &mut Batch) -> Result<(), RoundError> {
        let Some(sent) = self.sent.take() else { return Err(RoundError::Postgres(Error::Closed)) };
        let outcome = self.settle_sent(batch, &sent).await;
        match &outcome {
            Ok(()) => {
                self.checkpoint = sent.after;
                self.partitions.numbered(batch);
                self.careful_left = self.careful_left.saturating_sub(1);
            }
            // Nothing is left to roll back, and the reason must not be lost: the next session decides about letters.
            Err(RoundError::Postgres(error)) if error.ends_connection() => {}
            Err(_) => {
                self.roll_back().await?;
                self.settle_letters_of(batch, false);
            }
        }
        outcome
    }

    /// Adds the COMMIT; it travels with what is sent next.
    pub(crate) fn add_commit(&mut self) -> Result<(), Error> {
        self.flight.statement(&self.conn, &self.statements.commit, &[])?;
        self.flight.sync();
        Ok(())
    }

    /// Sends what was added and did not travel yet.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        self.flight.send(&mut self.conn).await
    }

    /// Waits for the answer to the COMMIT that was sent. A round sent behind it is rolled back if it failed.
    ///
    /// # Errors
    /// See [`RoundError`].
    pub(crate) async fn committed(&mut self, batch: &mut Batch) -> Result<(), RoundError> {
        let outcome = self.flight.answer(&mut self.conn).await?.into_results();
        // A COMMIT of a transaction that has failed is answered by its name: ROLLBACK.
        let committed = outcome.map(|results| results.first().is_some_and(|result| result.tag.as_str() == "COMMIT"));
        let error = match committed {
            Ok(true) => {
                self.settle_letters_of(batch, true);
                return Ok(());
            }
            Ok(false) => RoundError::CheckpointMoved,
            Err(error) if remedy(&error) == Remedy::SetAside => RoundError::Row { record: None, error },
            Err(error) => RoundError::Postgres(error),
        };
        self.sent = None;
        self.roll_back().await?;
        self.settle_letters_of(batch, false);
        Err(error)
    }

    async fn roll_back(&mut self) -> Result<(), Error> {
        // What is numbered is not known before it is read again.
        self.partitions.forget();
        if self.conn.is_broken() && self.flight.outstanding() == 0 {
            return Ok(());
        }
        while self.flight.outstanding() > 0 {
            self.flight.answer(&mut self.conn).await?;
        }
        self.conn.simple("ROLLBACK").await.map(drop)
    }

    fn add_begin(&mut self, after: &Checkpoint) -> Result<(), Error> {
        let [log_id, drainer] = self.checkpoint_key();
        let params = [
            log_id,
            drainer,
            Param::I32Array(&after.lanes),
            Param::I64Array(&after.positions),
            Param::I64Array(&after.ordinals),
            Param::I32Array(&self.checkpoint.lanes),
            Param::I64Array(&self.checkpoint.positions),
            Param::I64Array(&self.checkpoint.ordinals),
        ];
        self.flight.statement(&self.conn, &self.statements.begin, &[])?;
        self.flight.statement(&self.conn, &self.statements.move_checkpoint, &params)
    }

    fn add_questions(&mut self, batch: &Batch, probe: bool) -> Result<(), Error> {
        let ids: Vec<i64> = batch.partitions.iter().map(|partition| partition.id).collect();
        self.flight.statement(&self.conn, &self.statements.read_partitions, &[Param::I64Array(&ids)])?;
        if probe {
            let (mut partitions, mut keys, mut indices) = (Vec::new(), Vec::new(), Vec::new());
            for partition in &batch.partitions {
                for index in batch.rows(partition) {
                    if let Some(key) = batch.message(index).and_then(|message| message.transaction_key()) {
                        partitions.push(partition.id);
                        keys.push(key.bytes);
                        indices.push(index as i32);
                    }
                }
            }
            let params = [Param::I64Array(&partitions), Param::UuidArray(&keys), Param::I32Array(&indices)];
            // Under the partitions' locks, and by a snapshot taken after them.
            self.flight.statement(&self.conn, &self.statements.probe, &params)?;
        }
        Ok(())
    }

    /// Sends the reservation and the rows, and ends the section, in which `statements_before` stand already.
    async fn send_rows(&mut self, batch: &Batch, statements_before: usize) -> Result<RowsSent, Error> {
        let Reservation { ids, last_seqs, counts } = Reservation::of(batch);
        let mut reserve_at = statements_before;
        let mut rows = 0;
        if !ids.is_empty() {
            // One row needs no order.
            if ids.len() > 1 {
                self.flight.statement(&self.conn, &self.statements.lock_partitions, &[Param::I64Array(&ids)])?;
                reserve_at += 1;
            }
            let params = [Param::I64Array(&ids), Param::I64Array(&last_seqs), Param::I64Array(&counts)];
            self.flight.statement(&self.conn, &self.statements.reserve, &params)?;
            self.flight.copy_in(&self.conn, self.statements.copy_of(batch))?;
            rows = self.copy_rows(batch).await?;
            self.flight.copy_done();
        }
        self.flight.sync();
        self.flight.send(&mut self.conn).await?;
        Ok(RowsSent { reserve_at, partitions: ids.len() as u64, rows })
    }

    /// Returns the rows that make up the batch, sent or not: where PostgreSQL has refused, the rest is spared.
    async fn copy_rows(&mut self, batch: &Batch) -> Result<u64, Error> {
        let mut rows = BinaryCopy::start_in(std::mem::take(&mut self.copy_buffer));
        let mut sent_any = false;
        let mut is_refused = false;
        for partition in &batch.partitions {
            let mut seq = partition.last_seq;
            for index in batch.rows(partition) {
                seq += 1;
                batch.encode(index, (partition.id, seq), &mut rows);
                if rows.bytes().len() >= COPY_CHUNK_BYTES && !is_refused {
                    if !sent_any {
                        self.flight.send(&mut self.conn).await?;
                        sent_any = true;
                    }
                    is_refused = !self.flight.copy_data(&mut self.conn, rows.bytes()).await?;
                }
                if is_refused || rows.bytes().len() >= COPY_CHUNK_BYTES {
                    rows.clear();
                }
            }
        }
        let count = rows.finish()?;
        if !is_refused {
            self.flight.add_copy_data(rows.bytes());
        }
        self.copy_buffer = rows.into_buffer();
        Ok(count)
    }

    async fn settle_sent(&mut self, batch: &mut Batch, sent: &Sent) -> Result<(), RoundError> {
        let outcome = self.flight.answer(&mut self.conn).await?;
        Self::check_checkpoint(&outcome)?;
        if let Some(rows) = &sent.rows {
            return self.check_rows(batch, rows, outcome);
        }
        let answers = outcome.into_results()?;
        self.partitions_read(batch, &answers[2].rows)?;
        if sent.probe {
            batch.probed(&answers[3].rows)?;
        }
        self.set_aside(batch).await?;
        if batch.copy_order().next().is_none() {
            return Ok(());
        }
        let rows = self.send_rows(batch, 0).await?;
        let outcome = self.flight.answer(&mut self.conn).await?;
        self.check_rows(batch, &rows, outcome)
    }

    /// The guard: the transaction is given up unless the old value was found.
    fn check_checkpoint(outcome: &PipelineOutcome) -> Result<(), RoundError> {
        match outcome.results.get(1) {
            Some(moved) if moved.tag.rows() != 1 => Err(RoundError::CheckpointMoved),
            _ => Ok(()),
        }
    }

    fn partitions_read(&mut self, batch: &mut Batch, rows: &[forebay_pgwire::Row]) -> Result<(), RoundError> {
        if rows.len() != batch.partitions.len() {
            return Err(RoundError::PartitionGone);
        }
        // Both are in the order of the ids.
        for (partition, row) in batch.partitions.iter_mut().zip(rows) {
            partition.last_seq = row.get_i64(1)?;
        }
        Ok(())
    }

    fn check_rows(&mut self, batch: &Batch, sent: &RowsSent, outcome: PipelineOutcome) -> Result<(), RoundError> {
        if let Some(reserved) = outcome.results.get(sent.reserve_at).filter(|_| sent.rows > 0)
            && reserved.tag.rows() != sent.partitions
        {
            self.careful_left = CAREFUL_ROUNDS;
            return Err(RoundError::Misjudged);
        }
        let copy_at = sent.reserve_at + 1;
        match outcome.failure {
            Some(failure) => {
                let in_copy = failure.statement == copy_at;
                let error = Error::Server(failure.error);
                if !in_copy || remedy(&error) != Remedy::SetAside {
                    return Err(RoundError::Postgres(error));
                }
                let row = error.db_error().and_then(|error| error.copy_row(MESSAGES));
                let record = row.and_then(|row| batch.copy_order().nth((row as usize).checked_sub(1)?));
                Err(RoundError::Row { record, error })
            }
            None if sent.rows == 0 => Ok(()),
            None => match outcome.results.get(copy_at).map_or(0, |copied| copied.tag.rows()) {
                // A COPY that ends at a row's border is taken as complete, with or without its trailer.
                taken if taken != sent.rows => Err(RoundError::CountDiffers { sent: sent.rows, taken }),
                _ => Ok(()),
            },
        }
    }
}
