//! A round's records, by partition, on their way to become rows.

use super::source::Taken;
use crate::state::mark::Mark;
use crate::{
    letters::files::FileName,
    message::Message,
    state::mailbox::{Delivery, Fate},
};
use hashbrown::{HashTable, hash_table::Entry};
use std::{
    hash::{BuildHasher, RandomState},
    ops::Range,
    time::Instant,
};
use uuid::Uuid;

/// What is to become of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A row.
    Row,
    /// Nothing: its transaction id is known already.
    Duplicate {
        /// Id of the first message with it.
        of: Uuid,
    },
    /// A dead letter.
    Refused(Box<Refusal>),
}

/// Why PostgreSQL does not take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE.
    pub sqlstate: String,
    /// What PostgreSQL said.
    pub error: String,
}

/// What a batch holds of one partition.
#[derive(Clone, Debug)]
pub struct BatchPartition {
    /// Its id in PostgreSQL, once known.
    pub id: i64,
    /// Its last sequence number before this batch, once known.
    pub last_seq: i64,
    /// Where its name stands in the batch's names.
    name: Range<u32>,
    /// Where its records stand in the batch's order of them; there is at least one.
    records: Range<u32>,
}

/// The records of one drain transaction.
pub struct Batch {
    /// The records, in the order of their numbers.
    pub records: Vec<Taken>,
    /// What is to become of each.
    pub verdicts: Vec<Verdict>,
    /// Their partitions.
    pub partitions: Vec<BatchPartition>,
    /// The partitions' names, one behind the other: read for each partition several times, and small enough for the cache.
    names: Vec<u8>,
    /// Indices of the messages, partition by partition, each partition's in order.
    by_partition: Vec<u32>,
    /// Whether it is known of one of the messages who pushed it: rows have that column only then.
    pub has_producers: bool,
    /// How far the lanes were drained before it …
    pub before: Vec<Mark>,
    /// … and are after it.
    pub after: Vec<Mark>,
    /// When it was taken.
    pub taken_at: Instant,
    /// The file with those of its letters that PostgreSQL does not take, while its transaction is open.
    pub letters: Option<FileName>,
}

impl Batch {
    /// Groups `records`, which were taken between the two marks.
    #[must_use]
    pub fn new(records: Vec<Taken>, before: Vec<Mark>, after: Vec<Mark>) -> Self {
        let mut verdicts = Vec::with_capacity(records.len());
        let mut places = Vec::with_capacity(records.len());
        let mut grouping = Grouping::default();
        let mut has_producers = false;
        for record in &records {
            if let Some(message) = record.message() {
                verdicts.push(Verdict::Row);
                places.push(grouping.place(&message));
                has_producers |= !message.producer_sub.is_empty();
            } else {
                // It verified, so a build of another version wrote it: kept for whoever knows it.
                let error = "the record is no message that this release knows".to_owned();
                let sqlstate = "XXFB1".to_owned();
                verdicts.push(Verdict::Refused(Box::new(Refusal { sqlstate, error })));
                places.push(NO_PARTITION);
            }
        }
        let (partitions, names, by_partition) = grouping.finish(&places);
        let taken_at = Instant::now();
        let letters = None;
        Self { records, verdicts, partitions, names, by_partition, has_producers, before, after, taken_at, letters }
    }

