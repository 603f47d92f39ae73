//! The partitions that a session has met: their ids, and their last sequence numbers.

use super::{batch::Batch, grouping::BatchPartition, round_error::RoundError};
use crate::message::Labels;
use forebay_pgwire::{Connection, Error, Param};
use std::collections::HashMap;

/// Partitions that are kept. With more of them all are looked up again.
const PARTITIONS_MAX: usize = 100_000;

/// What is known of a partition.
#[derive(Clone, Copy)]
struct KnownPartition {
    id: i64,
    /// Right unless somebody else has written to the partition since.
    last_seq: i64,
}

/// The known partitions of a session.
pub(crate) struct PartitionRegistry {
    /// Quoted.
    schema: String,
    /// By name, as a batch groups them.
    known: HashMap<Box<[u8]>, KnownPartition>,
}

impl PartitionRegistry {
    /// Knows no partition of the quoted `schema`.
    pub(crate) fn new(schema: &str) -> Self {
        Self { schema: schema.to_owned(), known: HashMap::new() }
    }

    /// Whether all partitions of `batch` are known, so that it needs no look-up.
    pub(crate) fn knows(&self, batch: &Batch) -> bool {
        let groups = batch.groups();
        groups.partitions().iter().all(|partition| self.known.contains_key(groups.name(partition)))
    }

    /// Forgets all: a transaction failed, so partitions may be deleted or numbered otherwise.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// Notes that the rows of `batch` have been numbered.
    pub(crate) fn advance(&mut self, batch: &Batch) {
        let groups = batch.groups();
        for partition in groups.partitions() {
            if let Some(known) = self.known.get_mut(groups.name(partition)) {
                known.last_seq = partition.last_seq + batch.row_count(partition) as i64;
            }
        }
    }

    /// Gives the partitions of `batch` their ids and last sequence numbers, creating the missing ones, and sorts them by id:
    /// the order in which everybody locks them.
    ///
    /// # Errors
    /// [`RoundError::PartitionGone`] if one is missing after it was created; else those of PostgreSQL.
    pub(crate) async fn identify(&mut self, conn: &mut Connection, batch: &mut Batch) -> Result<(), RoundError> {
        if !self.knows(batch) {
            if self.known.len() + batch.groups().partitions().len() > PARTITIONS_MAX {
                self.forget();
            }
            self.look_up(conn, batch).await?;
        }
        let mut are_all_known = true;
        batch.groups_mut().update(|name, partition| match self.known.get(name) {
            Some(known) => (partition.id, partition.last_seq) = (known.id, known.last_seq),
            None => are_all_known = false,
        });
        if !are_all_known {
            return Err(RoundError::PartitionGone);
        }
        batch.groups_mut().sort_by_id();
        Ok(())
    }

    /// Looks up the unknown partitions of `batch`, creating the missing ones.
    async fn look_up(&mut self, conn: &mut Connection, batch: &Batch) -> Result<(), Error> {
        let groups = batch.groups();
        let is_unknown = |partition: &&BatchPartition| !self.known.contains_key(groups.name(partition));
        let unknown: Vec<&BatchPartition> = groups.partitions().iter().filter(is_unknown).collect();
        let firsts: Vec<Labels<'_>> = unknown.iter().map(|partition| batch.first_of(partition).labels()).collect();
        let queues: Vec<&str> = firsts.iter().map(|labels| labels.queue).collect();
        let names: Vec<&str> = firsts.iter().map(|labels| labels.partition).collect();
        let namespaces: Vec<&str> = firsts.iter().map(|labels| labels.namespace).collect();
        let tasks: Vec<&str> = firsts.iter().map(|labels| labels.task).collect();
        let schema = &self.schema;
        // Everybody creates them in the same order, so that two daemons wait for each other instead of deadlocking. They stay
        // whether or not the round that needed them commits.
        let create_queues = format!(
            "INSERT INTO {schema}.queues (name, namespace, task) \
             SELECT DISTINCT ON (q) q, nullif(n, ''), nullif(t, '') \
             FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY v(q, n, t, i) ORDER BY q, i \
             ON CONFLICT (name) DO NOTHING"
        );
        let create_partitions = format!(
            "INSERT INTO {schema}.partitions (queue_id, name) \
             SELECT q.id, v.p FROM unnest($1::text[], $2::text[]) v(q, p) JOIN {schema}.queues q ON q.name = v.q \
             ORDER BY q.id, v.p ON CONFLICT (queue_id, name) DO NOTHING"
        );
        // Looked up one by one in the unique index. As a join, a table without statistics may be scanned as a whole for each
        // name: six seconds for 10,000 partitions, against 15 ms this way.
        let find = format!(
            "SELECT v.i, p.id, p.last_seq FROM unnest($1::text[], $2::text[]) WITH ORDINALITY v(q, p, i) \
             CROSS JOIN LATERAL (SELECT id, last_seq FROM {schema}.partitions \
             WHERE queue_id = (SELECT id FROM {schema}.queues WHERE name = v.q) AND name = v.p) p"
        );
        let both = [Param::TextArray(&queues), Param::TextArray(&names)];
        let labels = [both[0], Param::TextArray(&namespaces), Param::TextArray(&tasks)];
        conn.execute_once(&create_queues, &labels).await?;
        conn.execute_once(&create_partitions, &both).await?;
        let rows = conn.query_once(&find, &both).await?;
        for row in &rows {
            // The ordinality of the parameters' elements, which begins with 1.
            let partition = unknown[row.get_i64(0)? as usize - 1];
            let known = KnownPartition { id: row.get_i64(1)?, last_seq: row.get_i64(2)? };
            self.known.insert(groups.name(partition).into(), known);
        }
        Ok(())
    }
}
