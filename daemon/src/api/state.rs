//! How the daemon is: for people, load balancers and monitoring.

use super::{Request, reply::Reply};
use crate::{
    config::Sync,
    http::{
        ErrorCode, Refusal,
        response::{json_string, push_number},
    },
    ids::unix_now,
    ingest::LaneWriter,
    state::{
        connection_count::ConnectionCount,
        database_health::{DatabaseHealth, HealthMonitor},
        drain_view::DrainView,
        log_view::LogView,
        pulse::Pulse,
    },
};
use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What the daemon tells of itself.
pub(super) struct Status {
    pub(super) sync: Sync,
    pub(super) log: Arc<LogView>,
    pub(super) drain: Arc<DrainView>,
    pub(super) health: Arc<HealthMonitor>,
    pub(super) pulses: Arc<[Pulse]>,
    pub(super) connections: Arc<ConnectionCount>,
    pub(super) lane: Rc<LaneWriter>,
}

/// `GET /health`: the process serves.
pub(super) fn health<'a>(request: Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let database = match request.api.status.health.get() {
        DatabaseHealth::Connected => "connected",
        DatabaseHealth::Unknown | DatabaseHealth::Disconnected => "disconnected",
    };
    let version = env!("CARGO_PKG_VERSION");
    let body = format!(r#"{{"status":"healthy","database":"{database}","version":"{version}"}}"#);
    Ok(Reply::json(200, body.into_bytes()))
}

/// `GET /ready`: pushes are accepted.
pub(super) fn ready<'a>(request: Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let status = &request.api.status;
    let refuse = |code: ErrorCode| Err(Refusal::from(code).with_status(503));
    if status.lane.is_shutting_down() {
        return refuse(ErrorCode::ShuttingDown);
    }
    if status.log.has_failed() {
        return refuse(ErrorCode::StorageFailed);
    }
    if status.pulses.iter().any(Pulse::is_stalled) {
        return refuse(ErrorCode::CoreStalled);
    }
    if status.lane.is_full() || status.log.lanes.iter().any(|lane| lane.lane.is_refusing()) {
        return refuse(ErrorCode::LogFull);
    }
    Ok(Reply::json(200, br#"{"status":"ready"}"#.to_vec()))
}

/// `GET /api/v1/status/buffers`: what is between the producers and PostgreSQL.
pub(super) fn buffers<'a>(request: Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let Status { sync, log, drain, health, connections, .. } = &request.api.status;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut object = Object::new();
    object.number("pending", log.pending());
    object.number("failed", count(&drain.dead_letters));
    object.flag("dbHealthy", health.get() == DatabaseHealth::Connected);
    object.number("pendingBytes", log.used_bytes());
    object.number("oldestPendingMs", oldest_pending_ms(log, drain));
    object.number("quotaBytes", log.quota_bytes);
    object.number("usedBytes", log.used_bytes());
    object.number("segmentBytesTotal", log.keeper.total_bytes());
    object.number("retainedBytes", log.keeper.retained_bytes());
    object.number("retainedSegmentsGivenUp", log.keeper.given_up());
    object.number("pushedMessages", count(&drain.counters.pushed_messages));
    object.number("drainTransactions", count(&drain.counters.drain_transactions));
    object.number("drainedMessages", count(&drain.counters.drained_messages));
    object.number("duplicateMessages", count(&drain.counters.duplicate_messages));
    object.number("lostRecords", count(&drain.counters.lost_records));
    object.number("connections", connections.get());
    object.text("sync", &format!("{sync:?}").to_lowercase());
    let lanes = log.lanes.iter().map(|progress| {
        let mut lane = Object::new();
        lane.number("lane", progress.lane.lane().into());
        lane.number("appendedOrdinal", progress.lane.appended_ordinal());
        lane.number("durableOrdinal", progress.lane.durable_ordinal());
        lane.number("drainedOrdinal", progress.drained_ordinal());
        lane.text("durable", &progress.lane.durable().to_string());
        lane.text("drained", &progress.drained().to_string());
        lane.flag("full", progress.lane.is_full());
        lane.flag("failed", progress.lane.is_poisoned());
        lane.flag("leftOut", progress.is_left_out());
        lane.finish()
    });
    object.list("lanes", lanes);
    Ok(Reply::json(200, object.finish()))
}

fn oldest_pending_ms(log: &LogView, drain: &DrainView) -> u64 {
    if log.pending() == 0 {
        return 0;
    }
    let accepted_us = drain.oldest_pending_us.load(Ordering::Relaxed);
    let now_us = unix_now().as_micros() as u64;
    if accepted_us == 0 { 0 } else { now_us.saturating_sub(accepted_us) / 1000 }
}

/// A JSON object as it is written.
struct Object(Vec<u8>);

impl Object {
    fn new() -> Self {
        Self(b"{".to_vec())
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        json_string(&mut self.0, name);
        self.0.push(b':');
    }

    fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        push_number(&mut self.0, number);
    }

    fn flag(&mut self, name: &str, flag: bool) {
        self.name(name);
        self.0.extend_from_slice(if flag { b"true" } else { b"false" });
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        json_string(&mut self.0, text);
    }

    fn list(&mut self, name: &str, objects: impl Iterator<Item = Vec<u8>>) {
        self.name(name);
        let objects: Vec<_> = objects.collect();
        self.0.push(b'[');
        self.0.extend_from_slice(&objects.join(&b','));
        self.0.push(b']');
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}
