//! The dispatcher against a simulated PostgreSQL: several daemons and drains, lost answers, killed backends, consumers that leave,
//! acknowledge late, in part, out of order or not at all. Each seed is one life; `FOREBAY_SEED` repeats one, `FOREBAY_SEEDS` sets
//! how many there are.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use forebay::queue::{Ack, AckId, Batch, BatchAnswer, Dispatcher, Effect, PairId, Pop, PopId, Settings};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
};
use uuid::Uuid;

#[path = "queue/database.rs"]
mod database;
use database::{Bug, Database, QUEUE, Seq};

#[path = "../../wal/tests/simulated/random.rs"]
#[allow(unreachable_pub, reason = "the log's tests share it")]
mod random;
use random::Random;

const PARTITIONS: i64 = 5;
/// Its consumers lease and acknowledge.
const LEASED: i64 = 1;
/// What its consumers get is done.
const AUTO: i64 = 2;
const CONNECTIONS: usize = 2;
const LEASE_MS: u64 = 1000;
const SEEDS: u64 = 500;

/// A batch on its way.
enum Flight {
    Sent(Batch),
    Answer(BatchAnswer<Seq>),
}

struct Daemon {
    dispatcher: Dispatcher<Seq>,
    flights: Vec<Option<Flight>>,
    /// A feed that was asked for, and what it read.
    feed: Option<Option<Vec<(i64, i64, i64)>>>,
    fed: usize,
    /// Commits whose answers are on their way.
    commits: Vec<(i64, i64)>,
}

/// A lease in a consumer's hands.
#[derive(Clone)]
struct Held {
    daemon: usize,
    pair: PairId,
    lease: Uuid,
    messages: Vec<i64>,
}

