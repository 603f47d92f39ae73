//! The drainers: one loop for each drain connection.

mod commit_pipeline;
mod connecting;
mod deliverer;
mod drainer;
pub(super) mod drainer_board;
pub(super) mod drainer_set;
mod hold_up;
mod mismatch;
mod refusal_log;
mod retry;
mod round_taker;
mod waiter;
