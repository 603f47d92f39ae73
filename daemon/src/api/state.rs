//! How the daemon is: for people, load balancers and monitoring.

use super::{Request, reply::Reply};
use crate::{
    http::{
        ErrorCode, Refusal,
        response::{json_string, push_number},
    },
    ids::unix_now,
    state::{database_health::DatabaseHealth, pulse::Pulse, shared::Shared},
};
use std::sync::atomic::Ordering;

/// `GET /health`: the process serves.
pub(super) fn health<'a>(request: Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let database = match request.core.shared.health.get() {
        DatabaseHealth::Connected => "connected",
        DatabaseHealth::Unknown | DatabaseHealth::Disconnected => "disconnected",
    };
    let version = env!("CARGO_PKG_VERSION");
    let body = format!(r#"{{"status":"healthy","database":"{database}","version":"{version}"}}"#);
    Ok(Reply::json(200, body.into_bytes()))
}

/// `GET /ready`: pushes are accepted.
pub(super) fn ready<'a>(request: Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let core = request.core;
    let refuse = |code: ErrorCode| Err(Refusal::from(code).with_status(503));
    if core.is_stopping() {
        return refuse(ErrorCode::ShuttingDown);
    }
    if core.shared.log.has_failed() {
        return refuse(ErrorCode::StorageFailed);
    }
    if core.shared.pulses.iter().any(Pulse::is_stalled) {
        return refuse(ErrorCode::CoreStalled);
    }
    if core.is_full() || core.shared.log.lanes.iter().any(|lane| lane.lane.is_refusing()) {
        return refuse(ErrorCode::LogFull);
    }
    Ok(Reply::json(200, br#"{"status":"ready"}"#.to_vec()))
}

/// `GET /api/v1/status/buffers`: what is between the producers and PostgreSQL.
pub(super) fn buffers<'a>(request: Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let shared = &request.core.shared;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let mut object = Object::new();
    object.number("pending", shared.log.pending());
    object.number("failed", count(&shared.drain.dead_letters));
    object.flag("dbHealthy", shared.health.get() == DatabaseHealth::Connected);
    object.number("pendingBytes", shared.log.used_bytes());
    object.number("oldestPendingMs", oldest_pending_ms(shared));
    object.number("quotaBytes", shared.log.quota_bytes);
    object.number("usedBytes", shared.log.used_bytes());
    object.number("segmentBytesTotal", shared.log.keeper.total_bytes());
    object.number("retainedBytes", shared.log.keeper.retained_bytes());
    object.number("retainedSegmentsGivenUp", shared.log.keeper.given_up());
    object.number("pushedMessages", count(&shared.drain.counters.pushed_messages));
    object.number("drainTransactions", count(&shared.drain.counters.drain_transactions));
    object.number("drainedMessages", count(&shared.drain.counters.drained_messages));
    object.number("duplicateMessages", count(&shared.drain.counters.duplicate_messages));
    object.number("lostRecords", count(&shared.drain.counters.lost_records));
    object.text("sync", &format!("{:?}", shared.config.sync).to_lowercase());
    let lanes = shared.log.lanes.iter().map(|progress| {
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

fn oldest_pending_ms(shared: &Shared) -> u64 {
    if shared.log.pending() == 0 {
        return 0;
    }
    let accepted_us = shared.drain.oldest_pending_us.load(Ordering::Relaxed);
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
