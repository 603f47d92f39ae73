//! Requests of consumers: left by a core, done by the thread `queue`.

use super::{reply::Reply, request::Request};
use crate::{
    http::{ErrorCode, Refusal},
    ingest::PendingReplies,
    queue::{request::QueueRequest, thread::QueueRequests},
    state::{cancel_flag::CancelFlag, pg_answer::PgAnswer},
};
use std::rc::Rc;

/// Where one core leaves requests of consumers.
#[derive(Clone)]
pub(super) struct CoreQueue {
    /// The core's number.
    pub(super) core: u16,
    pub(super) replies: Rc<PendingReplies>,
    pub(super) requests: QueueRequests,
}

/// Leaves what `make` makes for the thread `queue`, whose answer is the reply. `at_end` is the answer where the daemon ends before.
pub(super) fn ask<'a>(
    request: &Request<'_, '_, 'a>,
    at_end: fn() -> PgAnswer,
    make: impl FnOnce(CancelFlag) -> QueueRequest,
) -> Reply<'a> {
    let queue = &request.endpoints.queue;
    let pending = queue.replies.add_until_end(at_end);
    queue.requests.submit(queue.core, pending.id(), make(pending.cancel_flag()));
    Reply::Queue(pending)
}

/// The refusal of a request that was not carried out because the daemon ends.
pub(super) fn shutting_down() -> PgAnswer {
    PgAnswer::Refused(ErrorCode::ShuttingDown.into())
}

/// Characters of a group's name at most.
const GROUP_CHARS_MAX: usize = 255;

/// Checks a group's name.
///
/// # Errors
/// The rule that it breaks, as a text for after the field's name.
pub(super) fn check_group(name: &str) -> Result<(), &'static str> {
    let is_good = name.chars().count() <= GROUP_CHARS_MAX && !name.contains('\0');
    if is_good { Ok(()) } else { Err("must have at most 255 characters, and no U+0000") }
}

/// 400 for what is wrong with `name`.
pub(super) fn invalid(name: &str, error: impl std::fmt::Display) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, format!("{name}: {error}"))
}
