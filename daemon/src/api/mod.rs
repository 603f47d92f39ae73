//! What each path does: from a request's head to a row of [`ROUTES`], from its body to a [`Reply`], which then waits for what
//! it must wait for.

mod admit;
mod dead_letters;
mod pattern;
mod push;
mod pushed;
mod reply;
mod routes;
mod state;

pub use admit::{admit, storage_failed_meanwhile};
pub use dead_letters::{Answer, DeadLettersErrand, unanswered};
pub use pattern::Pattern;
pub use push::Lines;
pub use reply::{Ahead, Reply, write_refusal};
pub use routes::{BodyKind, ROUTES, Route, RouteMatch, find as find_route};

use crate::{access::Grant, http::Head, ingest::Core};
use pattern::Params;
use push::Prepared;
use routes::Handler;

/// A whole request that was admitted, as its handler gets it.
struct Request<'r, 'c, 'a> {
    core: &'c Core,
    head: &'r Head<'a>,
    /// The values of the pattern's names.
    params: Params<'a>,
    grant: &'c Grant,
    /// Decoded; empty where there is none.
    body: &'a [u8],
}

/// Answers a whole request that was admitted, unless that has to wait for room in the log: `None` then, and nothing was done.
/// The reply may still have to wait.
pub fn handle_now<'a>(
    core: &Core,
    head: &Head<'a>,
    found: RouteMatch<'a>,
    grant: &Grant,
    body: &'a [u8],
) -> Option<Reply<'a>> {
    let request = Request { core, head, params: found.params, grant, body };
    let reply = match found.route.handler {
        Handler::Answer(answer) => answer(request).map(Some),
        Handler::Push(prepare) => prepare(request).and_then(Prepared::append_now),
    };
    reply.unwrap_or_else(|refusal| Some(Reply::refused(refusal)))
}

/// The same, waiting for room in the log.
pub async fn handle<'a>(
    core: &Core,
    head: &Head<'a>,
    found: RouteMatch<'a>,
    grant: &Grant,
    body: &'a [u8],
) -> Reply<'a> {
    let request = Request { core, head, params: found.params, grant, body };
    let reply = match found.route.handler {
        Handler::Answer(answer) => answer(request),
        Handler::Push(prepare) => match prepare(request) {
            Ok(prepared) => prepared.append().await,
            Err(refusal) => Err(refusal),
        },
    };
    reply.unwrap_or_else(Reply::refused)
}
