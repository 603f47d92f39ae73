//! One drain transaction: move the checkpoint, reserve sequence numbers, COPY the rows, COMMIT.
//!
//! ```text
//!   direct    [BEGIN, move checkpoint, lock partitions, reserve, COPY]                               one answer, then COMMIT
//!   careful   [BEGIN, move checkpoint, read partitions, probe] … [dead letters] … [reserve, COPY]    two, then COMMIT
//! ```
//!
//! A direct round numbers its rows from the sequence numbers that the session knows, and PostgreSQL reserves them only if they
//! are right. A careful round asks first: after somebody else has written to the same partitions, when transaction ids may
//! be known already, or when the round has dead letters. `CommitPipeline` decides which COMMIT travels with which round.
//! A careful round that is sifted tries its rows first, to find those that PostgreSQL does not take ([`super::sift`]).
//!
//! Everybody locks in this order: checkpoint row, partition rows by id, messages.

use super::{
    batch::Batch,
    copy_rows,
    grouping::BatchPartition,
    round_error::RoundError,
    sift::Sift,
    statements::{MESSAGES, Statements},
    trial::Trial,
};
use crate::{
    drain::checkpoint::{checkpoint_store::CheckpointStore, row::CheckpointRow},
    limits::{CAREFUL_ROUNDS, COPY_CHUNK_BYTES},
    postgres::remedy::may_be_about_a_row,
};
use forebay_pgwire::{BinaryCopy, Connection, Error, Flight, Param, PipelineOutcome, Row};
use std::time::Duration;
use uuid::Uuid;

/// Places of statements in the first section of a round.
const MOVE_CHECKPOINT_AT: usize = 1;
const READ_PARTITIONS_AT: usize = 2;
const PROBE_AT: usize = 3;

/// How a round is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SendMode {
    /// The COMMIT of the transaction before it is sent in front of it.
    pub(crate) is_behind_commit: bool,
    /// PostgreSQL is asked for known transaction ids before rows are copied.
    pub(crate) is_probing: bool,
    /// Rows that PostgreSQL does not take are searched for before the rows are copied.
    pub(crate) is_sifting: bool,
}

/// A round whose answer is outstanding.
struct SentRound {
    /// Where it moves the checkpoint.
    after: CheckpointRow,
    is_probing: bool,
    is_sifting: bool,
    /// `None` while a careful round waits for what it asked.
    rows: Option<SentRows>,
}

/// The reservation and the rows of a round.
struct SentRows {
    /// Place of the reservation in its section; the COPY follows it.
    reserve_at: usize,
    partitions: u64,
    rows: u64,
}

/// What the first answer to a round came to.
pub(crate) enum FirstAnswer {
    /// The rows are copied. The round needs only its COMMIT.
    Copied {
        /// Where the transaction moves the checkpoint.
        after: CheckpointRow,
    },
    /// The batch has learned what a careful round asked. Dead letters and rows come next.
    Asked {
        /// Where the transaction moves the checkpoint.
        after: CheckpointRow,
        /// Rows that PostgreSQL does not take are to be searched for first.
        is_sifting: bool,
    },
}

/// The drain transactions of one session. Its functions take the session's connection, which nobody else may use while
/// answers are outstanding.
pub(crate) struct RoundTransaction {
    /// Quoted.
    schema: String,
    statement_timeout: Duration,
    statements: Statements,
    /// All that is under way.
    flight: Flight,
    sent: Option<SentRound>,
    /// Kept between rounds to encode rows in.
    copy_buffer: Vec<u8>,
    /// Rounds that are still to be careful.
    careful_left: u32,
    /// Prepared when rows are tried for the first time.
    trial: Option<Trial>,
}

