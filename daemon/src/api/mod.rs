//! What each path does: from a request's head to a [`Route`], from its body to a [`Reply`], which then waits for what it must
//! wait for.

mod admit;
mod dead_letters;
mod push;
mod pushed;
mod reply;
mod route;
mod state;

pub use admit::{admit, storage_failed_meanwhile};
pub use dead_letters::{Answer, DeadLettersErrand, unanswered};
pub use push::Lines;
pub use reply::{Ahead, Reply, write_refusal};
pub use route::{LettersRoute, Route, route};

use crate::{
    access::Grant,
    http::{Head, Refusal},
    ingest::Core,
};
use push::Prepared;

/// What is to be done for a request.
#[expect(clippy::large_enum_variant, reason = "it is on the stack, and for a moment")]
enum Work<'c, 'a> {
    /// Nothing more.
    Done(Reply<'a>),
    /// This is to be appended to the log.
    Append(Prepared<'c, 'a>),
}

/// Answers a complete request that was admitted, unless that has to wait for room in the log: `None` then, and nothing was done.
/// The reply may still have to wait.
pub fn handle_now<'a>(
    core: &Core,
    head: &Head<'a>,
    route: Route<'a>,
    grant: &Grant,
    body: &'a [u8],
) -> Option<Reply<'a>> {
    match look_at(core, head, route, grant, body) {
        Ok(Work::Done(reply)) => Some(reply),
        Ok(Work::Append(prepared)) => prepared.append_now().unwrap_or_else(|refusal| Some(Reply::refused(refusal))),
        Err(refusal) => Some(Reply::refused(refusal)),
    }
}

/// The same, waiting for room in the log.
pub async fn handle<'a>(core: &Core, head: &Head<'a>, route: Route<'a>, grant: &Grant, body: &'a [u8]) -> Reply<'a> {
    let reply = match look_at(core, head, route, grant, body) {
        Ok(Work::Done(reply)) => Ok(reply),
        Ok(Work::Append(prepared)) => prepared.append().await,
        Err(refusal) => Err(refusal),
    };
    reply.unwrap_or_else(Reply::refused)
}

fn look_at<'c, 'a>(
    core: &'c Core,
    head: &Head<'a>,
    route: Route<'a>,
    grant: &'c Grant,
    body: &'a [u8],
) -> Result<Work<'c, 'a>, Refusal> {
    Ok(Work::Done(match route {
        Route::PushJson => return push::json(core, head, grant, body).map(Work::Append),
        Route::PushByPath { queue, partition } => {
            return push::by_path(core, head, (queue, partition), grant, body).map(Work::Append);
        }
        Route::Health => state::health(core),
        Route::Ready => state::ready(core),
        Route::Buffers => state::buffers(core),
        Route::DeadLetters(route) => dead_letters::answer(core, &route, head.query, body)?,
        Route::Options(allowed) => Reply::allow(allowed),
    }))
}
