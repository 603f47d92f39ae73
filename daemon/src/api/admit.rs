//! What is refused as soon as a request's head is there: before its body is read, and before a 100 asks for it.

use super::Route;
use crate::{
    core::Core,
    http::{Body, Head, Refusal},
};

/// Whether a request may go on. Asked once for each request, when its head was read.
///
/// # Errors
/// The answer that it gets instead. The connection is closed after it, unless all of the body is at hand.
pub fn admit(core: &Core, head: &Head<'_>, route: &Route<'_>) -> Result<(), Refusal> {
    if !route.is_push() {
        return Ok(());
    }
    check_body(head)?;
    if core.shared.has_storage_failed() {
        return Err(storage_failed());
    }
    // Whoever asks first is not told to send what has no room. The others have sent it by the time they are answered, and
    // there may be room for it then.
    if head.expect_continue && core.is_full() {
        return Err(log_full(core));
    }
    Ok(())
}

fn check_body(head: &Head<'_>) -> Result<(), Refusal> {
    if head.framing == Body::None {
        return Err(Refusal::new(411, "length_required", "a push has a body, with Content-Length or in chunks"));
    }
    match head.content_encoding {
        None => Ok(()),
        Some(encoding) if encoding.eq_ignore_ascii_case("identity") => Ok(()),
        Some(_) => Err(Refusal::new(415, "encoding_not_supported", "Content-Encoding: only identity is understood")),
    }
}

/// The log's quota is reached, or its disk is full.
pub(super) fn log_full(core: &Core) -> Refusal {
    let refusal = Refusal::new(507, "log_full", "the log's quota is reached, or its disk is full");
    refusal.retry_after_s(core.shared.retry_after_s())
}

/// The log takes nothing more.
pub(super) fn storage_failed() -> Refusal {
    Refusal::new(503, "storage_failed", "the log cannot be written; nothing was kept").retry_after_s(1)
}
