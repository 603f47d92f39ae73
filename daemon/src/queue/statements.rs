//! The statements of the dispatcher. Each is a transaction of its own; `docs/queue.md` says why one snapshot is enough.
//!
//! Everybody locks cursors in the order of (partition, group). A take waits for nobody.

use std::rc::Rc;

/// The statements for one schema.
pub(super) struct Statements {
    /// Makes rows for pairs that have none: partitions, groups, cursors.
    pub(super) make: Rc<str>,
    /// Takes messages: partitions, groups, counts, last numbers, leases, lengths of leases in milliseconds.
    pub(super) take: Rc<str>,
    /// Moves leases: see [`AckPair`](super::AckPair).
    pub(super) ack: Rc<str>,
    /// Reads rows under a lock: partitions, groups.
    pub(super) look: Rc<str>,
    /// Reads messages: partitions, groups, and the numbers behind which and up to which.
    pub(super) read: Rc<str>,
    /// Lets the session's plans be made anew.
    pub(super) forget_plans: Rc<str>,
    /// How often messages failed: partitions, groups, and the numbers behind which and up to which.
    pub(super) attempts: Rc<str>,
    /// Counts failures of messages of one lease, if it is held, and makes letters of those that failed more often than they may:
    /// partition, group, lease, numbers, errors, failures that a message may have.
    pub(super) fail: Rc<str>,
    /// Forgets the failures of messages: partition, group, numbers.
    pub(super) forget: Rc<str>,
    /// Gives a lease another end: partition, group, lease, milliseconds from now.
    pub(super) extend: Rc<str>,
    /// The messages of a lease that is held, and what of them is done: partition, group, lease.
    pub(super) lease: Rc<str>,
}

/// The columns of a message, as [`StoredMessage`](super::stored_message::StoredMessage) reads them.
const MESSAGE: &str =
    "m.seq, m.created_at, m.id, m.trace_id, m.transaction_key, m.transaction_id, m.producer_sub, m.payload::text";

