//! What is refused as soon as a request's head is there: before its body is read, and before a 100 asks for it.

use super::{Api, RouteMatch, push::Pushes};
use crate::{
    access,
    access::{AccessRequest, Grant},
    http::{Body, ErrorCode, Head, Refusal, coding::Coding},
};

/// Whether a request may go on, and what its sender may do. Asked once for each request, when its head was read.
///
/// # Errors
/// The answer that it gets instead. The connection is closed after it, unless all of the body is at hand.
pub fn admit(api: &Api, head: &Head<'_>, found: &RouteMatch<'_>, cache: &mut access::Cache) -> Result<Grant, Refusal> {
    let gate = &api.gate;
    let route = found.route;
    // Before a browser lets a web page send its token, it asks without one whether the page may.
    let is_preflight = found.is_options() && gate.origins.allow(head.origin).is_some();
    let request = if is_preflight { AccessRequest::Nothing } else { route.access };
    let grant = gate.access.check(cache, head.authorization, request)?;
    if route.body.is_required() && head.framing == Body::None {
        return Err(ErrorCode::LengthRequired.into());
    }
    Coding::of(head.content_encoding)?;
    let max_body_bytes = api.max_body_bytes;
    if matches!(head.framing, Body::Length(length) if length > max_body_bytes) && !found.takes_lines(head) {
        return Err(Refusal::body_too_large(max_body_bytes));
    }
    if !route.is_push() {
        return Ok(grant);
    }
    if let Some(queue) = found.queue() {
        check_queue(&grant, queue)?;
    }
    if api.pushes.log.has_failed() {
        return Err(ErrorCode::StorageFailed.into());
    }
    // Whoever asks first is not told to send what has no room. The others have sent it by the time they are answered, and
    // there may be room for it then.
    if head.expect_continue && api.pushes.lane.is_full() {
        return Err(log_full(&api.pushes));
    }
    Ok(grant)
}

/// Refuses a push to a queue that the token is not for.
pub(super) fn check_queue(grant: &Grant, queue: &str) -> Result<(), Refusal> {
    if grant.allows_queue(queue) {
        return Ok(());
    }
    let prefix = grant.queue_prefix().unwrap_or_default();
    Err(Refusal::new(ErrorCode::Forbidden, format!("the token is for queues that begin with {prefix:?} only")))
}

/// Counts messages that are about to be pushed against the token's rate.
pub(super) fn check_rate(grant: &Grant, messages: u64) -> Result<(), Refusal> {
    grant
        .take(messages)
        .map_err(|wait| Refusal::from(ErrorCode::RateLimited).retry_after_s(wait.as_millis().div_ceil(1000) as u64))
}

/// The log's quota is reached, or its disk is full.
pub(super) fn log_full(pushes: &Pushes) -> Refusal {
    Refusal::from(ErrorCode::LogFull).retry_after_s(pushes.drain.retry_after_s(pushes.log.segment_bytes))
}

/// The log took it, and was then not able to write it.
#[must_use]
pub fn storage_failed_meanwhile() -> Refusal {
    Refusal::new(ErrorCode::StorageFailed, "a write to the log failed; whether this was kept is not known").closing()
}
