//! The report: a table for people, or one JSON object for scripts.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use serde::Serialize;

use crate::args::PushArgs;

use super::run::Failure;
use super::stats::Stats;

/// The figures of a run. `--json` prints this struct, so the names and units of its fields are the output format.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    url: String,
    run_id: String,
    endpoint: &'static str,
    mode: &'static str,
    connections: u32,
    threads: u32,
    pipeline: u32,
    /// Requests per second that were due, in an open loop.
    rate: Option<u32>,
    messages_per_request: u32,
    payload_bytes: u32,
    partitions: Option<u32>,
    elapsed_s: f64,
    requests: u64,
    messages: u64,
    body_bytes: u64,
    requests_per_s: f64,
    messages_per_s: f64,
    /// Megabytes (10^6 bytes) of request bodies.
    body_mb_per_s: f64,
    latency_us: Latency,
    statuses: BTreeMap<u16, u64>,
    retried_requests: u64,
    abandoned_requests: u64,
    unanswered_requests: u64,
    reconnects: u64,
    failed_connects: u64,
    failure: Option<String>,
}

/// Time from sending a request's first byte (the first time, if it was retried) to reading its whole response.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl Report {
    pub(crate) fn new(args: &PushArgs, run_id: &str, threads: u32, stats: &Stats, failure: Option<&Failure>) -> Self {
        let elapsed_s = stats.ended_ns as f64 / 1e9;
        let per_s = |count: f64| if elapsed_s > 0.0 { count / elapsed_s } else { 0.0 };
        Self {
            url: args.url.to_string(),
            run_id: run_id.to_owned(),
            endpoint: if args.ndjson { "ndjson" } else { "json" },
            mode: if args.buffered { "buffered" } else { "plain" },
            connections: args.connections,
            threads,
            pipeline: args.pipeline,
            rate: args.rate,
            messages_per_request: args.messages_per_request,
            payload_bytes: args.payload_bytes,
            partitions: args.partitions,
            elapsed_s,
            requests: stats.answered_requests,
            messages: stats.answered_messages,
            body_bytes: stats.answered_body_bytes,
            requests_per_s: per_s(stats.answered_requests as f64),
            messages_per_s: per_s(stats.answered_messages as f64),
            body_mb_per_s: per_s(stats.answered_body_bytes as f64 / 1e6),
            latency_us: Latency {
                p50: stats.latency_us(0.5),
                p90: stats.latency_us(0.9),
                p99: stats.latency_us(0.99),
                p99_9: stats.latency_us(0.999),
                max: stats.max_latency_us(),
            },
            statuses: stats.statuses.clone(),
            retried_requests: stats.retried_requests,
            abandoned_requests: stats.abandoned_requests,
            unanswered_requests: stats.unanswered_requests,
            reconnects: stats.reconnects,
            failed_connects: stats.failed_connects,
            failure: failure.map(ToString::to_string),
        }
    }

    /// Prints one JSON object and a newline on standard output.
    pub(crate) fn print_json(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, self)?;
        writeln!(out)
    }

    /// Prints a table on standard output. Counts of zero are left out where zero is the rule.
    pub(crate) fn print_table(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let statuses: Vec<String> = self.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        writeln!(out, "{} {} pushes to {}, run {}", self.mode, self.endpoint, self.url, self.run_id)?;
        writeln!(
            out,
            "{} connections on {} threads, up to {} requests outstanding on each, {} messages of {} bytes per request",
            self.connections, self.threads, self.pipeline, self.messages_per_request, self.payload_bytes
        )?;
        writeln!(out, "{:<12}{:>14.2} s", "time", self.elapsed_s)?;
        writeln!(out, "{:<12}{:>14}{:>14.0} /s", "requests", self.requests, self.requests_per_s)?;
        writeln!(out, "{:<12}{:>14}{:>14.0} /s", "messages", self.messages, self.messages_per_s)?;
        writeln!(out, "{:<12}{:>14.1}{:>14.1} MB/s", "bodies, MB", self.body_bytes as f64 / 1e6, self.body_mb_per_s)?;
        writeln!(out, "{:<12}{:>10}{:>10}{:>10}{:>10}{:>12}", "latency, µs", "p50", "p90", "p99", "p99.9", "max")?;
        let latency = &self.latency_us;
        writeln!(
            out,
            "{:<12}{:>10.0}{:>10.0}{:>10.0}{:>10.0}{:>12.0}",
            "", latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max
        )?;
        writeln!(out, "{:<12}{}", "responses", statuses.join(", "))?;
        for (name, count) in [
            ("requests retried", self.retried_requests),
            ("requests abandoned", self.abandoned_requests),
            ("requests unanswered at the end", self.unanswered_requests),
            ("reconnects", self.reconnects),
            ("failed connects", self.failed_connects),
        ] {
            if count > 0 {
                writeln!(out, "{name}: {count}")?;
            }
        }
        out.flush()
    }
}
