//! What waits for one connection.

use super::{
    batch::{AckPair, PairId, ReadRange},
    dispatcher::{AckId, PopId},
};
use std::collections::{HashSet, VecDeque};
use uuid::Uuid;

/// A pair that is to be taken, and for whom.
#[derive(Clone, Debug)]
pub(super) struct Collected {
    pub(super) pair: PairId,
    pub(super) pops: Vec<PopId>,
    pub(super) count: i64,
    pub(super) lease: Uuid,
    pub(super) lease_ms: Option<u64>,
}

/// An ack on its way.
#[derive(Clone, Debug)]
pub(super) struct PendingAck {
    /// `None` for one of the dispatcher's own.
    pub(super) id: Option<AckId>,
    pub(super) ack: AckPair,
    /// An earlier attempt may have been carried out.
    pub(super) is_repeat: bool,
}

/// What waits for a connection, and what is under way on it.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) acks: VecDeque<PendingAck>,
    pub(super) takes: VecDeque<Collected>,
    pub(super) looks: VecDeque<PairId>,
    pub(super) reads: VecDeque<(ReadRange, Vec<PopId>)>,
    pub(super) sent: Option<Sent>,
    /// Pairs of a take at most, after PostgreSQL refused larger ones.
    pub(super) pairs_max: usize,
}

/// What is under way.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) acks: Vec<PendingAck>,
    pub(super) takes: Vec<Collected>,
    pub(super) looks: Vec<PairId>,
    pub(super) reads: Vec<(ReadRange, Vec<PopId>)>,
}

impl Outbox {
    /// Takes acks of distinct pairs from the front; the others keep their order.
    pub(super) fn next_acks(&mut self, most: usize) -> Vec<PendingAck> {
        let mut pairs = HashSet::new();
        let mut next = Vec::new();
        let mut later = VecDeque::new();
        for ack in self.acks.drain(..) {
            if next.len() < most && pairs.insert(ack.ack.pair) {
                next.push(ack);
            } else {
                pairs.insert(ack.ack.pair);
                later.push_back(ack);
            }
        }
        self.acks = later;
        next
    }
}
