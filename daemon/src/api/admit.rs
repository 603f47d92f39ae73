//! Refusals that a request's head decides: before its body is read, and before a 100 asks for it.

use super::{Api, RouteMatch, push::Pushes};
use crate::{
    access,
    access::{AccessRequest, Grant},
    http::{Body, ErrorCode, Head, Refusal, coding::Coding},
};

/// Decides whether a request proceeds. Returns what its sender may do. It is called once for each request, when its head has
/// been parsed.
///
/// # Errors
/// The request's answer. The connection is closed after it, unless the whole body has arrived.
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
    // A client that waits for a 100 is not told to send a body for which there is no room. Other clients have sent it already, and
    // there may be room when it has arrived.
    if head.expect_continue && api.pushes.lane.is_full() {
        return Err(log_full(&api.pushes));
    }
    Ok(grant)
}

/// Refuses a push to a queue that the token does not allow.
pub(super) fn check_queue(grant: &Grant, queue: &str) -> Result<(), Refusal> {
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

/// 507: the log's quota is reached, or its disk is full.
pub(super) fn log_full(pushes: &Pushes) -> Refusal {
    Refusal::from(ErrorCode::LogFull).retry_after_s(pushes.drain.retry_after_s(pushes.log.segment_bytes))
}

/// 503 for messages that the log accepted before a write failed.
#[must_use]
pub fn storage_failed_meanwhile() -> Refusal {
    Refusal::new(ErrorCode::StorageFailed, "a write to the log failed; whether this was kept is not known").closing()
}
