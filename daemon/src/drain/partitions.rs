//! The partitions that a session has met: their ids, and how far each is numbered.

use super::{
    batch::{Batch, BatchPartition},
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
pub(crate) struct Partitions {
    /// By their names, as [`Batch::name`] gives them.
    known: HashMap<Box<[u8]>, Known>,
}

impl Partitions {
    /// Whether a round of `batch` needs no look-up.
    pub(crate) fn know(&self, batch: &Batch) -> bool {
        batch.partitions.iter().all(|partition| self.known.contains_key(batch.name(partition)))
    }

    /// Forgets all: some are not there any more, or not numbered as is believed.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// Notes how far the partitions of `batch` are numbered, once what was sent of it is committed.
    pub(crate) fn numbered(&mut self, batch: &Batch) {
        for partition in &batch.partitions {
            if let Some(known) = self.known.get_mut(batch.name(partition)) {
                known.last_seq = partition.last_seq + batch.rows(partition).count() as i64;
            }
        }
    }

    /// Tells the partitions of `batch` what is known of them, and sorts them by id: the order in which everybody locks them.
    /// Returns whether all are known; if not, their order stays that of their first messages.
    fn fill(&self, batch: &mut Batch) -> bool {
        let mut partitions = std::mem::take(&mut batch.partitions);
        let mut all_known = true;
        for partition in &mut partitions {
            match self.known.get(batch.name(partition)) {
                Some(known) => (partition.id, partition.last_seq) = (known.id, known.last_seq),
                None => all_known = false,
            }
        }
        if all_known {
            partitions.sort_unstable_by_key(|partition| partition.id);
        }
        batch.partitions = partitions;
        all_known
    }
}

impl Session {
    /// Finds the ids of a batch's partitions and how far they are numbered, making those that are not there, and sorts them
    /// by id.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub(crate) async fn find_partitions(&mut self, batch: &mut Batch) -> Result<(), Error> {
        if !self.partitions.fill(batch) {
            if self.partitions.known.len() + batch.partitions.len() > REMEMBERED_MAX {
                self.partitions.forget();
            }
            self.make_partitions(batch).await?;
            self.partitions.fill(batch);
        }
        Ok(())
    }

    async fn make_partitions(&mut self, batch: &Batch) -> Result<(), Error> {
        let unknown: Vec<&BatchPartition> = batch
            .partitions
            .iter()
            .filter(|partition| !self.partitions.known.contains_key(batch.name(partition)))
            .collect();
        let (mut queues, mut names) = (Vec::new(), Vec::new());
        let (mut namespaces, mut tasks) = (Vec::new(), Vec::new());
        for partition in &unknown {
            if let Some(first) = batch.first_of(partition) {
                queues.push(first.queue);
                names.push(first.partition);
                namespaces.push(first.namespace);
                tasks.push(first.task);
            }
        }
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
        let both = [Param::TextArray(&queues), Param::TextArray(&names)];
        let labels = [both[0], Param::TextArray(&namespaces), Param::TextArray(&tasks)];
        self.conn.execute_once(&make_queues, &labels).await?;
        self.conn.execute_once(&make_partitions, &both).await?;
        let rows = self.conn.query_once(&find, &both).await?;
        for row in &rows {
            let index = row.get_i64(0)? as usize - 1;
            if let Some(partition) = unknown.get(index) {
                let known = Known { id: row.get_i64(1)?, last_seq: row.get_i64(2)? };
                self.partitions.known.insert(batch.name(partition).into(), known);
            }
        }
        Ok(())
    }
}
