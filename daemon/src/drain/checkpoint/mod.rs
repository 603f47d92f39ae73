//! The checkpoint in PostgreSQL: what it holds, and whether it fits the log.

pub mod checkpoint_match;
pub(super) mod checkpoint_store;
pub(super) mod lane_views;
pub mod row;
