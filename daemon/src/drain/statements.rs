//! The statements of the drain transaction, prepared once a session. `docs/postgresql.md` lists them with their locks.

use super::batch::Batch;
use forebay_pgwire::{Connection, Error, Statement, oid};

pub(crate) struct Statements {
    pub(crate) begin: Statement,
    pub(crate) lock_checkpoint: Statement,
    pub(crate) move_checkpoint: Statement,
    /// Locks partitions, and counts them.
    pub(crate) lock_partitions: Statement,
    /// Locks partitions, and gives how far each is numbered.
    pub(crate) read_partitions: Statement,
    pub(crate) probe: Statement,
    pub(crate) reserve: Statement,
    /// Copies rows of which none has a producer, …
    copy: Statement,
    /// … and those of which one may.
    copy_with_producers: Statement,
    pub(crate) commit: Statement,
}

impl Statements {
    pub(crate) async fn prepare(conn: &mut Connection, schema: &str) -> Result<Self, Error> {
        let lock_checkpoint = format!(
            "SELECT lanes, positions, ordinals FROM {schema}.drain_checkpoints \
             WHERE log_id = $1 AND drainer = $2 FOR NO KEY UPDATE"
        );
        let move_checkpoint = format!(
            "UPDATE {schema}.drain_checkpoints \
             SET lanes = $3, positions = $4, ordinals = $5, rounds = rounds + 1, updated_at = now() \
             WHERE log_id = $1 AND drainer = $2 AND lanes = $6 AND positions = $7 AND ordinals = $8"
        );
        let locked = format!("FROM {schema}.partitions WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE");
        let lock_partitions = format!("SELECT count(*) FROM (SELECT id {locked}) locked");
        let read_partitions = format!("SELECT id, last_seq {locked}");
        let probe = format!(
            "SELECT v.i, m.id FROM unnest($1::bigint[], $2::uuid[], $3::integer[]) v(p, k, i) \
             JOIN {schema}.messages m ON m.partition_id = v.p AND m.transaction_key = v.k"
        );
        let reserve = format!(
            "UPDATE {schema}.partitions p SET last_seq = p.last_seq + v.n \
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) v(id, last_seq, n) \
             WHERE p.id = v.id AND p.last_seq = v.last_seq"
        );
        let copy = |more: &str| {
            format!(
                "COPY {schema}.messages \
                 (partition_id, seq, created_at, id, trace_id, transaction_key, transaction_id, payload{more}) \
                 FROM STDIN (FORMAT BINARY)"
            )
        };
        let key = [oid::UUID, oid::INT4];
        let arrays = [oid::INT4_ARRAY, oid::INT8_ARRAY, oid::INT8_ARRAY];
        Ok(Self {
            begin: conn.prepare("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", &[]).await?,
            lock_checkpoint: conn.prepare(&lock_checkpoint, &key).await?,
            move_checkpoint: conn.prepare(&move_checkpoint, &[&key[..], &arrays, &arrays].concat()).await?,
            lock_partitions: conn.prepare(&lock_partitions, &[oid::INT8_ARRAY]).await?,
            read_partitions: conn.prepare(&read_partitions, &[oid::INT8_ARRAY]).await?,
            probe: conn.prepare(&probe, &[oid::INT8_ARRAY, oid::UUID_ARRAY, oid::INT4_ARRAY]).await?,
            reserve: conn.prepare(&reserve, &[oid::INT8_ARRAY; 3]).await?,
            copy: conn.prepare(&copy(""), &[]).await?,
            copy_with_producers: conn.prepare(&copy(", producer_sub"), &[]).await?,
            commit: conn.prepare("COMMIT", &[]).await?,
        })
    }

    /// The COPY that takes the rows of `batch`.
    pub(crate) fn copy_of(&self, batch: &Batch) -> &Statement {
        if batch.has_producers { &self.copy_with_producers } else { &self.copy }
    }
}
