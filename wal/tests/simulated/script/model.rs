//! The oracle: which records were submitted, answered and drained, and which may be gone because a test damaged them.

use super::Read;
use forebay_wal::{finding::Finding, log::Recovered, position::Position, recovery::RecoveredLane};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A record in the model.
#[derive(Clone)]
pub struct Submitted {
    pub lane: u16,
    pub body: Vec<u8>,
    pub answered: bool,
    pub number: u64,
    pub ordinal: u64,
}

/// Whether the loss of a record that damage hit must be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It must: by its ordinal, or as a loss before the first record that is left.
    Reported,
    /// It need not: nothing behind it may be left that shows it.
    MaybeSilent,
}

#[derive(Default)]
pub struct Model {
    /// By the model's own number of the record, which its payload starts with.
    pub submitted: BTreeMap<u64, Submitted>,
    pub batches: Vec<Vec<u64>>,
    /// The records whose refusal is certain.
    pub refused: HashSet<u64>,
    /// The records that PostgreSQL would hold.
    pub drained: HashSet<u64>,
    /// How far each lane is drained.
    pub marks: HashMap<u16, Position>,
    /// Records that damage hit.
    pub hit: HashMap<u64, Loss>,
    /// Whether a test damaged anything.
    pub is_damaged: bool,
    pub next_record: u64,
    /// The counter of log sequence numbers.
    pub next_number: u64,
    /// The last drained record of each lane.
    last_drained: HashMap<u16, u64>,
}

impl Model {
    /// The record of a payload. Checks the payload byte by byte.
    pub fn identify(&self, payload: &[u8], lane: u16) -> u64 {
        let (number, body) = payload.split_first_chunk::<8>().expect("I2: a payload of ours");
        let record = u64::from_le_bytes(*number);
        let submitted = self.submitted.get(&record).expect("I2: nothing is there that was not submitted");
        assert!((submitted.lane, &submitted.body[..]) == (lane, body), "I1: record {record} byte for byte");
        assert!(!self.refused.contains(&record), "record {record} was refused and is there");
        record
    }

    /// Adds a record that a test put into lane `lane`, with its ordinal as its number. Returns the model's number of it.
    pub fn submit_durable(&mut self, lane: u16, ordinal: u64, body: &[u8]) -> u64 {
        self.next_record += 1;
        let record = self.next_record;
        let body = body.to_vec();
        let submitted = Submitted { lane, body, answered: true, number: ordinal, ordinal };
        self.submitted.insert(record, submitted);
        self.batches.push(vec![record]);
        record
    }

    pub fn mark_answered(&mut self, record: u64) {
        if let Some(submitted) = self.submitted.get_mut(&record) {
            submitted.answered = true;
        }
    }

    /// Takes in that records are certainly refused.
    pub fn refuse(&mut self, records: impl IntoIterator<Item = u64>) {
        self.refused.extend(records);
    }

    /// Drains a record: PostgreSQL holds it from now on.
    pub fn drain(&mut self, record: u64, lane: u16) {
        assert!(self.drained.insert(record), "I6: record {record} is drained twice");
        let last = self.last_drained.insert(lane, record);
        assert!(last.is_none_or(|last| last < record), "I1: record {record} is drained after {last:?}");
    }

    /// Marks records as hit by damage.
    pub fn hit(&mut self, records: impl IntoIterator<Item = u64>, loss: Loss) {
        self.is_damaged = true;
        self.hit.extend(records.into_iter().map(|record| (record, loss)));
    }

    /// The number of records that are answered and not drained.
    pub fn waiting(&self) -> usize {
        self.submitted.iter().filter(|(record, it)| it.answered && !self.drained.contains(record)).count()
    }

    /// Checks I1 to I4 for the results of a recovery and a reader.
    pub fn check<S>(&self, log: &Recovered<S>, seen: &BTreeMap<u16, Read>) {
        for lane in &log.lanes {
            let read = &seen[&lane.lane];
            assert!(read.records.is_sorted_by(|a, b| a.record < b.record), "I1: in order: {:?}", read.records);
            if !self.is_damaged {
                let damage: Vec<_> = lane.findings.iter().filter(|finding| finding.is_damage()).collect();
                assert!(damage.is_empty() && read.damaged.is_empty(), "I4: nothing was damaged: {damage:?} {read:?}");
                assert!(lane.segments.iter().chain(&lane.unused).all(|found| !found.damaged), "nothing was damaged");
            }
        }
        let there: HashSet<u64> = seen.values().flat_map(|read| &read.records).map(|seen| seen.record).collect();
        for (record, submitted) in &self.submitted {
            if !submitted.answered || self.drained.contains(record) || there.contains(record) {
                continue;
            }
            // Losses before the last drained record were reported to the drain.
            let passed = self.last_drained.get(&submitted.lane).is_some_and(|last| record < last);
            let loss = self.hit.get(record).unwrap_or_else(|| {
                panic!(
                    "I1: record {record} (lane {}, ordinal {}) was answered and is gone",
                    submitted.lane, submitted.ordinal
                )
            });
            let lane = log.lanes.iter().find(|lane| lane.lane == submitted.lane).expect("the lane is found");
            // The ordinal of a record of a torn write was given again. The record is read if the header that excludes it is gone.
            let is_taken = seen[&lane.lane].records.iter().any(|seen| seen.header.ordinal == submitted.ordinal);
            if *loss == Loss::Reported && !passed && !is_taken {
                assert!(
                    is_reported(lane, submitted.ordinal),
                    "I4: record {record} is gone silently: {:?}",
                    lane.findings
                );
            }
        }
        if !self.is_damaged {
            self.check_batches(&there);
            let last = self.submitted.values().filter(|it| it.answered).map(|it| it.number).max();
            assert!(last.is_none_or(|last| last < log.next_number), "the number {last:?} would be given again");
        }
    }

    fn check_batches(&self, there: &HashSet<u64>) {
        for members in &self.batches {
            let count = members.iter().filter(|record| self.drained.contains(record) || there.contains(record)).count();
            assert!(count == 0 || count == members.len(), "a batch is whole or not at all: {members:?}");
        }
    }
}

/// Whether the findings report a missing ordinal: by itself or, before the first record that is left, in any way.
fn is_reported(lane: &RecoveredLane, ordinal: u64) -> bool {
    lane.findings.iter().any(|finding| match finding {
        Finding::Lost { records, first_ordinal, .. } => {
            (*first_ordinal..first_ordinal.saturating_add(*records)).contains(&ordinal)
        }
        finding => finding.is_damage() && ordinal < lane.first_ordinal,
    })
}
