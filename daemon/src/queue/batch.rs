//! What the dispatcher asks of PostgreSQL, and what comes back.

use std::ops::RangeInclusive;
use uuid::Uuid;

/// A partition as one group sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairId {
    /// The partition's id.
    pub partition: i64,
    /// The group's id.
    pub group: i64,
}

/// A message that was taken.
pub trait Message {
    /// Its number in its partition.
    fn seq(&self) -> i64;
}

/// Statements for one connection. Each is a transaction of its own. They are carried out in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Leases of which something is done.
    pub acks: Vec<AckPair>,
    /// Pairs to take messages of.
    pub takes: Vec<TakePair>,
    /// Pairs whose rows are to be read, under a lock: whoever changed them without an answer has ended then.
    pub looks: Vec<PairId>,
    /// Messages of a take that was carried out, but whose answer was lost.
    pub reads: Vec<ReadRange>,
}

impl Batch {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.acks.is_empty() && self.takes.is_empty() && self.looks.is_empty() && self.reads.is_empty()
    }
}

/// A pair in a take. The pairs of a take are distinct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakePair {
    /// The pair.
    pub pair: PairId,
    /// The most messages.
    pub count: i64,
    /// A number that is known to be committed. Nothing behind it is looked at.
    pub last: i64,
    /// The lease, or the token that tells afterwards whether this take was carried out.
    pub lease: Uuid,
    /// Length of the lease; `None`: what is taken is done.
    pub lease_ms: Option<u64>,
    /// The pair has no row yet: it is made first, with its cursor here.
    pub make_at: Option<i64>,
}

/// Something that is done of a lease: where its pair is to go, if the lease is held and nobody moved it meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckPair {
    /// The pair.
    pub pair: PairId,
    /// The lease.
    pub lease: Uuid,
    /// Where the cursor must be …
    pub before: i64,
    /// … and what must be done ahead of it.
    pub acked_before: Vec<RangeInclusive<i64>>,
    /// Where the cursor goes.
    pub cursor: i64,
    /// What is done ahead of it then.
    pub acked: Vec<RangeInclusive<i64>>,
    /// What becomes of the lease.
    pub then: Then,
}

/// What becomes of a lease of which something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It goes on as long as it was to.
    Lease,
    /// It ends.
    Free,
    /// It ends, and nobody takes the rest for so many milliseconds.
    Rest(u64),
}

/// Messages of one pair, from behind one number up to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// The pair.
    pub pair: PairId,
    /// They lie behind this one.
    pub from: i64,
    /// The last of them.
    pub to: i64,
}

/// What became of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was carried out.
    Done(T),
    /// It was not.
    Refused,
    /// Nobody knows.
    Lost,
}

/// The answer to a batch, statement by statement.
#[derive(Clone, Debug)]
pub struct BatchAnswer<M> {
    /// The pairs that were moved.
    pub acks: Outcome<Vec<PairId>>,
    /// A row for each pair that something was taken of.
    pub takes: Outcome<Vec<TakeRow<M>>>,
    /// A row for each pair.
    pub looks: Outcome<Vec<LookRow>>,
    /// A row for each range.
    pub reads: Outcome<Vec<TakeRow<M>>>,
}

impl<M> BatchAnswer<M> {
    /// Whether rows were not read that have to be.
    #[must_use]
    pub fn is_question_refused(&self) -> bool {
        matches!(self.looks, Outcome::Refused) || matches!(self.reads, Outcome::Refused)
    }
}

/// What was taken of a pair.
#[derive(Clone, Debug)]
pub struct TakeRow<M> {
    /// The pair.
    pub pair: PairId,
    /// What was taken lies behind this number …
    pub from: i64,
    /// … and ends with this one.
    pub to: i64,
    /// What was done ahead of the cursor, and is not handed out again.
    pub acked: Vec<RangeInclusive<i64>>,
    /// The messages that are there.
    pub messages: Vec<M>,
}

/// What PostgreSQL knows of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookRow {
    /// The pair.
    pub pair: PairId,
    /// The queue of the partition, and its last number; `None`: there is no such partition.
    pub of: Option<(i64, i64)>,
    /// Where a pair without a row begins.
    pub start: i64,
    /// The cursor; `None`: there is no row.
    pub cursor: Option<i64>,
    /// The lease, or the token of the last take without one.
    pub lease: Option<Uuid>,
    /// Leased: the last number that was handed out; else where that take began.
    pub lease_seq: Option<i64>,
    /// In how many milliseconds it can be taken, by the server's clock.
    pub free_in_ms: Option<u64>,
    /// What is done ahead of the cursor.
    pub acked: Vec<RangeInclusive<i64>>,
}
