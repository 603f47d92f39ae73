//! A connection whose reply waits for PostgreSQL.

use super::{
    requests::NextStep,
    watch::{HungUp, Watch},
};
use crate::{access, api::Reply, http::ResponseOptions, memory::Held};
use std::task::{Context, Poll};

/// What is kept of a conversation while a reply waits for PostgreSQL. Thousands may wait at once, so it is little: the replies,
/// which own what they need, and the bytes of requests that follow.
pub(super) struct Parked<'c> {
    /// In reverse order; not empty.
    pub(super) replies: Vec<(Reply<'static>, ResponseOptions)>,
    pub(super) next: NextStep,
    pub(super) buffer: Box<[u8]>,
    pub(super) held: Held<'c>,
    pub(super) cache: access::Cache,
}

impl Parked<'_> {
    /// Waits until the first reply is settled, or the client has hung up.
    pub(super) fn poll_settled(&mut self, watch: &Watch, cx: &mut Context<'_>) -> Poll<()> {
        let first = self.replies.len() - 1;
        watch.poll_parked(cx, |cx| self.replies[first].0.poll_settled(cx)).map(|outcome| {
            if outcome == Err(HungUp) {
                tracing::debug!("a client hung up while its request waited for PostgreSQL");
            }
        })
    }
}
