//! PostgreSQL's table of dead letters as the drain uses it, on its own connection and in its own transactions.

use super::{DeadLetter, Payload};
use crate::limits::COPY_CHUNK_BYTES;
use forebay_pgwire::{BinaryCopy, Connection, Error, Param};
use uuid::Uuid;

/// Counts the letters in `schema`, which is quoted.
///
/// # Errors
/// Those of PostgreSQL, here and below.
pub async fn count(conn: &mut Connection, schema: &str) -> Result<u64, Error> {
    let rows = conn.query_once(&format!("SELECT count(*) FROM {schema}.dead_letters"), &[]).await?;
    Ok(rows.first().map_or(Ok(0), |row| row.get_i64(0))? as u64)
}

/// Copies letters of the log `log_id` into the table, all or none, and returns how many PostgreSQL says that it took. It costs
/// half of what [`add`] does. A table that has row security takes no COPY, and rewrite rules are passed over.
///
/// # Errors
/// As [`count`].
pub async fn copy(conn: &mut Connection, schema: &str, log_id: [u8; 16], letters: &[DeadLetter]) -> Result<u64, Error> {
    let sql = format!(
        "COPY {schema}.dead_letters (queue, partition, message_id, transaction_id, trace_id, namespace, task, payload_text, \
         payload_bytes, record_kind, sqlstate, error, source, created_at, log_id, number, producer_sub) \
         FROM STDIN WITH (FORMAT binary)"
    );
    let mut copy = conn.copy_in(&sql).await?;
    let mut rows = BinaryCopy::start();
    for letter in letters {
        encode(letter, log_id, &mut rows);
        if rows.bytes().len() >= COPY_CHUNK_BYTES {
            copy.write(rows.bytes()).await?;
            rows.clear();
        }
    }
    rows.finish()?;
    copy.write(rows.bytes()).await?;
    copy.finish().await
}

fn encode(letter: &DeadLetter, log_id: [u8; 16], rows: &mut BinaryCopy) {
    fn field<T>(rows: &mut BinaryCopy, value: Option<T>, write: impl FnOnce(&mut BinaryCopy, T)) {
        match value {
            Some(value) => write(rows, value),
            None => rows.null(),
        }
    }
    let text = |rows: &mut BinaryCopy, text| field(rows, text, |rows, text: &str| rows.text(text));
    let uuid = |rows: &mut BinaryCopy, id| field(rows, id, |rows, id: Uuid| rows.uuid(id.as_bytes()));
    // Text where the bytes are text, and the bytes beside it where they are not.
    let bytes = match &letter.payload {
        Payload::Text(_) => None,
        Payload::Hex(_) => letter.payload.bytes(),
    };
    rows.row(17);
    rows.text(&letter.queue);
    rows.text(&letter.partition);
    uuid(rows, letter.message_id);
    text(rows, letter.transaction_id.as_deref());
    uuid(rows, letter.trace_id);
    text(rows, Some(letter.namespace.as_str()).filter(|name| !name.is_empty()));
    text(rows, Some(letter.task.as_str()).filter(|name| !name.is_empty()));
    rows.text(&letter.payload.shown());
    field(rows, bytes, |rows, bytes| rows.bytea(&bytes));
    field(rows, letter.record_kind, |rows, kind| rows.i32(kind.into()));
    rows.text(&letter.sqlstate);
    rows.text(&letter.error);
    rows.text("drain");
    rows.timestamptz_us(letter.accepted_us);
    rows.uuid(&log_id);
    field(rows, letter.number, |rows, number| rows.i64(number as i64));
    text(rows, letter.producer_sub.as_deref());
}

/// Adds letters of the log `log_id` with one statement, all or none, and returns how many PostgreSQL says that it added.
///
/// # Errors
/// As [`count`].
pub async fn add(conn: &mut Connection, schema: &str, log_id: [u8; 16], letters: &[DeadLetter]) -> Result<u64, Error> {
    // Text where the bytes are text, and the bytes beside it where they are not.
    let shown: Vec<_> = letters.iter().map(|letter| letter.payload.shown()).collect();
    let bytes: Vec<_> = letters.iter().map(|letter| letter.payload.bytes().unwrap_or_default()).collect();
    let bytes: Vec<Option<&[u8]>> = letters
        .iter()
        .zip(&bytes)
        .map(|(letter, bytes)| matches!(letter.payload, Payload::Hex(_)).then_some(bytes.as_ref()))
        .collect();
    fn texts<'a>(letters: &'a [DeadLetter], of: impl Fn(&'a DeadLetter) -> &'a str) -> Vec<&'a str> {
        letters.iter().map(of).collect()
    }
    fn uuids(letters: &[DeadLetter], of: impl Fn(&DeadLetter) -> Option<Uuid>) -> Vec<Option<[u8; 16]>> {
        letters.iter().map(|letter| of(letter).map(Uuid::into_bytes)).collect()
    }
    let sql = format!(
        "INSERT INTO {schema}.dead_letters (queue, partition, message_id, transaction_id, trace_id, namespace, task, \
         payload_text, payload_bytes, record_kind, sqlstate, error, source, created_at, log_id, number, producer_sub) \
         SELECT q, p, m, t, r, nullif(n, ''), nullif(k, ''), s, b, d, c, e, 'drain', \
         timestamptz 'epoch' + a * interval '1 microsecond', $14, l, u \
         FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[], \
         $9::bytea[], $10::integer[], $11::text[], $12::text[], $13::bigint[], $15::bigint[], $16::text[]) \
         v(q, p, m, t, r, n, k, s, b, d, c, e, a, l, u)"
    );
    let transaction_ids: Vec<Option<&str>> = letters.iter().map(|letter| letter.transaction_id.as_deref()).collect();
    let shown: Vec<&str> = shown.iter().map(AsRef::as_ref).collect();
    let kinds: Vec<Option<i32>> = letters.iter().map(|letter| letter.record_kind.map(i32::from)).collect();
    let accepted_us: Vec<i64> = letters.iter().map(|letter| letter.accepted_us).collect();
    let numbers: Vec<Option<i64>> = letters.iter().map(|letter| letter.number.map(|number| number as i64)).collect();
    let producers: Vec<Option<&str>> = letters.iter().map(|letter| letter.producer_sub.as_deref()).collect();
    let params = [
        Param::TextArray(&texts(letters, |letter| &letter.queue)),
        Param::TextArray(&texts(letters, |letter| &letter.partition)),
        Param::UuidOptArray(&uuids(letters, |letter| letter.message_id)),
        Param::TextOptArray(&transaction_ids),
        Param::UuidOptArray(&uuids(letters, |letter| letter.trace_id)),
        Param::TextArray(&texts(letters, |letter| &letter.namespace)),
        Param::TextArray(&texts(letters, |letter| &letter.task)),
        Param::TextArray(&shown),
        Param::ByteaOptArray(&bytes),
        Param::I32OptArray(&kinds),
        Param::TextArray(&texts(letters, |letter| &letter.sqlstate)),
        Param::TextArray(&texts(letters, |letter| &letter.error)),
        Param::I64Array(&accepted_us),
        Param::Uuid(log_id),
        Param::I64OptArray(&numbers),
        Param::TextOptArray(&producers),
    ];
    conn.execute_once(&sql, &params).await
}
