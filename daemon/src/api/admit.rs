//! Refusals that a request's head decides: before its body is read, and before a 100 asks for it.

use super::{
    push::{check_queue, log_full},
    request::Endpoints,
    routes::RouteMatch,
};
use crate::{
    access,
    access::{AccessRequest, Grant},
    http::{Body, ErrorCode, Head, Refusal, coding::Coding},
    limits::UNWANTED_BODY_BYTES_MAX,
};

/// See [`Api::admit`](super::Api::admit).
pub(super) fn admit(
    endpoints: &Endpoints,
    head: &Head<'_>,
    found: &RouteMatch<'_>,
    cache: &mut access::Cache,
) -> Result<Grant, Refusal> {
    let gate = &endpoints.gate;
    let route = found.route;
    // Before a browser lets a web page send its token, it asks without one whether the page may.
    let is_preflight = found.is_options() && gate.origins.allow(head.origin).is_some();
    let request = if is_preflight { AccessRequest::Nothing } else { route.access };
    let grant = gate.access.check(cache, head.authorization, request)?;
    if route.body.is_required() && head.framing == Body::None {
        return Err(ErrorCode::LengthRequired.into());
    }
    Coding::of(head.content_encoding)?;
    let max_body_bytes = match route.body.is_used() {
        true => endpoints.max_body_bytes,
        false => endpoints.max_body_bytes.min(UNWANTED_BODY_BYTES_MAX),
    };
    if matches!(head.framing, Body::Length(length) if length > max_body_bytes) && !found.takes_lines(head) {
        return Err(Refusal::body_too_large(max_body_bytes));
    }
    if !route.is_push() {
        return Ok(grant);
    }
    if let Some(queue) = found.param("queue") {
        check_queue(&grant, queue)?;
    }
    if let Some(code) = endpoints.log.refusal() {
        return Err(code.into());
    }
    // A client that waits for a 100 is not told to send a body for which there is no room. Other clients have sent it already, and
    // there may be room when it has arrived.
    if head.expect_continue && endpoints.lane.is_full() {
        return Err(log_full(&endpoints.drain, &endpoints.log));
    }
    Ok(grant)
}

/// 503 for messages that the log accepted and of which nobody knows whether it keeps them.
#[must_use]
pub fn storage_failed_meanwhile() -> Refusal {
    Refusal::new(ErrorCode::StorageFailed, "a write to the log failed; whether this was kept is not known").closing()
}
