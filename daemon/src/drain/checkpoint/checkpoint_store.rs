//! One drainer's checkpoint in PostgreSQL.

use super::{
    owner::Owner,
    row::{self, CheckpointRow},
};
use crate::state::database_id::DatabaseId;
use forebay_pgwire::{Connection, Error, Flight, Param, Statement, oid};
use uuid::Uuid;

/// The rows of a log in `drain_checkpoints`, of which one is this drainer's.
///
/// The errors of its functions are PostgreSQL's.
pub(crate) struct CheckpointStore {
    /// Quoted.
    schema: String,
    log_id: Uuid,
    drainer: usize,
    /// Reads the row and locks it.
    lock: Statement,
    /// Moves the row, if it is where it is expected to be.
    advance: Statement,
    /// What this drainer's row holds for the next transaction: the open one may have moved it.
    row: CheckpointRow,
    /// What the row holds without the open transaction.
    committed_row: CheckpointRow,
}

impl CheckpointStore {
    /// Prepares the statements for the row of `drainer` in the quoted `schema`.
    pub(crate) async fn prepare(
        conn: &mut Connection,
        schema: &str,
        log_id: Uuid,
        drainer: usize,
    ) -> Result<Self, Error> {
        let lock = format!(
            "SELECT {} FROM {schema}.drain_checkpoints WHERE log_id = $1 AND drainer = $2 FOR NO KEY UPDATE",
            CheckpointRow::COLUMNS
        );
        let advance = format!(
            "UPDATE {schema}.drain_checkpoints \
             SET lanes = $3, positions = $4, ordinals = $5, round_id = $6, rounds = rounds + 1, updated_at = now() \
             WHERE log_id = $1 AND drainer = $2 AND lanes = $7 AND positions = $8 AND ordinals = $9 AND round_id = $10"
        );
        let key = [oid::UUID, oid::INT4];
        let place = [oid::INT4_ARRAY, oid::INT8_ARRAY, oid::INT8_ARRAY, oid::UUID];
        Ok(Self {
            schema: schema.to_owned(),
            log_id,
            drainer,
            lock: conn.prepare(&lock, &key).await?,
            advance: conn.prepare(&advance, &[&key[..], &place, &place].concat()).await?,
            row: CheckpointRow::default(),
            committed_row: CheckpointRow::default(),
        })
    }

    /// What the row holds, as far as is known, without the open transaction.
    pub(crate) fn committed_row(&self) -> &CheckpointRow {
        &self.committed_row
    }

    /// What the row should hold for the next transaction.
    pub(crate) fn row(&self) -> &CheckpointRow {
        &self.row
    }

    /// The row is this process's.
    pub(crate) fn begin(&mut self, row: CheckpointRow) {
        self.row = row.clone();
        self.committed_row = row;
    }

    /// The open transaction moved the row to `row`.
    pub(crate) fn moved(&mut self, row: CheckpointRow) {
        self.row = row;
    }

    /// The transaction that moved the row last is committed.
    pub(crate) fn committed(&mut self) {
        self.committed_row = self.row.clone();
    }

    /// The transactions since the last commit are rolled back.
    pub(crate) fn rolled_back(&mut self) {
        self.row = self.committed_row.clone();
    }

    /// Adds the statement that moves the row to `to`. It changes no row unless the last round that moved it is the one that is
    /// believed to be.
    pub(crate) fn add_move(&self, flight: &mut Flight, conn: &Connection, to: &CheckpointRow) -> Result<(), Error> {
        let [log_id, drainer] = self.key();
        let place = |row: &CheckpointRow| row::uuid(row.round);
        let (to, from) = ((&to.checkpoint, place(to)), (&self.row.checkpoint, place(&self.row)));
        let params = [
            log_id,
            drainer,
            Param::I32Array(&to.0.lanes),
            Param::I64Array(&to.0.positions),
            Param::I64Array(&to.0.ordinals),
            to.1,
            Param::I32Array(&from.0.lanes),
            Param::I64Array(&from.0.positions),
            Param::I64Array(&from.0.ordinals),
            from.1,
        ];
        flight.statement(conn, &self.advance, &params)
    }

    /// The incarnations that the log's rows name, as they are committed. Nobody is waited for.
    pub(crate) async fn names(&self, conn: &mut Connection) -> Result<Vec<Option<Uuid>>, Error> {
        let sql = format!("SELECT DISTINCT incarnation FROM {}.drain_checkpoints WHERE log_id = $1", self.schema);
        let rows = conn.query_once(&sql, &[self.key()[0]]).await?;
        rows.iter().map(|row| Ok(row.get_opt_uuid(0)?.map(Uuid::from_bytes))).collect()
    }

