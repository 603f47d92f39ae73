//! Queues, groups and partitions in PostgreSQL: their ids, and where each group stands.

use super::request::{ConfigureRequest, Subscription};
use crate::postgres::channel::{Channel, ChannelError, Unit};
use forebay_pgwire::{Error, Param, Row, oid};
use std::{
    rc::Rc,
    time::{Duration, Instant},
};

/// Partitions of a step of a scan. A step takes PostgreSQL a few milliseconds.
const SCAN_STEP: i64 = 2000;

/// Partitions whose newest messages say how large the messages of a queue are.
const SAMPLES: usize = 16;

/// A queue with a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundGroup {
    pub(super) queue: i64,
    pub(super) group: i64,
    pub(super) options: QueueOptions,
}

/// What a queue's options say about its consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueOptions {
    /// Length of a lease, in milliseconds.
    pub(super) lease_ms: u64,
    /// How often a message may fail.
    pub(super) retry_limit: i32,
    /// How long what failed rests, in milliseconds.
    pub(super) retry_delay_ms: u64,
}

impl QueueOptions {
    /// Queen's own, where a queue says nothing else.
    const DEFAULT: Self = Self { lease_ms: 300_000, retry_limit: 3, retry_delay_ms: 1000 };

    /// What the JSON of a queue's options says.
    pub(super) fn of(options: &str) -> Self {
        // A column of type jsonb.
        let options: serde_json::Value = serde_json::from_str(options).unwrap_or(serde_json::Value::Null);
        let number = |name: &str| options.get(name).and_then(serde_json::Value::as_u64);
        Self {
            lease_ms: number("leaseTime").filter(|s| *s > 0).map_or(Self::DEFAULT.lease_ms, |s| s.saturating_mul(1000)),
            retry_limit: number("retryLimit")
                .map_or(Self::DEFAULT.retry_limit, |limit| i32::try_from(limit).unwrap_or(i32::MAX)),
            retry_delay_ms: number("retryDelay").unwrap_or(Self::DEFAULT.retry_delay_ms),
        }
    }
}

/// A queue that was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfiguredQueue {
    pub(super) id: i64,
    pub(super) namespace: Option<String>,
    pub(super) task: Option<String>,
    /// JSON.
    pub(super) options: String,
    /// The id of its partition `Default`.
    pub(super) partition: i64,
}

/// A partition as a group finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundPartition {
    pub(super) id: i64,
    pub(super) name: Box<str>,
    pub(super) last: i64,
    /// Where the group's cursor is, or begins.
    pub(super) cursor: i64,
}

/// Looks things up over a connection of its own.
pub(super) struct Directory {
    channel: Channel,
    timeout: Duration,
    find: Rc<str>,
    register_all: Rc<str>,
    register_new: Rc<str>,
    register_from: Rc<str>,
    scan: Rc<str>,
    sample: Rc<str>,
    message: Rc<str>,
    update_queue: Rc<str>,
    insert_queue: Rc<str>,
    insert_partition: Rc<str>,
    find_partition: Rc<str>,
    others: Rc<str>,
    group_of: Rc<str>,
    names: Rc<str>,
}

