//! The checkpoint in PostgreSQL: what it holds, whether it fits the log, and what a person decides if it does not.

pub mod boundary;
pub mod checkpoint_match;
pub(super) mod checkpoint_store;
pub mod database_state;
pub mod decision;
pub mod fork;
pub(super) mod lane_views;
pub mod log_places;
pub mod owner;
pub(super) mod remembered;
mod resume_point;
pub mod row;
