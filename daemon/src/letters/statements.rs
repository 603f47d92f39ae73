//! The statements about dead letters, and the letters in their rows.
//!
//! Lock order, as everybody's: partition rows, then letters, then messages.

use super::{DeadLetter, Payload};
use forebay_pgwire::{Error, Row};
use std::rc::Rc;
use uuid::Uuid;

/// The columns of a letter without its payload, in the order in which [`read`] takes them.
const COLUMNS: &str = "id, number, queue, partition, message_id, transaction_id, trace_id, namespace, task, record_kind, \
                       created_at, failed_at, sqlstate, error, producer_sub";

/// The place behind [`COLUMNS`].
const AFTER_COLUMNS: usize = 15;

/// Bytes of a letter beside its error and its payload: names of 255 bytes each at most, and what is as long in all.
pub(super) const NAMES_BYTES: usize = 2048;

/// The statements, for one schema.
///
/// Those whose name begins with `require` fail with 22012 (division by zero), and so roll their transaction back, where what
/// they ask for is not so. Every engine understands that, and it costs no round trip.
pub(super) struct LetterStatements {
    /// The letters behind an id, of a queue or of all, without payloads but with their sizes: so many at most, and no more of them
    /// than so many bytes, but for the first. Each row says how many there are without that, and how many bytes they have.
    pub(super) list: Rc<str>,
    /// One letter, with its payload if they have no more than so many bytes.
    pub(super) get: Rc<str>,
    /// Removes a letter.
    pub(super) remove: Rc<str>,
    /// Notes why a letter was refused again.
    pub(super) note_refusal: Rc<str>,
    /// The id of a partition, by the names of queue and partition.
    pub(super) find_partition: Rc<str>,
    /// Makes a queue unless it is there.
    pub(super) make_queue: Rc<str>,
    /// Makes a partition unless it is there.
    pub(super) make_partition: Rc<str>,
    /// Locks the row of a partition.
    pub(super) require_partition: Rc<str>,
    /// Locks a letter.
    pub(super) require_letter: Rc<str>,
    /// The message of a partition with a transaction key.
    pub(super) find_message: Rc<str>,
    /// No message of a partition has a transaction key.
    pub(super) require_no_message: Rc<str>,
    /// Takes the next sequence number of a partition.
    pub(super) reserve: Rc<str>,
    /// Inserts a message under the number that was taken last.
    pub(super) insert: Rc<str>,
    /// A message of a partition has a transaction key.
    pub(super) require_message: Rc<str>,
}

