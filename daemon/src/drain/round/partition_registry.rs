//! The partitions that a session has met: their ids, and their last sequence numbers.

use super::{
    batch::{Batch, RowRefusal},
    grouping::BatchPartition,
    name_maker::NameMaker,
    obstacle::Obstacle,
    round_error::RoundError,
    sift::{Finding, Sift, Tried},
    uncreated_names::UncreatedNames,
};
use crate::{
    limits::{SIFT_GROUPS_MAX, SIFT_PATIENCE, trial_timeout},
    message::Labels,
    postgres::remedy::Remedy,
};
use forebay_pgwire::{Connection, Error, Param};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
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

/// A partition that is looked up: its name, and what a queue is created with for it.
struct Unknown<'a> {
    name: &'a [u8],
    /// Index of the first record with a message of it.
    record: usize,
    labels: Labels<'a>,
}

/// The known partitions of a session.
pub(crate) struct PartitionRegistry {
    /// Finds partitions by the names of queue and partition.
    find: String,
    maker: NameMaker,
    /// By name, as a batch groups them.
    known: HashMap<Box<[u8]>, KnownPartition>,
    statement_timeout: Duration,
}

impl PartitionRegistry {
    /// Knows no partition of the quoted `schema`. `statement_timeout` is that of the session.
    pub(crate) fn new(schema: &str, statement_timeout: Duration) -> Self {
        // Looked up one by one in the unique index. As a join, a table without statistics may be scanned as a whole for each
        // name: six seconds for 10,000 partitions, against 15 ms this way.
        let find = format!(
            "SELECT v.i, p.id, p.last_seq FROM unnest($1::text[], $2::text[]) WITH ORDINALITY v(q, p, i) \
             CROSS JOIN LATERAL (SELECT id, last_seq FROM {schema}.partitions \
             WHERE queue_id = (SELECT id FROM {schema}.queues WHERE name = v.q) AND name = v.p) p"
        );
        Self { find, maker: NameMaker::new(schema), known: HashMap::new(), statement_timeout }
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
    pub(crate) async fn identify(
        &mut self,
        conn: &mut Connection,
        batch: &mut Batch,
        uncreated: &mut UncreatedNames,
    ) -> Result<(), RoundError> {
        if !self.knows(batch) {
            if self.known.len() + batch.groups().partitions().len() > PARTITIONS_MAX {
                self.forget();
            }
            let mut sift = batch.take_name_sift();
            let looked_up = self.look_up(conn, batch, &mut sift, uncreated).await;
            batch.set_name_sift(sift);
            looked_up?;
        }
        batch.groups_mut().update(|name, partition| {
            (partition.id, partition.last_seq) =
                self.known.get(name).map_or((0, 0), |known| (known.id, known.last_seq));
        });
        let refused = refused_partitions(batch, uncreated)?;
        batch.refuse_partitions(refused.into_iter());
        batch.groups_mut().sort_by_id();
        Ok(())
    }

    /// Looks up the unknown partitions of `batch`, creating the missing ones. `sift` keeps what is known of names that fail.
    async fn look_up(
        &mut self,
        conn: &mut Connection,
        batch: &Batch,
        sift: &mut Option<Sift>,
        uncreated: &mut UncreatedNames,
    ) -> Result<(), RoundError> {
        let groups = batch.groups();
        let with_rows = || groups.partitions().iter().filter(|partition| batch.row_count(partition) > 0);
        let mut unknown = Vec::new();
        for partition in with_rows().filter(|partition| !self.known.contains_key(groups.name(partition))) {
            let (record, message) = batch.first_of(partition);
            unknown.push(Unknown { name: groups.name(partition), record, labels: message.labels() });
        }
        self.find(conn, &mut unknown, uncreated).await?;
        unknown.retain(|unknown| uncreated.is_due(unknown.name));
        if unknown.is_empty() {
            return Ok(());
        }
        let has_neighbour = with_rows().any(|partition| self.known.contains_key(groups.name(partition)));
        let new_sift = || batch.new_sift();
        self.create(conn, &unknown, sift, new_sift, has_neighbour, uncreated).await?;
        self.find(conn, &mut unknown, uncreated).await?;
        let has_neighbour = with_rows().any(|partition| self.known.contains_key(groups.name(partition)));
        let mut undecided = None;
        for Unknown { name, .. } in &unknown {
            if uncreated.refusal(name).is_some() {
                continue;
            }
            let obstacle = uncreated.skipped(name);
            // It counts as accepted there.
            *sift = None;
            if !has_neighbour {
                return Err(RoundError::NoneAccepted(obstacle));
            }
            undecided = uncreated.refusal(name).is_none().then_some(obstacle).or(undecided);
        }
        undecided.map_or(Ok(()), |obstacle| Err(RoundError::Undecided(obstacle)))
    }

    /// Creates the partitions `missing`, with less time for each statement than others have. Those at fault are noted as such.
    async fn create(
        &mut self,
        conn: &mut Connection,
        missing: &[Unknown<'_>],
        sift: &mut Option<Sift>,
        new_sift: impl FnOnce() -> Sift,
        has_neighbour: bool,
        uncreated: &mut UncreatedNames,
    ) -> Result<(), RoundError> {
        let ms = |timeout: Duration| format!("SET statement_timeout = {}", timeout.as_millis());
        conn.simple(&ms(trial_timeout(self.statement_timeout))).await?;
        let (judged, new): (Vec<_>, Vec<_>) =
            missing.iter().partition(|missing| uncreated.refusal(missing.name).is_some());
        let mut outcome = Ok(());
        for missing in judged {
            if let Err(error) = self.maker.make(conn, &[missing.labels]).await {
                uncreated.failed_again(missing.name, &error);
                if error.db_error().is_none() || error.ends_connection() {
                    return Err(error.into());
                }
            }
        }
        if !new.is_empty() {
            let sift = sift.get_or_insert_with(new_sift);
            outcome = self.create_new(conn, &new, sift, has_neighbour, uncreated).await;
        }
        if !conn.is_broken() {
            conn.simple(&ms(self.statement_timeout)).await?;
        }
        outcome
    }

    /// Creates partitions of which none is known to be at fault: all at once, or else those at fault are searched for as rows are.
    async fn create_new(
        &self,
        conn: &mut Connection,
        new: &[&Unknown<'_>],
        sift: &mut Sift,
        has_neighbour: bool,
        uncreated: &mut UncreatedNames,
    ) -> Result<(), RoundError> {
        let is_first_attempt = sift.is_new();
        let by_record: HashMap<usize, &Unknown<'_>> = new.iter().map(|new| (new.record, *new)).collect();
        sift.start(new.iter().map(|new| new.record), false);
        if has_neighbour {
            sift.has_witness();
        }
        let start = Instant::now();
        let mut groups = if is_first_attempt { Vec::from_iter(sift.all()) } else { Vec::new() };
        loop {
            if groups.is_empty() {
                // A statement for each: names that fail are few, and a session that ends names one of them.
                groups = sift.next_groups(start.elapsed() >= SIFT_PATIENCE, SIFT_GROUPS_MAX);
            }
            if groups.is_empty() {
                break;
            }
            for group in std::mem::take(&mut groups) {
                let names: Vec<Labels<'_>> = sift.group(&group).iter().map(|record| by_record[record].labels).collect();
                match self.maker.make(conn, &names).await {
                    Ok(()) => sift.tried(group, Tried::Accepted),
                    Err(error) if error.db_error().is_none() || error.ends_connection() => {
                        sift.lost(&[group], 1, Obstacle::of(&error));
                        return Err(error.into());
                    }
                    Err(error) => sift.tried(group, Tried::Failed { row: None, obstacle: Obstacle::of(&error) }),
                }
            }
        }
        // A lock on the table keeps every name from being created, and says nothing about any of them.
        if sift.suspicions().any(|obstacle| obstacle.remedy == Remedy::Again)
            && !self.maker.can_make(conn).await?
            && let Some(obstacle) = sift.acquit()
        {
            return Err(RoundError::NoneAccepted(obstacle));
        }
        let refused = match sift.finding() {
            Finding::Refused(refused) => refused,
            Finding::Undecided(obstacle) => return Err(RoundError::Undecided(obstacle)),
            Finding::NoneAccepted(obstacle) => return Err(RoundError::NoneAccepted(obstacle)),
        };
        for (record, refusal) in refused {
            if let Some(unknown) = by_record.get(&record) {
                uncreated.judged(unknown.name, refusal);
            }
        }
        Ok(())
    }

    /// Looks partitions up. Those that exist are known then, and `unknown` has the others.
    async fn find(
        &mut self,
        conn: &mut Connection,
        unknown: &mut Vec<Unknown<'_>>,
        uncreated: &mut UncreatedNames,
    ) -> Result<(), Error> {
        let queues: Vec<&str> = unknown.iter().map(|unknown| unknown.labels.queue).collect();
        let partitions: Vec<&str> = unknown.iter().map(|unknown| unknown.labels.partition).collect();
        let rows = conn.query_once(&self.find, &[Param::TextArray(&queues), Param::TextArray(&partitions)]).await?;
        let mut found = HashSet::with_capacity(rows.len());
        for row in &rows {
            // The ordinality of the parameters' elements, which begins with 1.
            let index = row.get_i64(0)? as usize - 1;
            let name = unknown[index].name;
            self.known.insert(name.into(), KnownPartition { id: row.get_i64(1)?, last_seq: row.get_i64(2)? });
            uncreated.created(name);
            found.insert(index);
        }
        let mut index = 0..;
        unknown.retain(|_| index.next().is_some_and(|index| !found.contains(&index)));
        Ok(())
    }
}

/// The partitions of `batch` that are not created and whose messages become dead letters.
fn refused_partitions(
    batch: &Batch,
    uncreated: &UncreatedNames,
) -> Result<Vec<(BatchPartition, RowRefusal)>, RoundError> {
    let groups = batch.groups();
    let is_missing = |partition: &&BatchPartition| !partition.is_created() && batch.row_count(partition) > 0;
    let missing = groups.partitions().iter().filter(is_missing);
    let refused = missing.map(|partition| {
        let refusal = uncreated.refusal(groups.name(partition)).ok_or(RoundError::PartitionGone)?;
        Ok((partition.clone(), refusal.clone()))
    });
    refused.collect()
}
