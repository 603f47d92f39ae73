//! `wal verify`: reports records that do not verify.

use super::{finding::Shown, inspection, inspection::Inspection};
use crate::command::{
    Exit,
    print::{print, print_json},
};
use serde::Serialize;

#[derive(Serialize)]
struct Report {
    sound: bool,
    running: bool,
    lanes: Vec<LaneReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LaneReport {
    lane: u16,
    segments: usize,
    records: u64,
    missing_records: u64,
    findings: Vec<Shown>,
}

pub(super) fn run(log: &Inspection, json: bool) -> Result<(), Exit> {
    let lanes = log.lanes.iter().map(|lane| LaneReport {
        lane: lane.lane,
        segments: inspection::segments(lane).count(),
        records: inspection::segments(lane).map(|found| found.records).sum(),
        missing_records: inspection::missing_records(lane),
        findings: lane.findings.iter().map(|finding| Shown::of(finding, log)).collect(),
    });
    let report = Report { sound: log.is_sound(), running: log.running, lanes: lanes.collect() };
    print(|out| {
        if json {
            return print_json(out, &report);
        }
        for LaneReport { lane, segments, records, findings, .. } in &report.lanes {
            writeln!(out, "lane {lane}: {segments} segments, {records} records")?;
            findings.iter().try_for_each(|finding| writeln!(out, "lane {lane}: {finding}"))?;
        }
        Ok(())
    })?;
    if report.sound { Ok(()) } else { Err(Exit::findings()) }
}
