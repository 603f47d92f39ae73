//! What handlers work with: the views of one core, and the request.

use super::{
    letter_requests::LetterRequests, pattern::PathParams, push::Pushes, queue_requests::CoreQueue, writer::ReplyWriter,
};
use crate::{
    access::{AccessRequest, Gate, Grant, LastHost},
    config::Sync,
    http::Head,
    ingest::LaneWriter,
    state::{
        connection_count::ConnectionCount, database_health::HealthMonitor, drain_view::DrainView, log_view::LogView,
        memory_shortage::MemoryShortage, pulse::Pulse,
    },
};
use std::{rc::Rc, sync::Arc};

/// What the endpoints of one core share.
pub(super) struct Endpoints {
    pub(super) gate: Arc<Gate>,
    pub(super) last_host: LastHost,
    pub(super) max_body_bytes: u64,
    pub(super) sync: Sync,
    pub(super) log: Arc<LogView>,
    pub(super) drain: Arc<DrainView>,
    pub(super) health: Arc<HealthMonitor>,
    pub(super) pulses: Arc<[Pulse]>,
    pub(super) connections: Arc<ConnectionCount>,
    pub(super) memory: Arc<MemoryShortage>,
    pub(super) lane: Rc<LaneWriter>,
    pub(super) pushes: Pushes,
    pub(super) letters: LetterRequests,
    pub(super) queue: CoreQueue,
    pub(super) writer: ReplyWriter,
}

/// A whole request that was admitted, as its handler gets it.
pub(super) struct Request<'r, 'c, 'a> {
    pub(super) endpoints: &'c Endpoints,
    pub(super) head: &'r Head<'a>,
    pub(super) params: &'r PathParams<'a>,
    pub(super) grant: &'c Grant,
    /// What the endpoint asks of whoever calls it.
    pub(super) access: AccessRequest,
    /// Decoded; empty where there is none.
    pub(super) body: &'a [u8],
}
