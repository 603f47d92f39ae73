//! The records of one drain transaction, grouped by partition, and what becomes of each.

use super::grouping::{BatchPartition, Grouping, PartitionGroups};
use crate::{
    drain::source::log_record::{LogRecord, RECORD_BYTES_MAX},
    ids,
    letters::files::FileName,
    message::{CheckedMessage, TransactionKey},
    state::{
        mailbox::{Delivery, Fate},
        mark::Mark,
    },
};
use std::{collections::HashMap, time::Instant};
use uuid::Uuid;

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowOutcome {
    /// A row of `messages`.
    Row,
    /// Nothing: there is a message with its transaction id.
    Duplicate {
        /// Id of that message.
        of: Uuid,
    },
    /// A dead letter.
    Refused(Box<RowRefusal>),
}

/// Why PostgreSQL does not store a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowRefusal {
    /// Five characters.
    pub(crate) sqlstate: String,
    /// PostgreSQL's message.
    pub(crate) error: String,
}

/// A message that becomes a row.
#[derive(Clone, Copy)]
pub(crate) struct BatchRow<'a> {
    /// Index of its record in the batch.
    pub(crate) index: usize,
    /// The message.
    pub(crate) message: CheckedMessage<'a>,
    /// The key of its transaction id, if its client gave one.
    pub(crate) key: Option<TransactionKey>,
}

/// The records of one drain transaction.
///
/// A record in a partition has a message, and has had its transaction key derived: both happen once, in
/// [`Batch::new`] and before. So a row cannot fail to be encoded.
pub(crate) struct Batch {
    /// Random: it names this round in the checkpoint, in whatever transaction it is committed.
    id: Uuid,
    /// In the order of their numbers.
    records: Vec<LogRecord>,
    outcomes: Vec<RowOutcome>,
    keys: Vec<Option<TransactionKey>>,
    groups: PartitionGroups,
    has_producers: bool,
    before: Vec<Mark>,
    after: Vec<Mark>,
    taken_at: Instant,
    /// Where its dead letters are while its transaction is open, if PostgreSQL's table did not store them.
    letters_file: Option<FileName>,
}

/// Bytes that a batch holds for a record besides its payload and its partition: itself, what becomes of it, its key, its
/// partition's index while records are grouped.
const RECORD_BYTES: usize =
    size_of::<LogRecord>() + size_of::<RowOutcome>() + size_of::<Option<TransactionKey>>() + size_of::<u32>();

const _: () = assert!(RECORD_BYTES <= RECORD_BYTES_MAX);

impl Batch {
    /// The batch of `records`, which are those of this drainer between the marks `before` and `after`, one for each lane.
    pub(crate) fn new(records: Vec<LogRecord>, before: Vec<Mark>, after: Vec<Mark>) -> Self {
        let mut outcomes = Vec::with_capacity(records.len());
        let mut keys = Vec::with_capacity(records.len());
        let mut grouping = Grouping::with_capacity(records.len());
        let mut has_producers = false;
        for record in &records {
            if let Some(message) = record.message() {
                outcomes.push(RowOutcome::Row);
                keys.push(message.transaction_key());
                grouping.add(message);
                has_producers |= message.known_producer().is_some();
            } else {
                // Its checksum was right, so a build of another version wrote it: kept for a release that can read it.
                let error = "the record is no message that this release knows".to_owned();
                outcomes.push(RowOutcome::Refused(Box::new(RowRefusal { sqlstate: "XXFB1".to_owned(), error })));
                keys.push(None);
                grouping.add_other();
            }
        }
        let groups = grouping.finish();
        Self {
            id: ids::random(),
            records,
            outcomes,
            keys,
            groups,
            has_producers,
            before,
            after,
            taken_at: Instant::now(),
            letters_file: None,
        }
    }

    /// The id of the round.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// The records, in the order of their numbers.
    pub(crate) fn records(&self) -> &[LogRecord] {
        &self.records
    }

    /// The records, for another batch.
    pub(crate) fn into_records(self) -> (Vec<LogRecord>, Vec<Mark>) {
        (self.records, self.before)
    }

    /// How far the lanes were done before this batch.
    pub(crate) fn before(&self) -> &[Mark] {
        &self.before
    }

    /// How far they are done once it is committed.
    pub(crate) fn after(&self) -> &[Mark] {
        &self.after
    }

    /// When its first record was accepted, in microseconds since 1970; `None` if that is not known.
    pub(crate) fn oldest_accepted_us(&self) -> Option<u64> {
        Some(self.records.first()?.message()?.accepted_us() as u64)
    }

