//! One drainer's checkpoint in PostgreSQL.

use super::row::{self, Checkpoint};
use crate::state::database_id::DatabaseId;
use forebay_pgwire::{Connection, Error, Flight, Param, Statement, oid};

/// The rows of a log in `drain_checkpoints`, of which one is this drainer's.
///
/// The errors of its functions are PostgreSQL's.
pub(crate) struct CheckpointStore {
    /// Quoted.
    schema: String,
    log_id: [u8; 16],
    drainer: usize,
    /// Reads the row and locks it.
    lock: Statement,
    /// Moves the row, if it is where it is expected to be.
    advance: Statement,
    /// What this drainer's row holds for the next transaction: the open one may have moved it.
    row: Checkpoint,
    /// What the row holds without the open transaction.
    committed_row: Checkpoint,
}

impl CheckpointStore {
    /// Prepares the statements for the row of `drainer` in the quoted `schema`.
    pub(crate) async fn prepare(
        conn: &mut Connection,
        schema: &str,
        log_id: [u8; 16],
        drainer: usize,
    ) -> Result<Self, Error> {
        let lock = format!(
            "SELECT lanes, positions, ordinals FROM {schema}.drain_checkpoints \
             WHERE log_id = $1 AND drainer = $2 FOR NO KEY UPDATE"
        );
        let advance = format!(
            "UPDATE {schema}.drain_checkpoints \
             SET lanes = $3, positions = $4, ordinals = $5, rounds = rounds + 1, updated_at = now() \
             WHERE log_id = $1 AND drainer = $2 AND lanes = $6 AND positions = $7 AND ordinals = $8"
        );
        let key = [oid::UUID, oid::INT4];
        let arrays = [oid::INT4_ARRAY, oid::INT8_ARRAY, oid::INT8_ARRAY];
        Ok(Self {
            schema: schema.to_owned(),
            log_id,
            drainer,
            lock: conn.prepare(&lock, &key).await?,
            advance: conn.prepare(&advance, &[&key[..], &arrays, &arrays].concat()).await?,
            row: Checkpoint::default(),
            committed_row: Checkpoint::default(),
        })
    }

    /// What the row holds, as far as is known, without the open transaction.
    pub(crate) fn committed_row(&self) -> &Checkpoint {
        &self.committed_row
    }

    /// The row was read or created.
    pub(crate) fn begin(&mut self, row: Checkpoint) {
        self.row = row.clone();
        self.committed_row = row;
    }

    /// The open transaction moved the row to `row`.
    pub(crate) fn moved(&mut self, row: Checkpoint) {
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

    /// Adds the statement that moves the row to `to`. It changes no row if the row is not where it is believed to be.
    pub(crate) fn add_move(&self, flight: &mut Flight, conn: &Connection, to: &Checkpoint) -> Result<(), Error> {
        let [log_id, drainer] = self.key();
        let params = [
            log_id,
            drainer,
            Param::I32Array(&to.lanes),
            Param::I64Array(&to.positions),
            Param::I64Array(&to.ordinals),
            Param::I32Array(&self.row.lanes),
            Param::I64Array(&self.row.positions),
            Param::I64Array(&self.row.ordinals),
        ];
        flight.statement(conn, &self.advance, &params)
    }

    /// Reads the row, after any transaction that still moves it.
    pub(crate) async fn lock(&self, conn: &mut Connection) -> Result<Option<Checkpoint>, Error> {
        let rows = conn.query(&self.lock, &self.key()).await?;
        rows.first().map(Checkpoint::read).transpose()
    }

    /// Reads the rows of all drainers, after any transaction that still moves one, in the order of the drainers' numbers.
    pub(crate) async fn lock_all(&self, conn: &mut Connection) -> Result<Vec<(i32, Checkpoint)>, Error> {
        let sql = format!(
            "SELECT lanes, positions, ordinals, drainer FROM {}.drain_checkpoints WHERE log_id = $1 ORDER BY drainer \
             FOR NO KEY UPDATE",
            self.schema
        );
        let rows = conn.query_once(&sql, &[Param::Uuid(self.log_id)]).await?;
        rows.iter().map(|row| Ok((row.get_i32(3)?, Checkpoint::read(row)?))).collect()
    }

    /// Number of rows of the log.
    pub(crate) async fn count(&self, conn: &mut Connection) -> Result<usize, Error> {
        let sql = format!("SELECT count(*) FROM {}.drain_checkpoints WHERE log_id = $1", self.schema);
        let rows = conn.query_once(&sql, &[Param::Uuid(self.log_id)]).await?;
        rows.first().map_or(Ok(0), |row| row.get_i64(0).map(|count| count as usize))
    }

    /// Adds the missing rows of `drainers` drainers at `row`.
    pub(crate) async fn insert(&self, conn: &mut Connection, drainers: usize, row: &Checkpoint) -> Result<(), Error> {
        row::insert(conn, &self.schema, self.log_id, drainers, row).await.map(drop)
    }

    /// Deletes the rows of all but the first `drainers` drainers.
    pub(crate) async fn keep_first(&self, conn: &mut Connection, drainers: usize) -> Result<(), Error> {
        let sql = format!("DELETE FROM {}.drain_checkpoints WHERE log_id = $1 AND drainer >= $2", self.schema);
        let params = [Param::Uuid(self.log_id), Param::I32(drainers as i32)];
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
        [Param::Uuid(self.log_id), Param::I32(self.drainer as i32)]
    }
}
