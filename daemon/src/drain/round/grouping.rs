//! The messages of a batch, grouped by partition.

use crate::message::CheckedMessage;
use hashbrown::{HashTable, hash_table::Entry};
use std::{
    hash::{BuildHasher, RandomState},
    ops::Range,
};

/// In place of a partition for a record without a message.
const NO_PARTITION: u32 = u32::MAX;

/// Stands between the names of queue and partition. No UTF-8 text contains it.
const QUEUE_END: u8 = 0xff;

/// A partition of which a batch has messages.
#[derive(Clone, Debug)]
pub(crate) struct BatchPartition {
    /// Its id in PostgreSQL; 0 before that is known, or if PostgreSQL does not create it.
    pub(crate) id: i64,
    /// Its last sequence number before this batch; 0 before that is known.
    pub(crate) last_seq: i64,
    /// Its name in the names of all partitions.
    name: Range<u32>,
    /// Its messages in the members of all partitions; not empty.
    members: Range<u32>,
}

impl BatchPartition {
    /// Whether PostgreSQL has it.
    pub(crate) fn is_created(&self) -> bool {
        self.id > 0
    }
}

/// The partitions of a batch and the messages of each.
pub(crate) struct PartitionGroups {
    partitions: Vec<BatchPartition>,
    /// The names of all partitions, one behind the other: they are read several times, and fit into the processor's cache.
    names: Vec<u8>,
    /// Indices of records with a message: partition by partition, and in the order of the log within each.
    members: Vec<u32>,
}

impl PartitionGroups {
    /// The partitions: in the order of their first messages at first, by id after [`sort_by_id`](Self::sort_by_id).
    pub(crate) fn partitions(&self) -> &[BatchPartition] {
        &self.partitions
    }

    /// The same, to be changed.
    pub(crate) fn partitions_mut(&mut self) -> &mut [BatchPartition] {
        &mut self.partitions
    }

    /// Calls `change` with the name of each partition and the partition.
    pub(crate) fn update(&mut self, mut change: impl FnMut(&[u8], &mut BatchPartition)) {
        for partition in &mut self.partitions {
            let Range { start, end } = partition.name;
            change(&self.names[start as usize..end as usize], partition);
        }
    }

    /// Sorts the partitions by id.
    pub(crate) fn sort_by_id(&mut self) {
        self.partitions.sort_unstable_by_key(|partition| partition.id);
    }

    /// Names of queue and partition in one, the same for a partition in every batch.
    pub(crate) fn name(&self, partition: &BatchPartition) -> &[u8] {
        &self.names[partition.name.start as usize..partition.name.end as usize]
    }

    /// Indices of the records with a partition's messages, in the order of the log.
    pub(crate) fn members<'a>(&'a self, partition: &BatchPartition) -> impl Iterator<Item = usize> + use<'a> {
        let Range { start, end } = partition.members;
        self.members[start as usize..end as usize].iter().map(|&index| index as usize)
    }
}

/// Groups the records of a batch, one call for each record in the order of the log.
#[derive(Default)]
pub(crate) struct Grouping {
    names: Vec<u8>,
    /// Until the end `members` counts the messages of each.
    partitions: Vec<BatchPartition>,
    /// For each record the index of its partition.
    partition_of: Vec<u32>,
    /// Indices of partitions, by name.
    by_name: HashTable<u32>,
    hasher: RandomState,
    /// The name that is looked up.
    name: Vec<u8>,
}

impl Grouping {
    /// For `records` records.
    pub(crate) fn with_capacity(records: usize) -> Self {
        Self { partition_of: Vec::with_capacity(records), ..Self::default() }
    }

    /// Adds a record without a message.
    pub(crate) fn add_other(&mut self) {
        self.partition_of.push(NO_PARTITION);
    }

    /// Adds a record with `message`.
    pub(crate) fn add(&mut self, message: CheckedMessage<'_>) {
        let Self { names, partitions, partition_of, by_name, hasher, name } = self;
        name.clear();
        name.extend_from_slice(message.queue());
        name.push(QUEUE_END);
        name.extend_from_slice(message.partition());
        let name_of = |index: u32| {
            let Range { start, end } = partitions[index as usize].name;
            &names[start as usize..end as usize]
        };
        let is_it = |index: &u32| name_of(*index) == name.as_slice();
        let entry = by_name.entry(hasher.hash_one(name.as_slice()), is_it, |index| hasher.hash_one(name_of(*index)));
        let index = match entry {
            Entry::Occupied(found) => *found.get(),
            Entry::Vacant(vacant) => {
                let index = partitions.len() as u32;
                vacant.insert(index);
                let start = names.len() as u32;
                names.extend_from_slice(name);
                let name = start..names.len() as u32;
                partitions.push(BatchPartition { id: 0, last_seq: 0, name, members: 0..0 });
                index
            }
        };
        partitions[index as usize].members.end += 1;
        partition_of.push(index);
    }

    /// The groups.
    pub(crate) fn finish(self) -> PartitionGroups {
        let Self { names, mut partitions, partition_of, .. } = self;
        let mut next = 0;
        for partition in &mut partitions {
            let count = partition.members.end;
            // Filled below, up to its end.
            partition.members = next..next;
            next += count;
        }
        let mut members = vec![0; next as usize];
        for (record, &index) in partition_of.iter().enumerate().filter(|(_, index)| **index != NO_PARTITION) {
            let end = &mut partitions[index as usize].members.end;
            members[*end as usize] = record as u32;
            *end += 1;
        }
        PartitionGroups { partitions, names, members }
    }
}
