//! What each path does: from a request's head to a [`Route`], from its body to a [`Reply`], which then waits for what it must
//! wait for.

mod admit;
mod dead_letters;
mod push;
mod reply;
mod route;
mod state;

pub use admit::admit;
pub use dead_letters::{Answer, DeadLettersErrand, unanswered};
pub use reply::Reply;
pub use route::{LettersRoute, Route, Scope, route};

use crate::{core::Core, http::Head};

/// Answers a complete request that was admitted. The reply may still have to wait ([`Reply::finish`]).
pub async fn handle<'a>(core: &Core, head: &Head<'a>, route: &Route<'a>, body: &'a [u8]) -> Reply<'a> {
    let reply = match route {
        Route::PushJson => push::json(core, head, body).await,
        Route::PushByPath { queue, partition } => push::by_path(core, head, queue, partition.as_deref(), body).await,
        Route::Health => Ok(state::health(core)),
        Route::Ready => Ok(state::ready(core)),
        Route::Buffers => Ok(state::buffers(core)),
        Route::DeadLetters(route) => dead_letters::answer(core, route, head.query, body),
        Route::Options(allowed) => Ok(Reply::allow(allowed)),
    };
    reply.unwrap_or_else(Reply::refused)
}
