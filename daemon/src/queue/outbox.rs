//! What waits for one connection.

use super::{
    batch::{AckPair, PairId, ReadRange},
    dispatcher::{Ack, AckId, PopId},
};
use std::{
    collections::{HashSet, VecDeque},
    ops::RangeInclusive,
};
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PendingAck {
    /// `None` for one of the dispatcher's own.
    pub(super) id: Option<AckId>,
    pub(super) ack: Ack,
    /// What it begins with; `None`: what is known of the lease when it is sent.
    pub(super) basis: Option<Basis>,
}

/// Where a lease was when it was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Basis {
    pub(super) cursor: i64,
    /// The last number that was handed out.
    pub(super) end: i64,
    pub(super) acked: Vec<RangeInclusive<i64>>,
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
    pub(super) acks: Vec<(PendingAck, AckPair)>,
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
        for pending in self.acks.drain(..) {
            let is_first = pairs.insert(pending.ack.pair);
            if is_first && next.len() < most {
                next.push(pending);
            } else {
                later.push_back(pending);
            }
        }
        self.acks = later;
        next
    }
}
