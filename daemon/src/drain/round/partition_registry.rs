//! The partitions that a session has met: their ids, and their last sequence numbers.

use super::{
    batch::{Batch, RowRefusal},
    grouping::BatchPartition,
    name_maker::NameMaker,
    obstacle::Obstacle,
    round_error::RoundError,
};
use crate::{
    limits::{LONE_FAILURES, NAME_RETRY_INTERVAL},
    message::Labels,
};
use forebay_pgwire::{Connection, Error, Param};
use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

/// Partitions that are kept. With more of them all are looked up again.
const PARTITIONS_MAX: usize = 100_000;

/// What is known of a partition.
#[derive(Clone, Copy)]
struct KnownPartition {
    id: i64,
    /// Right unless somebody else has written to the partition since.
    last_seq: i64,
}

/// A partition that PostgreSQL does not create.
struct UncreatedPartition {
    /// Attempts in a row that failed.
    failures: u32,
    /// Why the last one failed.
    obstacle: Obstacle,
    tried_at: Instant,
}

/// A partition that is looked up: its name, and what a queue is created with for it.
struct Unknown<'a> {
    name: &'a [u8],
    labels: Labels<'a>,
}

/// The known partitions of a session.
pub(crate) struct PartitionRegistry {
    /// Finds partitions by the names of queue and partition.
    find: String,
    maker: NameMaker,
    /// By name, as a batch groups them.
    known: HashMap<Box<[u8]>, KnownPartition>,
    uncreated: HashMap<Box<[u8]>, UncreatedPartition>,
}

impl PartitionRegistry {
    /// Knows no partition of the quoted `schema`.
    pub(crate) fn new(schema: &str) -> Self {
        // Looked up one by one in the unique index. As a join, a table without statistics may be scanned as a whole for each
        // name: six seconds for 10,000 partitions, against 15 ms this way.
        let find = format!(
            "SELECT v.i, p.id, p.last_seq FROM unnest($1::text[], $2::text[]) WITH ORDINALITY v(q, p, i) \
             CROSS JOIN LATERAL (SELECT id, last_seq FROM {schema}.partitions \
             WHERE queue_id = (SELECT id FROM {schema}.queues WHERE name = v.q) AND name = v.p) p"
        );
        Self { find, maker: NameMaker::new(schema), known: HashMap::new(), uncreated: HashMap::new() }
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
    /// the order in which everybody locks them. Messages whose partition cannot be created become dead letters.
    ///
    /// # Errors
    /// [`RoundError::Undecided`] and [`RoundError::NoneAccepted`] if a partition cannot be created, and that may be
    /// PostgreSQL's trouble; else those of PostgreSQL.
    pub(crate) async fn identify(&mut self, conn: &mut Connection, batch: &mut Batch) -> Result<(), RoundError> {
        if !self.knows(batch) {
            if self.known.len() + self.uncreated.len() + batch.groups().partitions().len() > PARTITIONS_MAX {
                self.forget();
                self.uncreated.clear();
            }
            self.look_up(conn, batch).await?;
        }
        batch.groups_mut().update(|name, partition| {
            (partition.id, partition.last_seq) =
                self.known.get(name).map_or((0, 0), |known| (known.id, known.last_seq));
        });
        let refused = self.refused_partitions(batch)?;
        batch.refuse_partitions(refused.into_iter());
        batch.groups_mut().sort_by_id();
        Ok(())
    }

    /// The partitions of `batch` that are not created and whose messages become dead letters: by the same rule as rows.
    fn refused_partitions(&self, batch: &Batch) -> Result<Vec<(BatchPartition, RowRefusal)>, RoundError> {
        let groups = batch.groups();
        if groups.partitions().iter().all(BatchPartition::is_created) {
            return Ok(Vec::new());
        }
        let with_rows = || groups.partitions().iter().filter(|partition| batch.row_count(partition) > 0);
        let has_neighbour = with_rows().any(BatchPartition::is_created);
        let mut refused = Vec::new();
        let mut undecided = None;
        for partition in with_rows().filter(|partition| !partition.is_created()) {
            let Some(UncreatedPartition { failures, obstacle, .. }) = self.uncreated.get(groups.name(partition)) else {
                return Err(RoundError::PartitionGone);
            };
            if !obstacle.is_own() && !has_neighbour {
                return Err(RoundError::NoneAccepted(obstacle.clone()));
            }
            if obstacle.is_own() || *failures >= LONE_FAILURES {
                refused.push((partition.clone(), obstacle.refusal()));
            } else {
                undecided = Some(obstacle.clone());
            }
        }
        undecided.map_or(Ok(refused), |obstacle| Err(RoundError::Undecided(obstacle)))
    }

    /// Looks up the unknown partitions of `batch`, creating the missing ones.
    async fn look_up(&mut self, conn: &mut Connection, batch: &Batch) -> Result<(), Error> {
        let groups = batch.groups();
        let names = groups
            .partitions()
            .iter()
            .map(|partition| Unknown { name: groups.name(partition), labels: batch.first_of(partition).labels() });
        let mut unknown: Vec<Unknown<'_>> = names.filter(|unknown| !self.known.contains_key(unknown.name)).collect();
        self.find(conn, &mut unknown).await?;
        unknown.retain(|unknown| self.is_creation_due(unknown.name));
        if unknown.is_empty() {
            return Ok(());
        }
        let labels: Vec<Labels<'_>> = unknown.iter().map(|unknown| unknown.labels).collect();
        let obstacles = self.maker.make(conn, &labels).await?;
        let mut obstacles: HashMap<&[u8], Obstacle> =
            unknown.iter().zip(obstacles).filter_map(|(unknown, obstacle)| Some((unknown.name, obstacle?))).collect();
        self.find(conn, &mut unknown).await?;
        let tried_at = Instant::now();
        for Unknown { name, .. } in unknown {
            let obstacle = obstacles.remove(name).unwrap_or_else(Obstacle::not_created);
            let failures = self.uncreated.get(name).map_or(0, |before| before.failures) + 1;
            self.uncreated.insert(name.into(), UncreatedPartition { failures, obstacle, tried_at });
        }
        Ok(())
    }

    /// Whether a missing partition is to be created: not again and again where that fails.
    fn is_creation_due(&self, name: &[u8]) -> bool {
        self.uncreated.get(name).is_none_or(|uncreated| {
            uncreated.failures < LONE_FAILURES || uncreated.tried_at.elapsed() >= NAME_RETRY_INTERVAL
        })
    }

    /// Looks partitions up. Those that exist are known then, and `unknown` has the others.
    async fn find(&mut self, conn: &mut Connection, unknown: &mut Vec<Unknown<'_>>) -> Result<(), Error> {
        let queues: Vec<&str> = unknown.iter().map(|unknown| unknown.labels.queue).collect();
        let partitions: Vec<&str> = unknown.iter().map(|unknown| unknown.labels.partition).collect();
        let rows = conn.query_once(&self.find, &[Param::TextArray(&queues), Param::TextArray(&partitions)]).await?;
        let mut found = HashSet::with_capacity(rows.len());
        for row in &rows {
            // The ordinality of the parameters' elements, which begins with 1.
            let index = row.get_i64(0)? as usize - 1;
            let name = unknown[index].name;
            self.known.insert(name.into(), KnownPartition { id: row.get_i64(1)?, last_seq: row.get_i64(2)? });
            self.uncreated.remove(name);
            found.insert(index);
        }
        let mut index = 0..;
        unknown.retain(|_| index.next().is_some_and(|index| !found.contains(&index)));
        Ok(())
    }
}
