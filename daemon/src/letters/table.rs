//! PostgreSQL's table of dead letters.
//!
//! Lock order, as everybody's: partition rows, then letters, then messages.

use super::{DeadLetter, Payload};
use crate::{
    message::TransactionKey,
    postgres::remedy::{Remedy, remedy},
};
use forebay_pgwire::{Connection, Error, Param, Row};
use uuid::Uuid;

/// Letters of a page at most.
pub const PAGE_MAX: u32 = 1000;

/// Columns of a letter, in the order in which [`read`] takes them.
const COLUMNS: &str = "id, number, queue, partition, message_id, transaction_id, trace_id, namespace, task, record_kind, \
                       created_at, failed_at, sqlstate, error, payload_text, payload_bytes, producer_sub";

/// A letter, and its id in the table.
pub struct Stored {
    /// Its id.
    pub id: i64,
    /// The letter.
    pub letter: DeadLetter,
}

/// What became of a letter that was to be put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is a message, the last one of its partition.
    Queued {
        /// Its place there.
        seq: i64,
    },
    /// A message with its transaction id is there; the letter is gone.
    Duplicate {
        /// That one's id.
        of: Uuid,
    },
    /// PostgreSQL refuses it still; the letter says why.
    Refused {
        /// SQLSTATE.
        sqlstate: String,
        /// What PostgreSQL said.
        error: String,
    },
    /// It is no message that this release knows.
    NoMessage,
    /// Somebody else dealt with it meanwhile.
    Gone,
}

/// Counts the letters in `schema`, which is quoted.
///
/// # Errors
/// Those of PostgreSQL, here and below.
pub async fn count(conn: &mut Connection, schema: &str) -> Result<u64, Error> {
    let rows = conn.query_once(&format!("SELECT count(*) FROM {schema}.dead_letters"), &[]).await?;
    Ok(rows.first().map_or(Ok(0), |row| row.get_i64(0))? as u64)
}

/// Adds letters of the log `log_id` with one statement, all or none.
///
/// # Errors
/// As [`count`].
pub async fn add(conn: &mut Connection, schema: &str, log_id: [u8; 16], letters: &[DeadLetter]) -> Result<(), Error> {
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
    conn.execute_once(&sql, &params).await.map(drop)
}

/// The letters with an id above `after`, of `queue` if one is named, by id, up to `limit`.
///
/// # Errors
/// As [`count`].
pub async fn list(
    conn: &mut Connection,
    schema: &str,
    queue: Option<&str>,
    after: i64,
    limit: u32,
) -> Result<Vec<Stored>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM {schema}.dead_letters WHERE id > $1 AND ($2 IS NULL OR queue = $2) ORDER BY id LIMIT $3"
    );
    let queue = queue.map_or(Param::Null(forebay_pgwire::oid::TEXT), Param::Text);
    let rows = conn.query_once(&sql, &[Param::I64(after), queue, Param::I64(limit.into())]).await?;
    rows.iter().map(read).collect()
}

/// The letter of that id.
///
/// # Errors
/// As [`count`].
pub async fn get(conn: &mut Connection, schema: &str, id: i64) -> Result<Option<Stored>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM {schema}.dead_letters WHERE id = $1");
    let rows = conn.query_once(&sql, &[Param::I64(id)]).await?;
    rows.first().map(read).transpose()
}

/// Drops the letter of that id. Returns whether it was there.
///
/// # Errors
/// As [`count`].
pub async fn remove(conn: &mut Connection, schema: &str, id: i64) -> Result<bool, Error> {
    let sql = format!("DELETE FROM {schema}.dead_letters WHERE id = $1");
    Ok(conn.execute_once(&sql, &[Param::I64(id)]).await? > 0)
}

/// Puts a letter back as the last message of its partition, with the id and the transaction id that it had. `id` is its id
/// in the table, which it leaves in the same transaction; without one it is a letter of a file.
///
/// # Errors
/// As [`count`]; nothing has changed then, unless the connection was lost.
pub async fn retry(
    conn: &mut Connection,
    schema: &str,
    id: Option<i64>,
    letter: &DeadLetter,
) -> Result<Retried, Error> {
    let Some(message_id) = letter.message_id else { return Ok(Retried::NoMessage) };
    let outcome = match partition_of(conn, schema, letter).await {
        Ok(partition_id) => put_back(conn, schema, id, (letter, message_id), partition_id).await,
        Err(error) => Err(error),
    };
    let error = match outcome {
        Ok(retried) => return Ok(retried),
        Err(error) if conn.is_broken() => return Err(error),
        Err(error) => error,
    };
    conn.simple("ROLLBACK").await?;
    let (Remedy::SetAside, Some(db)) = (remedy(&error), error.db_error()) else { return Err(error) };
    let (sqlstate, error) = (db.sqlstate.as_str().to_owned(), db.message.clone());
    if let Some(id) = id {
        let sql =
            format!("UPDATE {schema}.dead_letters SET sqlstate = $2, error = $3, failed_at = now() WHERE id = $1");
        conn.execute_once(&sql, &[Param::I64(id), Param::Text(&sqlstate), Param::Text(&error)]).await?;
    }
    Ok(Retried::Refused { sqlstate, error })
}