    /// The message of a record that is one.
    #[must_use]
    pub fn message(&self, index: usize) -> Option<Message<'_>> {
        self.records.get(index).and_then(Taken::message)
    }

    /// Takes back what an earlier attempt found out about duplicates.
    pub fn forget_duplicates(&mut self) {
        for verdict in &mut self.verdicts {
            if matches!(verdict, Verdict::Duplicate { .. }) {
                *verdict = Verdict::Row;
            }
        }
    }

    /// Indices of a partition's records, in order.
    fn indices<'a>(&'a self, partition: &BatchPartition) -> impl Iterator<Item = usize> + 'a {
        let Range { start, end } = partition.records;
        self.by_partition[start as usize..end as usize].iter().map(|&index| index as usize)
    }

    /// The names of a partition and its queue in one, alike for the same partition in every batch.
    #[must_use]
    pub fn name(&self, partition: &BatchPartition) -> &[u8] {
        &self.names[partition.name.start as usize..partition.name.end as usize]
    }

    /// The first message of a partition: it gives its labels to a queue that is made by it.
    #[must_use]
    pub fn first_of(&self, partition: &BatchPartition) -> Option<Message<'_>> {
        self.indices(partition).next().and_then(|index| self.message(index))
    }

    /// Finds repeated transaction ids within the batch: the first one stands, unless it has no row to stand by.
    pub fn find_repeats(&mut self) {
        let mut keys: Vec<([u8; 16], usize)> = Vec::new();
        let mut repeats: Vec<(usize, Uuid)> = Vec::new();
        for partition in &self.partitions {
            keys.clear();
            keys.extend(self.rows(partition).filter_map(|index| {
                let key = self.message(index)?.transaction_key()?;
                Some((key.bytes, index))
            }));
            keys.sort_unstable();
            for same in keys.chunk_by(|(one, _), (other, _)| one == other) {
                let [(_, first), later @ ..] = same else { continue };
                if later.is_empty() {
                    continue;
                }
                let Some(of) = self.message(*first).map(|message| message.id) else { continue };
                repeats.extend(later.iter().map(|(_, index)| (*index, of)));
            }
        }
        for (index, of) in repeats {
            self.verdicts[index] = Verdict::Duplicate { of };
        }
    }

    /// Records of a partition that become rows, in order.
    pub fn rows<'a>(&'a self, partition: &BatchPartition) -> impl Iterator<Item = usize> + 'a {
        self.indices(partition).filter(|index| self.verdicts[*index] == Verdict::Row)
    }

    /// Indices of the rows in the order in which they are copied: partition by partition (ids rising), each in order.
    pub fn copy_order(&self) -> impl Iterator<Item = usize> + '_ {
        self.partitions.iter().flat_map(|partition| self.rows(partition))
    }

    /// Records that become dead letters.
    pub fn refused(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        self.verdicts.iter().enumerate().filter_map(|(index, verdict)| match verdict {
            Verdict::Refused(refusal) => Some((index, refusal.sqlstate.as_str(), refusal.error.as_str())),
            _ => None,
        })
    }

    /// What those who wait are told once it is committed, by lane.
    #[must_use]
    pub fn deliveries(&self, lanes: usize) -> Vec<Vec<Delivery>> {
        let mut by_lane = vec![Vec::new(); lanes];
        for partition in &self.partitions {
            for index in self.indices(partition) {
                if !self.message(index).is_some_and(|message| message.awaited) {
                    continue;
                }
                let fate = match &self.verdicts[index] {
                    Verdict::Row => Fate::Queued,
                    Verdict::Duplicate { of } => Fate::Duplicate { of: *of },
                    Verdict::Refused(refusal) => Fate::Refused { error: refusal.error.clone() },
                };
                let record = &self.records[index];
                by_lane[record.lane].push(Delivery { number: record.number, partition_id: partition.id, fate });
            }
        }
        by_lane
    }
}

/// In place of a partition for what is no message.
const NO_PARTITION: u32 = u32::MAX;

/// Between the queue's name and the partition's: no text has it.
const QUEUE_END: u8 = 0xff;

/// The partitions met so far among the records of a batch.
#[derive(Default)]
struct Grouping {
    names: Vec<u8>,
    partitions: Vec<BatchPartition>,
    /// Places among `partitions`, by name.
    place_of: HashTable<u32>,
    hasher: RandomState,
    /// The name that is looked for.
    name: Vec<u8>,
}

impl Grouping {
    /// The place of a message's partition; one more of its records is counted.
    fn place(&mut self, message: &Message<'_>) -> u32 {
        let Self { names, partitions, place_of, hasher, name } = self;
        name.clear();
        name.extend_from_slice(message.queue.as_bytes());
        name.push(QUEUE_END);
        name.extend_from_slice(message.partition.as_bytes());
        let name_at = |place: u32| {
            let Range { start, end } = partitions[place as usize].name;
            &names[start as usize..end as usize]
        };
        let is_it = |place: &u32| name_at(*place) == name.as_slice();
        let entry = place_of.entry(hasher.hash_one(name.as_slice()), is_it, |place| hasher.hash_one(name_at(*place)));
        let place = match entry {
            Entry::Occupied(found) => *found.get(),
            Entry::Vacant(room) => {
                let place = partitions.len() as u32;
                room.insert(place);
                let start = names.len() as u32;
                names.extend_from_slice(name);
                // For now the records' end is their number.
                let (name, records) = (start..names.len() as u32, 0..0);
                partitions.push(BatchPartition { id: 0, last_seq: 0, name, records });
                place
            }
        };
        partitions[place as usize].records.end += 1;
        place
    }

