//! Messages that PostgreSQL refused, on their way into its table of dead letters.

use super::{batch::Batch, session::Session};
use forebay_pgwire::{Error, Param};
use std::sync::atomic::Ordering;

impl Session {
    pub(super) async fn count_dead_letters(&mut self) -> Result<(), Error> {
        let sql = format!("SELECT count(*) FROM {}.dead_letters", self.schema);
        let rows = self.conn.query_once(&sql, &[]).await?;
        let count = rows.first().map_or(Ok(0), |row| row.get_i64(0))?;
        self.shared.dead_letters.store(count as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Inserts the messages of `batch` that were refused, in the transaction that is open.
    pub(super) async fn set_aside(&mut self, batch: &Batch) -> Result<(), Error> {
        for (index, sqlstate, error) in batch.refused() {
            let Some(record) = batch.records.get(index) else { continue };
            let message = batch.message(index);
            let (queue, partition, transaction_id, payload, accepted_us) = match &message {
                Some(message) => (
                    message.queue,
                    message.partition,
                    Some(message.transaction_id_or_own()),
                    String::from_utf8_lossy(message.payload).into_owned(),
                    message.accepted_us,
                ),
                None => ("", "", None, hexadecimal(&record.payload), 0),
            };
            let null = |value: Option<[u8; 16]>| value.map_or(Param::Null(forebay_pgwire::oid::UUID), Param::Uuid);
            let params = [
                Param::Text(queue),
                Param::Text(partition),
                null(message.map(|message| message.id.into_bytes())),
                transaction_id.as_deref().map_or(Param::Null(forebay_pgwire::oid::TEXT), Param::Text),
                Param::Text(&payload),
                Param::Text(sqlstate),
                Param::Text(error),
                Param::TimestamptzUs(accepted_us),
            ];
            self.conn.execute(&self.statements.add_dead_letters, &params).await?;
        }
        Ok(())
    }
}

/// Bytes that are no text, as PostgreSQL writes a `bytea`.
fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold("\\x".to_owned(), |mut text, byte| {
        // Writing to a string does not fail.
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok());
        text
    })
}
