//! The log as it stands on the disk: its lanes as recovery finds them, and their records in the order of their numbers.

use super::Exit;
use crate::{datadir, state::local_drain_state::LocalDrainState};
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
use std::{cmp::Reverse, collections::BinaryHeap, fs::File, os::unix::fs::FileExt, path::Path, time::Duration};

/// How often a lane of a running daemon is looked at until what does not verify is believed.
const LOOKS_MAX: usize = 5;

/// Time between two looks: a write is over by then, and a segment that is being released is gone.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What a look at the log finds.
pub(super) struct Look {
    layout: Layout,
    log_id: [u8; 16],
    /// Whether the file that names the log is damaged, so that its segments had to tell.
    pub(super) log_id_lost: bool,
    /// Whether a daemon has the log open.
    pub(super) running: bool,
    /// The lanes, in order.
    pub(super) lanes: Vec<RecoveredLane>,
    /// How far they were drained, as far as is remembered.
    remembered: Option<LocalDrainState>,
}

impl Look {
    /// Reads every record of the log below `data_dir`.
    pub(super) fn at(data_dir: &Path) -> Result<Self, Exit> {
        Self::naming_the_log_by(data_dir, |_| None)
    }

    /// The same, also where the file that names the log is lost and a segment's header still tells.
    pub(super) fn of_what_is_left(data_dir: &Path) -> Result<Self, Exit> {
        Self::naming_the_log_by(data_dir, log_id_of_segments)
    }

    fn naming_the_log_by(data_dir: &Path, otherwise: impl FnOnce(&Layout) -> Option<[u8; 16]>) -> Result<Self, Exit> {
        let running = datadir::is_in_use(data_dir);
        let layout = Layout::new(datadir::wal_dir(data_dir));
        if !layout.root().is_dir() {
            return Err(Exit::usage(format!("there is no log at {}", layout.root().display())));
        }
        let (log_id, log_id_lost) = match layout.read_log_id(&Disk) {
            Err(error @ LogError::LogIdLost { .. }) => (otherwise(&layout).ok_or_else(|| storage(error))?, true),
            read => (read.map_err(storage)?, false),
        };
        let lanes = layout.lanes(&Disk).map_err(storage)?;
        let lanes: Result<_, LogError> =
            lanes.into_iter().map(|lane| recover(&layout, log_id, lane, running)).collect();
        let remembered = LocalDrainState::read(layout.root(), log_id);
        Ok(Self { lanes: lanes.map_err(storage)?, remembered, layout, log_id, log_id_lost, running })
    }

    /// The log's directory.
    pub(super) fn root(&self) -> &Path {
        self.layout.root()
    }

    /// The records of all lanes that verify, in the order of their numbers.
    pub(super) fn records(&self) -> Result<Records<'_>, Exit> {
        Records::start(self, &self.lanes)
    }

    /// The records of one lane that verify, in order.
    pub(super) fn records_of<'a>(&'a self, lane: &'a RecoveredLane) -> Result<Records<'a>, Exit> {
        Records::start(self, std::slice::from_ref(lane))
    }

    /// Whether all of a segment is known to be in PostgreSQL.
    pub(super) fn is_drained(&self, lane: u16, found: &FoundSegment) -> bool {
        let mark = self.remembered.as_ref().and_then(|remembered| remembered.lane(lane));
        mark.is_some_and(|mark| found.segment < mark.position.segment)
    }

    /// Whether a finding is none to worry about: a running daemon has a write under way at any time.
    pub(super) fn is_expected(&self, finding: &Finding) -> bool {
        self.running && matches!(finding, Finding::UnfinishedWrite { .. })
            || matches!(finding, Finding::ForeignFile { .. })
    }

    /// Whether all of the log verifies.
    pub(super) fn is_sound(&self) -> bool {
        !self.log_id_lost && self.lanes.iter().flat_map(|lane| &lane.findings).all(|finding| self.is_expected(finding))
    }
}

/// All files of a lane, those that are of no use as well.
pub(super) fn segments(lane: &RecoveredLane) -> impl Iterator<Item = &FoundSegment> {
    lane.segments.iter().chain(&lane.unused)
}

/// Records known to be gone from a lane.
pub(super) fn missing_records(lane: &RecoveredLane) -> u64 {
    // Whether a record is among those that a missing ordinal tells of.
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

/// The log's id as the first segment says whose header verifies.
fn log_id_of_segments(layout: &Layout) -> Option<[u8; 16]> {
    let lanes = layout.lanes(&Disk).ok()?;
    let dirs = lanes.into_iter().map(|lane| layout.lane(lane));
    let mut headers = dirs.filter_map(|dir| Some((Disk.list(&dir).ok()?, dir))).flat_map(|(mut names, dir)| {
        names.retain(|name| parse_file_name(name).is_some());
        names.sort_unstable();
        names.into_iter().filter_map(move |name| {
            let mut block = [0; SEGMENT_HEADER_BYTES];
            File::open(dir.join(name)).and_then(|file| file.read_exact_at(&mut block, 0)).ok()?;
            SegmentHeader::decode(&block).ok()
        })
    });
    headers.next().map(|header| header.log_id)
}

/// What recovery would find of a lane. Beside a daemon that writes and releases segments, a single look may see half of
/// either; damage stays when one looks again.
fn recover(layout: &Layout, log_id: [u8; 16], lane: u16, running: bool) -> Result<RecoveredLane, LogError> {
    // The size matters for what would be written next, and nothing is.
    let options = RecoverOptions { log_id, segment_bytes: SEGMENT_BYTES_DEFAULT, sync: false };
    let mut damage_before = None;
    for _ in 1..LOOKS_MAX {
        match recover_lane(&Disk, layout, lane, options) {
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
        std::thread::sleep(LOOK_PAUSE);
    }
    recover_lane(&Disk, layout, lane, options)
}

/// A record that verified.
pub(super) struct Record<'a> {
    /// Its lane.
    pub(super) lane: u16,
    /// What its frame says.
    pub(super) header: FrameHeader,
    /// Its bytes.
    pub(super) payload: &'a [u8],
}

/// The records of some lanes merged by number. Memory: a read-ahead buffer and a record for each lane.
pub(super) struct Records<'a> {
    look: &'a Look,
    lanes: Vec<Lane<'a>>,
    /// Lanes whose next record is known, by its number.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    /// The lane whose record was handed out last, and is read on with the next call.
    shown: Option<usize>,
}

struct Lane<'a> {
    found: &'a RecoveredLane,
    reader: LaneReader<Disk>,
    next: Option<FrameHeader>,
}

impl<'a> Records<'a> {
    fn start(look: &'a Look, lanes: &'a [RecoveredLane]) -> Result<Self, Exit> {
        let lanes = lanes.iter().map(|found| {
            let reader = LaneReader::from_recovery(Disk, look.layout.clone(), look.log_id, found);
            Lane { found, reader, next: None }
        });
        let mut records = Self { look, lanes: lanes.collect(), heads: BinaryHeap::new(), shown: None };
        (0..records.lanes.len()).try_for_each(|index| records.advance(index)).map_err(storage)?;
        Ok(records)
    }

    /// The next record; `None` behind the last.
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
                // Recovery found it as well.
                Ok(Some(Event::Damaged { .. } | Event::Seal { .. })) => {}
                Ok(None) => return Ok(()),
                // Drained and released since. Read again, the reader goes on to the next one, where there is one.
                Err(error) if self.look.running && error.is_not_found() => {
                    if lane.reader.position().segment >= lane.found.tail.segment {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}
