//! `wal stats`: totals by lane and by queue.

use super::{inspection, inspection::Inspection, record, span::span};
use crate::{
    command::{
        Exit,
        print::{print, print_json},
    },
    ids::rfc3339,
};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, HashMap};

/// Number of queues that are shown.
const QUEUES_SHOWN: usize = 20;

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sums {
    segments: usize,
    bytes: u64,
    /// Of those, bytes of segments that PostgreSQL is known to have.
    drained_bytes: u64,
    records: u64,
    first_number: Option<u64>,
    last_number: Option<u64>,
    #[serde(rename = "oldestAcceptedAt", serialize_with = "as_rfc3339")]
    oldest_accepted_us: Option<i64>,
    #[serde(rename = "newestAcceptedAt", serialize_with = "as_rfc3339")]
    newest_accepted_us: Option<i64>,
    findings: usize,
}

#[derive(Serialize)]
struct LaneSums {
    lane: u16,
    #[serde(flatten)]
    sums: Sums,
}

#[derive(Serialize)]
struct QueueSum {
    queue: String,
    messages: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    running: bool,
    lanes: Vec<LaneSums>,
    total: Sums,
    queue_count: usize,
    /// The queues with the most messages.
    queues: Vec<QueueSum>,
}

pub(super) fn run(log: &Inspection, json: bool) -> Result<(), Exit> {
    let stats = collect(log)?;
    print(|out| {
        if json {
            return print_json(out, &stats);
        }
        writeln!(
            out,
            "{:>5} {:>8} {:>12} {:>12} {:>10}  {:<24} {:>8}  accepted",
            "lane", "segments", "bytes", "drained", "records", "numbers", "findings"
        )?;
        for LaneSums { lane, sums } in &stats.lanes {
            writeln!(out, "{lane:>5} {}", row(sums))?;
        }
        writeln!(out, "total {}", row(&stats.total))?;
        writeln!(out, "\n{:>10}  queue ({} in all)", "messages", stats.queue_count)?;
        for QueueSum { queue, messages } in &stats.queues {
            writeln!(out, "{messages:>10}  {}", queue.escape_debug())?;
        }
        Ok(())
    })
}

/// Reads every record. The memory grows with the number of queues.
fn collect(log: &Inspection) -> Result<Stats, Exit> {
    let mut lanes: BTreeMap<u16, Sums> = BTreeMap::new();
    for lane in &log.lanes {
        let segments = inspection::segments(lane);
        let sums = lanes.entry(lane.lane).or_default();
        for found in segments {
            sums.segments += 1;
            sums.bytes += found.length_bytes;
            if log.is_drained(lane.lane, found) {
                sums.drained_bytes += found.length_bytes;
            }
        }
        sums.findings = lane.findings.iter().filter(|finding| !log.is_expected(finding)).count();
    }
    let mut queues: HashMap<String, u64> = HashMap::new();
    let mut records = log.records()?;
    while let Some(found) = records.next()? {
        let mut of_record = Sums { records: 1, first_number: Some(found.header.number), ..Sums::default() };
        of_record.last_number = of_record.first_number;
        if let Some(message) = record::message(&found) {
            of_record.oldest_accepted_us = Some(message.accepted_us);
            of_record.newest_accepted_us = Some(message.accepted_us);
            match queues.get_mut(message.queue) {
                Some(messages) => *messages += 1,
                None => drop(queues.insert(message.queue.to_owned(), 1)),
            }
        }
        lanes.entry(found.lane).or_default().add(&of_record);
    }
    let mut total = Sums::default();
    lanes.values().for_each(|sums| total.add(sums));
    let queue_count = queues.len();
    let mut queues: Vec<_> = queues.into_iter().map(|(queue, messages)| QueueSum { queue, messages }).collect();
    queues.sort_unstable_by(|a, b| b.messages.cmp(&a.messages).then_with(|| a.queue.cmp(&b.queue)));
    queues.truncate(QUEUES_SHOWN);
    let lanes = lanes.into_iter().map(|(lane, sums)| LaneSums { lane, sums }).collect();
    Ok(Stats { running: log.running, lanes, total, queue_count, queues })
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.segments += other.segments;
        self.bytes += other.bytes;
        self.drained_bytes += other.drained_bytes;
        self.records += other.records;
        self.findings += other.findings;
        self.first_number = [self.first_number, other.first_number].into_iter().flatten().min();
        self.last_number = self.last_number.max(other.last_number);
        self.oldest_accepted_us = [self.oldest_accepted_us, other.oldest_accepted_us].into_iter().flatten().min();
        self.newest_accepted_us = self.newest_accepted_us.max(other.newest_accepted_us);
    }
}

fn row(sums: &Sums) -> String {
    let Sums { segments, bytes, drained_bytes, records, findings, .. } = sums;
    let numbers = span(sums.first_number.zip(sums.last_number));
    let accepted = sums.oldest_accepted_us.zip(sums.newest_accepted_us);
    let accepted = span(accepted.map(|(oldest, newest)| (rfc3339(oldest), rfc3339(newest))));
    format!("{segments:>8} {bytes:>12} {drained_bytes:>12} {records:>10}  {numbers:<24} {findings:>8}  {accepted}")
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option)]
fn as_rfc3339<S: Serializer>(unix_us: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    unix_us.map(rfc3339).serialize(serializer)
}
