//! A round's records, by partition, on their way to become rows.

use super::source::{Mark, Taken};
use crate::{
    letters::files::FileName,
    mailbox::{Delivery, Fate},
    message::Message,
};
use std::{collections::HashMap, time::Instant};
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

/// A partition by its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionName {
    /// Queue.
    pub queue: String,
    /// Partition.
    pub partition: String,
}

/// What a batch holds of one partition.
#[derive(Debug)]
pub struct BatchPartition {
    /// Its names.
    pub name: PartitionName,
    /// Namespace and task for a queue that is made by this, from its first message.
    pub labels: (String, String),
    /// Its id in PostgreSQL, once known.
    pub id: i64,
    /// Its last sequence number before this batch, once known.
    pub last_seq: i64,
    /// Indices of its records, in order.
    pub records: Vec<usize>,
}

/// The records of one drain transaction.
pub struct Batch {
    /// The records, in the order of their numbers.
    pub records: Vec<Taken>,
    /// What is to become of each.
    pub verdicts: Vec<Verdict>,
    /// Their partitions.
    pub partitions: Vec<BatchPartition>,
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
        let mut partitions: Vec<BatchPartition> = Vec::new();
        let mut verdicts = Vec::with_capacity(records.len());
        {
            let mut index_of: HashMap<(&str, &str), usize> = HashMap::new();
            for (index, record) in records.iter().enumerate() {
                let Some(message) = record.message() else {
                    // It verified, so a build of another version wrote it: kept for whoever knows it.
                    let error = "the record is no message that this release knows".to_owned();
                    let sqlstate = "XXFB1".to_owned();
                    verdicts.push(Verdict::Refused(Box::new(Refusal { sqlstate, error })));
                    continue;
                };
                verdicts.push(Verdict::Row);
                let partition = *index_of.entry((message.queue, message.partition)).or_insert_with(|| {
                    let (queue, partition) = (message.queue.to_owned(), message.partition.to_owned());
                    partitions.push(BatchPartition {
                        name: PartitionName { queue, partition },
                        labels: (message.namespace.to_owned(), message.task.to_owned()),
                        id: 0,
                        last_seq: 0,
                        records: Vec::new(),
                    });
                    partitions.len() - 1
                });
                partitions[partition].records.push(index);
            }
        }
        Self { records, verdicts, partitions, before, after, taken_at: Instant::now(), letters: None }
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

    /// Finds repeated transaction ids within the batch: the first one stands, unless it has no row to stand by.
    pub fn find_repeats(&mut self) {
        for partition in &self.partitions {
            let mut first: HashMap<[u8; 16], Uuid> = HashMap::new();
            for &index in &partition.records {
                if self.verdicts[index] != Verdict::Row {
                    continue;
                }
                let Some(message) = self.records[index].message() else { continue };
                let Some(key) = message.transaction_key() else { continue };
                if let Some(of) = first.get(&key.bytes) {
                    self.verdicts[index] = Verdict::Duplicate { of: *of };
                } else {
                    first.insert(key.bytes, message.id);
                }
            }
        }
    }

    /// Records of a partition that become rows, in order.
    pub fn rows<'a>(&'a self, partition: &'a BatchPartition) -> impl Iterator<Item = usize> + 'a {
        partition.records.iter().copied().filter(|index| self.verdicts[*index] == Verdict::Row)
    }

    /// Indices of the rows in the order in which they are copied: partition by partition (ids rising), each in order.
    #[must_use]
    pub fn copy_order(&self) -> Vec<usize> {
        self.partitions.iter().flat_map(|partition| self.rows(partition)).collect()
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
            for &index in &partition.records {
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
        assert_eq!(batch.copy_order(), [0, 3, 4, 1]);
        let deliveries = &batch.deliveries(1)[0];
        let numbers: Vec<_> = deliveries.iter().map(|delivery| delivery.number).collect();
        assert_eq!(numbers, [3, 4, 5], "only those who wait are told");
        assert_eq!(deliveries[0].fate, Fate::Duplicate { of: Uuid::from_u128(1) });
    }

    #[test]
    fn a_record_that_is_no_message_is_set_aside_and_its_neighbours_are_not() {
        let mut strange = taken(2, "a", None, false);
        strange.payload = vec![99].into();
        let batch = Batch::new(vec![taken(1, "a", None, false), strange, taken(3, "a", None, false)], vec![], vec![]);
        assert_eq!(batch.copy_order(), [0, 2]);
        assert_eq!(batch.refused().map(|(index, ..)| index).collect::<Vec<_>>(), [1]);
    }
}
