//! Findings for people and as JSON.

use super::inspection::Inspection;
use crate::command::print::note;
use forebay_wal::finding::Finding;
use serde::Serialize;

/// A finding as it is shown. `segment` and `offset` are its place; for lost records, the place of the next record.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u32>,
    /// The record whose payload does not verify.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    /// How many records are lost, and the ordinal of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_ordinal: Option<u64>,
    /// The numbers between which theirs lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    after_number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before_number: Option<u64>,
    /// Whether answered records may be lost.
    damage: bool,
    /// Whether it is harmless.
    expected: bool,
    /// The same for people.
    text: String,
}

impl Shown {
    pub(super) fn of(finding: &Finding, log: &Inspection) -> Self {
        let at = match finding {
            Finding::Lost { before: at, .. }
            | Finding::BadPayload { at, .. }
            | Finding::CorruptBytes { at, .. }
            | Finding::DirtyPadding { at }
            | Finding::ReadFailed { at }
            | Finding::UnfinishedWrite { at } => Some(*at),
            _ => None,
        };
        let mut json = Self {
            kind: "",
            segment: at.map(|at| at.segment),
            offset: at.map(|at| at.offset),
            number: None,
            records: None,
            first_ordinal: None,
            after_number: None,
            before_number: None,
            damage: finding.is_damage(),
            expected: log.is_expected(finding),
            text: finding.to_string(),
        };
        json.kind = match finding {
            Finding::Lost { records, first_ordinal, after_number, before_number, .. } => {
                (json.records, json.first_ordinal) = (Some(*records), Some(*first_ordinal));
                (json.after_number, json.before_number) = (*after_number, *before_number);
                "lost"
            }
            Finding::BadPayload { number, .. } => {
                json.number = Some(*number);
                "bad_payload"
            }
            Finding::CorruptBytes { .. } => "unreadable",
            Finding::DirtyPadding { .. } => "dirty_padding",
            Finding::ReadFailed { .. } => "read_failed",
            Finding::UnfinishedWrite { .. } => "unfinished_write",
            Finding::WrongLength { segment, .. } => {
                json.segment = Some(*segment);
                "wrong_length"
            }
            Finding::HeaderDamaged { segment } => {
                (json.segment, json.offset) = (Some(*segment), Some(0));
                "header_damaged"
            }
            Finding::Misplaced { segment } => {
                (json.segment, json.offset) = (Some(*segment), Some(0));
                "misplaced"
            }
            Finding::SegmentMissing { segment } => {
                json.segment = Some(*segment);
                "segment_missing"
            }
            Finding::ForeignFile { .. } => "stranger",
        };
        json
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.text, if self.expected { " (expected)" } else { "" })
    }
}

/// Prints to standard error which records are missing.
pub(super) fn print_damage(log: &Inspection) {
    for lane in &log.lanes {
        for finding in lane.findings.iter().filter(|finding| finding.is_damage()) {
            note(format_args!("lane {}: {finding}", lane.lane));
        }
    }
}
