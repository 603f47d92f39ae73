//! The log on the disk: its lanes as recovery finds them, and their records in the order of their numbers.

use crate::{
    command::Exit,
    datadir,
    state::{incarnations::Incarnations, local_drain_state::LocalDrainState},
};
use forebay_wal::{
    error::LogError,
    finding::Finding,
    frame::FrameHeader,
    layout::Layout,
    limits::{SEGMENT_BYTES_DEFAULT, SEGMENT_HEADER_BYTES},
    reader::{Event, LaneReader},
    recovery::{FoundSegment, RecoverOptions, RecoveredLane, recover_lane},
    segment::{SegmentHeader, parse_file_name},
    storage::{Disk, Storage},
};
use rustix::fs::OFlags;
use std::{cmp::Reverse, collections::BinaryHeap, os::unix::fs::FileExt, path::Path, time::Duration};
use uuid::Uuid;

/// How often a lane of a running daemon is read until its damage is believed.
const READS_MAX: usize = 5;

/// Time between two reads of a lane. A write is complete by then, and a segment that was being released is gone.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// The state of a log when it was read.
pub(super) struct Inspection {
    disk: Disk,
    layout: Layout,
    log_id: [u8; 16],
    /// Whether the file with the log's id is lost or damaged, so that the id comes from a segment.
    pub(super) log_id_lost: bool,
    /// Whether a daemon has opened the log.
    pub(super) running: bool,
    /// The lanes, in order.
    pub(super) lanes: Vec<RecoveredLane>,
    /// How far the lanes were drained, if the data directory remembers it.
    remembered: Option<LocalDrainState>,
}

impl Inspection {
    /// Reads every record of the log below `data_dir`.
    pub(super) fn at(data_dir: &Path) -> Result<Self, Exit> {
        Self::with_log_id(data_dir, |_, _| None)
    }

    /// The same for a log of which only segments may remain: if the file with its id is lost, a segment's header has the id.
    pub(super) fn remaining_only(data_dir: &Path) -> Result<Self, Exit> {
        Self::with_log_id(data_dir, log_id_of_segments)
    }

    fn with_log_id(data_dir: &Path, otherwise: impl FnOnce(&Disk, &Layout) -> Option<[u8; 16]>) -> Result<Self, Exit> {
        let running = datadir::is_in_use(data_dir);
        let wal = datadir::open_wal(data_dir).map_err(|error| {
            Exit::usage(format!("there is no log at {}: {error}", datadir::wal_dir(data_dir).display()))
        })?;
        let (layout, disk) = (Layout::new(wal.path()), Disk::new(wal));
        let (log_id, log_id_lost) = match layout.read_log_id(&disk) {
            Err(error @ LogError::LogIdLost { .. }) => (otherwise(&disk, &layout).ok_or_else(|| storage(error))?, true),
            read => (read.map_err(storage)?, false),
        };
        let lanes = layout.lanes(&disk).map_err(storage)?;
        let lanes: Result<_, LogError> =
            lanes.into_iter().map(|lane| recover(&disk, &layout, log_id, lane, running)).collect();
        // What is remembered bears the id under which PostgreSQL knows the log.
        let known_as =
            Incarnations::read(disk.dir(), Uuid::from_bytes(log_id)).map_or(log_id, |own| own.log_id.into_bytes());
        let remembered = LocalDrainState::read(disk.dir(), known_as);
        Ok(Self { lanes: lanes.map_err(storage)?, remembered, disk, layout, log_id, log_id_lost, running })
    }

    /// The log's directory.
    pub(super) fn root(&self) -> &Path {
        self.layout.root()
    }

    /// The records that verify of all lanes, in the order of their numbers.
    pub(super) fn records(&self) -> Result<Records<'_>, Exit> {
        Records::start(self, &self.lanes)
    }

    /// The records that verify of one lane, in order.
    pub(super) fn records_of<'a>(&'a self, lane: &'a RecoveredLane) -> Result<Records<'a>, Exit> {
        Records::start(self, std::slice::from_ref(lane))
    }

    /// Whether PostgreSQL is known to have all of a segment.
    pub(super) fn is_drained(&self, lane: u16, found: &FoundSegment) -> bool {
        let mark = self.remembered.as_ref().and_then(|remembered| remembered.lane(lane));
        mark.is_some_and(|mark| found.segment < mark.position.segment)
    }

    /// Whether a finding is harmless: a running daemon has an unfinished write at any time.
    pub(super) fn is_expected(&self, finding: &Finding) -> bool {
        self.running && matches!(finding, Finding::UnfinishedWrite { .. })
            || matches!(finding, Finding::ForeignFile { .. })
    }

    /// Whether all of the log verifies.
    pub(super) fn is_sound(&self) -> bool {
        !self.log_id_lost && self.lanes.iter().flat_map(|lane| &lane.findings).all(|finding| self.is_expected(finding))
    }
}

/// All segments of a lane, also those that recovery does not use.
pub(super) fn segments(lane: &RecoveredLane) -> impl Iterator<Item = &FoundSegment> {
    lane.segments.iter().chain(&lane.unused)
}

