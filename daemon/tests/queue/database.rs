//! PostgreSQL as the dispatcher sees it: a model of its statements. A test compares it with PostgreSQL itself.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use forebay::queue::{
    AckPair, Batch, BatchAnswer, LookRow, Message, Outcome, PairId, ReadRange, TakePair, TakeRow, Then,
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The only queue.
pub(crate) const QUEUE: i64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seq(pub(crate) i64);

impl Message for Seq {
    fn seq(&self) -> i64 {
        self.0
    }
}

#[derive(Clone, Default)]
pub(crate) struct Cursor {
    pub(crate) cursor: i64,
    pub(crate) lease: Option<Uuid>,
    pub(crate) lease_seq: Option<i64>,
    pub(crate) free_at: Option<u64>,
    pub(crate) acked: BTreeSet<i64>,
}

/// A fault that is planted: the checks must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A take reads rows as they were a moment ago, and changes them all the same.
    NoRowLock,
    /// A daemon is told of numbers that are reserved and not committed.
    LastFromReservation,
    /// A lease that has ended is acknowledged all the same.
    ExpiredLeaseAccepted,
    /// What a feed said whose answer was lost is not read again.
    FeedGapIgnored,
    /// What is done ahead of the cursor is handed out again.
    AckedForgotten,
}

/// What PostgreSQL holds.
#[derive(Default)]
pub(crate) struct Database {
    pub(crate) bug: Option<Bug>,
    /// The rows as they were before the last statement.
    pub(crate) before: BTreeMap<PairId, Cursor>,
    pub(crate) now_ms: u64,
    pub(crate) last: BTreeMap<i64, i64>,
    pub(crate) cursors: BTreeMap<PairId, Cursor>,
    /// What was committed, in order.
    pub(crate) feed: Vec<(i64, i64, i64)>,
}

impl Database {
    pub(crate) fn commit(&mut self, partition: i64, count: i64) -> i64 {
        let last = self.last.entry(partition).or_default();
        *last += count;
        self.feed.push((QUEUE, partition, *last));
        *last
    }

    pub(crate) fn take(&mut self, pairs: &[TakePair]) -> Vec<TakeRow<Seq>> {
        let distinct: BTreeSet<PairId> = pairs.iter().map(|take| take.pair).collect();
        assert_eq!(distinct.len(), pairs.len(), "the pairs of a take are distinct");
        let mut rows = Vec::new();
        for take in pairs {
            if let Some(at) = take.make_at {
                self.cursors.entry(take.pair).or_insert_with(|| Cursor { cursor: at, ..Cursor::default() });
            }
            let now = self.now_ms;
            let known = self.last.get(&take.pair.partition).copied().unwrap_or(0);
            assert!(take.last <= known, "the last number is a committed one");
            let stale = self.before.get(&take.pair).filter(|_| self.bug == Some(Bug::NoRowLock)).cloned();
            let Some(row) = self.cursors.get_mut(&take.pair) else { continue };
            if let Some(stale) = stale {
                *row = stale;
            }
            if row.cursor >= take.last || row.free_at.is_some_and(|at| at > now) {
                continue;
            }
            let (from, to) = (row.cursor, (row.cursor + take.count).min(take.last));
            row.lease = Some(take.lease);
            match take.lease_ms {
                None => (row.cursor, row.lease_seq, row.free_at) = (to, Some(from), None),
                Some(ms) => (row.lease_seq, row.free_at) = (Some(to), Some(now + ms)),
            }
            let is_forgotten = self.bug == Some(Bug::AckedForgotten);
            let acked = row.acked.iter().filter(|_| !is_forgotten).map(|seq| *seq..=*seq).collect();
            rows.push(TakeRow { pair: take.pair, from, to, acked, messages: (from + 1..=to).map(Seq).collect() });
        }
        rows
    }

    pub(crate) fn ack(&mut self, acks: &[AckPair]) -> Vec<PairId> {
        let now = self.now_ms;
        let distinct: BTreeSet<PairId> = acks.iter().map(|ack| ack.pair).collect();
        assert_eq!(distinct.len(), acks.len(), "the pairs of an ack are distinct");
        let mut moved = Vec::new();
        for ack in acks {
            let Some(row) = self.cursors.get_mut(&ack.pair) else { continue };
            let is_over = row.lease != Some(ack.lease) || row.free_at.is_none_or(|at| at <= now);
            let is_elsewhere = row.cursor != ack.before || row.acked != numbers(&ack.acked_before);
            if (is_over || is_elsewhere) && self.bug != Some(Bug::ExpiredLeaseAccepted) {
                continue;
            }
            (row.cursor, row.acked) = (ack.cursor, numbers(&ack.acked));
            match ack.then {
                Then::Lease => {}
                Then::Free => (row.lease, row.lease_seq, row.free_at) = (None, None, None),
                Then::Rest(ms) => (row.lease, row.lease_seq, row.free_at) = (None, None, Some(now + ms)),
            }
            moved.push(ack.pair);
        }
        moved
    }

    pub(crate) fn look(&self, pairs: &[PairId]) -> Vec<LookRow> {
        let row = |pair: &PairId| {
            let row = self.cursors.get(pair);
            LookRow {
                pair: *pair,
                of: self.last.get(&pair.partition).map(|last| (QUEUE, *last)),
                start: 0,
                cursor: row.map(|row| row.cursor),
                lease: row.and_then(|row| row.lease),
                lease_seq: row.and_then(|row| row.lease_seq),
                free_in_ms: row.and_then(|row| row.free_at).map(|at| at.saturating_sub(self.now_ms)),
                acked: row.map(|row| row.acked.iter().map(|seq| *seq..=*seq).collect()).unwrap_or_default(),
            }
        };
        pairs.iter().map(row).collect()
    }

    pub(crate) fn read(&self, ranges: &[ReadRange]) -> Vec<TakeRow<Seq>> {
        let row = |range: &ReadRange| TakeRow {
            pair: range.pair,
            from: range.from,
            to: range.to,
            acked: Vec::new(),
            messages: (range.from + 1..=range.to).map(Seq).collect(),
        };
        ranges.iter().map(row).collect()
    }

    /// Carries out the statements of a batch. A backend that is killed at statement `killed_at` answers nothing from there on;
    /// whether that one was carried out is `is_carried_out`.
    pub(crate) fn carry_out(&mut self, batch: &Batch, killed_at: usize, is_carried_out: bool) -> BatchAnswer<Seq> {
        fn settle<T>(place: usize, killed_at: usize, rows: Option<T>) -> Outcome<T> {
            match rows {
                Some(rows) if place < killed_at => Outcome::Done(rows),
                _ => Outcome::Lost,
            }
        }
        let runs = |place: usize| place < killed_at || place == killed_at && is_carried_out;
        let rows = self.cursors.clone();
        let acks = runs(0).then(|| self.ack(&batch.acks));
        let takes = runs(1).then(|| self.take(&batch.takes));
        let looks = runs(2).then(|| self.look(&batch.looks));
        let reads = runs(3).then(|| self.read(&batch.reads));
        self.before = rows;
        BatchAnswer {
            acks: settle(0, killed_at, acks),
            takes: settle(1, killed_at, takes),
            looks: settle(2, killed_at, looks),
            reads: settle(3, killed_at, reads),
        }
    }
}

pub(crate) fn numbers(ranges: &[std::ops::RangeInclusive<i64>]) -> BTreeSet<i64> {
    ranges.iter().cloned().flatten().collect()
}
