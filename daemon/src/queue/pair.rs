//! What is known of a pair. One that is not known has nothing to hand out, as far as is known.

use super::{batch::PairId, dispatcher::PopId, outbox::PendingAck};
use std::{
    collections::{HashMap, VecDeque},
    ops::RangeInclusive,
};
use uuid::Uuid;

/// A partition as one group sees it.
pub(super) struct Pair<M> {
    pub(super) queue: i64,
    /// A number that is known to be committed.
    pub(super) last: i64,
    /// Where the cursor was seen last.
    pub(super) cursor: Option<i64>,
    pub(super) state: State,
    /// It stands in its group's list of those that are ready, or that were.
    pub(super) is_listed: bool,
    /// It has no row: a take makes one, with its cursor here.
    pub(super) make_at: Option<i64>,
    /// Taken for a client that left. They come before all others.
    pub(super) unclaimed: VecDeque<M>,
    /// Acks for which its row must be read first.
    pub(super) acks: Vec<PendingAck>,
    /// Those who want messages of this partition alone.
    pub(super) waiting: VecDeque<PopId>,
}

/// What is under way with a pair.
///
/// | state | what ends it |
/// |---|---|
/// | `Idle` | a commit |
/// | `Ready` | a pop: it is collected |
/// | `Collected` | its connection is free: it is sent |
/// | `Taken` | the answer: `Leased`, `Ready`, `Idle`; no row: `Asked`; lost: `Settling` |
/// | `Asked` | the row: `Ready`, `Idle`, `Closed` |
/// | `Settling` | the row: as the answer that was lost |
/// | `Leased` | acks, or its time: `Ready`, `Idle`, `Closed` |
/// | `Closed` | its time: `Ready`, `Idle` |
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Ready,
    Collected,
    Taken,
    Asked,
    Settling {
        pops: Vec<PopId>,
        lease: Uuid,
        is_leased: bool,
    },
    Leased {
        lease: Uuid,
        until_ms: u64,
        end: i64,
        acked: Vec<RangeInclusive<i64>>,
        /// Numbers of the lease that nobody has in hand: their messages were deleted, or are done.
        holes: Vec<RangeInclusive<i64>>,
    },
    /// Leased elsewhere, or delayed.
    Closed {
        until_ms: u64,
    },
}

impl<M> Pair<M> {
    pub(super) fn new(queue: i64, last: i64) -> Self {
        Self {
            queue,
            last,
            cursor: None,
            state: State::Idle,
            is_listed: false,
            make_at: None,
            unclaimed: VecDeque::new(),
            acks: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Whether there may be something behind its cursor.
    pub(super) fn is_behind(&self) -> bool {
        self.cursor.is_none_or(|cursor| cursor < self.last)
    }

    /// Whether nothing is lost by forgetting it.
    pub(super) fn can_be_forgotten(&self) -> bool {
        self.state == State::Idle
            && !self.is_behind()
            && self.unclaimed.is_empty()
            && self.acks.is_empty()
            && self.waiting.is_empty()
    }
}

/// All pairs that are known.
pub(super) type Pairs<M> = HashMap<PairId, Pair<M>>;
