//! From the log into rounds: which records, in which order, in which memory.

pub(super) mod lane_source;
pub(super) mod log_record;
pub(super) mod log_source;
pub(super) mod partition_share;
mod shared_slice;
pub mod snapshot;
