//! Which messages go to whom: the state machine.

use super::{
    batch::{AckPair, Batch, BatchAnswer, LookRow, Message, Outcome, PairId, ReadRange, TakePair, TakeRow, Then},
    leases::lease_of,
    outbox::{Basis, Collected, Outbox, PendingAck, Sent},
    pair::{Pair, Pairs, State},
    ranges::{advance, covers, gaps},
};
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    ops::RangeInclusive,
};
use uuid::Uuid;

/// Pairs, leases or rows of one statement at most.
const STATEMENT_PAIRS_MAX: usize = 64;

/// Messages of one take at most, save that one pop may want more.
const TAKE_MESSAGES_MAX: i64 = 2000;

/// Bytes of the messages of one take at most, save that one pop may want more.
const TAKE_BYTES_MAX: u64 = 4 << 20;

/// How long a pair rests that PostgreSQL refused to take alone.
const REFUSED_REST_MS: u64 = 1000;

/// A pop, by the number that its owner gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PopId(pub u64);

/// An ack, by the number that its owner gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AckId(pub u64);

/// What a consumer asks for.
#[derive(Clone, Debug)]
pub struct Pop {
    /// The queue's id.
    pub queue: i64,
    /// The group's id.
    pub group: i64,
    /// This partition alone.
    pub partition: Option<i64>,
    /// The most messages; at least 1.
    pub count: i64,
    /// Bytes of a message, about.
    pub message_bytes: u64,
    /// Bytes of the largest message that one of them may be.
    pub largest_bytes: u64,
    /// Length of the lease; `None`: what is handed out is done.
    pub lease_ms: Option<u64>,
    /// Until when it waits; `None`: it is answered as soon as nothing is known to be there.
    pub wait_until_ms: Option<u64>,
}

/// What a consumer has done of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The pair.
    pub pair: PairId,
    /// The lease.
    pub lease: Uuid,
    /// The numbers that are done.
    pub done: Vec<RangeInclusive<i64>>,
    /// The rest is let go of, to be taken again after so many milliseconds.
    pub release_ms: Option<u64>,
}

/// Settings of a dispatcher.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections, among which the partitions are divided.
    pub connections: usize,
    /// Drawn at random for each process: its leases are numbered from here on.
    pub first_lease: u64,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect<M> {
    /// Send a batch on a connection. Its answer is awaited.
    Send {
        /// Which connection.
        connection: usize,
        /// The statements.
        batch: Batch,
    },
    /// Read what other daemons committed. Its answer is awaited.
    Feed,
    /// Answer a pop with messages.
    Deliver {
        /// Which pop.
        pop: PopId,
        /// Where they are from.
        pair: PairId,
        /// The lease; `None`: they are done.
        lease: Option<Uuid>,
        /// In the order of their numbers; at least one.
        messages: Vec<M>,
    },
    /// Answer a pop with nothing.
    Empty {
        /// Which pop.
        pop: PopId,
    },
    /// Answer an ack.
    Acked {
        /// Which ack.
        ack: AckId,
        /// Whether it counts: the lease was held, or all of it was done before.
        is_held: bool,
    },
}

/// A pop that was not answered.
struct Waiting {
    pop: Pop,
    /// The pair that is taken for it.
    assigned: Option<PairId>,
    has_left: bool,
    /// What a feed must say before it is answered with nothing: that of the feed with this number.
    feed: u64,
}

/// The pairs of a queue and a group.
#[derive(Default)]
struct Group {
    /// In the order in which they became ready. One whose state is another by now is skipped.
    ready: VecDeque<i64>,
    /// Those who take messages of any partition.
    waiting: VecDeque<PopId>,
    /// Partitions for which somebody waits alone, and which may be ready.
    named: VecDeque<i64>,
    /// Those who wait for one partition.
    named_waiting: usize,
}

/// See the [module](super).
pub struct Dispatcher<M> {
    now_ms: u64,
    /// The number of the last lease.
    leases: u64,
    outboxes: Vec<Outbox>,
    pairs: Pairs<M>,
    groups: HashMap<(i64, i64), Group>,
    /// The groups of each queue.
    groups_of: HashMap<i64, Vec<i64>>,
    pops: HashMap<PopId, Waiting>,
    /// Pops that do not wait, and for which nothing is under way.
    eager: BTreeSet<PopId>,
    /// When pops stop waiting.
    deadlines: BTreeSet<(u64, PopId)>,
    /// When leases and rests end.
    ends: BTreeSet<(u64, PairId)>,
    /// Feeds that were asked for, and whether one is under way.
    feeds: u64,
    is_feed_sent: bool,
    effects: Vec<Effect<M>>,
    /// Nothing more is taken.
    is_paused: bool,
}