impl RoundTransaction {
    /// Prepares the statements of rounds for the quoted `schema`. `statement_timeout` is that of the session.
    pub(crate) async fn prepare(
        conn: &mut Connection,
        schema: &str,
        statement_timeout: Duration,
    ) -> Result<Self, Error> {
        let statements = Statements::prepare(conn, schema).await?;
        let schema = schema.to_owned();
        Ok(Self {
            schema,
            statement_timeout,
            statements,
            flight: Flight::new(),
            sent: None,
            copy_buffer: Vec::new(),
            careful_left: 0,
            trial: None,
        })
    }

    /// Sends the round of `batch`, whose partitions are identified.
    pub(crate) async fn send(
        &mut self,
        conn: &mut Connection,
        store: &CheckpointStore,
        after: CheckpointRow,
        batch: &Batch,
        mode: SendMode,
    ) -> Result<(), RoundError> {
        assert!(self.sent.is_none(), "a round is sent once the one before is answered");
        if mode.is_behind_commit {
            self.add_commit(conn)?;
        }
        self.flight.statement(conn, &self.statements.begin, &[])?;
        store.add_move(&mut self.flight, conn, &after)?;
        // A transaction id that is known is no refusal.
        let is_probing = mode.is_probing || mode.is_sifting;
        let is_careful = is_probing || self.careful_left > 0 || batch.refused().next().is_some();
        let rows = match is_careful {
            true => {
                self.add_questions(conn, batch, is_probing)?;
                self.flight.sync();
                self.flight.send(conn).await?;
                None
            }
            false => Some(self.send_rows(conn, batch, READ_PARTITIONS_AT).await?),
        };
        self.sent = Some(SentRound { after, is_probing, is_sifting: mode.is_sifting, rows });
        Ok(())
    }

    /// Waits for the first answer to the round that was sent.
    pub(crate) async fn first_answer(
        &mut self,
        conn: &mut Connection,
        batch: &mut Batch,
    ) -> Result<FirstAnswer, RoundError> {
        let Some(sent) = self.sent.take() else { unreachable!("an answer is awaited after a round was sent") };
        let outcome = self.flight.answer(conn).await?;
        // The guard: the transaction is given up unless the checkpoint was where it was believed to be.
        if outcome.results.get(MOVE_CHECKPOINT_AT).is_some_and(|moved| moved.tag.rows() != 1) {
            return Err(RoundError::CheckpointMoved);
        }
        if let Some(rows) = &sent.rows {
            self.check_rows(batch, rows, outcome)?;
            self.careful_left = self.careful_left.saturating_sub(1);
            return Ok(FirstAnswer::Copied { after: sent.after });
        }
        let answers = outcome.into_results()?;
        set_last_seqs(batch, &answers[READ_PARTITIONS_AT].rows)?;
        if sent.is_probing {
            set_duplicates(batch, &answers[PROBE_AT].rows)?;
        }
        Ok(FirstAnswer::Asked { after: sent.after, is_sifting: sent.is_sifting })
    }

    /// Tries the rows of a careful round that `sift` does not know.
    pub(crate) async fn try_rows(
        &mut self,
        conn: &mut Connection,
        batch: &Batch,
        sift: &mut Sift,
    ) -> Result<(), Error> {
        let mut trial = match self.trial.take() {
            Some(trial) => trial,
            None => Trial::prepare(conn, &self.schema, self.statement_timeout).await?,
        };
        let outcome = trial.run(conn, &self.statements, batch, sift).await;
        self.trial = Some(trial);
        outcome
    }

    /// Copies the rows of a careful round, and waits for the answer.
    pub(crate) async fn copy(&mut self, conn: &mut Connection, batch: &Batch) -> Result<(), RoundError> {
        if batch.copy_order().next().is_some() {
            let rows = self.send_rows(conn, batch, 0).await?;
            let outcome = self.flight.answer(conn).await?;
            self.check_rows(batch, &rows, outcome)?;
        }
        self.careful_left = self.careful_left.saturating_sub(1);
        Ok(())
    }