    /// Bytes of records a second since it was taken from the log; `None` without a record.
    pub(crate) fn bytes_per_s(&self) -> Option<u64> {
        const LEAST_S: f64 = 1e-6;
        let bytes: usize = self.records.iter().map(|record| record.payload().len()).sum();
        let rate = bytes as f64 / self.taken_at.elapsed().as_secs_f64().max(LEAST_S);
        (!self.records.is_empty()).then_some(rate as u64)
    }

    /// Whether the producer of a message is known. The rows have a column for it then.
    pub(crate) fn has_producers(&self) -> bool {
        self.has_producers
    }

    /// Names the file that holds its dead letters while its transaction is open, if there is one.
    pub(crate) fn set_letters_file(&mut self, file: Option<FileName>) {
        self.letters_file = file;
    }

    /// The file that holds its dead letters. It is the caller's to keep or to discard.
    pub(crate) fn take_letters_file(&mut self) -> Option<FileName> {
        self.letters_file.take()
    }

    /// The partitions and their names.
    pub(crate) fn groups(&self) -> &PartitionGroups {
        &self.groups
    }

    /// The partitions, to be identified and sorted.
    pub(crate) fn groups_mut(&mut self) -> &mut PartitionGroups {
        &mut self.groups
    }

    /// The first message of a partition. Its labels go to a queue that is created for it.
    pub(crate) fn first_of(&self, partition: &BatchPartition) -> CheckedMessage<'_> {
        let first = self.groups.members(partition).next();
        self.message_at(first.unwrap_or_else(|| unreachable!("a partition of a batch has a message")))
    }

    /// The messages of a partition that become rows, in the order of the log.
    pub(crate) fn rows<'a>(&'a self, partition: &BatchPartition) -> impl Iterator<Item = BatchRow<'a>> + use<'a> {
        let rows = self.groups.members(partition).filter(|index| self.is_row(*index));
        rows.map(|index| BatchRow { index, message: self.message_at(index), key: self.keys[index] })
    }

    /// Number of rows of a partition.
    pub(crate) fn row_count(&self, partition: &BatchPartition) -> usize {
        self.groups.members(partition).filter(|index| self.is_row(*index)).count()
    }

    /// Whether there is a record of this index, and it becomes a row.
    pub(crate) fn is_row(&self, index: usize) -> bool {
        matches!(self.outcomes.get(index), Some(RowOutcome::Row))
    }

    /// Indices of the records in the order in which their rows are copied: partition by partition, each in the order of the log.
    pub(crate) fn copy_order(&self) -> impl Iterator<Item = usize> + '_ {
        self.groups.partitions().iter().flat_map(|partition| self.rows(partition).map(|row| row.index))
    }

    /// The records that become dead letters, by index.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (usize, &RowRefusal)> {
        self.outcomes.iter().enumerate().filter_map(|(index, outcome)| match outcome {
            RowOutcome::Refused(refusal) => Some((index, &**refusal)),
            RowOutcome::Row | RowOutcome::Duplicate { .. } => None,
        })
    }

    /// Number of messages that have a duplicate.
    pub(crate) fn duplicates(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome, RowOutcome::Duplicate { .. })).count()
    }

    /// Makes a message a dead letter.
    pub(crate) fn refuse(&mut self, index: usize, refusal: RowRefusal) {
        self.outcomes[index] = RowOutcome::Refused(Box::new(refusal));
    }

    /// Forgets the duplicates that an earlier attempt found.
    pub(crate) fn forget_duplicates(&mut self) {
        for outcome in &mut self.outcomes {
            if matches!(outcome, RowOutcome::Duplicate { .. }) {
                *outcome = RowOutcome::Row;
            }
        }
    }

    /// Finds messages with the transaction id of an earlier one of the batch. Only the first message that becomes a row stays.
    pub(crate) fn find_repeats(&mut self) {
        let mut keys: Vec<([u8; 16], usize)> = Vec::new();
        let mut repeats: Vec<(usize, usize)> = Vec::new();
        for partition in self.groups.partitions() {
            keys.clear();
            keys.extend(self.rows(partition).filter_map(|row| Some((row.key?.bytes, row.index))));
            keys.sort_unstable();
            for same in keys.chunk_by(|(one, _), (other, _)| one == other) {
                let (_, first) = same[0];
                repeats.extend(same[1..].iter().map(|(_, later)| (*later, first)));
            }
        }
        for (later, first) in repeats {
            self.outcomes[later] = RowOutcome::Duplicate { of: self.message_at(first).id() };
        }
    }

    /// Notes the rows whose transaction id PostgreSQL has already: for each its index and the id of the message there.
    pub(crate) fn set_duplicates(&mut self, found: &[(usize, Uuid)]) {
        // Repeats name the first message of the batch with the same key, which is a duplicate itself now.
        let mut replaced: HashMap<Uuid, Uuid> = HashMap::new();
        for &(index, of) in found {
            replaced.insert(self.message_at(index).id(), of);
            self.outcomes[index] = RowOutcome::Duplicate { of };
        }
        for outcome in &mut self.outcomes {
            if let RowOutcome::Duplicate { of } = outcome
                && let Some(stored) = replaced.get(of)
            {
                *of = *stored;
            }
        }
    }

    /// What the clients that wait are told once the batch is committed, by index of the lane.
    pub(crate) fn deliveries(&self, lanes: usize) -> Vec<Vec<Delivery>> {
        let mut by_lane = vec![Vec::new(); lanes];
        for partition in self.groups.partitions() {
            for index in self.groups.members(partition).filter(|index| self.message_at(*index).is_awaited()) {
                let fate = match &self.outcomes[index] {
                    RowOutcome::Row => Fate::Queued,
                    RowOutcome::Duplicate { of } => Fate::Duplicate { of: *of },
                    RowOutcome::Refused(refusal) => Fate::Refused { error: refusal.error.clone() },
                };
                let record = &self.records[index];
                by_lane[record.lane()].push(Delivery { number: record.number(), partition_id: partition.id, fate });
            }
        }
        by_lane
    }

    /// The message of a record in a partition.
    fn message_at(&self, index: usize) -> CheckedMessage<'_> {
        self.records[index]
            .message()
            .unwrap_or_else(|| unreachable!("record {index} is in a partition without a message"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::round::test_records::{record, record_of};

    fn batch(records: Vec<LogRecord>) -> Batch {
        Batch::new(records, Vec::new(), Vec::new())
    }

    fn duplicate(of: u128) -> RowOutcome {
        RowOutcome::Duplicate { of: Uuid::from_u128(of) }
    }

    #[test]
    fn repeats_are_found_per_partition_and_the_first_one_stands() {
        let mut batch = batch(vec![
            record(1, "a", Some("x"), false),
            record(2, "b", Some("x"), false),
            record(3, "a", Some("x"), true),
            record(4, "a", None, true),
            record(5, "a", None, true),
        ]);
        batch.find_repeats();
        assert_eq!(batch.outcomes, [RowOutcome::Row, RowOutcome::Row, duplicate(1), RowOutcome::Row, RowOutcome::Row]);
        assert_eq!(batch.copy_order().collect::<Vec<_>>(), [0, 3, 4, 1]);
        let deliveries = &batch.deliveries(1)[0];
        let numbers: Vec<_> = deliveries.iter().map(|delivery| delivery.number).collect();
        assert_eq!(numbers, [3, 4, 5], "only those who wait are told");
        assert_eq!(deliveries[0].fate, Fate::Duplicate { of: Uuid::from_u128(1) });
    }

    #[test]
    fn a_repeat_of_a_message_that_postgresql_has_already_names_the_stored_one() {
        let mut batch = batch(vec![
            record(1, "a", Some("x"), true),
            record(2, "a", Some("x"), true),
            record(3, "a", Some("y"), true),
        ]);
        batch.find_repeats();
        batch.set_duplicates(&[(0, Uuid::from_u128(77))]);
        assert_eq!(batch.outcomes, [duplicate(77), duplicate(77), RowOutcome::Row]);
        assert_eq!(batch.duplicates(), 2);
        batch.forget_duplicates();
        assert_eq!(batch.copy_order().count(), 3);
    }

    #[test]
    fn records_stand_by_partition_however_they_are_mixed_and_names_do_not_run_together() {
        let names = ["a", "", "ab", "b", "a b"];
        let name_of = |n: u64| names[(n * n % 7) as usize % names.len()];
        let batch = batch((0..100).map(|n| record(n, name_of(n), None, false)).collect());
        let partitions = batch.groups().partitions();
        let met: Vec<&[u8]> = partitions.iter().map(|partition| batch.first_of(partition).partition()).collect();
        assert_eq!(met, [&b"a"[..], b"", b"a b", b"ab"], "in the order of their first messages");
        for partition in partitions {
            let name = batch.first_of(partition).partition();
            let expected: Vec<usize> = (0..100).filter(|&n| name_of(n as u64).as_bytes() == name).collect();
            assert_eq!(batch.rows(partition).map(|row| row.index).collect::<Vec<_>>(), expected);
            assert_eq!(batch.groups().name(partition), [b"q\xff", name].concat());
        }
        assert_eq!(batch.copy_order().count(), 100);
    }

    #[test]
    fn a_record_that_is_no_message_is_set_aside_and_its_neighbours_are_not() {
        let records = vec![record(1, "a", None, false), record_of(2, vec![99]), record(3, "a", None, false)];
        let batch = batch(records);
        assert_eq!(batch.copy_order().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(batch.refused().map(|(index, _)| index).collect::<Vec<_>>(), [1]);
    }
}
