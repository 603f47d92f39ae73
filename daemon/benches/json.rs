//! The parser of pushes beside the well-known ones, on the bodies that pushes have.
//!
//! All are given the same: bytes of a push request in, its items out, each with its queue and its payload as a slice of
//! the body. Only ours also refuses what `jsonb` cannot hold (`\u0000`, lone surrogates, too long numbers, too deep
//! nesting); the others would need a second pass for that.
//!
//! `cargo bench -p forebay --bench json -- [rounds=N]`; prints Markdown, nanoseconds a body, medians of the rounds.
// A measuring tool fails as a test does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde::Deserialize;
use std::{
    borrow::Cow,
    hint::black_box,
    time::{Duration, Instant},
};

/// Time that each contestant gets in each round.
const ROUND: Duration = Duration::from_millis(60);

/// As many bytes of payload as `bytes` says, about, of one kind.
type Payload = fn(bytes: usize) -> String;

const PAYLOADS: [(&str, Payload); 4] =
    [("text", text), ("escapes", escapes), ("numbers, deep", numbers), ("event", event)];

fn text(bytes: usize) -> String {
    format!("\"{}\"", "The quick brown fox jumps over the lazy dog. ".repeat(bytes / 45 + 1).split_at(bytes - 2).0)
}

fn escapes(bytes: usize) -> String {
    format!("\"{}\"", "a line\\nand \\\"quoted\\\" \\u00e9\\t".repeat(bytes / 33))
}

fn numbers(bytes: usize) -> String {
    let point = "[52.520008,[13.404954,[-17,[1.5e3]]]]";
    format!("[{}]", vec![point; bytes / point.len()].join(","))
}

fn event(bytes: usize) -> String {
    let member = |n: usize| format!("\"field_{n}\":{}", ["true", "\"some value\"", "1234", "null"][n % 4]);
    let mut members = Vec::new();
    let mut total = 2;
    while total < bytes {
        members.push(member(members.len()));
        total += members.last().map_or(0, String::len) + 1;
    }
    format!("{{{}}}", members.join(","))
}

fn body(items: usize, payload: &str) -> Vec<u8> {
    let item = format!("{{\"queue\":\"events\",\"partition\":\"p-7\",\"payload\":{payload}}}");
    format!("{{\"items\":[{}],\"bufferMs\":100}}", vec![item; items].join(",")).into_bytes()
}

#[derive(Deserialize)]
struct SerdeBody<'a> {
    #[serde(borrow)]
    items: Vec<SerdeItem<'a>>,
}

#[derive(Deserialize)]
struct SerdeItem<'a> {
    #[serde(borrow)]
    queue: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a serde_json::value::RawValue,
    partition: Option<&'a str>,
    #[serde(rename = "transactionId")]
    transaction_id: Option<&'a str>,
    #[serde(rename = "traceId")]
    trace_id: Option<&'a str>,
}

#[derive(Deserialize)]
struct SonicBody<'a> {
    #[serde(borrow)]
    items: Vec<SonicItem<'a>>,
}

#[derive(Deserialize)]
struct SonicItem<'a> {
    #[serde(borrow)]
    queue: Cow<'a, str>,
    #[serde(borrow)]
    payload: sonic_rs::LazyValue<'a>,
    partition: Option<&'a str>,
    #[serde(rename = "transactionId")]
    transaction_id: Option<&'a str>,
    #[serde(rename = "traceId")]
    trace_id: Option<&'a str>,
}

fn length(partition: &Option<&str>, transaction_id: &Option<&str>, trace_id: &Option<&str>) -> usize {
    [partition, transaction_id, trace_id].into_iter().flatten().map(|text| text.len()).sum()
}

/// Parses, and returns something of the result, so that none of it can be left out.
type Parse = fn(body: &[u8], scratch: &mut Vec<u8>) -> usize;

const CONTESTANTS: [(&str, Parse); 6] = [
    ("ours", |body, _| {
        let request = forebay::json::push::parse(body, &forebay::json::push::PushLimits::default()).unwrap();
        let names = |item: &forebay::json::push::PushItem<'_>| {
            let texts = [&item.partition, &item.transaction_id];
            item.queue.len() + texts.into_iter().flatten().map(|text| text.len()).sum::<usize>()
        };
        request.items.iter().map(|item| names(item) + item.payload.len() + usize::from(item.trace_id.is_some())).sum()
    }),
    ("ours, only checked", |body, _| forebay::json::validate(body).map_or(0, |()| body.len())),
    ("serde_json, raw payloads", |body, _| {
        let request: SerdeBody<'_> = serde_json::from_slice(body).unwrap();
        request
            .items
            .iter()
            .map(|item| {
                item.queue.len()
                    + item.payload.get().len()
                    + length(&item.partition, &item.transaction_id, &item.trace_id)
            })
            .sum()
    }),
    ("serde_json, only skipped", |body, _| {
        serde_json::from_slice::<serde::de::IgnoredAny>(body).map_or(0, |_| body.len())
    }),
    ("sonic-rs, lazy payloads", |body, _| {
        let request: SonicBody<'_> = sonic_rs::from_slice(body).unwrap();
        request
            .items
            .iter()
            .map(|item| {
                item.queue.len()
                    + item.payload.as_raw_str().len()
                    + length(&item.partition, &item.transaction_id, &item.trace_id)
            })
            .sum()
    }),
    // It parses in place, so the body is copied first, and its tape does not say where a payload was.
    ("simd-json, tape", |body, scratch| {
        scratch.clear();
        scratch.extend_from_slice(body);
        simd_json::to_tape(scratch).unwrap().0.len()
    }),
];

/// Nanoseconds that one call takes, over a round.
fn measure(parse: Parse, body: &[u8], scratch: &mut Vec<u8>) -> f64 {
    let begun = Instant::now();
    let mut calls = 0_u32;
    while begun.elapsed() < ROUND {
        for _ in 0..32 {
            black_box(parse(black_box(body), scratch));
        }
        calls += 32;
    }
    begun.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let rounds = std::env::args().find_map(|arg| arg.strip_prefix("rounds=")?.parse().ok()).unwrap_or(5_usize);
    let names = CONTESTANTS.map(|(name, _)| name);
    println!("| items | payload | body, bytes | {} |", names.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(names.len()));
    for items in [1, 100] {
        for bytes in [50, 120, 1024] {
            for (kind, payload) in PAYLOADS {
                let body = body(items, &payload(bytes));
                let mut scratch = Vec::with_capacity(body.len() + 64);
                let mut taken = vec![Vec::new(); CONTESTANTS.len()];
                // In turn, so that a slow moment of the machine hits all.
                for _ in 0..rounds {
                    for (taken, (_, parse)) in taken.iter_mut().zip(CONTESTANTS) {
                        taken.push(measure(parse, &body, &mut scratch));
                    }
                }
                let cells: Vec<String> = taken.into_iter().map(|taken| format!("{:.0}", median(taken))).collect();
                println!("| {items} | {kind}, {bytes} B | {} | {} |", body.len(), cells.join(" | "));
            }
        }
    }
}