    /// Sends the COMMIT of the transaction that needs nothing else.
    pub(crate) async fn send_commit(&mut self, conn: &mut Connection) -> Result<(), Error> {
        self.add_commit(conn)?;
        self.flight.send(conn).await
    }

    /// Waits for the answer to the COMMIT that was sent.
    pub(crate) async fn commit_answer(&mut self, conn: &mut Connection) -> Result<(), RoundError> {
        let outcome = self.flight.answer(conn).await?.into_results();
        // PostgreSQL answers the COMMIT of a failed transaction with the tag ROLLBACK.
        match outcome.map(|results| results.first().is_some_and(|result| result.tag.as_str() == "COMMIT")) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RoundError::CheckpointMoved),
            Err(error) if may_be_about_a_row(&error) => Err(RoundError::Row { record: None, error }),
            Err(error) => Err(RoundError::Postgres(error)),
        }
    }

    /// Whether answers are outstanding. The connection counts as broken for everybody else meanwhile.
    pub(crate) fn is_under_way(&self) -> bool {
        self.flight.outstanding() > 0
    }

    /// Takes the outstanding answers, and rolls back whatever transaction is open then.
    pub(crate) async fn roll_back(&mut self, conn: &mut Connection) -> Result<(), Error> {
        self.sent = None;
        while self.is_under_way() {
            self.flight.answer(conn).await?;
        }
        conn.simple("ROLLBACK").await.map(drop)
    }

    fn add_commit(&mut self, conn: &Connection) -> Result<(), Error> {
        self.flight.statement(conn, &self.statements.commit, &[])?;
        self.flight.sync();
        Ok(())
    }

    fn add_questions(&mut self, conn: &Connection, batch: &Batch, is_probing: bool) -> Result<(), Error> {
        let partitions = batch.groups().partitions();
        let created = partitions.iter().filter(|partition| partition.is_created());
        let ids: Vec<i64> = created.map(|partition| partition.id).collect();
        self.flight.statement(conn, &self.statements.read_partitions, &[Param::I64Array(&ids)])?;
        if !is_probing {
            return Ok(());
        }
        let (mut ids, mut keys, mut indices) = (Vec::new(), Vec::new(), Vec::new());
        for partition in partitions {
            for (row, key) in batch.rows(partition).filter_map(|row| Some((row, row.key?))) {
                ids.push(partition.id);
                keys.push(key.bytes);
                indices.push(row.index as i32);
            }
        }
        let params = [Param::I64Array(&ids), Param::UuidArray(&keys), Param::I32Array(&indices)];
        // Under the locks of the partitions, and by a snapshot that is taken after them.
        self.flight.statement(conn, &self.statements.probe, &params)
    }

    /// Sends the reservation and the rows, and ends the section, which has `statements_before` statements already.
    async fn send_rows(
        &mut self,
        conn: &mut Connection,
        batch: &Batch,
        statements_before: usize,
    ) -> Result<SentRows, Error> {
        let (mut ids, mut last_seqs, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (partition, count) in partitions_with_rows(batch) {
            ids.push(partition.id);
            last_seqs.push(partition.last_seq);
            counts.push(count as i64);
        }
        let mut reserve_at = statements_before;
        let mut rows = 0;
        if !ids.is_empty() {
            // A single row needs no order of locking.
            if ids.len() > 1 {
                self.flight.statement(conn, &self.statements.lock_partitions, &[Param::I64Array(&ids)])?;
                reserve_at += 1;
            }
            let params = [Param::I64Array(&ids), Param::I64Array(&last_seqs), Param::I64Array(&counts)];
            self.flight.statement(conn, &self.statements.reserve, &params)?;
            self.flight.copy_in(conn, self.statements.copy_of(batch))?;
            rows = self.copy_rows(conn, batch).await?;
            self.flight.copy_done();
        }
        assert_eq!(rows as i64, counts.iter().sum::<i64>(), "each reserved sequence number has a row");
        self.flight.sync();
        self.flight.send(conn).await?;
        Ok(SentRows { reserve_at, partitions: ids.len() as u64, rows })
    }

    /// Encodes and sends the rows of the batch. Returns their number. Rows behind a refusal of PostgreSQL's are not sent.
    async fn copy_rows(&mut self, conn: &mut Connection, batch: &Batch) -> Result<u64, Error> {
        let mut rows = BinaryCopy::start_in(std::mem::take(&mut self.copy_buffer));
        let mut is_begun = false;
        let mut is_refused = false;
        for row in copy_rows::numbered(batch) {
            copy_rows::encode(batch, &row, &mut rows);
            if rows.bytes().len() < COPY_CHUNK_BYTES {
                continue;
            }
            if !is_begun {
                self.flight.send(conn).await?;
                is_begun = true;
            }
            is_refused = is_refused || !self.flight.copy_data(conn, rows.bytes()).await?;
            rows.clear();
        }
        let count = rows.finish()?;
        if !is_refused {
            self.flight.add_copy_data(rows.bytes());
        }
        self.copy_buffer = rows.into_buffer();
        Ok(count)
    }

    fn check_rows(&mut self, batch: &Batch, sent: &SentRows, outcome: PipelineOutcome) -> Result<(), RoundError> {
        if let Some(reserved) = outcome.results.get(sent.reserve_at).filter(|_| sent.rows > 0)
            && reserved.tag.rows() != sent.partitions
        {
            self.careful_left = CAREFUL_ROUNDS;
            return Err(RoundError::NumberingChanged);
        }
        let copy_at = sent.reserve_at + 1;
        if let Some(failure) = outcome.failure {
            let is_in_copy = failure.statement == copy_at;
            let error = Error::Server(failure.error);
            if !is_in_copy || !may_be_about_a_row(&error) {
                return Err(RoundError::Postgres(error));
            }
            let row = error.db_error().and_then(|error| error.copy_row(MESSAGES));
            let record = row.and_then(|row| batch.copy_order().nth((row as usize).checked_sub(1)?));
            return Err(RoundError::Row { record, error });
        }
        if sent.rows == 0 {
            return Ok(());
        }
        // PostgreSQL takes a COPY that ends between two rows as complete, with or without its trailer.
        match outcome.results.get(copy_at).map_or(0, |copied| copied.tag.rows()) {
            taken if taken != sent.rows => Err(RoundError::CountDiffers { sent: sent.rows, taken }),
            _ => Ok(()),
        }
    }
}