struct World {
    random: Random,
    database: Database,
    daemons: Vec<Daemon>,
    next_id: u64,
    /// Pops that were not answered: their daemon and group.
    pops: BTreeMap<u64, (usize, i64)>,
    held: Vec<Held>,
    /// Acks that were not answered: what they say is done.
    acks: HashMap<u64, (PairId, Vec<i64>)>,
    /// By pair: what is done, as consumers were told.
    done: BTreeMap<PairId, BTreeSet<i64>>,
    /// By partition: what consumers of the group without leases got, in order.
    got: BTreeMap<i64, Vec<i64>>,
    /// A process that ended, or a consumer that left too late, may have taken messages along.
    may_lose: bool,
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut world = Self {
            random: Random::new(seed),
            database: Database { bug, ..Database::default() },
            daemons: Vec::new(),
            next_id: 0,
            pops: BTreeMap::new(),
            held: Vec::new(),
            acks: HashMap::new(),
            done: BTreeMap::new(),
            got: BTreeMap::new(),
            may_lose: false,
        };
        for _ in 0..1 + seed % 2 {
            let daemon = world.start_daemon();
            world.daemons.push(daemon);
        }
        world
    }

    /// A daemon that has read all cursors.
    fn start_daemon(&mut self) -> Daemon {
        let first_lease = self.random.next();
        let mut dispatcher = Dispatcher::new(&Settings { connections: CONNECTIONS, first_lease });
        for group in [LEASED, AUTO] {
            dispatcher.add_group(QUEUE, group);
        }
        for (&partition, &last) in &self.database.last {
            for group in [LEASED, AUTO] {
                let pair = PairId { partition, group };
                let cursor = self.database.cursors.get(&pair).map(|row| row.cursor);
                if cursor.unwrap_or(0) < last {
                    dispatcher.found(QUEUE, pair, last, cursor);
                }
            }
        }
        let flights = (0..CONNECTIONS).map(|_| None).collect();
        Daemon { dispatcher, flights, feed: None, fed: self.database.feed.len(), commits: Vec::new() }
    }

    fn some_daemon(&mut self) -> usize {
        self.random.below(self.daemons.len() as u64) as usize
    }

    fn step(&mut self) {
        let at = self.some_daemon();
        match self.random.below(16) {
            0..3 => self.commit(at),
            3..6 => self.pop(at),
            6..10 => self.fly(at),
            10 => self.answer_feed(at),
            11 => self.hear_commit(at),
            12..14 => self.ack_something(),
            14 => self.pass_time(),
            _ => match self.random.below(12) {
                0 => self.restart(at),
                1..6 => self.leave_something(),
                _ => self.late_ack(),
            },
        }
        for at in 0..self.daemons.len() {
            self.carry_out_effects(at);
        }
    }

    fn commit(&mut self, at: usize) {
        let partition = 1 + self.random.below(PARTITIONS as u64) as i64;
        let count = 1 + self.random.below(6) as i64;
        if self.database.bug == Some(Bug::LastFromReservation) && self.random.once_in(20) {
            let last = self.database.last.get(&partition).copied().unwrap_or(0) + count;
            return self.daemons[at].dispatcher.committed(QUEUE, partition, last);
        }
        let last = self.database.commit(partition, count);
        // An answer that is lost is never heard: the feed tells.
        if !self.random.once_in(8) {
            self.daemons[at].commits.push((partition, last));
        }
    }

    fn hear_commit(&mut self, at: usize) {
        let daemon = &mut self.daemons[at];
        if !daemon.commits.is_empty() {
            let (partition, last) = daemon.commits.remove(0);
            daemon.dispatcher.committed(QUEUE, partition, last);
        }
    }

    fn pop(&mut self, at: usize) {
        let group = [LEASED, AUTO][self.random.below(2) as usize];
        let partition = self.random.once_in(4).then(|| 1 + self.random.below(PARTITIONS as u64) as i64);
        let wait_until_ms = (!self.random.once_in(3)).then(|| self.database.now_ms + 200 + self.random.below(5000));
        self.add_pop(at, group, partition, wait_until_ms);
    }

    fn add_pop(&mut self, at: usize, group: i64, partition: Option<i64>, wait_until_ms: Option<u64>) {
        self.next_id += 1;
        let count = 1 + self.random.below(5) as i64;
        let lease_ms = (group == LEASED).then_some(LEASE_MS);
        let pop =
            Pop { queue: QUEUE, group, partition, count, message_bytes: 1, largest_bytes: 1, lease_ms, wait_until_ms };
        self.pops.insert(self.next_id, (at, group));
        self.daemons[at].dispatcher.pop(PopId(self.next_id), pop);
    }

    /// Something happens to what is under way on a connection.
    fn fly(&mut self, at: usize) {
        let connection = self.random.below(CONNECTIONS as u64) as usize;
        let is_killed = self.random.once_in(12);
        let (place, is_carried_out) = (self.random.below(4) as usize, self.random.once_in(2));
        let Some(flight) = self.daemons[at].flights[connection].take() else { return };
        match flight {
            Flight::Sent(batch) => {
                let killed_at = if is_killed { place } else { 4 };
                // Another daemon's take may replace the token before this one can look.
                self.may_lose |= is_killed && self.daemons.len() > 1;
                let answer = self.database.carry_out(&batch, killed_at, is_carried_out);
                self.daemons[at].flights[connection] = Some(Flight::Answer(answer));
            }
            Flight::Answer(answer) => self.daemons[at].dispatcher.answered(connection, answer),
        }
    }

    fn answer_feed(&mut self, at: usize) {
        let is_lost = self.random.once_in(10);
        let daemon = &mut self.daemons[at];
        match daemon.feed.take() {
            None => {}
            Some(None) => {
                let changes = self.database.feed[daemon.fed..].to_vec();
                daemon.fed = self.database.feed.len();
                daemon.feed = Some(Some(changes));
            }
            Some(Some(changes)) => {
                if is_lost && self.database.bug != Some(Bug::FeedGapIgnored) {
                    // It is read again.
                    daemon.fed -= changes.len();
                }
                daemon.dispatcher.fed((!is_lost).then_some(&changes[..]));
            }
        }
    }

    fn pass_time(&mut self) {
        self.database.now_ms += self.random.below(400);
        let now = self.database.now_ms;
        self.daemons.iter_mut().for_each(|daemon| daemon.dispatcher.tick(now));
    }

    fn leave_something(&mut self) {
        let Some(id) = self.some_pop() else { return };
        let (at, _) = self.pops.remove(&id).unwrap();
        self.daemons[at].dispatcher.leave(PopId(id));
    }

    fn some_pop(&mut self) -> Option<u64> {
        let count = self.pops.len() as u64;
        (count > 0).then(|| *self.pops.keys().nth(self.random.below(count) as usize).unwrap())
    }

    /// The process of a daemon ends, and another one starts.
    fn restart(&mut self, at: usize) {
        self.pops.retain(|_, (daemon, _)| *daemon != at);
        self.may_lose = true;
        // A statement on its way is carried out, or it is not.
        for flight in std::mem::take(&mut self.daemons[at].flights).into_iter().flatten() {
            if let Flight::Sent(batch) = flight
                && self.random.once_in(2)
            {
                drop(self.database.carry_out(&batch, 4, true));
            }
        }
        self.acks.clear();
        self.daemons[at] = self.start_daemon();
    }

    /// A consumer acknowledges what it has: all, a part, or it lets go of it.
    fn ack_something(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let index = self.random.below(self.held.len() as u64) as usize;
        let held = self.held[index].clone();
        let (done, release_ms) = match self.random.below(6) {
            0..3 => (held.messages.clone(), None),
            3 => (held.messages.iter().copied().filter(|_| self.random.once_in(2)).collect(), None),
            4 => (Vec::new(), Some(self.random.below(300))),
            _ => (held.messages.iter().copied().filter(|_| self.random.once_in(2)).collect(), Some(0)),
        };
        if release_ms.is_some() || done.len() == held.messages.len() {
            self.held.remove(index);
        }
        self.add_ack(&held, done, release_ms);
    }

    fn add_ack(&mut self, held: &Held, done: Vec<i64>, release_ms: Option<u64>) {
        self.next_id += 1;
        let at = held.daemon.min(self.daemons.len() - 1);
        let ranges = done.iter().map(|seq| *seq..=*seq).collect();
        self.acks.insert(self.next_id, (held.pair, done));
        let ack = Ack { pair: held.pair, lease: held.lease, done: ranges, release_ms };
        self.daemons[at].dispatcher.ack(AckId(self.next_id), ack);
    }

    /// A lease that has ended is acknowledged all the same.
    fn late_ack(&mut self) {
        if let Some(held) = self.held.first().cloned() {
            self.database.now_ms += LEASE_MS;
            self.held.remove(0);
            self.add_ack(&held, held.messages.clone(), None);
        }
    }

    fn carry_out_effects(&mut self, at: usize) {
        for effect in self.daemons[at].dispatcher.effects() {
            match effect {
                Effect::Send { connection, batch } => {
                    assert!(self.daemons[at].flights[connection].is_none(), "one batch at a time");
                    self.daemons[at].flights[connection] = Some(Flight::Sent(batch));
                }
                Effect::Feed => {
                    assert!(self.daemons[at].feed.is_none(), "one feed at a time");
                    self.daemons[at].feed = Some(None);
                }
                Effect::Empty { pop } => assert!(self.pops.remove(&pop.0).is_some(), "a pop is answered once"),
                Effect::Deliver { pop, pair, lease, messages } => {
                    assert!(self.pops.remove(&pop.0).is_some(), "a pop is answered once, and not one that has left");
                    let messages: Vec<i64> = messages.iter().map(|message| message.0).collect();
                    self.deliver(at, pair, lease, messages);
                }
                Effect::Acked { ack, is_held } => {
                    if let Some((pair, done)) = self.acks.remove(&ack.0) {
                        self.check_ack(pair, done, is_held);
                    }
                }
            }
        }
    }

    /// What is told of an ack is so: also of one that was repeated, or whose answer was lost.
    fn check_ack(&mut self, pair: PairId, done: Vec<i64>, is_held: bool) {
        let row = &self.database.cursors[&pair];
        let is_done = |seq: &i64| *seq <= row.cursor || row.acked.contains(seq);
        if is_held {
            assert!(done.iter().all(is_done), "{pair:?}: {done:?} counts and is not done");
            self.done.entry(pair).or_default().extend(done);
        } else if !done.is_empty() && self.daemons.len() == 1 {
            assert!(!done.iter().all(is_done), "{pair:?}: {done:?} is done and does not count");
        }
    }

    fn deliver(&mut self, at: usize, pair: PairId, lease: Option<Uuid>, messages: Vec<i64>) {
        assert!(!messages.is_empty() && messages.is_sorted(), "{messages:?}");
        let Some(lease) = lease else {
            assert_eq!(pair.group, AUTO);
            self.got.entry(pair.partition).or_default().extend(messages);
            return;
        };
        assert_eq!(pair.group, LEASED);
        let row = &self.database.cursors[&pair];
        let done = self.done.entry(pair).or_default();
        // The lease may have ended while its answer was on the way; its acks are refused then. While it holds, it begins at the
        // cursor, and nothing that is not done is left out.
        if row.lease == Some(lease) {
            assert!(messages.iter().all(|seq| !done.contains(seq)), "{pair:?}: {messages:?} has what was done");
            let expected: Vec<i64> =
                (row.cursor + 1..=row.lease_seq.unwrap()).filter(|seq| !row.acked.contains(seq)).collect();
            assert_eq!(messages, expected, "{pair:?}");
        }
        self.held.push(Held { daemon: at, pair, lease, messages });
    }

    /// No more faults: everything that was committed is consumed.
    fn finish(&mut self) {
        let mut rounds = 0;
        loop {
            let is_done =
                |pair: PairId, last: i64| self.database.cursors.get(&pair).is_some_and(|row| row.cursor >= last);
            let all: Vec<(PairId, i64)> = self
                .database
                .last
                .iter()
                .flat_map(|(&partition, &last)| [LEASED, AUTO].map(|group| (PairId { partition, group }, last)))
                .collect();
            if all.iter().all(|(pair, last)| is_done(*pair, *last)) && self.pops.is_empty() && rounds > 3 {
                break;
            }
            rounds += 1;
            assert!(
                rounds < 2000,
                "stuck: {:?}",
                all.iter().filter(|(pair, last)| !is_done(*pair, *last)).collect::<Vec<_>>()
            );
            let wait_until_ms = Some(self.database.now_ms + 100);
            for at in 0..self.daemons.len() {
                for group in [LEASED, AUTO] {
                    self.add_pop(at, group, None, if rounds % 3 == 0 { None } else { wait_until_ms });
                }
            }
            for _ in 0..6 {
                for at in 0..self.daemons.len() {
                    self.carry_out_effects(at);
                    for connection in 0..CONNECTIONS {
                        match self.daemons[at].flights[connection].take() {
                            Some(Flight::Sent(batch)) => {
                                let answer = self.database.carry_out(&batch, 4, true);
                                self.daemons[at].dispatcher.answered(connection, answer);
                            }
                            Some(Flight::Answer(answer)) => self.daemons[at].dispatcher.answered(connection, answer),
                            None => {}
                        }
                    }
                    while self.daemons[at].feed.is_some() {
                        self.answer_feed(at);
                    }
                    self.carry_out_effects(at);
                }
                for held in std::mem::take(&mut self.held) {
                    let done = held.messages.clone();
                    self.add_ack(&held, done, None);
                }
            }
            self.pass_time();
            for at in 0..self.daemons.len() {
                self.carry_out_effects(at);
            }
        }
        self.check();
    }

    fn check(&self) {
        for (&partition, &last) in &self.database.last {
            let got = self.got.get(&partition).cloned().unwrap_or_default();
            let distinct: BTreeSet<i64> = got.iter().copied().collect();
            assert_eq!(
                distinct.len(),
                got.len(),
                "partition {partition}: nothing comes twice without a lease: {got:?}"
            );
            if self.daemons.len() == 1 {
                assert!(got.is_sorted(), "partition {partition}: in order: {got:?}");
            }
            if !self.may_lose {
                assert!(distinct.iter().copied().eq(1..=last), "partition {partition}: all of 1..={last}: {got:?}");
            }
        }
    }
}

