//! The records of one drain transaction, grouped by partition, and what becomes of each.

use super::{
    grouping::{BatchPartition, Grouping, PartitionGroups},
    sift::Sift,
};
use crate::{
    drain::source::log_record::{LogRecord, RECORD_BYTES_MAX},
    ids,
    letters::files::FileName,
    message::{CheckedMessage, TransactionKey},
    state::{
        commits::Commit,
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

impl<'a> BatchRow<'a> {
    /// The transaction id as its column has it: a key that is the id itself says all.
    pub(crate) fn stored_transaction_id(&self) -> Option<&'a str> {
        self.message.transaction_id().filter(|_| self.key.is_some_and(|key| !key.is_the_id))
    }
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
    /// What is known of its rows, if PostgreSQL did not take them as they were.
    sift: Option<Sift>,
    /// What is known of its partitions, each by its first record, if PostgreSQL did not create them as they were.
    name_sift: Option<Sift>,
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
            sift: None,
            name_sift: None,
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

    /// Whether it was found out which of its rows PostgreSQL takes.
    pub(crate) fn is_sifted(&self) -> bool {
        self.sift.is_some()
    }

    /// What is known of its rows. It is the caller's to [set](Self::set_sift) again.
    pub(crate) fn take_sift(&mut self) -> Sift {
        self.sift.take().unwrap_or_else(|| self.new_sift())
    }

    /// Keeps what is known of its rows, for a repeated transaction.
    pub(crate) fn set_sift(&mut self, sift: Sift) {
        self.sift = Some(sift);
    }

    /// What is known of its partitions. It is the caller's to [set](Self::set_name_sift) again.
    pub(crate) fn take_name_sift(&mut self) -> Option<Sift> {
        self.name_sift.take()
    }

    /// Keeps what is known of its partitions, for another attempt to create them.
    pub(crate) fn set_name_sift(&mut self, sift: Option<Sift>) {
        self.name_sift = sift;
    }

    /// Knows nothing of its records.
    pub(crate) fn new_sift(&self) -> Sift {
        let [seed, ..] = self.id.into_bytes();
        Sift::new(self.records.len(), seed)
    }

    /// The partitions and their names.
    pub(crate) fn groups(&self) -> &PartitionGroups {
        &self.groups
    }

    /// The partitions, to be identified and sorted.
    pub(crate) fn groups_mut(&mut self) -> &mut PartitionGroups {
        &mut self.groups
    }

    /// The first message of a partition, and the index of its record. Its labels go to a queue that is created for it.
    pub(crate) fn first_of(&self, partition: &BatchPartition) -> (usize, CheckedMessage<'_>) {
        let first = self.groups.members(partition).next();
        let first = first.unwrap_or_else(|| unreachable!("a partition of a batch has a message"));
        (first, self.message_at(first))
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

    /// Makes the messages of partitions dead letters.
    pub(crate) fn refuse_partitions(&mut self, refused: impl Iterator<Item = (BatchPartition, RowRefusal)>) {
        for (partition, refusal) in refused {
            for index in self.groups.members(&partition) {
                if self.is_row(index) {
                    self.outcomes[index] = RowOutcome::Refused(Box::new(refusal.clone()));
                }
            }
        }
    }

    /// Forgets the duplicates that an earlier attempt found.
    pub(crate) fn forget_duplicates(&mut self) {
        for outcome in &mut self.outcomes {
            if matches!(outcome, RowOutcome::Duplicate { .. }) {
                *outcome = RowOutcome::Row;
            }
        }
    }

    /// Finds messages with the transaction id of an earlier one of the batch that becomes a row. They are duplicates, also if
    /// PostgreSQL would refuse them.
    pub(crate) fn find_repeats(&mut self) {
        let mut keys: Vec<([u8; 16], usize)> = Vec::new();
        let mut repeats: Vec<(usize, usize)> = Vec::new();
        for partition in self.groups.partitions() {
            let is_duplicate = |index: usize| matches!(self.outcomes[index], RowOutcome::Duplicate { .. });
            let others = self.groups.members(partition).filter(|index| !is_duplicate(*index));
            keys.clear();
            keys.extend(others.filter_map(|index| Some((self.keys[index]?.bytes, index))));
            keys.sort_unstable();
            for same in keys.chunk_by(|(one, _), (other, _)| one == other) {
                let mut same = same.iter().map(|(_, index)| *index).skip_while(|index| !self.is_row(*index));
                if let Some(first) = same.next() {
                    repeats.extend(same.map(|later| (later, first)));
                }
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

    /// The partitions that have new messages once the batch is committed.
    pub(crate) fn commits(&self) -> Vec<Commit> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
        let with_rows = self.groups.partitions().iter().map(|partition| (partition, self.row_count(partition)));
        let commit = |(partition, rows): (&BatchPartition, usize)| {
            let (_, first) = self.first_of(partition);
            Commit {
                queue: text(first.queue()),
                partition: text(first.partition()),
                partition_id: partition.id,
                last: partition.last_seq + rows as i64,
                largest_bytes: self.rows(partition).map(|row| row.message.payload().len() as u64).max().unwrap_or(0),
            }
        };
        with_rows.filter(|(_, rows)| *rows > 0).map(commit).collect()
    }

    /// The message of a record in a partition.
    fn message_at(&self, index: usize) -> CheckedMessage<'_> {
        self.records[index]
            .message()
            .unwrap_or_else(|| unreachable!("record {index} is in a partition without a message"))
    }
}

#[cfg(test)]
mod tests;
