//! Which records of an unfinished group do not count: those of a batch that is not whole.

use super::{Extent, Item, ReadAt, Scan};
use std::{collections::HashSet, io};

/// The ordinals of the records of `extent`'s first group that belong to a batch with a record that does not verify.
///
/// The file is a trait object, or each scan would instantiate another type of scan.
pub(super) fn partial_batches(file: &dyn ReadAt, extent: Extent, group_block: u32) -> io::Result<HashSet<u64>> {
    let mut scan = Scan::new(file, extent);
    let mut partial = HashSet::new();
    let mut batch: Vec<u64> = Vec::new();
    // The ordinal that the batch continues with, while all of it was read so far.
    let mut expected_ordinal = None;
    loop {
        match scan.next_item()? {
            Item::Record { header, .. } if header.group_block == group_block => {
                if header.starts_batch() || expected_ordinal != Some(header.ordinal) {
                    partial.extend(batch.drain(..));
                    expected_ordinal = header.starts_batch().then_some(header.ordinal);
                }
                batch.push(header.ordinal);
                expected_ordinal = expected_ordinal.map(|ordinal| ordinal + 1);
                if header.batch_remaining == 0 && expected_ordinal.is_some() {
                    batch.clear();
                    expected_ordinal = None;
                }
            }
            Item::Record { .. } | Item::Seal { .. } | Item::End { .. } => {
                partial.extend(batch);
                return Ok(partial);
            }
            Item::BadPayload { .. } | Item::CorruptBytes { .. } | Item::DirtyPadding { .. } => {}
        }
    }
}
