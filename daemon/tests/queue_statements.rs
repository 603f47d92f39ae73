//! The dispatcher's statements in PostgreSQL, against the model of them that the simulator uses.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use forebay::{
    postgres::{
        channel::{Channel, ChannelOptions},
        schema::{self, owner::SchemaSettings},
    },
    queue::{
        AckPair, Batch, BatchAnswer, CursorStore, LookRow, Message, Outcome, PairId, ReadRange, TakePair, TakeRow,
        Then, advance,
    },
    rt,
};
use forebay_cluster::TestCluster;
use forebay_pgwire::Config;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

#[path = "queue/database.rs"]
#[allow(dead_code, reason = "the simulator uses more of it")]
mod database;
use database::{Database, QUEUE};

#[path = "../../wal/tests/simulated/random.rs"]
#[allow(unreachable_pub, reason = "the log's tests share it")]
mod random;
use random::Random;

const PARTITIONS: i64 = 6;
const GROUPS: i64 = 2;
const STEPS: u32 = 1500;
/// Longer than the test takes.
const HOUR_MS: u64 = 3_600_000;

/// The same statements for PostgreSQL and for its model.
struct Both<'a> {
    random: Random,
    model: Database,
    cluster: &'a TestCluster,
    store: CursorStore,
    leases: u64,
    /// Leases that were handed out, the newest last.
    held: Vec<(PairId, Uuid)>,
}

impl Both<'_> {
    fn below(&mut self, below: i64) -> i64 {
        self.random.below(below as u64) as i64
    }

    fn some_pair(&mut self) -> PairId {
        // One partition does not exist.
        PairId { partition: 1 + self.below(PARTITIONS + 1), group: 1 + self.below(GROUPS) }
    }

    fn commit(&mut self) {
        let (partition, count) = (1 + self.below(PARTITIONS), 1 + self.below(5));
        let last = self.model.commit(partition, count);
        let first = last - count + 1;
        self.cluster
            .psql(&format!(
                "BEGIN; UPDATE forebay.partitions SET last_seq = {last} WHERE id = {partition}; \
                 INSERT INTO forebay.messages (partition_id, seq, created_at, id, payload) \
                 SELECT {partition}, n, now(), gen_random_uuid(), to_jsonb(n) FROM generate_series({first}, {last}) n; COMMIT"
            ))
            .unwrap();
    }

    /// Time passes: the leases and rests of a pair are over.
    fn expire(&mut self) {
        let pair = self.some_pair();
        if let Some(row) = self.model.cursors.get_mut(&pair)
            && row.free_at.is_some()
        {
            row.free_at = Some(0);
            let PairId { partition, group } = pair;
            self.cluster
                .psql(&format!(
                    "UPDATE forebay.cursors SET free_at = now() - interval '1 second' \
                     WHERE partition_id = {partition} AND group_id = {group}"
                ))
                .unwrap();
        }
    }

    fn take(&mut self) -> TakePair {
        let pair = self.some_pair();
        self.leases += 1;
        let lease = Uuid::from_u64_pair(1, self.leases);
        let last = self.model.last.get(&pair.partition).copied().unwrap_or(0);
        let lease_ms = self.random.once_in(2).then_some(HOUR_MS);
        let make_at = self.random.once_in(2).then_some(0);
        TakePair { pair, count: 1 + self.below(4), last: self.below(last + 1), lease, lease_ms, make_at }
    }

    fn ack(&mut self) -> Option<AckPair> {
        let at = self.held.len().checked_sub(1 + self.random.below(6) as usize)?;
        let (pair, lease) = self.held[at];
        let row = self.model.cursors.get(&pair)?;
        let end = row.lease_seq.unwrap_or(row.cursor);
        let acked_before: Vec<_> = row.acked.iter().map(|seq| *seq..=*seq).collect();
        // In the form that a daemon keeps.
        let (before, acked_before) = advance(row.cursor, end, &acked_before, &[]);
        let some = (before..end).filter(|_| self.random.once_in(2)).map(|seq| seq + 1..=seq + 1).collect::<Vec<_>>();
        let (cursor, acked) = advance(before, end, &acked_before, &some);
        let then = match self.random.below(4) {
            0 => Then::Free,
            1 => Then::Rest(HOUR_MS),
            _ if cursor >= end => Then::Free,
            _ => Then::Lease,
        };
        // Now and then it is not where it is thought to be.
        let before = before - i64::from(self.random.once_in(10));
        Some(AckPair { pair, lease, before, acked_before, cursor, acked, then })
    }

    fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..self.random.below(4) {
            if let Some(ack) = self.ack()
                && batch.acks.iter().all(|other| other.pair != ack.pair)
            {
                batch.acks.push(ack);
            }
        }
        for _ in 0..self.random.below(5) {
            let take = self.take();
            if batch.takes.iter().all(|other| other.pair != take.pair) {
                batch.takes.push(take);
            }
        }
        for _ in 0..self.random.below(3) {
            let pair = self.some_pair();
            if !batch.looks.contains(&pair) {
                batch.looks.push(pair);
            }
            let last = self.model.last.get(&pair.partition).copied().unwrap_or(0);
            let from = self.below(last + 1);
            if batch.reads.iter().all(|range: &ReadRange| range.pair != pair) {
                batch.reads.push(ReadRange { pair, from, to: from + self.below(last - from + 1) });
            }
        }
        batch
    }

    async fn step(&mut self) {
        match self.random.below(5) {
            0 => self.commit(),
            1 => self.expire(),
            _ => {
                let batch = self.batch();
                // Leases do not end by themselves here.
                self.model.now_ms = 1;
                let expected = self.model.carry_out(&batch, 4, true);
                let answer = self.store.carry_out(0, &batch).await;
                assert_eq!(shown(&answer), shown(&expected), "{batch:?}");
                let Outcome::Done(taken) = answer.takes else { panic!("{batch:?}") };
                for take in batch.takes.iter().filter(|take| take.lease_ms.is_some()) {
                    if taken.iter().any(|row| row.pair == take.pair) {
                        self.held.push((take.pair, take.lease));
                    }
                }
            }
        }
    }
}