/// The partitions of a batch that have rows, and the number of rows of each.
fn partitions_with_rows(batch: &Batch) -> impl Iterator<Item = (&BatchPartition, usize)> {
    let counted = batch.groups().partitions().iter().map(|partition| (partition, batch.row_count(partition)));
    counted.filter(|(_, count)| *count > 0)
}

/// Takes the last sequence numbers that PostgreSQL gives, in the order of the partitions' ids.
fn set_last_seqs(batch: &mut Batch, rows: &[Row]) -> Result<(), RoundError> {
    let partitions = batch.groups_mut().partitions_mut();
    let created = || partitions.iter().filter(|partition| partition.is_created());
    if rows.len() != created().count() {
        return Err(RoundError::PartitionGone);
    }
    for (partition, row) in partitions.iter_mut().filter(|partition| partition.is_created()).zip(rows) {
        if row.get_i64(0)? != partition.id {
            return Err(RoundError::PartitionGone);
        }
        partition.last_seq = row.get_i64(1)?;
    }
    Ok(())
}

/// Takes the duplicates that the probe found.
fn set_duplicates(batch: &mut Batch, rows: &[Row]) -> Result<(), RoundError> {
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let index = row.get_i32(0)?;
        let known = usize::try_from(index).ok().filter(|index| batch.is_row(*index));
        found.push((known.ok_or(RoundError::UnknownRow { index })?, Uuid::from_bytes(row.get_uuid(1)?)));
    }
    batch.set_duplicates(&found);
    Ok(())
}
