//! A connection whose reply waits for PostgreSQL.

use super::{
    budget::Held,
    requests::NextStep,
    watch::{HungUp, Watch},
};
use crate::{access, api::Reply, http::ResponseOptions};

/// What is kept of a conversation while a reply waits for PostgreSQL. Thousands may wait at once, so it is little: the replies,
/// which own what they need, and the bytes of requests that follow.
pub(super) struct Parked<'c> {
    /// In reverse order; not empty.
    pub(super) replies: Vec<(Reply<'static>, ResponseOptions)>,
    pub(super) next: NextStep,
    pub(super) buffer: Vec<u8>,
    pub(super) held: Held<'c>,
    pub(super) cache: access::Cache,
}

impl Parked<'_> {
    /// Waits until the first reply is settled, or the client has hung up.
    pub(super) async fn settle(&mut self, watch: &Watch) {
        let first = self.replies.len() - 1;
        if watch.park(self.replies[first].0.settle()).await == Err(HungUp) {
            tracing::debug!("a client hung up while its request waited for PostgreSQL");
        }
    }
}