fn done<T>(outcome: &Outcome<Vec<T>>, show: impl Fn(&T) -> String) -> Vec<String> {
    let Outcome::Done(rows) = outcome else { panic!("it is carried out") };
    let mut shown: Vec<String> = rows.iter().map(show).collect();
    shown.sort();
    shown
}

/// An answer as both can give it: how long a lease goes on is told by the server's clock.
fn shown<M: Message>(answer: &BatchAnswer<M>) -> [Vec<String>; 4] {
    let take = |row: &TakeRow<M>| {
        let TakeRow { pair, from, to, acked, messages } = row;
        let seqs: Vec<i64> = messages.iter().map(Message::seq).collect();
        format!("{pair:?} {from} {to} {:?} {seqs:?}", database::numbers(acked))
    };
    let look = |row: &LookRow| {
        let LookRow { pair, of, start, cursor, lease, lease_seq, free_in_ms, acked } = row;
        let is_held = free_in_ms.is_some_and(|ms| ms > 0);
        format!("{pair:?} {of:?} {start} {cursor:?} {lease:?} {lease_seq:?} {is_held} {:?}", database::numbers(acked))
    };
    [
        done(&answer.acks, |pair| format!("{pair:?}")),
        done(&answer.takes, take),
        done(&answer.looks, look),
        done(&answer.reads, take),
    ]
}

#[test]
fn postgres_does_with_each_statement_what_the_simulator_s_model_of_it_does() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    cluster.psql(&schema::print("forebay")).unwrap();
    let make = format!(
        "INSERT INTO forebay.queues (name) VALUES ('q'); \
         INSERT INTO forebay.partitions (queue_id, name) SELECT {QUEUE}, n::text FROM generate_series(1, {PARTITIONS}) n"
    );
    cluster.psql(&make).unwrap();
    let seed = std::env::var("FOREBAY_SEED").map_or(1, |seed| seed.parse().unwrap());
    rt::runtime(64).unwrap().block_on(async {
        let config = Config::from_url(&cluster.url()).unwrap();
        let timeout = Duration::from_secs(60);
        let channel = Channel::open(ChannelOptions {
            target: Arc::new(move || Some(config.clone())),
            schema: SchemaSettings::own("forebay"),
            application_name: "",
            connect_timeout: timeout,
            statement_timeout: timeout,
        });
        let store = CursorStore::new(vec![channel], "\"forebay\"", timeout);
        let model = Database::default();
        let mut both = Both { random: Random::new(seed), model, cluster: &cluster, store, leases: 0, held: Vec::new() };
        // A partition that has no messages is there all the same.
        for partition in 1..=PARTITIONS {
            both.model.last.insert(partition, 0);
        }
        for _ in 0..STEPS {
            both.step().await;
        }
        assert!(both.held.len() > 100, "{} leases", both.held.len());
    });
}
