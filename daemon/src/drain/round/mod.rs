//! One drain transaction: its records, its rows, its statements.

pub(super) mod batch;
mod copy_rows;
pub(super) mod dead_letter_keeper;
mod grouping;
pub(super) mod partition_registry;
pub(super) mod round_error;
mod statements;
#[cfg(test)]
pub(super) mod test_records;
pub(super) mod transaction;
