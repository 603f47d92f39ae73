//! What the cores ask of the queue's thread.

use crate::state::cancel_flag::CancelFlag;
use serde_json::{Map, Value};
use uuid::Uuid;

/// The group of consumers that name none.
pub const QUEUE_MODE: &str = "__QUEUE_MODE__";

/// A request.
#[derive(Debug)]
pub enum QueueRequest {
    /// Messages are wanted.
    Pop(PopRequest),
    /// Messages are done, or failed.
    Ack(AckRequest),
    /// A lease is to go on.
    Extend(ExtendRequest),
    /// A queue is to be like this.
    Configure(ConfigureRequest),
}

/// A consumer asks for messages.
#[derive(Debug)]
pub struct PopRequest {
    /// The queue's name.
    pub queue: Box<str>,
    /// The partition's name; `None`: whichever has something.
    pub partition: Option<Box<str>>,
    /// The group's name.
    pub group: Box<str>,
    /// The most messages; at least 1.
    pub count: u32,
    /// How long it waits; `None`: not at all.
    pub wait_ms: Option<u64>,
    /// What is handed out is done.
    pub auto_ack: bool,
    /// Where the group begins, if it is new.
    pub subscription: Subscription,
    /// The client left the choice of `count` to the daemon, and is told.
    pub is_autopilot: bool,
    /// Set when nobody waits any more.
    pub cancel_flag: CancelFlag,
}

/// Where a new group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// With the first message.
    All,
    /// With what comes from now on.
    New,
    /// With what was accepted after this time, in microseconds since 1970.
    From(i64),
}

/// Consumers say what became of messages.
#[derive(Debug)]
pub struct AckRequest {
    /// One for each message.
    pub items: Vec<AckItem>,
    /// The group's name.
    pub group: Box<str>,
    /// How it is answered.
    pub form: AckForm,
    /// What the names of queues must begin with.
    pub queue_prefix: Option<Box<str>>,
}

/// The forms in which clients read the answer to an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckForm {
    /// An array with an element for each item. Acks have had a `partitionId` since then.
    Array,
    /// An object for one message, of the oldest clients.
    OldSingle,
    /// An object with `results`, of the oldest clients.
    OldBatch,
}

/// What became of a message.
#[derive(Debug)]
pub struct AckItem {
    /// The transaction id that the message came with.
    pub transaction_id: String,
    /// The partition's id.
    pub partition: Option<i64>,
    /// The lease; nil if it is none that this daemon hands out.
    pub lease: Option<Uuid>,
    /// What became of it.
    pub status: AckStatus,
    /// Why it failed.
    pub error: Option<String>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckStatus {
    /// It is done.
    Completed,
    /// It failed, and is tried again as often as the queue allows.
    Failed,
    /// It is given back, and that counts as no failure.
    Retry,
    /// It is given up.
    GiveUp,
}

/// A lease is to go on.
#[derive(Debug)]
pub struct ExtendRequest {
    /// The lease.
    pub lease: Uuid,
    /// How long, from now.
    pub seconds: u64,
    /// What the names of queues must begin with.
    pub queue_prefix: Option<Box<str>>,
}

/// A queue is to be like this. It is created if it is missing.
#[derive(Debug)]
pub struct ConfigureRequest {
    /// Its name.
    pub queue: Box<str>,
    /// Its namespace.
    pub namespace: Option<Box<str>>,
    /// Its task.
    pub task: Option<Box<str>>,
    /// Options by their names.
    pub options: Map<String, Value>,
    /// What the answer says of options that are not set.
    pub defaults: Map<String, Value>,
    /// What is not said stays as it is.
    pub is_merging: bool,
}