impl Directory {
    /// Of the quoted `schema`. Each statement has `timeout`.
    pub(super) fn new(channel: Channel, schema: &str, timeout: Duration) -> Self {
        let register = |from: &str, cursor: &str| {
            format!(
                "WITH g AS (INSERT INTO {schema}.consumer_groups (queue_id, name, subscription_from) VALUES ($1, $2, {from}) \
                 ON CONFLICT DO NOTHING RETURNING id) \
                 INSERT INTO {schema}.cursors (partition_id, group_id, cursor_seq) \
                 SELECT p.id, g.id, {cursor} FROM g JOIN {schema}.partitions p ON p.queue_id = $1 ON CONFLICT DO NOTHING"
            )
        };
        let find = format!(
            "SELECT q.id, g.id, q.options::text FROM {schema}.queues q \
             LEFT JOIN {schema}.consumer_groups g ON g.queue_id = q.id AND g.name = $2 WHERE q.name = $1"
        );
        let register_all =
            format!("INSERT INTO {schema}.consumer_groups (queue_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING");
        let from = format!(
            "coalesce((SELECT m.seq FROM {schema}.messages m WHERE m.partition_id = p.id AND m.created_at <= $3 \
             ORDER BY m.seq DESC LIMIT 1), 0)"
        );
        let scan = format!(
            "SELECT p.id, p.name, p.last_seq, coalesce(c.cursor_seq, p.first_seq - 1) FROM {schema}.partitions p \
             LEFT JOIN {schema}.cursors c ON c.partition_id = p.id AND c.group_id = $2 \
             WHERE p.queue_id = $1 AND p.name > $3 ORDER BY p.name LIMIT {SCAN_STEP}"
        );
        let sample = format!(
            "SELECT count(*), coalesce(sum(octet_length(m.payload::text)), 0)::bigint, \
                 coalesce(max(octet_length(m.payload::text)), 0)::bigint \
             FROM unnest($1::bigint[], $2::bigint[]) v(p, seq) \
             JOIN {schema}.messages m ON m.partition_id = v.p AND m.seq = v.seq"
        );
        let message = format!("SELECT seq FROM {schema}.messages WHERE partition_id = $1 AND transaction_key = $2");
        let update_queue = format!(
            "UPDATE {schema}.queues SET \
                 namespace = CASE WHEN $5 THEN coalesce($2, namespace) ELSE $2 END, \
                 task = CASE WHEN $5 THEN coalesce($3, task) ELSE $3 END, \
                 options = CASE WHEN $5 THEN options || $4::jsonb ELSE $4::jsonb END \
             WHERE name = $1 RETURNING id, namespace, task, options::text"
        );
        // A queue that exists takes no id of the sequence: it was looked for.
        let insert_queue = format!(
            "INSERT INTO {schema}.queues (name, namespace, task, options) VALUES ($1, $2, $3, $4::jsonb) \
             ON CONFLICT (name) DO NOTHING"
        );
        let insert_partition = format!(
            "INSERT INTO {schema}.partitions (queue_id, name) VALUES ($1, $2) ON CONFLICT (queue_id, name) DO NOTHING"
        );
        let find_partition = format!("SELECT id FROM {schema}.partitions WHERE queue_id = $1 AND name = $2");
        let group_of = format!(
            "SELECT g.id FROM {schema}.partitions p JOIN {schema}.consumer_groups g ON g.queue_id = p.queue_id \
             WHERE p.id = $1 AND g.name = $2"
        );
        let names = format!(
            "SELECT q.name, g.name, p.name FROM {schema}.consumer_groups g JOIN {schema}.queues q ON q.id = g.queue_id \
             JOIN {schema}.partitions p ON p.queue_id = q.id WHERE g.id = $1 AND p.id = $2"
        );
        // A role that may not see when the other's session began sees that there is one.
        let others = format!(
            "SELECT EXISTS (SELECT FROM {schema}.drain_checkpoints c JOIN pg_stat_activity a ON a.pid = c.backend_pid \
             WHERE c.log_id <> $1 AND coalesce(a.backend_start = c.backend_start, true))"
        );
        Self {
            channel,
            timeout,
            find: find.into(),
            register_all: register_all.into(),
            register_new: register("now()", "p.last_seq").into(),
            register_from: register("$3", &from).into(),
            scan: scan.into(),
            sample: sample.into(),
            message: message.into(),
            update_queue: update_queue.into(),
            insert_queue: insert_queue.into(),
            insert_partition: insert_partition.into(),
            find_partition: find_partition.into(),
            others: others.into(),
            group_of: group_of.into(),
            names: names.into(),
        }
    }

