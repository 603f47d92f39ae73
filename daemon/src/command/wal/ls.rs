//! `wal ls`: the segments.

use super::{inspection, inspection::Inspection, span::span};
use crate::command::{
    Exit,
    print::{print, print_json},
};
use forebay_wal::recovery::FoundSegment;
use serde::Serialize;

/// A segment, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    lane: u16,
    segment: u64,
    state: &'static str,
    records: u64,
    first_number: Option<u64>,
    last_number: Option<u64>,
    first_ordinal: Option<u64>,
    last_ordinal: Option<u64>,
    bytes: u64,
}

pub(super) fn run(log: &Inspection, json: bool) -> Result<(), Exit> {
    let rows = log.lanes.iter().flat_map(|lane| inspection::segments(lane).map(|found| (lane.lane, found)));
    print(|out| {
        if !json {
            writeln!(
                out,
                "{:>4} {:>10}  {:<8} {:>10} {:>12}  {:<24} ordinals",
                "lane", "segment", "state", "records", "bytes", "numbers"
            )?;
        }
        for (lane, found) in rows {
            if json {
                print_json(out, &row(log, lane, found))?;
                continue;
            }
            let FoundSegment { segment, length_bytes, records, range, .. } = found;
            let numbers = span(range.map(|(first, last)| (first.number, last.number)));
            let ordinals = span(range.map(|(first, last)| (first.ordinal, last.ordinal)));
            let state = state(log, lane, found);
            writeln!(
                out,
                "{lane:>4} {segment:>10}  {state:<8} {records:>10} {length_bytes:>12}  {numbers:<24} {ordinals}"
            )?;
        }
        Ok(())
    })
}

fn row(log: &Inspection, lane: u16, found: &FoundSegment) -> Row {
    let (first, last) = found.range.unzip();
    Row {
        lane,
        segment: found.segment,
        state: state(log, lane, found),
        records: found.records,
        first_number: first.map(|record| record.number),
        last_number: last.map(|record| record.number),
        first_ordinal: first.map(|record| record.ordinal),
        last_ordinal: last.map(|record| record.ordinal),
        bytes: found.length_bytes,
    }
}

fn state(log: &Inspection, lane: u16, found: &FoundSegment) -> &'static str {
    match found {
        FoundSegment { damaged: true, .. } => "damaged",
        FoundSegment { records: 0, .. } => "ready",
        found if log.is_drained(lane, found) => "drained",
        _ => "data",
    }
}