fn live(seed: u64, bug: Option<Bug>) {
    let mut world = World::new(seed, bug);
    for _ in 0..300 + seed % 400 {
        world.step();
    }
    world.finish();
}

#[test]
fn every_message_of_every_partition_comes_in_order_to_each_group_whatever_is_lost_killed_or_late() {
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    if let Some(seed) = variable("FOREBAY_SEED") {
        return live(seed, None);
    }
    let seeds = variable("FOREBAY_SEEDS").unwrap_or(SEEDS);
    let failed: Vec<u64> =
        (0..seeds).filter(|seed| catch_unwind(AssertUnwindSafe(|| live(*seed, None))).is_err()).collect();
    assert!(failed.is_empty(), "FOREBAY_SEED={failed:?}");
}

#[test]
fn each_planted_fault_is_found_within_1000_seeds() {
    for bug in
        [Bug::NoRowLock, Bug::LastFromReservation, Bug::ExpiredLeaseAccepted, Bug::FeedGapIgnored, Bug::AckedForgotten]
    {
        let finds = |seed: &u64| catch_unwind(AssertUnwindSafe(|| live(*seed, Some(bug)))).is_err();
        let found = (0..1000).find(finds);
        println!("{bug:?}: {found:?}");
        assert!(found.is_some(), "{bug:?} is not found");
    }
}
