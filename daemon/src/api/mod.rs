//! What each path does: from a request to a [`Reply`], which then waits for what it must wait for.

mod dead_letters;
mod push;
mod reply;
mod state;

pub use dead_letters::{Answer, DeadLettersErrand, unanswered};
pub use reply::Reply;

use crate::{
    core::Core,
    http::{Head, Method, Refusal, path},
};
use std::borrow::Cow;

/// Answers a complete request. The reply may still have to wait ([`Reply::finish`]).
pub async fn handle<'a>(core: &Core, head: &Head<'a>, body: &'a [u8]) -> Reply<'a> {
    if head.path == "/api/v1/push" && head.method == Method::Post {
        return push::json(core, head, body).await;
    }
    match route(core, head, body).await {
        Ok(reply) => reply,
        Err(refusal) => Reply::refused(refusal),
    }
}

const GET: &str = "GET, HEAD, OPTIONS";
const GET_DELETE: &str = "GET, HEAD, DELETE, OPTIONS";
const POST: &str = "POST, OPTIONS";

async fn route<'a>(core: &Core, head: &Head<'a>, body: &'a [u8]) -> Result<Reply<'a>, Refusal> {
    let segments: Vec<Cow<'a, str>> = path::segments(head.path).collect::<Result<_, _>>()?;
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    let allowed = match segments[..] {
        ["api", "v1", "push"] | ["push", _] | ["push", _, _] => POST,
        ["health"] | ["ready"] | ["api", "v1", "status", "buffers"] => GET,
        ["api", "v1", "dead-letters"] => GET,
        ["api", "v1", "dead-letters", "retry"] | ["api", "v1", "dead-letters", _, "retry"] => POST,
        ["api", "v1", "dead-letters", _] => GET_DELETE,
        _ => return Err(Refusal::new(404, "not_found", format!("there is nothing at {}", shortened(head.path)))),
    };
    match (head.method, allowed) {
        (Method::Options, _) => return Ok(Reply::allow(allowed)),
        (Method::Get | Method::Head, GET | GET_DELETE) | (Method::Post, POST) | (Method::Delete, GET_DELETE) => {}
        _ => return Err(Refusal::method_not_allowed(allowed)),
    }
    Ok(match segments[..] {
        ["push", queue] => push::by_path(core, head, queue, None, body).await?,
        ["push", queue, partition] => push::by_path(core, head, queue, Some(partition), body).await?,
        ["api", "v1", "dead-letters", ref rest @ ..] => {
            dead_letters::answer(core, head.method, rest, head.query, body)?
        }
        ["health"] => state::health(core),
        ["ready"] => state::ready(core),
        _ => state::buffers(core),
    })
}

/// A path as it may stand in a message.
fn shortened(path: &str) -> String {
    const SHOWN_CHARS: usize = 100;
    let mut shown: String = path.chars().take(SHOWN_CHARS).collect();
    if shown.len() < path.len() {
        shown.push('…');
    }
    shown
}
