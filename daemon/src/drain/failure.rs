//! Why the drain, and the daemon with it, cannot go on.

use super::checkpoint::checkpoint_match::CheckpointMismatch;

/// The drain cannot go on, and neither can the daemon. Nothing is lost: the log keeps what PostgreSQL does not have.
#[derive(Debug, thiserror::Error)]
pub enum DrainFailed {
    /// The database and the log do not belong together. Next step: `forebay checkpoint show`.
    #[error("{0} (`forebay checkpoint show` says what there is to decide)")]
    Checkpoint(CheckpointMismatch),
}
