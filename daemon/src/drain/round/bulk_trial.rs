//! Tries many single rows with one statement: the function `try_messages` of the schema.
//!
//! A row that is refused costs a tenth of what it costs as a statement of its own, and leaves no line in PostgreSQL's log.

use super::{batch::BatchRow, copy_rows::NumberedRow};
use crate::limits::SIFT_PATIENCE;
use forebay_pgwire::{Connection, DbError, Error, Param, Row, SqlState, Statement, oid};

/// The prepared call.
pub(super) struct BulkTrial {
    call: Statement,
}

/// What became of the first rows; the others were not tried.
pub(super) type Outcomes = Vec<Result<(), Error>>;

impl BulkTrial {
    /// Prepares the call for the quoted `schema`.
    pub(super) async fn prepare(conn: &mut Connection, schema: &str) -> Result<Self, Error> {
        let sql = format!(
            "SELECT n, code, reason, rule \
             FROM {schema}.try_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10 * interval '1 microsecond')"
        );
        let types = [
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::UUID_ARRAY,
            oid::UUID_ARRAY,
            oid::UUID_ARRAY,
            oid::TEXT_ARRAY,
            oid::TEXT_ARRAY,
            oid::TEXT_ARRAY,
            oid::INT8,
        ];
        Ok(Self { call: conn.prepare(&sql, &types).await? })
    }

    /// Tries `rows`, one after the other.
    ///
    /// # Errors
    /// Those of the call as a whole. Nothing is known of the rows then.
    pub(super) async fn run(&self, conn: &mut Connection, rows: &[&NumberedRow<'_>]) -> Result<Outcomes, Error> {
        fn column<'a, T>(rows: &'a [&NumberedRow<'_>], of: impl Fn(&BatchRow<'a>) -> T) -> Vec<T> {
            rows.iter().map(|row| of(row.row())).collect()
        }
        let partition_ids: Vec<i64> = rows.iter().map(|row| row.partition_id()).collect();
        let seqs: Vec<i64> = rows.iter().map(|row| row.seq()).collect();
        let accepted_us = column(rows, |row| row.message.accepted_us());
        let ids = column(rows, |row| row.message.id().into_bytes());
        let trace_ids = column(rows, |row| row.message.trace_id().map(uuid::Uuid::into_bytes));
        let keys = column(rows, |row| row.key.map(|key| key.bytes));
        let transaction_ids = column(rows, BatchRow::stored_transaction_id);
        let payloads = column(rows, |row| std::str::from_utf8(row.message.payload()).ok());
        let producers = column(rows, |row| row.message.known_producer());
        let params = [
            Param::I64Array(&partition_ids),
            Param::I64Array(&seqs),
            Param::I64Array(&accepted_us),
            Param::UuidArray(&ids),
            Param::UuidOptArray(&trace_ids),
            Param::UuidOptArray(&keys),
            Param::TextOptArray(&transaction_ids),
            Param::TextOptArray(&payloads),
            Param::TextOptArray(&producers),
            Param::I64(SIFT_PATIENCE.as_micros() as i64),
        ];
        read(&conn.query(&self.call, &params).await?, rows.len())
    }
}

/// The outcomes of `sent` rows.
fn read(rows: &[Row], sent: usize) -> Result<Outcomes, Error> {
    let mut outcomes = Outcomes::new();
    for row in rows {
        let tried = (row.get_i64(0)?.max(0) as usize).min(sent);
        let Some(code) = row.get_opt_str(1)? else {
            // The last one that was tried.
            outcomes.resize_with(tried.max(outcomes.len()), || Ok(()));
            break;
        };
        outcomes.resize_with(tried.saturating_sub(1).max(outcomes.len()), || Ok(()));
        let error = DbError {
            sqlstate: SqlState::from_bytes(code.as_bytes()).unwrap_or(SqlState::INTERNAL_ERROR),
            message: row.get_opt_str(2)?.unwrap_or_default().to_owned(),
            constraint: row.get_opt_str(3)?.map(str::to_owned),
            ..DbError::default()
        };
        outcomes.push(Err(Error::Server(Box::new(error))));
    }
    Ok(outcomes)
}