impl LetterStatements {
    /// For a schema, whose name is quoted.
    pub(super) fn new(schema: &str) -> Self {
        let sql = |text: String| Rc::<str>::from(text);
        let of_key = "WHERE partition_id = $1 AND transaction_key = $2";
        Self {
            list: sql(format!(
                "SELECT {COLUMNS}, payload_octets, letters, octets FROM ( \
                 SELECT *, count(*) OVER () AS letters, \
                 sum(coalesce(octet_length(error), 0) + {NAMES_BYTES}) OVER () AS octets, \
                 coalesce(octet_length(payload_bytes), octet_length(payload_text)) AS payload_octets, \
                 sum(coalesce(octet_length(error), 0) + {NAMES_BYTES}) \
                 OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS octets_before \
                 FROM (SELECT * FROM {schema}.dead_letters WHERE id > $1 AND ($2 IS NULL OR queue = $2) \
                 ORDER BY id LIMIT $3) behind) listed \
                 WHERE octets_before IS NULL OR octets_before < $4 ORDER BY id"
            )),
            // A payload that is not to be shown is not read either. Bytes are shown as twice as many digits.
            get: sql(format!(
                "SELECT {COLUMNS}, CASE WHEN octets <= $2 AND payload_bytes IS NULL THEN payload_text END, \
                 CASE WHEN octets <= $2 THEN payload_bytes END, octets FROM ( \
                 SELECT *, CAST({NAMES_BYTES} + coalesce(octet_length(error), 0) + \
                 coalesce(CAST(2 AS bigint) * octet_length(payload_bytes), octet_length(payload_text), 0) AS bigint) AS octets \
                 FROM {schema}.dead_letters WHERE id = $1) letter"
            )),
            remove: sql(format!("DELETE FROM {schema}.dead_letters WHERE id = $1")),
            note_refusal: sql(format!(
                "UPDATE {schema}.dead_letters SET sqlstate = $2, error = $3, failed_at = now() WHERE id = $1"
            )),
            find_partition: sql(format!(
                "SELECT p.id FROM {schema}.queues q JOIN {schema}.partitions p ON p.queue_id = q.id \
                 WHERE q.name = $1 AND p.name = $2"
            )),
            make_queue: sql(format!(
                "INSERT INTO {schema}.queues (name, namespace, task) SELECT $1, nullif($2, ''), nullif($3, '') \
                 WHERE (SELECT id FROM {schema}.queues WHERE name = $1) IS NULL ON CONFLICT (name) DO NOTHING"
            )),
            make_partition: sql(format!(
                "INSERT INTO {schema}.partitions (queue_id, name) SELECT id, $2 FROM {schema}.queues WHERE name = $1 \
                 ON CONFLICT (queue_id, name) DO NOTHING"
            )),
            require_partition: sql(format!(
                "SELECT 1 / count(*) AS the_partition_is_there \
                 FROM (SELECT id FROM {schema}.partitions WHERE id = $1 FOR NO KEY UPDATE) p"
            )),
            require_letter: sql(format!(
                "SELECT 1 / count(*) AS the_letter_is_there \
                 FROM (SELECT id FROM {schema}.dead_letters WHERE id = $1 FOR UPDATE) l"
            )),
            find_message: sql(format!("SELECT id FROM {schema}.messages {of_key}")),
            require_no_message: sql(format!(
                "SELECT 1 / (1 - count(*)) AS no_message_has_the_key FROM {schema}.messages {of_key}"
            )),
            reserve: sql(format!(
                "UPDATE {schema}.partitions SET last_seq = last_seq + 1 WHERE id = $1 RETURNING last_seq"
            )),
            insert: sql(format!(
                "INSERT INTO {schema}.messages \
                 (partition_id, seq, created_at, id, trace_id, transaction_key, transaction_id, payload, producer_sub) \
                 SELECT id, last_seq, $2, $3, $4, $5, $6, $7, $8 FROM {schema}.partitions WHERE id = $1"
            )),
            require_message: sql(format!(
                "SELECT 1 / count(*) AS the_message_is_there FROM {schema}.messages {of_key}"
            )),
        }
    }
}

/// A letter of a list: its id, the letter, and the bytes of its payload.
pub(super) fn read_listed(row: &Row) -> Result<(i64, DeadLetter<()>, usize), Error> {
    let (id, letter) = read(row)?;
    Ok((id, letter, row.get_i32(AFTER_COLUMNS)? as usize))
}

/// How many letters the list would have, if it were not for its bytes, and how many bytes they have, about.
pub(super) fn read_whole_list(row: &Row) -> Result<(usize, usize), Error> {
    Ok((row.get_i64(AFTER_COLUMNS + 1)? as usize, row.get_i64(AFTER_COLUMNS + 2)? as usize))
}

/// Bytes of a letter with its payload, about, as JSON shows it.
pub(super) fn read_bytes(row: &Row) -> Result<usize, Error> {
    Ok(row.get_i64(AFTER_COLUMNS + 2)? as usize)
}

/// A letter with its payload, which is in the row.
pub(super) fn read_whole(row: &Row) -> Result<DeadLetter, Error> {
    let (_, letter) = read(row)?;
    let payload = match row.get_opt_bytes(AFTER_COLUMNS + 1)? {
        Some(bytes) => Payload::of(bytes),
        None => Payload::Text(row.get_str(AFTER_COLUMNS)?.to_owned()),
    };
    Ok(letter.replace_payload(payload).0)
}

fn read(row: &Row) -> Result<(i64, DeadLetter<()>), Error> {
    let text = |index| Ok::<_, Error>(row.get_opt_str(index)?.unwrap_or_default().to_owned());
    let uuid = |index| Ok::<_, Error>(row.get_opt_uuid(index)?.map(Uuid::from_bytes));
    let letter = DeadLetter {
        number: row.get_opt_i64(1)?.map(|number| number as u64),
        queue: text(2)?,
        partition: text(3)?,
        message_id: uuid(4)?,
        transaction_id: row.get_opt_str(5)?.map(str::to_owned),
        trace_id: uuid(6)?,
        namespace: text(7)?,
        task: text(8)?,
        producer_sub: row.get_opt_str(14)?.map(str::to_owned),
        record_kind: row.get_opt_i32(9)?.and_then(|kind| kind.try_into().ok()),
        accepted_us: row.get_timestamptz_us(10)?,
        failed_us: row.get_timestamptz_us(11)?,
        sqlstate: text(12)?,
        error: text(13)?,
        payload: (),
    };
    Ok((row.get_i64(0)?, letter))
}
