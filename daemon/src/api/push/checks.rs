//! Refusals of pushes: by what their token allows, and by what room the log has.

use crate::{
    access::Grant,
    http::{ErrorCode, Refusal},
    state::{drain_view::DrainView, log_view::LogView},
};

/// Refuses a push to a queue that the token does not allow.
pub(in crate::api) fn check_queue(grant: &Grant, queue: &str) -> Result<(), Refusal> {
    match grant.queue_prefix() {
        Some(prefix) if !grant.allows_queue(queue) => {
            let message = format!("the token is only for queues that begin with {prefix:?}");
            Err(Refusal::new(ErrorCode::Forbidden, message))
        }
        _ => Ok(()),
    }
}

/// Counts messages that are about to be pushed against the token's rate.
pub(super) fn check_rate(grant: &Grant, messages: u64) -> Result<(), Refusal> {
    grant
        .take(messages)
        .map_err(|wait| Refusal::from(ErrorCode::RateLimited).retry_after_s(wait.as_millis().div_ceil(1000) as u64))
}

/// 503: the log's quota is reached, or its disk is full.
pub(in crate::api) fn log_full(drain: &DrainView, log: &LogView) -> Refusal {
    Refusal::from(ErrorCode::LogFull).retry_after_s(drain.retry_after_s(log.segment_bytes))
}