    /// Takes the row of `drainer` for the present incarnation, in place of what was read of it: `row`. Returns what the row holds
    /// then; `None`: somebody else changed it meanwhile.
    pub(crate) async fn claim(
        &self,
        conn: &mut Connection,
        owner: &Owner,
        drainer: usize,
        row: CheckpointRow,
        round: Uuid,
    ) -> Result<Option<CheckpointRow>, Error> {
        let claim = format!(
            "UPDATE {}.drain_checkpoints SET incarnation = $3, round_id = $4 \
             WHERE log_id = $1 AND drainer = $2 AND lanes = $5 AND positions = $6 AND ordinals = $7 \
             AND incarnation IS NOT DISTINCT FROM $8 AND round_id IS NOT DISTINCT FROM $9",
            self.schema
        );
        let params = [
            self.key()[0],
            Param::I32(drainer as i32),
            row::uuid(Some(owner.incarnation)),
            row::uuid(Some(round)),
            Param::I32Array(&row.checkpoint.lanes),
            Param::I64Array(&row.checkpoint.positions),
            Param::I64Array(&row.checkpoint.ordinals),
            row::uuid(row.incarnation),
            row::uuid(row.round),
        ];
        let is_taken = owner.change(conn, &self.schema, &claim, &params).await?;
        let taken = CheckpointRow { incarnation: Some(owner.incarnation), round: Some(round), ..row };
        Ok(is_taken.then_some(taken))
    }

    /// Reads the row, after any transaction that still moves it.
    pub(crate) async fn lock(&self, conn: &mut Connection) -> Result<Option<CheckpointRow>, Error> {
        let rows = conn.query(&self.lock, &self.key()).await?;
        rows.first().map(CheckpointRow::read).transpose()
    }

    /// Reads the rows of all drainers, after any transaction that still moves one, in the order of the drainers' numbers.
    pub(crate) async fn lock_all(&self, conn: &mut Connection) -> Result<Vec<(i32, CheckpointRow)>, Error> {
        let sql = format!(
            "SELECT {}, drainer FROM {}.drain_checkpoints WHERE log_id = $1 ORDER BY drainer FOR NO KEY UPDATE",
            CheckpointRow::COLUMNS,
            self.schema
        );
        let rows = conn.query_once(&sql, &[self.key()[0]]).await?;
        rows.iter().map(|row| Ok((row.get_i32(5)?, CheckpointRow::read(row)?))).collect()
    }

    /// Number of rows of the log.
    pub(crate) async fn count(&self, conn: &mut Connection) -> Result<usize, Error> {
        let sql = format!("SELECT count(*) FROM {}.drain_checkpoints WHERE log_id = $1", self.schema);
        let rows = conn.query_once(&sql, &[self.key()[0]]).await?;
        rows.first().map_or(Ok(0), |row| row.get_i64(0).map(|count| count as usize))
    }

    /// Adds the missing rows of `drainers` drainers at `row`, for `owner`. Returns whether any was missing.
    pub(crate) async fn insert(
        &self,
        conn: &mut Connection,
        owner: &Owner,
        drainers: usize,
        row: &CheckpointRow,
    ) -> Result<bool, Error> {
        row::insert(conn, &self.schema, owner, drainers, row).await
    }

    /// Deletes the rows of all but the first `drainers` drainers.
    pub(crate) async fn keep_first(&self, conn: &mut Connection, drainers: usize) -> Result<(), Error> {
        let sql = format!("DELETE FROM {}.drain_checkpoints WHERE log_id = $1 AND drainer >= $2", self.schema);
        let params = [self.key()[0], Param::I32(drainers as i32)];
        conn.execute_once(&sql, &params).await.map(drop)
    }

    /// The database that this drainer's row names.
    pub(crate) async fn database(&self, conn: &mut Connection) -> Result<Option<DatabaseId>, Error> {
        let sql = format!(
            "SELECT system_identifier, database_oid FROM {}.drain_checkpoints WHERE log_id = $1 AND drainer = $2",
            self.schema
        );
        let rows = conn.query_once(&sql, &self.key()).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (system_identifier, oid) = (row.get_opt_i64(0)?, row.get_opt_i64(1)?);
        Ok(system_identifier.zip(oid).map(|(system_identifier, oid)| DatabaseId { system_identifier, oid }))
    }

    /// Writes into all rows of the log which database they are in.
    pub(crate) async fn name_database(&self, conn: &mut Connection, database: DatabaseId) -> Result<(), Error> {
        row::name_database(conn, &self.schema, self.log_id, database).await
    }

    /// Writes into the row which backend of PostgreSQL serves this session: the values of two SQL expressions.
    pub(crate) async fn set_backend(&self, conn: &mut Connection, pid_and_start: &str) -> Result<(), Error> {
        let sql = format!(
            "UPDATE {}.drain_checkpoints SET (backend_pid, backend_start) = ROW({pid_and_start}) \
             WHERE log_id = $1 AND drainer = $2",
            self.schema
        );
        conn.execute_once(&sql, &self.key()).await.map(drop)
    }

    fn key(&self) -> [Param<'static>; 2] {
        [Param::Uuid(self.log_id.into_bytes()), Param::I32(self.drainer as i32)]
    }
}