impl Statements {
    /// For the quoted `schema`.
    pub(super) fn new(schema: &str) -> Self {
        let make = format!(
            "INSERT INTO {schema}.cursors (partition_id, group_id, cursor_seq) \
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) v ORDER BY 1, 2 ON CONFLICT DO NOTHING"
        );
        // What lies up to `last` was committed before this statement's snapshot was taken, and the lock step sees the newest row.
        let take = format!(
            "WITH l AS MATERIALIZED ( \
                 SELECT c.partition_id p, c.group_id g, c.cursor_seq c, least(c.cursor_seq + v.n, v.last) h, v.lease, v.ms, c.acked, c.retried \
                 FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::bigint[]) \
                     v(p, g, n, last, lease, ms) \
                 JOIN {schema}.cursors c ON c.partition_id = v.p AND c.group_id = v.g \
                 WHERE c.cursor_seq < v.last AND (c.free_at IS NULL OR c.free_at <= now()) \
                 ORDER BY c.partition_id, c.group_id FOR NO KEY UPDATE OF c SKIP LOCKED), \
             u AS ( \
                 UPDATE {schema}.cursors c SET \
                     cursor_seq = CASE WHEN l.ms IS NULL THEN l.h ELSE l.c END, lease_id = l.lease, \
                     lease_seq = CASE WHEN l.ms IS NULL THEN l.c ELSE l.h END, \
                     free_at = now() + l.ms * interval '1 millisecond' \
                 FROM l WHERE c.partition_id = l.p AND c.group_id = l.g) \
             SELECT l.p, l.g, l.c, l.h, l.acked, l.retried, {MESSAGE} \
             FROM l LEFT JOIN LATERAL ( \
                 SELECT * FROM {schema}.messages x WHERE x.partition_id = l.p AND x.seq > l.c AND x.seq <= l.h ORDER BY x.seq) m \
             ON true"
        );
        let ack = format!(
            "WITH l AS MATERIALIZED ( \
                 SELECT c.partition_id p, c.group_id g, v.after, v.acked, v.ends, v.rest \
                 FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::bigint[], $5::text[], $6::bigint[], $7::text[], \
                             $8::bigint[], $9::bigint[]) v(p, g, lease, before, acked_before, after, acked, ends, rest) \
                 JOIN {schema}.cursors c ON c.partition_id = v.p AND c.group_id = v.g \
                 WHERE c.lease_id = v.lease AND c.free_at > now() AND c.cursor_seq = v.before \
                     AND c.acked IS NOT DISTINCT FROM v.acked_before::bigint[] \
                 ORDER BY c.partition_id, c.group_id FOR NO KEY UPDATE OF c) \
             UPDATE {schema}.cursors c SET cursor_seq = l.after, acked = l.acked::bigint[], \
                 lease_id = CASE WHEN l.ends = 0 THEN c.lease_id END, \
                 lease_seq = CASE WHEN l.ends = 0 THEN c.lease_seq END, \
                 free_at = CASE WHEN l.ends = 0 THEN c.free_at ELSE now() + l.rest * interval '1 millisecond' END \
             FROM l WHERE c.partition_id = l.p AND c.group_id = l.g RETURNING l.p, l.g"
        );
        // The lock waits for whoever changes the row without having answered.
        let look = format!(
            "WITH l AS MATERIALIZED ( \
                 SELECT c.* FROM unnest($1::bigint[], $2::bigint[]) v(p, g) \
                 JOIN {schema}.cursors c ON c.partition_id = v.p AND c.group_id = v.g \
                 ORDER BY c.partition_id, c.group_id FOR NO KEY UPDATE OF c) \
             SELECT v.p, v.g, p.queue_id, p.last_seq, coalesce(p.first_seq, 1) - 1, l.cursor_seq, l.lease_id, l.lease_seq, \
                 ceil(extract(epoch FROM l.free_at - now()) * 1000)::bigint, l.acked \
             FROM unnest($1::bigint[], $2::bigint[]) v(p, g) \
             LEFT JOIN {schema}.partitions p ON p.id = v.p \
             LEFT JOIN l ON l.partition_id = v.p AND l.group_id = v.g"
        );
        let read = format!(
            "SELECT v.p, v.g, v.c, v.h, NULL::bigint[], true, {MESSAGE} \
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) v(p, g, c, h) \
             LEFT JOIN LATERAL ( \
                 SELECT * FROM {schema}.messages x WHERE x.partition_id = v.p AND x.seq > v.c AND x.seq <= v.h ORDER BY x.seq) m \
             ON true"
        );
        let attempts = format!(
            "SELECT r.partition_id, r.group_id, r.seq, r.attempts \
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) v(p, g, c, h) \
             JOIN {schema}.retries r ON r.partition_id = v.p AND r.group_id = v.g AND r.seq > v.c AND r.seq <= v.h"
        );
        let fail = format!(
            "WITH l AS MATERIALIZED ( \
                 SELECT c.partition_id p, c.group_id g, c.cursor_seq c, c.lease_seq h FROM {schema}.cursors c \
                 WHERE c.partition_id = $1 AND c.group_id = $2 AND c.lease_id = $3 AND c.free_at > now() \
                 FOR NO KEY UPDATE OF c), \
             u AS (UPDATE {schema}.cursors c SET retried = true FROM l \
                   WHERE c.partition_id = l.p AND c.group_id = l.g AND NOT c.retried), \
             r AS ( \
                 INSERT INTO {schema}.retries AS r (partition_id, group_id, seq, attempts, error) \
                 SELECT l.p, l.g, v.seq, 1, v.error FROM l, unnest($4::bigint[], $5::text[]) v(seq, error) \
                 WHERE v.seq > l.c AND v.seq <= l.h ORDER BY v.seq \
                 ON CONFLICT (partition_id, group_id, seq) DO UPDATE SET attempts = r.attempts + 1, error = excluded.error \
                 RETURNING r.seq, r.attempts, r.error), \
             d AS ( \
                 INSERT INTO {schema}.consumer_letters (group_id, partition_id, seq, attempts, error, created_at, id, trace_id, \
                     transaction_key, transaction_id, producer_sub, payload) \
                 SELECT $2, $1, r.seq, r.attempts, r.error, m.created_at, m.id, m.trace_id, m.transaction_key, \
                     m.transaction_id, m.producer_sub, m.payload \
                 FROM r JOIN {schema}.messages m ON m.partition_id = $1 AND m.seq = r.seq WHERE r.attempts > $6 \
                 ON CONFLICT DO NOTHING) \
             SELECT r.seq, r.attempts > $6 FROM r"
        );
        let forget = format!(
            "DELETE FROM {schema}.retries WHERE partition_id = $1 AND group_id = $2 AND seq = ANY($3::bigint[])"
        );
        let extend = format!(
            "UPDATE {schema}.cursors SET free_at = now() + $4::bigint * interval '1 millisecond' \
             WHERE partition_id = $1 AND group_id = $2 AND lease_id = $3 AND free_at > now() RETURNING free_at"
        );
        let lease = format!(
            "SELECT m.seq, m.id, m.transaction_key FROM {schema}.cursors c \
             JOIN {schema}.messages m ON m.partition_id = c.partition_id AND m.seq > c.cursor_seq AND m.seq <= c.lease_seq \
             WHERE c.partition_id = $1 AND c.group_id = $2 AND c.lease_id = $3 AND c.free_at > now() ORDER BY m.seq"
        );
        Self {
            make: make.into(),
            take: take.into(),
            ack: ack.into(),
            look: look.into(),
            read: read.into(),
            forget_plans: "DISCARD PLANS".into(),
            attempts: attempts.into(),
            fail: fail.into(),
            forget: forget.into(),
            extend: extend.into(),
            lease: lease.into(),
        }
    }
}