impl<M: Message> Dispatcher<M> {
    /// One that knows nothing.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let outbox = || Outbox { pairs_max: STATEMENT_PAIRS_MAX, ..Outbox::default() };
        Self {
            now_ms: 0,
            leases: settings.first_lease,
            outboxes: (0..settings.connections.max(1)).map(|_| outbox()).collect(),
            pairs: HashMap::new(),
            groups: HashMap::new(),
            groups_of: HashMap::new(),
            pops: HashMap::new(),
            eager: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            ends: BTreeSet::new(),
            feeds: 0,
            is_feed_sent: false,
            effects: Vec::new(),
            is_paused: false,
        }
    }

    /// A group of a queue is there. What it has to take is told by [`found`](Self::found).
    pub fn add_group(&mut self, queue: i64, group: i64) {
        let groups = self.groups_of.entry(queue).or_default();
        if !groups.contains(&group) {
            groups.push(group);
            self.groups.insert((queue, group), Group::default());
        }
    }

    /// PostgreSQL has the messages of a partition up to `last`: a COMMIT was answered, or a row read that says so.
    pub fn committed(&mut self, queue: i64, partition: i64, last: i64) {
        for group in self.groups_of.get(&queue).cloned().unwrap_or_default() {
            self.found(queue, PairId { partition, group }, last, None);
        }
    }

    /// A pair may have messages up to `last`; its cursor is at `cursor`, if that is known.
    pub fn found(&mut self, queue: i64, pair: PairId, last: i64, cursor: Option<i64>) {
        let known = self.pairs.entry(pair).or_insert_with(|| Pair::new(queue, last));
        known.queue = queue;
        known.last = known.last.max(last);
        known.cursor = known.cursor.max(cursor);
        if known.state == State::Idle {
            self.settle_down(pair);
        }
        self.serve(queue, pair.group);
    }

    /// A consumer asks.
    pub fn pop(&mut self, id: PopId, pop: Pop) {
        let (queue, group) = (pop.queue, pop.group);
        self.add_group(queue, group);
        match pop.wait_until_ms {
            Some(until_ms) => drop(self.deadlines.insert((until_ms, id))),
            None => drop(self.eager.insert(id)),
        }
        match pop.partition {
            Some(partition) => {
                let pair = self.pairs.entry(PairId { partition, group }).or_insert_with(|| Pair::new(queue, 0));
                // Nothing is known of it: it is at its end, as far as is known.
                pair.cursor = pair.cursor.or((pair.last == 0).then_some(0));
                pair.waiting.push_back(id);
                let of = self.group(queue, group);
                of.named.push_back(partition);
                of.named_waiting += 1;
            }
            None => self.group(queue, group).waiting.push_back(id),
        }
        self.pops.insert(id, Waiting { pop, assigned: None, has_left: false, feed: self.feeds + 1 });
        self.serve(queue, group);
        self.ask_feed();
    }

    /// Whether takes wait: too much that was taken is not sent to its consumers yet.
    pub fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// A consumer has left.
    pub fn leave(&mut self, id: PopId) {
        let Some(waiting) = self.pops.get_mut(&id) else { return };
        if waiting.assigned.is_some() {
            waiting.has_left = true;
        } else {
            self.forget(id);
        }
    }

    /// A consumer has done something of a lease.
    pub fn ack(&mut self, id: AckId, ack: Ack) {
        self.add_ack(PendingAck { id: Some(id), ack, basis: None });
    }

    /// The time. It never goes back.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        while let Some(&(at, pair)) = self.ends.first().filter(|(at, _)| *at <= self.now_ms) {
            self.ends.remove(&(at, pair));
            let Some(known) = self.pairs.get_mut(&pair) else { continue };
            // A later lease has another end.
            let is_over =
                matches!(known.state, State::Leased { until_ms, .. } | State::Closed { until_ms } if until_ms == at);
            if is_over {
                let (queue, group) = (known.queue, pair.group);
                self.settle_down(pair);
                self.serve(queue, group);
            }
        }
        while let Some(&(at, id)) = self.deadlines.first().filter(|(at, _)| *at <= self.now_ms) {
            self.deadlines.remove(&(at, id));
            if self.pops.get(&id).is_some_and(|waiting| waiting.assigned.is_none()) {
                self.forget(id);
                self.effects.push(Effect::Empty { pop: id });
            }
        }
    }

    /// The answer to a feed: what other daemons committed, by queue, partition and last number. `None`: there is none.
    pub fn fed(&mut self, changes: Option<&[(i64, i64, i64)]>) {
        self.is_feed_sent = false;
        for &(queue, partition, last) in changes.unwrap_or_default() {
            self.committed(queue, partition, last);
        }
        let feed = self.feeds;
        let empty: Vec<PopId> = self.eager.iter().copied().filter(|id| self.pops[id].feed <= feed).collect();
        for id in empty {
            self.forget(id);
            self.effects.push(Effect::Empty { pop: id });
        }
        self.ask_feed();
    }

    /// The answer to the batch that was sent on a connection.
    ///
    /// # Panics
    /// If none was.
    pub fn answered(&mut self, connection: usize, answer: BatchAnswer<M>) {
        let sent = self.outboxes[connection].sent.take();
        let Sent { acks, takes, looks, reads } = sent.unwrap_or_else(|| panic!("nothing was sent on {connection}"));
        self.acked(acks, answer.acks);
        self.taken(connection, takes, answer.takes);
        self.looked(connection, looks, answer.looks);
        self.read(connection, reads, answer.reads);
    }

    /// What is to be done now. All batches that can be sent are among it.
    pub fn effects(&mut self) -> Vec<Effect<M>> {
        for connection in 0..self.outboxes.len() {
            self.flush(connection);
        }
        std::mem::take(&mut self.effects)
    }

    fn group(&mut self, queue: i64, group: i64) -> &mut Group {
        self.groups.entry((queue, group)).or_default()
    }

    /// Which connection serves a pair.
    #[must_use]
    pub fn connection_of(&self, pair: PairId) -> usize {
        (pair.partition.unsigned_abs() % self.outboxes.len() as u64) as usize
    }

    fn next_lease(&mut self, pair: PairId) -> Uuid {
        self.leases = self.leases.wrapping_add(1);
        lease_of(pair, self.leases)
    }

    /// The pops for which something is under way on a connection.
    pub fn pops_under_way(&self, connection: usize) -> impl Iterator<Item = PopId> {
        let sent = self.outboxes[connection].sent.iter();
        sent.flat_map(|sent| sent.takes.iter().flat_map(|take| take.pops.iter().copied()))
    }

    /// A lease goes on until `until_ms`.
    pub fn extended(&mut self, pair: PairId, of: Uuid, until_ms: u64) {
        if let Some(Pair { state: State::Leased { lease, until_ms: end, .. }, .. }) = self.pairs.get_mut(&pair)
            && *lease == of
        {
            *end = until_ms;
            self.ends.insert((until_ms, pair));
        }
    }

    /// When the next pop stops waiting, or the next lease or rest ends.
    #[must_use]
    pub fn next_tick_ms(&self) -> Option<u64> {
        let firsts = [self.deadlines.first().map(|(at, _)| *at), self.ends.first().map(|(at, _)| *at)];
        firsts.into_iter().flatten().min()
    }

    /// Pops that do not wait are answered once a feed says that nothing is there.
    fn ask_feed(&mut self) {
        let feed = self.feeds;
        if !self.is_feed_sent && self.eager.iter().any(|id| self.pops[id].feed > feed) {
            self.is_feed_sent = true;
            self.feeds += 1;
            self.effects.push(Effect::Feed);
        }
    }

    /// Nothing is under way with the pair any more: it is ready, or idle, or forgotten.
    fn settle_down(&mut self, pair: PairId) {
        let Some(known) = self.pairs.get_mut(&pair) else { return };
        let queue = known.queue;
        if known.is_behind() || !known.unclaimed.is_empty() {
            known.state = State::Ready;
            let (is_listed, is_named) = (std::mem::replace(&mut known.is_listed, true), !known.waiting.is_empty());
            let group = self.group(queue, pair.group);
            if !is_listed {
                group.ready.push_back(pair.partition);
            }
            if is_named {
                group.named.push_back(pair.partition);
            }
        } else {
            known.state = State::Idle;
            if known.can_be_forgotten() {
                self.pairs.remove(&pair);
            }
        }
    }

    fn close(&mut self, pair: PairId, for_ms: u64) {
        let Some(known) = self.pairs.get_mut(&pair) else { return };
        let until_ms = self.now_ms + for_ms;
        known.state = State::Closed { until_ms };
        self.ends.insert((until_ms, pair));
    }

    /// Hands the pairs that are ready to those who wait.
    fn serve(&mut self, queue: i64, group: i64) {
        while let Some(partition) = self.group(queue, group).named.pop_front() {
            let pair = PairId { partition, group };
            if let Some(known) = self.pairs.get(&pair)
                && known.state == State::Ready
                && let Some(&first) = known.waiting.front()
            {
                self.give(pair, first);
            }
        }
        loop {
            let of = self.group(queue, group);
            let Some(&first) = of.waiting.front() else { break };
            let Some(partition) = of.ready.pop_front() else { break };
            let pair = PairId { partition, group };
            let Some(known) = self.pairs.get_mut(&pair) else { continue };
            known.is_listed = false;
            if known.state == State::Ready {
                self.give(pair, first);
            }
        }
        let of = self.group(queue, group);
        if !of.waiting.is_empty() || of.named_waiting > 0 {
            self.join(queue, group);
        }
    }

    /// Gives a pair that is ready to a pop.
    fn give(&mut self, pair: PairId, pop: PopId) {
        let has_unclaimed = self.pairs.get(&pair).is_some_and(|known| !known.unclaimed.is_empty());
        if has_unclaimed && self.pops[&pop].pop.lease_ms.is_none() {
            self.hand_out_unclaimed(pair, pop);
        } else {
            self.collect(pair, pop);
        }
    }

    /// Takes `pop` out of where it waits.
    fn unqueue(&mut self, pop: PopId) {
        let Some(waiting) = self.pops.get(&pop) else { return };
        let (queue, group) = (waiting.pop.queue, waiting.pop.group);
        match waiting.pop.partition {
            Some(partition) => {
                if let Some(known) = self.pairs.get_mut(&PairId { partition, group }) {
                    let before = known.waiting.len();
                    known.waiting.retain(|id| *id != pop);
                    let gone = before - known.waiting.len();
                    self.group(queue, group).named_waiting -= gone;
                }
            }
            None => {
                let queued = &mut self.group(queue, group).waiting;
                if queued.front() == Some(&pop) {
                    queued.pop_front();
                } else {
                    queued.retain(|id| *id != pop);
                }
            }
        }
    }

    fn collect(&mut self, pair: PairId, pop: PopId) {
        self.unqueue(pop);
        let lease = self.next_lease(pair);
        let Some(waiting) = self.pops.get_mut(&pop) else { return };
        waiting.assigned = Some(pair);
        self.eager.remove(&pop);
        let collected =
            Collected { pair, pops: vec![pop], count: waiting.pop.count, lease, lease_ms: waiting.pop.lease_ms };
        if let Some(known) = self.pairs.get_mut(&pair) {
            known.state = State::Collected;
        }
        let connection = self.connection_of(pair);
        self.outboxes[connection].takes.push_back(collected);
    }

    /// Those who wait and need no lease join takes that were not sent yet, of partitions that have more.
    fn join(&mut self, queue: i64, group: i64) {
        for connection in 0..self.outboxes.len() {
            for at in 0..self.outboxes[connection].takes.len() {
                let take = &self.outboxes[connection].takes[at];
                let pair = take.pair;
                if pair.group != group || take.lease_ms.is_some() {
                    continue;
                }
                loop {
                    let take = &self.outboxes[connection].takes[at];
                    let known = &self.pairs[&pair];
                    let there = known.last - known.cursor.unwrap_or(0);
                    if known.queue != queue || take.count >= there.min(TAKE_MESSAGES_MAX) {
                        break;
                    }
                    let next = known.waiting.front().or_else(|| self.groups[&(queue, group)].waiting.front());
                    let Some(&pop) = next.filter(|pop| self.pops[*pop].pop.lease_ms.is_none()) else { break };
                    self.unqueue(pop);
                    let Some(waiting) = self.pops.get_mut(&pop) else { break };
                    waiting.assigned = Some(pair);
                    self.eager.remove(&pop);
                    let take = &mut self.outboxes[connection].takes[at];
                    take.count += waiting.pop.count;
                    take.pops.push(pop);
                }
            }
        }
    }

    /// Messages that were taken for somebody who left go to `pop`.
    fn hand_out_unclaimed(&mut self, pair: PairId, pop: PopId) {
        self.unqueue(pop);
        let Some(waiting) = self.remove(pop) else { return };
        if let Some(known) = self.pairs.get_mut(&pair) {
            let count = known.unclaimed.len().min(waiting.pop.count as usize);
            let messages = known.unclaimed.drain(..count).collect();
            self.effects.push(Effect::Deliver { pop, pair, lease: None, messages });
        }
        self.settle_down(pair);
    }

    fn remove(&mut self, pop: PopId) -> Option<Waiting> {
        let waiting = self.pops.remove(&pop)?;
        self.eager.remove(&pop);
        if let Some(until_ms) = waiting.pop.wait_until_ms {
            self.deadlines.remove(&(until_ms, pop));
        }
        Some(waiting)
    }

    /// A pop is answered, or needs no answer.
    fn forget(&mut self, pop: PopId) {
        self.unqueue(pop);
        let Some(waiting) = self.remove(pop) else { return };
        if let Some(partition) = waiting.pop.partition {
            let pair = PairId { partition, group: waiting.pop.group };
            if self.pairs.get(&pair).is_some_and(Pair::can_be_forgotten) {
                self.pairs.remove(&pair);
            }
        }
    }

    /// Nothing was taken for these pops: they wait again, before all others.
    fn wait_again(&mut self, pops: Vec<PopId>) {
        for id in pops.into_iter().rev() {
            let Some(waiting) = self.pops.get_mut(&id) else { continue };
            waiting.assigned = None;
            let is_over = waiting.pop.wait_until_ms.is_some_and(|until_ms| until_ms <= self.now_ms);
            if waiting.has_left || is_over {
                let has_left = waiting.has_left;
                self.remove(id);
                if !has_left {
                    self.effects.push(Effect::Empty { pop: id });
                }
                continue;
            }
            // A feed that was asked for before says nothing about now.
            waiting.feed = self.feeds + 1;
            let (queue, group, partition) = (waiting.pop.queue, waiting.pop.group, waiting.pop.partition);
            if waiting.pop.wait_until_ms.is_none() {
                self.eager.insert(id);
            }
            match partition {
                Some(partition) => {
                    let pair = self.pairs.entry(PairId { partition, group }).or_insert_with(|| Pair::new(queue, 0));
                    pair.waiting.push_front(id);
                    let of = self.group(queue, group);
                    of.named.push_back(partition);
                    of.named_waiting += 1;
                }
                None => self.group(queue, group).waiting.push_front(id),
            }
        }
    }

    fn add_ack(&mut self, pending: PendingAck) {
        let connection = self.connection_of(pending.ack.pair);
        self.outboxes[connection].acks.push_back(pending);
    }

    /// Lets go of a lease that nobody holds; `done` is done of it.
    fn let_go(&mut self, pair: PairId, lease: Uuid, done: Vec<RangeInclusive<i64>>) {
        self.add_ack(PendingAck { id: None, ack: Ack { pair, lease, done, release_ms: Some(0) }, basis: None });
    }

    /// What an ack asks for, by what is known of its lease; `None`: its row must be read first.
    fn ack_pair(&self, pending: &PendingAck) -> Option<AckPair> {
        let PendingAck { ack, basis, .. } = pending;
        let own = || match self.pairs.get(&ack.pair).map(|known| (&known.state, known.cursor)) {
            Some((State::Leased { lease, end, acked, .. }, Some(cursor))) if *lease == ack.lease => {
                Some(Basis { cursor, end: *end, acked: acked.clone() })
            }
            _ => None,
        };
        let Basis { cursor: before, end, acked: acked_before } = basis.clone().or_else(own)?;
        let done = match self.pairs.get(&ack.pair).map(|known| &known.state) {
            // What nobody has in hand is done with the rest.
            Some(State::Leased { lease, holes, .. }) if *lease == ack.lease => [&ack.done[..], holes].concat(),
            _ => ack.done.clone(),
        };
        let (cursor, acked) = advance(before, end, &acked_before, &done);
        let then = match ack.release_ms {
            _ if cursor >= end => Then::Free,
            None => Then::Lease,
            Some(0) => Then::Free,
            Some(rest_ms) => Then::Rest(rest_ms),
        };
        Some(AckPair { pair: ack.pair, lease: ack.lease, before, acked_before, cursor, acked, then })
    }

    /// The row of an ack's pair must be read before it is known what to ask for, or what became of it.
    fn look_for(&mut self, mut pending: PendingAck) {
        let pair = pending.ack.pair;
        pending.basis = None;
        // Of a pair that is not known nothing is to be handed out, as far as is known.
        let known = self.pairs.entry(pair).or_insert_with(|| Pair { cursor: Some(0), ..Pair::new(0, 0) });
        known.acks.push(pending);
        self.add_look(pair);
    }

    fn add_look(&mut self, pair: PairId) {
        let connection = self.connection_of(pair);
        self.outboxes[connection].looks.push_back(pair);
    }

    /// Bytes of the messages that are to be taken, about.
    fn take_bytes(&self, take: &Collected) -> u64 {
        let Some(Waiting { pop, .. }) = take.pops.first().and_then(|pop| self.pops.get(pop)) else { return 0 };
        pop.message_bytes.saturating_mul(take.count.unsigned_abs()).max(pop.largest_bytes)
    }

    fn flush(&mut self, connection: usize) {
        if self.outboxes[connection].sent.is_some() {
            return;
        }
        let mut sent = Sent::default();
        for pending in self.outboxes[connection].next_acks(STATEMENT_PAIRS_MAX) {
            match self.ack_pair(&pending) {
                Some(pair) => sent.acks.push((pending, pair)),
                None => self.look_for(pending),
            }
        }
        let mut batch = Batch { acks: sent.acks.iter().map(|(_, pair)| pair.clone()).collect(), ..Batch::default() };
        let (mut messages, mut bytes) = (0, 0);
        let mut given_up = Vec::new();
        while sent.takes.len() < self.outboxes[connection].pairs_max && !self.is_paused {
            let Some(take) = self.outboxes[connection].takes.front() else { break };
            let is_too_large =
                messages + take.count > TAKE_MESSAGES_MAX || bytes + self.take_bytes(take) > TAKE_BYTES_MAX;
            if !sent.takes.is_empty() && is_too_large {
                break;
            }
            let Some(mut take) = self.outboxes[connection].takes.pop_front() else { break };
            // Who has left since gets nothing.
            let (left, here): (Vec<PopId>, Vec<PopId>) =
                take.pops.into_iter().partition(|pop| self.pops.get(pop).is_none_or(|waiting| waiting.has_left));
            for pop in left {
                self.remove(pop);
            }
            take.pops = here;
            take.count = take.pops.iter().map(|pop| self.pops[pop].pop.count).sum();
            if take.pops.is_empty() {
                given_up.push(take.pair);
                continue;
            }
            messages += take.count;
            bytes += self.take_bytes(&take);
            let Some(known) = self.pairs.get_mut(&take.pair) else { continue };
            known.state = State::Taken;
            batch.takes.push(TakePair {
                pair: take.pair,
                count: take.count,
                last: known.last,
                lease: take.lease,
                lease_ms: take.lease_ms,
                make_at: known.make_at,
            });
            sent.takes.push(take);
        }
        let outbox = &mut self.outboxes[connection];
        let looks = outbox.looks.len().min(STATEMENT_PAIRS_MAX);
        sent.looks = outbox.looks.drain(..looks).collect();
        batch.looks.clone_from(&sent.looks);
        let reads = outbox.reads.len().min(STATEMENT_PAIRS_MAX);
        sent.reads = outbox.reads.drain(..reads).collect();
        batch.reads = sent.reads.iter().map(|(range, _)| *range).collect();
        if !batch.is_empty() {
            outbox.sent = Some(sent);
            self.effects.push(Effect::Send { connection, batch });
        }
        for pair in given_up {
            let queue = self.pairs.get(&pair).map(|known| known.queue);
            self.settle_down(pair);
            queue.into_iter().for_each(|queue| self.serve(queue, pair.group));
        }
    }

    fn acked(&mut self, sent: Vec<(PendingAck, AckPair)>, outcome: Outcome<Vec<PairId>>) {
        let moved: HashSet<PairId> = match outcome {
            Outcome::Done(moved) => moved.into_iter().collect(),
            // The rows tell what became of them.
            Outcome::Refused | Outcome::Lost => HashSet::new(),
        };
        for (pending, pair) in sent {
            if moved.contains(&pair.pair) {
                self.moved(pair);
                self.answer_ack(pending.id, true);
            } else {
                self.look_for(pending);
            }
        }
    }

    /// An ack was carried out.
    fn moved(&mut self, by: AckPair) {
        let AckPair { pair, lease: of, cursor, acked: ahead, then, .. } = by;
        let Some(known) = self.pairs.get_mut(&pair) else { return };
        known.cursor = known.cursor.max(Some(cursor));
        let State::Leased { lease, acked, .. } = &mut known.state else { return };
        if *lease != of {
            return;
        }
        let (queue, group) = (known.queue, pair.group);
        match then {
            Then::Lease => *acked = ahead,
            Then::Free => self.settle_down(pair),
            Then::Rest(rest_ms) => self.close(pair, rest_ms),
        }
        self.serve(queue, group);
    }

    fn answer_ack(&mut self, id: Option<AckId>, is_held: bool) {
        if let Some(ack) = id {
            self.effects.push(Effect::Acked { ack, is_held });
        }
    }

    /// What the row says of an ack whose outcome, or whose lease, was not known.
    fn judge(&mut self, pending: PendingAck, row: &LookRow) {
        let (cursor, id) = (row.cursor.unwrap_or(row.start), pending.id);
        let is_held = row.lease == Some(pending.ack.lease) && row.free_in_ms.is_some_and(|ms| ms > 0);
        match row.lease_seq.filter(|_| is_held) {
            Some(end) => {
                let basis = Some(Basis { cursor, end, acked: row.acked.clone() });
                self.add_ack(PendingAck { basis, ..pending });
            }
            None => {
                let is_done = |seq: i64| seq <= cursor || covers(&row.acked, seq);
                let mut numbers = pending.ack.done.iter().cloned().flatten();
                let all_done = !pending.ack.done.is_empty() && numbers.all(is_done);
                self.answer_ack(id, all_done);
            }
        }
    }

    fn taken(&mut self, connection: usize, sent: Vec<Collected>, outcome: Outcome<Vec<TakeRow<M>>>) {
        let rows = match outcome {
            Outcome::Done(rows) => rows,
            Outcome::Refused => {
                let outbox = &mut self.outboxes[connection];
                let is_single = sent.len() <= 1;
                outbox.pairs_max = (outbox.pairs_max.min(sent.len().max(1)) / 2).max(1);
                for take in sent {
                    let queue = self.pairs.get(&take.pair).map(|known| known.queue);
                    self.wait_again(take.pops);
                    if is_single {
                        self.close(take.pair, REFUSED_REST_MS);
                    } else {
                        self.settle_down(take.pair);
                    }
                    queue.into_iter().for_each(|queue| self.serve(queue, take.pair.group));
                }
                // Nothing is under way any more for those who do not wait.
                self.ask_feed();
                return;
            }
            Outcome::Lost => {
                for Collected { pair, pops, lease, lease_ms, .. } in sent {
                    if let Some(known) = self.pairs.get_mut(&pair) {
                        known.state = State::Settling { pops, lease, is_leased: lease_ms.is_some() };
                    }
                    self.add_look(pair);
                }
                return;
            }
        };
        if !sent.is_empty() {
            let outbox = &mut self.outboxes[connection];
            outbox.pairs_max = (2 * outbox.pairs_max).min(STATEMENT_PAIRS_MAX);
        }
        let mut rows: HashMap<PairId, TakeRow<M>> = rows.into_iter().map(|row| (row.pair, row)).collect();
        for take in sent {
            match rows.remove(&take.pair) {
                Some(row) => self.hand_out(row, take.pops, take.lease_ms.map(|ms| (take.lease, ms))),
                None => {
                    if let Some(known) = self.pairs.get_mut(&take.pair) {
                        known.state = State::Asked;
                    }
                    self.add_look(take.pair);
                    self.wait_again(take.pops);
                }
            }
        }
    }

    /// Cuts what was taken among `pops`, in their order.
    fn hand_out(&mut self, row: TakeRow<M>, pops: Vec<PopId>, lease: Option<(Uuid, u64)>) {
        let TakeRow { pair, from, to, acked, messages } = row;
        let Some(known) = self.pairs.get_mut(&pair) else { return };
        known.make_at = None;
        let queue = known.queue;
        let mut messages: VecDeque<M> = messages.into_iter().filter(|message| !covers(&acked, message.seq())).collect();
        if let Some((lease, lease_ms)) = lease {
            known.cursor = Some(from);
            let until_ms = self.now_ms + lease_ms;
            let holes = gaps(from, to, messages.iter().map(Message::seq));
            known.state = State::Leased { lease, until_ms, end: to, acked, holes };
            self.ends.insert((until_ms, pair));
            let here = pops.iter().copied().find(|pop| self.pops.get(pop).is_some_and(|waiting| !waiting.has_left));
            match here {
                Some(pop) if !messages.is_empty() => {
                    self.remove(pop);
                    self.effects.push(Effect::Deliver { pop, pair, lease: Some(lease), messages: messages.into() });
                }
                // Nobody is there to do it, or there is nothing to do.
                _ => {
                    let done = if messages.is_empty() { vec![from + 1..=to] } else { Vec::new() };
                    self.let_go(pair, lease, done);
                    self.wait_again(pops);
                }
            }
            return;
        }
        known.cursor = known.cursor.max(Some(to));
        let mut left_over = Vec::new();
        for pop in pops {
            match self.pops.get(&pop) {
                Some(waiting) if !waiting.has_left && !messages.is_empty() => {
                    let count = messages.len().min(waiting.pop.count as usize);
                    let messages = messages.drain(..count).collect();
                    self.remove(pop);
                    self.effects.push(Effect::Deliver { pop, pair, lease: None, messages });
                }
                _ => left_over.push(pop),
            }
        }
        if let Some(known) = self.pairs.get_mut(&pair) {
            // They come before all that is taken later.
            known.unclaimed.extend(messages);
        }
        self.settle_down(pair);
        self.wait_again(left_over);
        self.serve(queue, pair.group);
    }

    fn looked(&mut self, connection: usize, sent: Vec<PairId>, outcome: Outcome<Vec<LookRow>>) {
        let Outcome::Done(rows) = outcome else {
            self.outboxes[connection].looks.extend(sent);
            return;
        };
        let mut rows: HashMap<PairId, LookRow> = rows.into_iter().map(|row| (row.pair, row)).collect();
        for pair in sent {
            match rows.remove(&pair) {
                Some(row) => self.saw(row),
                None => self.add_look(pair),
            }
        }
    }

    fn saw(&mut self, row: LookRow) {
        let pair = row.pair;
        let Some(known) = self.pairs.get_mut(&pair) else { return };
        let acks = std::mem::take(&mut known.acks);
        acks.into_iter().for_each(|pending| self.judge(pending, &row));
        let Some(known) = self.pairs.get_mut(&pair) else { return };
        // A pair that only an ack named has no queue yet.
        known.queue = row.of.map_or(known.queue, |(queue, _)| queue);
        let queue = known.queue;
        // Looked at for the sake of an ack: what is under way with the pair goes on, and its own answer tells.
        match &mut known.state {
            State::Collected | State::Taken => return,
            State::Leased { lease, acked, .. }
                if row.lease == Some(*lease) && row.free_in_ms.is_some_and(|ms| ms > 0) =>
            {
                known.cursor = row.cursor;
                *acked = row.acked;
                return;
            }
            _ => {}
        }
        let state = std::mem::replace(&mut known.state, State::Idle);
        known.last = row.of.map_or(0, |(_, last)| known.last.max(last));
        known.cursor = Some(row.cursor.unwrap_or(row.start));
        known.make_at = row.cursor.is_none().then_some(row.start);
        let pops = match state {
            State::Settling { pops, lease, is_leased } if row.lease == Some(lease) => {
                self.settle(row, pops, (lease, is_leased));
                return;
            }
            State::Settling { pops, .. } => pops,
            _ => Vec::new(),
        };
        match row.free_in_ms.filter(|ms| *ms > 0) {
            Some(ms) => self.close(pair, ms),
            None => self.settle_down(pair),
        }
        self.wait_again(pops);
        self.serve(queue, pair.group);
        self.ask_feed();
    }

    /// A take whose answer was lost was carried out.
    fn settle(&mut self, row: LookRow, pops: Vec<PopId>, (lease, is_leased): (Uuid, bool)) {
        let LookRow { pair, cursor, lease_seq, free_in_ms, acked, .. } = row;
        let Some(known) = self.pairs.get_mut(&pair) else { return };
        if is_leased {
            // It is let go of, and taken anew.
            let until_ms = self.now_ms + free_in_ms.unwrap_or(0);
            let (end, holes) = (lease_seq.unwrap_or(0), Vec::new());
            known.state = State::Leased { lease, until_ms, end, acked, holes };
            self.ends.insert((until_ms, pair));
            self.let_go(pair, lease, Vec::new());
            self.wait_again(pops);
        } else {
            known.state = State::Settling { pops: Vec::new(), lease, is_leased };
            let range = ReadRange { pair, from: lease_seq.unwrap_or(0), to: cursor.unwrap_or(0) };
            let connection = self.connection_of(pair);
            self.outboxes[connection].reads.push_back((range, pops));
        }
    }

    fn read(&mut self, connection: usize, sent: Vec<(ReadRange, Vec<PopId>)>, outcome: Outcome<Vec<TakeRow<M>>>) {
        let Outcome::Done(rows) = outcome else {
            self.outboxes[connection].reads.extend(sent);
            return;
        };
        let mut rows: HashMap<PairId, TakeRow<M>> = rows.into_iter().map(|row| (row.pair, row)).collect();
        for (range, pops) in sent {
            match rows.remove(&range.pair) {
                Some(row) => self.hand_out(row, pops, None),
                None => self.outboxes[connection].reads.push_back((range, pops)),
            }
        }
    }
}