    /// The queue and the group of these names, which is registered if it is new. `None`: there is no such queue.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub(super) async fn open(
        &self,
        queue: &str,
        group: &str,
        subscription: Subscription,
    ) -> Result<Option<FoundGroup>, ChannelError> {
        let names = [Param::Text(queue), Param::Text(group)];
        loop {
            let rows = self.rows(Unit::of(&self.find, &names)).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            let queue = row.get_i64(0)?;
            if let Some(group) = row.get_opt_i64(1)? {
                return Ok(Some(FoundGroup { queue, group, options: QueueOptions::of(row.get_str(2)?) }));
            }
            let id = Param::I64(queue);
            let register = match subscription {
                Subscription::All => Unit::of(&self.register_all, &[id, Param::Text(group)]),
                Subscription::New => Unit::of(&self.register_new, &[id, Param::Text(group)]),
                Subscription::From(us) => {
                    Unit::of(&self.register_from, &[id, Param::Text(group), Param::TimestamptzUs(us)])
                }
            };
            self.rows(register).await?;
        }
    }

    /// The partitions of a queue behind the name `after`, in the order of their names: one step of a scan; empty at its end.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub(super) async fn scan(&self, queue: i64, group: i64, after: &str) -> Result<Vec<FoundPartition>, ChannelError> {
        let params = [Param::I64(queue), Param::I64(group), Param::Text(after)];
        let rows = self.rows(Unit::of(&self.scan, &params)).await?;
        let partition = |row: &Row| {
            Ok(FoundPartition {
                id: row.get_i64(0)?,
                name: row.get_str(1)?.into(),
                last: row.get_i64(2)?,
                cursor: row.get_i64(3)?,
            })
        };
        Ok(rows.iter().map(partition).collect::<Result<_, Error>>()?)
    }

    /// Looks at the newest messages of some of these partitions: their number, their bytes, and those of the largest one.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub(super) async fn sample(&self, partitions: &[FoundPartition]) -> Result<(usize, u64, u64), ChannelError> {
        let with_messages = partitions.iter().filter(|partition| partition.last > 0).take(SAMPLES);
        let (ids, seqs): (Vec<i64>, Vec<i64>) = with_messages.map(|partition| (partition.id, partition.last)).unzip();
        let rows = self.rows(Unit::of(&self.sample, &[Param::I64Array(&ids), Param::I64Array(&seqs)])).await?;
        let Some(row) = rows.first() else { return Ok((0, 0, 0)) };
        let column = |index| Ok::<_, Error>(row.get_i64(index)?.max(0) as u64);
        Ok((column(0)? as usize, column(1)?, column(2)?))
    }

    /// The number of the message of a partition with this key of a transaction id that its client gave.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub(super) async fn message(&self, partition: i64, key: [u8; 16]) -> Result<Option<i64>, ChannelError> {
        let rows = self.rows(Unit::of(&self.message, &[Param::I64(partition), Param::Uuid(key)])).await?;
        Ok(rows.first().map(|row| row.get_i64(0)).transpose()?)
    }

    /// The group of a partition's queue that is called so.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub(super) async fn group_of(&self, partition: i64, group: &str) -> Result<Option<i64>, ChannelError> {
        let rows = self.rows(Unit::of(&self.group_of, &[Param::I64(partition), Param::Text(group)])).await?;
        Ok(rows.first().map(|row| row.get_i64(0)).transpose()?)
    }

    /// What the queue, the group and the partition of a pair are called; `None`: they do not belong together.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub(super) async fn names(&self, group: i64, partition: i64) -> Result<Option<[String; 3]>, ChannelError> {
        let rows = self.rows(Unit::of(&self.names, &[Param::I64(group), Param::I64(partition)])).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some([row.get_str(0)?.to_owned(), row.get_str(1)?.to_owned(), row.get_str(2)?.to_owned()]))
    }

    /// Configures a queue, which is created if it is missing, with its partition `Default`.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub(super) async fn configure(&self, request: &ConfigureRequest) -> Result<ConfiguredQueue, ChannelError> {
        const PARTITION: &str = "Default";
        let options = serde_json::Value::from(request.options.clone()).to_string();
        let optional = |text: &'_ Option<Box<str>>| text.as_deref().filter(|text| !text.is_empty()).map(str::to_owned);
        let (namespace, task) = (optional(&request.namespace), optional(&request.task));
        fn text(text: Option<&String>) -> Param<'_> {
            text.map_or(Param::Null(oid::TEXT), |text| Param::Text(text))
        }
        let params =
            [Param::Text(&request.queue), text(namespace.as_ref()), text(task.as_ref()), Param::Text(&options)];
        let row = loop {
            let update = [&params[..], &[Param::Bool(request.is_merging)]].concat();
            if let Some(row) = self.rows(Unit::of(&self.update_queue, &update)).await?.into_iter().next() {
                break row;
            }
            self.rows(Unit::of(&self.insert_queue, &params)).await?;
        };
        let id = row.get_i64(0)?;
        let of = [Param::I64(id), Param::Text(PARTITION)];
        let partition = loop {
            if let Some(row) = self.rows(Unit::of(&self.find_partition, &of)).await?.first() {
                break row.get_i64(0)?;
            }
            self.rows(Unit::of(&self.insert_partition, &of)).await?;
        };
        Ok(ConfiguredQueue {
            id,
            namespace: row.get_opt_str(1)?.map(str::to_owned),
            task: row.get_opt_str(2)?.map(str::to_owned),
            options: row.get_str(3)?.to_owned(),
            partition,
        })
    }

    /// Whether other daemons than that of the log `log_id` have a session in this database.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub(super) async fn has_others(&self, log_id: [u8; 16]) -> Result<bool, ChannelError> {
        let rows = self.rows(Unit::of(&self.others, &[Param::Uuid(log_id)])).await?;
        Ok(rows.first().map_or(Ok(false), |row| row.get_bool(0))?)
    }

    async fn rows(&self, unit: Unit) -> Result<Vec<Row>, ChannelError> {
        let results = self.channel.submit(unit, Instant::now() + self.timeout, None).await?.into_results()?;
        Ok(results.into_iter().next_back().map_or_else(Vec::new, |result| result.rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_queue_are_taken_as_far_as_they_make_sense() {
        let options = |text: &str| QueueOptions::of(text);
        assert_eq!(options("{}"), QueueOptions::DEFAULT);
        let set = options(r#"{"leaseTime": 2, "retryLimit": 0, "retryDelay": 0, "other": true}"#);
        assert_eq!(set, QueueOptions { lease_ms: 2000, retry_limit: 0, retry_delay_ms: 0 });
        assert_eq!(options(r#"{"leaseTime": 0, "retryLimit": -1, "retryDelay": "x"}"#), QueueOptions::DEFAULT);
    }
}
