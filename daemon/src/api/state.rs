//! The state of the daemon: for people, load balancers and monitoring.

use super::{
    reply::Reply,
    request::{Endpoints, Request},
};
use crate::{
    config::Sync,
    http::{ErrorCode, Refusal},
    ids::unix_now,
    logging,
    state::{
        database_health::DatabaseHealth, delivery_state::Pause, drain_view::DrainView, log_view::LogView, pulse::Pulse,
    },
};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Delivery waits until a person acts.
const PAUSED: &str = "paused";

/// The answer of `/health`.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    database: &'static str,
    version: &'static str,
}

/// `GET /health`: the process serves requests.
pub(super) fn health<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let database = match request.endpoints.health.get() {
        DatabaseHealth::Connected => "connected",
        DatabaseHealth::Unknown | DatabaseHealth::Disconnected => "disconnected",
    };
    Ok(json(&Health { status: "healthy", database, version: env!("CARGO_PKG_VERSION") }))
}

/// The answer of `/ready` while pushes are accepted.
#[derive(Serialize)]
struct Ready {
    status: &'static str,
    /// `paused`, or left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<&'static str>,
    /// Why delivery is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// `GET /ready`: the daemon accepts pushes.
pub(super) fn ready<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let Endpoints { lane, log, drain, pulses, memory, .. } = request.endpoints;
    let refuse = |code: ErrorCode| Err(Refusal::from(code).with_status(503));
    if lane.is_shutting_down() {
        return refuse(ErrorCode::ShuttingDown);
    }
    if let Some(code) = log.refusal() {
        return refuse(code);
    }
    if pulses.iter().any(Pulse::is_stalled) {
        return refuse(ErrorCode::CoreStalled);
    }
    if lane.is_full() || log.lanes.iter().any(|progress| progress.lane.is_refusing()) {
        return refuse(ErrorCode::LogFull);
    }
    if memory.is_refusing() {
        return refuse(ErrorCode::Overloaded);
    }
    let code = drain.delivery.pause().map(|pause| pause.code);
    Ok(json(&Ready { status: "ready", delivery: code.map(|_| PAUSED), code }))
}

/// The answer of `/api/v1/status/buffers`. The names are part of the contract; `docs/http-api.md` says what they mean.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Buffers {
    pending: u64,
    failed: u64,
    db_healthy: bool,
    delivery: Delivery,
    pending_bytes: u64,
    oldest_pending_ms: u64,
    quota_bytes: u64,
    used_bytes: u64,
    segment_bytes_total: u64,
    retained_bytes: u64,
    retained_segments_given_up: u64,
    pushed_messages: u64,
    drain_transactions: u64,
    drained_messages: u64,
    duplicate_messages: u64,
    lost_records: u64,
    connections: u64,
    dropped_log_lines: u64,
    sync: Sync,
    lanes: Vec<Lane>,
}

/// Whether delivery goes on, in that answer.
#[derive(Serialize)]
struct Delivery {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A lane of the log, in that answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lane {
    lane: u16,
    appended_ordinal: u64,
    durable_ordinal: u64,
    drained_ordinal: u64,
    durable: String,
    drained: String,
    full: bool,
    failed: bool,
    left_out: bool,
}

/// `GET /api/v1/status/buffers`: what is between the producers and PostgreSQL.
pub(super) fn buffers<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let Endpoints { sync, log, drain, health, connections, .. } = request.endpoints;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let used_bytes = log.used_bytes();
    let lanes = log.lanes.iter().map(|progress| Lane {
        lane: progress.lane.lane(),
        appended_ordinal: progress.lane.appended_ordinal(),
        durable_ordinal: progress.lane.durable_ordinal(),
        drained_ordinal: progress.drained_ordinal(),
        durable: progress.lane.durable_end().to_string(),
        drained: progress.drained().to_string(),
        full: progress.lane.is_full(),
        failed: progress.lane.is_poisoned(),
        left_out: progress.is_left_out(),
    });
    Ok(json(&Buffers {
        pending: log.pending(),
        failed: count(&drain.dead_letters),
        db_healthy: health.get() == DatabaseHealth::Connected,
        delivery: delivery(drain),
        pending_bytes: used_bytes,
        oldest_pending_ms: oldest_pending_ms(log, drain),
        quota_bytes: log.quota_bytes,
        used_bytes,
        segment_bytes_total: log.keeper.total_bytes(),
        retained_bytes: log.keeper.retained_bytes(),
        retained_segments_given_up: log.keeper.early_releases(),
        pushed_messages: count(&drain.counters.pushed_messages),
        drain_transactions: count(&drain.counters.drain_transactions),
        drained_messages: count(&drain.counters.drained_messages),
        duplicate_messages: count(&drain.counters.duplicate_messages),
        lost_records: count(&drain.counters.lost_records),
        connections: connections.get(),
        dropped_log_lines: logging::dropped_lines(),
        sync: *sync,
        lanes: lanes.collect(),
    }))
}

fn delivery(drain: &DrainView) -> Delivery {
    match drain.delivery.pause() {
        None => Delivery { state: "running", code: None, reason: None },
        Some(Pause { code, reason }) => Delivery { state: PAUSED, code: Some(code), reason: Some(reason) },
    }
}

/// 200 with this value as JSON.
fn json<'a>(value: &impl Serialize) -> Reply<'a> {
    match serde_json::to_vec(value) {
        Ok(body) => Reply::json(200, body),
        Err(error) => unreachable!("numbers, texts and lists of them are always JSON: {error}"),
    }
}

fn oldest_pending_ms(log: &LogView, drain: &DrainView) -> u64 {
    if log.pending() == 0 {
        return 0;
    }
    let accepted_us = drain.oldest_pending_us.load(Ordering::Relaxed);
    let now_us = unix_now().as_micros() as u64;
    if accepted_us == 0 { 0 } else { now_us.saturating_sub(accepted_us) / 1000 }
}
