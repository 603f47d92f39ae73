//! The prepared statements of the drain transaction. `docs/postgresql.md` lists them with their locks.

use super::batch::Batch;
use forebay_pgwire::{Connection, Error, Statement, oid};

/// The table of rows as COPY names it in the context of an error.
pub(super) const MESSAGES: &str = "messages";

/// All but the one that moves the checkpoint, in the order in which a round needs them.
pub(super) struct Statements {
    pub(super) begin: Statement,
    /// Locks partitions by id.
    pub(super) lock_partitions: Statement,
    /// The same, and reads their last sequence numbers.
    pub(super) read_partitions: Statement,
    /// Finds rows whose transaction ids are known.
    pub(super) probe: Statement,
    /// Reserves sequence numbers, if the last ones are those that are expected.
    pub(super) reserve: Statement,
    copy: Statement,
    copy_with_producers: Statement,
    pub(super) commit: Statement,
}

impl Statements {
    /// Prepares them for the quoted `schema`.
    pub(super) async fn prepare(conn: &mut Connection, schema: &str) -> Result<Self, Error> {
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
        Ok(Self {
            begin: conn.prepare("BEGIN ISOLATION LEVEL READ COMMITTED", &[]).await?,
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
    pub(super) fn copy_of(&self, batch: &Batch) -> &Statement {
        if batch.has_producers() { &self.copy_with_producers } else { &self.copy }
    }
}
