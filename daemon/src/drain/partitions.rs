//! The partitions that a session has met: their ids, and how far each is numbered.

use super::{
    batch::{BatchPartition, PartitionName},
    session::Session,
};
use forebay_pgwire::{Error, Param};
use std::collections::HashMap;

/// Partitions that are remembered; when there are more, all are looked up again.
const REMEMBERED_MAX: usize = 100_000;

/// What is known of a partition.
#[derive(Clone, Copy)]
struct Known {
    id: i64,
    /// Its last sequence number, unless somebody else has reserved some since.
    last_seq: i64,
}

/// The partitions of a session.
#[derive(Default)]
pub(super) struct Partitions {
    known: HashMap<PartitionName, Known>,
}

impl Partitions {
    /// Whether a round of these needs no look-up.
    pub(super) fn know(&self, partitions: &[BatchPartition]) -> bool {
        partitions.iter().all(|partition| self.known.contains_key(&partition.name))
    }

    /// Forgets all: some are not there any more, or not numbered as is believed.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Notes how far a partition is numbered once what was sent is committed.
    pub(super) fn numbered(&mut self, name: &PartitionName, last_seq: i64) {
        if let Some(known) = self.known.get_mut(name) {
            known.last_seq = last_seq;
        }
    }

    /// Tells `partitions` what is known of them, and sorts them by id: the order in which everybody locks them.
    fn fill(&self, partitions: &mut [BatchPartition]) {
        for partition in partitions.iter_mut() {
            if let Some(known) = self.known.get(&partition.name) {
                (partition.id, partition.last_seq) = (known.id, known.last_seq);
            }
        }
        partitions.sort_by_key(|partition| partition.id);
    }
}

impl Session {
    /// Finds the ids of partitions and how far they are numbered, making those that are not there, and sorts them by id.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub(super) async fn find_partitions(&mut self, partitions: &mut [BatchPartition]) -> Result<(), Error> {
        if !self.partitions.know(partitions) {
            if self.partitions.known.len() + partitions.len() > REMEMBERED_MAX {
                self.partitions.forget();
            }
            self.make_partitions(partitions).await?;
        }
        self.partitions.fill(partitions);
        Ok(())
    }

    async fn make_partitions(&mut self, partitions: &[BatchPartition]) -> Result<(), Error> {
        let unknown: Vec<&BatchPartition> =
            partitions.iter().filter(|partition| !self.partitions.known.contains_key(&partition.name)).collect();
        let queues: Vec<&str> = unknown.iter().map(|partition| partition.name.queue.as_str()).collect();
        let names: Vec<&str> = unknown.iter().map(|partition| partition.name.partition.as_str()).collect();
        let namespaces: Vec<&str> = unknown.iter().map(|partition| partition.labels.0.as_str()).collect();
        let tasks: Vec<&str> = unknown.iter().map(|partition| partition.labels.1.as_str()).collect();
        let schema = &self.schema;
        // Made in one order by everybody, so that two daemons wait for each other instead of deadlocking. They stand
        // whether or not the round that needed them commits.
        let make_queues = format!(
            "INSERT INTO {schema}.queues (name, namespace, task) \
             SELECT DISTINCT ON (q) q, nullif(n, ''), nullif(t, '') \
             FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY v(q, n, t, i) ORDER BY q, i \
             ON CONFLICT (name) DO NOTHING"
        );
        let make_partitions = format!(
            "INSERT INTO {schema}.partitions (queue_id, name) \
             SELECT q.id, v.p FROM unnest($1::text[], $2::text[]) v(q, p) JOIN {schema}.queues q ON q.name = v.q \
             ORDER BY q.id, v.p ON CONFLICT (queue_id, name) DO NOTHING"
        );
        // Looked up one by one in the unique index: as a join, a table without statistics yet may be gone through as a whole
        // for each name (six seconds for 10,000 partitions, 15 ms this way).
        let find = format!(
            "SELECT v.i, p.id, p.last_seq FROM unnest($1::text[], $2::text[]) WITH ORDINALITY v(q, p, i) \
             CROSS JOIN LATERAL (SELECT id, last_seq FROM {schema}.partitions \
             WHERE queue_id = (SELECT id FROM {schema}.queues WHERE name = v.q) AND name = v.p) p"
        );
        let (queues, names) = (Param::TextArray(&queues), Param::TextArray(&names));
        let labels = [queues, Param::TextArray(&namespaces), Param::TextArray(&tasks)];
        self.conn.execute_once(&make_queues, &labels).await?;
        self.conn.execute_once(&make_partitions, &[queues, names]).await?;
        let rows = self.conn.query_once(&find, &[queues, names]).await?;
        for row in &rows {
            let index = row.get_i64(0)? as usize - 1;
            if let Some(partition) = unknown.get(index) {
                let known = Known { id: row.get_i64(1)?, last_seq: row.get_i64(2)? };
                self.partitions.known.insert(partition.name.clone(), known);
            }
        }
        Ok(())
    }
}
