//! The rows of a batch as COPY takes them.

use super::{
    batch::{Batch, BatchRow},
    grouping::BatchPartition,
};
use forebay_pgwire::BinaryCopy;

/// Fields of a row, in the order of the COPY's columns. A batch that knows a producer has one more.
const FIELDS: u16 = 8;

/// A row and its place.
pub(super) struct NumberedRow<'a> {
    partition: &'a BatchPartition,
    row: BatchRow<'a>,
    seq: i64,
}

impl<'a> NumberedRow<'a> {
    /// Index of its record in the batch.
    pub(super) fn index(&self) -> usize {
        self.row.index
    }

    /// The id of its partition.
    pub(super) fn partition_id(&self) -> i64 {
        self.partition.id
    }

    /// Its number in the partition.
    pub(super) fn seq(&self) -> i64 {
        self.seq
    }

    /// The row.
    pub(super) fn row(&self) -> &BatchRow<'a> {
        &self.row
    }
}

/// The rows of a batch in the order in which they are copied. The rows of a partition are numbered without a gap, from behind
/// its last sequence number.
pub(super) fn numbered(batch: &Batch) -> impl Iterator<Item = NumberedRow<'_>> {
    batch.groups().partitions().iter().flat_map(|partition| {
        let seqs = partition.last_seq + 1..;
        batch.rows(partition).zip(seqs).map(move |(row, seq)| NumberedRow { partition, row, seq })
    })
}

/// Appends a row.
pub(super) fn encode(batch: &Batch, row: &NumberedRow<'_>, rows: &mut BinaryCopy) {
    let NumberedRow { partition, row, seq } = row;
    let BatchRow { message, key, .. } = row;
    rows.row(FIELDS + u16::from(batch.has_producers()));
    rows.i64(partition.id);
    rows.i64(*seq);
    rows.timestamptz_us(message.accepted_us());
    rows.uuid(message.id().as_bytes());
    match message.trace_id() {
        Some(trace_id) => rows.uuid(trace_id.as_bytes()),
        None => rows.null(),
    }
    match key {
        Some(key) => rows.uuid(&key.bytes),
        None => rows.null(),
    }
    match row.stored_transaction_id() {
        Some(transaction_id) => rows.text(transaction_id),
        None => rows.null(),
    }
    rows.jsonb(message.payload());
    if batch.has_producers() {
        match message.known_producer() {
            Some(producer_sub) => rows.text(producer_sub),
            None => rows.null(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::round::{
        batch::RowRefusal,
        test_records::{record, record_of},
    };

    #[test]
    fn rows_are_numbered_without_a_gap_whatever_is_left_out_between_them() {
        let refusal = RowRefusal { sqlstate: "22P02".to_owned(), error: String::new() };
        let mut records: Vec<_> = (0..30).map(|n| record(n, ["a", "b"][n as usize % 2], None, false)).collect();
        records[4] = record(4, "a", Some("x"), false);
        records[6] = record(6, "a", Some("x"), false);
        records[10] = record_of(10, b"of another release".to_vec());
        let mut batch = Batch::new(records, Vec::new(), Vec::new());
        batch.refuse(20, refusal);
        batch.find_repeats();
        for (partition, (id, last_seq)) in batch.groups_mut().partitions_mut().iter_mut().zip([(7, 100), (8, 200)]) {
            (partition.id, partition.last_seq) = (id, last_seq);
        }
        let places: Vec<_> = numbered(&batch).map(|row| (row.partition.id, row.seq, row.row.index)).collect();
        let of = |id: i64| places.iter().filter(move |place| place.0 == id);
        assert!(of(7).map(|place| place.1).eq(101..=112), "{places:?}");
        assert!(of(7).map(|place| place.2).eq((0..30).step_by(2).filter(|n| ![6, 10, 20].contains(n))));
        assert!(of(8).map(|place| place.1).eq(201..=215), "{places:?}");
        let mut rows = BinaryCopy::start();
        numbered(&batch).for_each(|row| encode(&batch, &row, &mut rows));
        let reserved: usize = batch.groups().partitions().iter().map(|partition| batch.row_count(partition)).sum();
        assert_eq!(rows.finish().unwrap(), reserved as u64, "each reserved number has a row");
    }
}