    /// The partitions, their names, and the indices of their records one partition after the other, where record `i`
    /// belongs to the partition at `places[i]`.
    fn finish(self, places: &[u32]) -> (Vec<BatchPartition>, Vec<u8>, Vec<u32>) {
        let Self { names, mut partitions, .. } = self;
        let mut next = 0;
        for partition in &mut partitions {
            let count = partition.records.end;
            // Filled below, up to its end.
            partition.records = next..next;
            next += count;
        }
        let mut by_partition = vec![0; next as usize];
        for (index, &place) in places.iter().enumerate() {
            if let Some(partition) = partitions.get_mut(place as usize) {
                by_partition[partition.records.end as usize] = index as u32;
                partition.records.end += 1;
            }
        }
        (partitions, names, by_partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_wal::{frame::KIND_MESSAGE, position::segment_start};

    fn taken(number: u64, partition: &str, transaction_id: Option<&str>, awaited: bool) -> Taken {
        let message = Message {
            id: Uuid::from_u128(number.into()),
            accepted_us: 0,
            queue: "q",
            partition,
            transaction_id,
            trace_id: None,
            namespace: "",
            task: "",
            producer_sub: "",
            awaited,
            payload: b"1",
        };
        let mut bytes = Vec::new();
        message.encode_head(&mut bytes);
        bytes.extend_from_slice(message.payload);
        Taken { number, ordinal: number, kind: KIND_MESSAGE, lane: 0, end: segment_start(1), payload: bytes.into() }
    }

    #[test]
    fn repeats_are_found_per_partition_and_the_first_one_stands() {
        let records = vec![
            taken(1, "a", Some("x"), false),
            taken(2, "b", Some("x"), false),
            taken(3, "a", Some("x"), true),
            taken(4, "a", None, true),
            taken(5, "a", None, true),
        ];
        let mut batch = Batch::new(records, Vec::new(), Vec::new());
        batch.find_repeats();
        let duplicate = Verdict::Duplicate { of: Uuid::from_u128(1) };
        assert_eq!(batch.verdicts, [Verdict::Row, Verdict::Row, duplicate, Verdict::Row, Verdict::Row]);
        assert_eq!(batch.copy_order().collect::<Vec<_>>(), [0, 3, 4, 1]);
        let deliveries = &batch.deliveries(1)[0];
        let numbers: Vec<_> = deliveries.iter().map(|delivery| delivery.number).collect();
        assert_eq!(numbers, [3, 4, 5], "only those who wait are told");
        assert_eq!(deliveries[0].fate, Fate::Duplicate { of: Uuid::from_u128(1) });
    }

    #[test]
    fn records_stand_by_partition_however_they_are_mixed_and_names_do_not_run_together() {
        let names = ["a", "", "ab", "b", "a b"];
        let records: Vec<Taken> =
            (0..100_u64).map(|n| taken(n, names[(n * n % 7) as usize % names.len()], None, false)).collect();
        let batch = Batch::new(records.clone(), Vec::new(), Vec::new());
        let met: Vec<&str> = batch.partitions.iter().map(|it| batch.first_of(it).unwrap().partition).collect();
        assert_eq!(met, ["a", "", "a b", "ab"], "in the order of their first messages");
        for partition in &batch.partitions {
            let name = batch.first_of(partition).unwrap().partition;
            let of_it: Vec<usize> = (0..100).filter(|&n| records[n].message().unwrap().partition == name).collect();
            assert_eq!(batch.rows(partition).collect::<Vec<_>>(), of_it);
            assert_eq!(batch.name(partition), [b"q\xff", name.as_bytes()].concat());
        }
        assert_eq!(batch.copy_order().count(), 100);
    }

    #[test]
    fn a_record_that_is_no_message_is_set_aside_and_its_neighbours_are_not() {
        let mut strange = taken(2, "a", None, false);
        strange.payload = vec![99].into();
        let batch = Batch::new(vec![taken(1, "a", None, false), strange, taken(3, "a", None, false)], vec![], vec![]);
        assert_eq!(batch.copy_order().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(batch.refused().map(|(index, ..)| index).collect::<Vec<_>>(), [1]);
    }
}