/// Finds the letter's partition, or makes it: in the order in which the drain does.
async fn partition_of(conn: &mut Connection, schema: &str, letter: &DeadLetter) -> Result<i64, Error> {
    let find = format!(
        "SELECT p.id FROM {schema}.queues q JOIN {schema}.partitions p ON p.queue_id = q.id \
         WHERE q.name = $1 AND p.name = $2"
    );
    let names = [Param::Text(&letter.queue), Param::Text(&letter.partition)];
    if let Some(row) = conn.query_once(&find, &names).await?.first() {
        return row.get_i64(0);
    }
    let make_queue = format!(
        "INSERT INTO {schema}.queues (name, namespace, task) VALUES ($1, nullif($2, ''), nullif($3, '')) \
         ON CONFLICT (name) DO NOTHING"
    );
    let labels = [names[0], Param::Text(&letter.namespace), Param::Text(&letter.task)];
    conn.execute_once(&make_queue, &labels).await?;
    let make_partition = format!(
        "INSERT INTO {schema}.partitions (queue_id, name) SELECT id, $2 FROM {schema}.queues WHERE name = $1 \
         ON CONFLICT (queue_id, name) DO NOTHING"
    );
    conn.execute_once(&make_partition, &names).await?;
    conn.query_once(&find, &names).await?.first().map_or(Ok(0), |row| row.get_i64(0))
}

async fn put_back(
    conn: &mut Connection,
    schema: &str,
    id: Option<i64>,
    (letter, message_id): (&DeadLetter, Uuid),
    partition_id: i64,
) -> Result<Retried, Error> {
    conn.simple("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
    let lock = format!("SELECT id FROM {schema}.partitions WHERE id = $1 FOR NO KEY UPDATE");
    conn.query_once(&lock, &[Param::I64(partition_id)]).await?;
    if let Some(id) = id
        && !remove(conn, schema, id).await?
    {
        conn.simple("ROLLBACK").await?;
        return Ok(Retried::Gone);
    }
    // A message without a transaction id gets its own id as one, which is what its producer was told: so it cannot come
    // twice, also when this is cut short before a letter in a file is removed.
    let transaction_id = letter.transaction_id.clone().unwrap_or_else(|| message_id.to_string());
    let key = TransactionKey::of(&transaction_id);
    let find = format!("SELECT id FROM {schema}.messages WHERE partition_id = $1 AND transaction_key = $2");
    if let Some(row) = conn.query_once(&find, &[Param::I64(partition_id), Param::Uuid(key.bytes)]).await?.first() {
        let of = Uuid::from_bytes(row.get_uuid(0)?);
        conn.simple("COMMIT").await?;
        return Ok(Retried::Duplicate { of });
    }
    let reserve = format!("UPDATE {schema}.partitions SET last_seq = last_seq + 1 WHERE id = $1 RETURNING last_seq");
    let reserved = conn.query_once(&reserve, &[Param::I64(partition_id)]).await?;
    let seq = reserved.first().map_or(Ok(0), |row| row.get_i64(0))?;
    let insert = format!(
        "INSERT INTO {schema}.messages \
         (partition_id, seq, created_at, id, trace_id, transaction_key, transaction_id, payload, producer_sub) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
    );
    let bytes = letter.payload.bytes().unwrap_or_default();
    let params = [
        Param::I64(partition_id),
        Param::I64(seq),
        Param::TimestamptzUs(letter.accepted_us),
        Param::Uuid(message_id.into_bytes()),
        letter.trace_id.map(Uuid::into_bytes).into(),
        Param::Uuid(key.bytes),
        Some(transaction_id.as_str()).filter(|_| !key.is_the_id).into(),
        Param::Jsonb(&bytes),
        letter.producer_sub.as_deref().into(),
    ];
    if conn.execute_once(&insert, &params).await? != 1 {
        conn.simple("ROLLBACK").await?;
        let error = "PostgreSQL took no row without an error: a trigger skips it".to_owned();
        return Ok(Retried::Refused { sqlstate: "XXFB2".to_owned(), error });
    }
    conn.simple("COMMIT").await?;
    Ok(Retried::Queued { seq })
}

fn read(row: &Row) -> Result<Stored, Error> {
    let text = |index| Ok::<_, Error>(row.get_opt_str(index)?.unwrap_or_default().to_owned());
    let uuid = |index| Ok::<_, Error>(row.get_opt_uuid(index)?.map(Uuid::from_bytes));
    let payload = match row.get_opt_bytes(15)? {
        Some(bytes) => Payload::of(bytes),
        None => Payload::Text(text(14)?),
    };
    let letter = DeadLetter {
        number: row.get_opt_i64(1)?.map(|number| number as u64),
        queue: text(2)?,
        partition: text(3)?,
        message_id: uuid(4)?,
        transaction_id: row.get_opt_str(5)?.map(str::to_owned),
        trace_id: uuid(6)?,
        namespace: text(7)?,
        task: text(8)?,
        producer_sub: row.get_opt_str(16)?.map(str::to_owned),
        record_kind: row.get_opt_i32(9)?.and_then(|kind| kind.try_into().ok()),
        accepted_us: row.get_timestamptz_us(10)?,
        failed_us: row.get_timestamptz_us(11)?,
        sqlstate: text(12)?,
        error: text(13)?,
        payload,
    };
    Ok(Stored { id: row.get_i64(0)?, letter })
}