/// The number of records that are known to be missing from a lane.
pub(super) fn missing_records(lane: &RecoveredLane) -> u64 {
    // Whether a gap in the ordinals already counts this record.
    let is_among_lost = |number: u64| {
        lane.findings.iter().any(|finding| match finding {
            Finding::Lost { after_number, before_number, .. } => {
                after_number.is_none_or(|after| after < number) && before_number.is_none_or(|before| number < before)
            }
            _ => false,
        })
    };
    let missing = lane.findings.iter().map(|finding| match finding {
        Finding::Lost { records, .. } => *records,
        Finding::BadPayload { number, .. } => u64::from(!is_among_lost(*number)),
        _ => 0,
    });
    missing.sum()
}

pub(super) fn storage(error: LogError) -> Exit {
    Exit::storage(error.to_string())
}

/// The log's id from the first segment whose header verifies.
fn log_id_of_segments(disk: &Disk, layout: &Layout) -> Option<[u8; 16]> {
    let lanes = layout.lanes(disk).ok()?;
    let dirs = lanes.into_iter().map(|lane| layout.lane(lane));
    let mut headers = dirs.filter_map(|dir| Some((disk.list(&dir).ok()?, dir))).flat_map(|(mut names, dir)| {
        names.retain(|name| parse_file_name(name).is_some());
        names.sort_unstable();
        names.into_iter().filter_map(move |name| {
            let mut block = [0; SEGMENT_HEADER_BYTES];
            disk.dir()
                .open_file(dir.join(name), OFlags::RDONLY)
                .and_then(|file| file.read_exact_at(&mut block, 0))
                .ok()?;
            SegmentHeader::decode(&block).ok()
        })
    });
    headers.next().map(|header| header.log_id)
}

/// What recovery would find in a lane. A single read beside a running daemon may see half of a write or of a release. Damage is
/// still there in the next read.
fn recover(
    disk: &Disk,
    layout: &Layout,
    log_id: [u8; 16],
    lane: u16,
    running: bool,
) -> Result<RecoveredLane, LogError> {
    // The size of segments matters only for writing.
    let options = RecoverOptions { log_id, segment_bytes: SEGMENT_BYTES_DEFAULT, sync: false };
    let mut damage_before = None;
    for _ in 1..READS_MAX {
        match recover_lane(disk, layout, lane, options) {
            Ok(found) => {
                let damage: Vec<_> = found.findings.iter().filter(|finding| finding.is_damage()).cloned().collect();
                if !running || damage.is_empty() || damage_before.as_ref() == Some(&damage) {
                    return Ok(found);
                }
                damage_before = Some(damage);
            }
            Err(error) if running && error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(READ_PAUSE);
    }
    recover_lane(disk, layout, lane, options)
}

/// A record that verified.
pub(super) struct Record<'a> {
    /// Its lane.
    pub(super) lane: u16,
    /// The header of its frame.
    pub(super) header: FrameHeader,
    /// Its bytes.
    pub(super) payload: &'a [u8],
}

/// The records of some lanes, merged by number. Each lane needs memory for a read-ahead buffer and one record.
pub(super) struct Records<'a> {
    log: &'a Inspection,
    lanes: Vec<Lane<'a>>,
    /// The lanes' next records by number.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    /// The lane whose record was returned last. The next call advances it.
    shown: Option<usize>,
}

struct Lane<'a> {
    found: &'a RecoveredLane,
    reader: LaneReader<Disk>,
    next: Option<FrameHeader>,
}

impl<'a> Records<'a> {
    fn start(log: &'a Inspection, lanes: &'a [RecoveredLane]) -> Result<Self, Exit> {
        let lanes = lanes.iter().map(|found| {
            let reader = LaneReader::from_recovery(log.disk.clone(), log.layout.clone(), log.log_id, found);
            Lane { found, reader, next: None }
        });
        let mut records = Self { log, lanes: lanes.collect(), heads: BinaryHeap::new(), shown: None };
        (0..records.lanes.len()).try_for_each(|index| records.advance(index)).map_err(storage)?;
        Ok(records)
    }

    /// The next record; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, Exit> {
        if let Some(index) = self.shown.take() {
            self.advance(index).map_err(storage)?;
        }
        let Some(Reverse((_, index))) = self.heads.pop() else { return Ok(None) };
        self.shown = Some(index);
        let lane = &self.lanes[index];
        let lane_number = lane.found.lane;
        Ok(lane.next.map(|header| Record { lane: lane_number, header, payload: lane.reader.payload() }))
    }

    fn advance(&mut self, index: usize) -> Result<(), LogError> {
        let lane = &mut self.lanes[index];
        loop {
            match lane.reader.next_event(lane.found.tail) {
                Ok(Some(Event::Record(header))) => {
                    lane.next = Some(header);
                    self.heads.push(Reverse((header.number, index)));
                    return Ok(());
                }
                // Recovery has reported it already.
                Ok(Some(Event::Damaged { .. } | Event::Seal { .. })) => {}
                Ok(None) => return Ok(()),
                // The segment was released in the meantime. The next call of the reader continues with the next segment.
                Err(error) if self.log.running && error.is_not_found() => {
                    if lane.reader.position().segment >= lane.found.tail.segment {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}
