//! One drain transaction: its records, its rows, its statements.

pub(super) mod batch;
mod bulk_trial;
mod copy_rows;
pub(super) mod dead_letter_keeper;
mod grouping;
mod name_maker;
pub(super) mod obstacle;
pub(super) mod partition_registry;
pub(super) mod round_error;
pub(super) mod sift;
mod statements;
#[cfg(test)]
pub(super) mod test_records;
pub(super) mod transaction;
mod trial;
pub(super) mod uncreated_names;
