//! From pushes to the log: a core's lane, the groups in which it is written, and those who wait for what was pushed.
//!
//! ```text
//!   LaneWriter ── append, durable ──► lane ◄── log_task: the lane's eventfd; writes a group when the commit window closes
//!   PendingCommits                    pushes that wait for the drain
//!   PendingReplies                    requests that wait for PostgreSQL
//! ```

mod commit_window;
mod lane_writer;
mod log_task;
mod pending_commits;
mod pending_reply;
mod quiet_seal;
mod ticket;

pub use lane_writer::{LaneFailed, LaneWriter};
pub use log_task::spawn as spawn_log_task;
pub use pending_commits::{CommitOutcome, PendingCommit, PendingCommits};
pub use pending_reply::{PendingReplies, PendingReply};
pub use quiet_seal::QuietSeal;
pub use ticket::{NotDurable, Ticket};
