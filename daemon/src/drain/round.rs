//! One drain transaction: reserve sequence numbers, COPY the rows, move the checkpoint, COMMIT.
//!
//! Lock order, for everybody: checkpoint row, then partition rows by id, then messages.

use super::{
    batch::{Batch, Verdict},
    checkpoint::Checkpoint,
    class::{Remedy, remedy},
    session::Session,
};
use crate::limits::COPY_CHUNK_BYTES;
use forebay_pgwire::{BinaryCopy, Error, Param};
use std::collections::HashMap;
use uuid::Uuid;

/// The table's name as COPY's error context gives it.
const MESSAGES: &str = "messages";

/// Fields of a row.
const FIELDS: u16 = 8;

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

impl Session {
    /// Carries out one attempt at `batch`. With `probe` it looks first for transaction ids that are there already.
    ///
    /// # Errors
    /// See [`RoundError`].
    pub async fn commit(&mut self, batch: &mut Batch, probe: bool) -> Result<(), RoundError> {
        for verdict in &mut batch.verdicts {
            if matches!(verdict, Verdict::Duplicate { .. }) {
                *verdict = Verdict::Row;
            }
        }
        self.read_queues().await?;
        self.count_dead_letters().await?;
        self.find_partitions(&mut batch.partitions).await?;
        for (progress, mark) in self.shared.lanes.iter().zip(&batch.after) {
            progress.set_reachable(mark.position);
        }
        let after = Checkpoint::of(&self.shared.lanes, &batch.after);
        let outcome = self.transact(batch, &after, probe).await;
        match &outcome {
            Ok(()) => self.checkpoint = after,
            Err(_) if !self.conn.is_broken() => {
                self.conn.simple("ROLLBACK").await?;
            }
            // Whether it committed is not known: nor is what becomes of its letters.
            Err(_) => return outcome,
        }
        self.settle_letters_of(batch, outcome.is_ok());
        outcome
    }

    async fn transact(&mut self, batch: &mut Batch, after: &Checkpoint, probe: bool) -> Result<(), RoundError> {
        let ids: Vec<i64> = batch.partitions.iter().map(|partition| partition.id).collect();
        let key = self.checkpoint_key();
        let begun = self
            .conn
            .pipeline()
            .once("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", &[])
            .statement(&self.statements.lock_checkpoint, &key)
            .statement(&self.statements.lock_partitions, &[Param::I64Array(&ids)])
            .run()
            .await?
            .into_results()?;
        let [_, checkpoint, partitions] = &begun[..] else { return Err(RoundError::CheckpointMoved) };
        let stands = checkpoint.rows.first().map(Checkpoint::read);
        if stands.transpose()?.as_ref() != Some(&self.checkpoint) {
            return Err(RoundError::CheckpointMoved);
        }
        if partitions.rows.len() != ids.len() {
            self.forget_partitions();
            return Err(RoundError::PartitionGone);
        }
        batch.find_repeats();
        if probe {
            self.probe(batch).await?;
        }
        self.set_aside(batch).await?;
        self.copy(batch).await?;
        let params = [
            key[0],
            key[1],
            Param::I32Array(&after.lanes),
            Param::I64Array(&after.positions),
            Param::I64Array(&after.ordinals),
            Param::I32Array(&self.checkpoint.lanes),
            Param::I64Array(&self.checkpoint.positions),
            Param::I64Array(&self.checkpoint.ordinals),
        ];
        // The guard stands on its own: the transaction is given up unless the old value was found.
        if self.conn.execute(&self.statements.move_checkpoint, &params).await? != 1 {
            return Err(RoundError::CheckpointMoved);
        }
        match self.conn.simple("COMMIT").await {
            // A deferred constraint or trigger refuses a row, and has rolled back.
            Err(error) if remedy(&error) == Remedy::SetAside => Err(RoundError::Row { record: None, error }),
            ended => Ok(ended.map(drop)?),
        }
    }

    /// Looks for rows that are there already, under the partitions' locks and by a snapshot taken after them.
    async fn probe(&mut self, batch: &mut Batch) -> Result<(), Error> {
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
        if keys.is_empty() {
            return Ok(());
        }
        let params = [Param::I64Array(&partitions), Param::UuidArray(&keys), Param::I32Array(&indices)];
        // By the id of the batch's first message with the key, for its repeats name that one.
        let mut known: HashMap<Uuid, Uuid> = HashMap::new();
        for row in self.conn.query(&self.statements.probe, &params).await? {
            let (index, of) = (row.get_i32(0)? as usize, Uuid::from_bytes(row.get_uuid(1)?));
            if let Some(message) = batch.message(index) {
                known.insert(message.id, of);
                batch.verdicts[index] = Verdict::Duplicate { of };
            }
        }
        for verdict in &mut batch.verdicts {
            if let Verdict::Duplicate { of } = verdict
                && let Some(first) = known.get(of)
            {
                *of = *first;
            }
        }
        Ok(())
    }

    async fn copy(&mut self, batch: &Batch) -> Result<(), RoundError> {
        let counts: Vec<(i64, i64)> = batch
            .partitions
            .iter()
            .map(|partition| (partition.id, batch.rows(partition).count() as i64))
            .filter(|(_, count)| *count > 0)
            .collect();
        if counts.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = counts.iter().map(|(id, _)| *id).collect();
        let numbers: Vec<i64> = counts.iter().map(|(_, count)| *count).collect();
        let params = [Param::I64Array(&ids), Param::I64Array(&numbers)];
        let mut last_seq = HashMap::new();
        for row in self.conn.query(&self.statements.reserve, &params).await? {
            last_seq.insert(row.get_i64(0)?, row.get_i64(1)?);
        }
        let outcome = self.copy_rows(batch, &last_seq).await;
        match outcome {
            Err(error) if remedy(&error) == Remedy::SetAside => {
                let row = error.db_error().and_then(|error| error.copy_row(MESSAGES));
                let order = batch.copy_order();
                let record = row.and_then(|row| order.get((row as usize).checked_sub(1)?).copied());
                Err(RoundError::Row { record, error })
            }
            Err(error) => Err(RoundError::Postgres(error)),
            // A COPY that ends at a row's border is taken as complete, with or without its trailer.
            Ok((sent, taken)) if sent != taken => Err(RoundError::CountDiffers { sent, taken }),
            Ok(_) => Ok(()),
        }
    }

    /// Returns the rows sent and the rows taken.
    async fn copy_rows(&mut self, batch: &Batch, last_seq: &HashMap<i64, i64>) -> Result<(u64, u64), Error> {
        let mut copy = self.conn.copy_in(&self.statements.copy).await?;
        let mut rows = BinaryCopy::start();
        for partition in &batch.partitions {
            let count = batch.rows(partition).count() as i64;
            let mut seq = last_seq.get(&partition.id).copied().unwrap_or_default() - count;
            for index in batch.rows(partition) {
                let Some(message) = batch.message(index) else { continue };
                seq += 1;
                rows.row(FIELDS);
                rows.i64(partition.id);
                rows.i64(seq);
                rows.timestamptz_us(message.accepted_us);
                rows.uuid(message.id.as_bytes());
                match message.trace_id {
                    Some(trace_id) => rows.uuid(trace_id.as_bytes()),
                    None => rows.null(),
                }
                let key = message.transaction_key();
                match &key {
                    Some(key) => rows.uuid(&key.bytes),
                    None => rows.null(),
                }
                match message.transaction_id.filter(|_| key.is_some_and(|key| !key.is_the_id)) {
                    Some(transaction_id) => rows.text(transaction_id),
                    None => rows.null(),
                }
                rows.jsonb(message.payload);
                if rows.bytes().len() >= COPY_CHUNK_BYTES {
                    copy.write(rows.bytes()).await?;
                    rows.clear();
                }
            }
        }
        let sent = rows.finish()?;
        copy.write(rows.bytes()).await?;
        Ok((sent, copy.finish().await?))
    }
}
