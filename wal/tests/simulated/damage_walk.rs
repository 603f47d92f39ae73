//! A second random walk: a log runs, then random damage hits what was durable. The log must return every record that the
//! damage did not hit, report those that it did, and continue.

use crate::{
    disk::{
        FileId, SECTOR_BYTES,
        faults::{ENOSPC, ReadFault},
    },
    random::Random,
    script::{Loss, SEGMENT_BYTES, Script, Seen, SimLane},
    walk,
};
use forebay_wal::{frame::frame_len, limits::BLOCK_BYTES, recovery::RecoveredLane};
use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    path::PathBuf,
};

const SEGMENT: usize = SEGMENT_BYTES as usize;

/// A lane before the damage.
struct Before {
    lane: u16,
    records: Vec<Seen>,
    /// The segments with records.
    segments: Vec<u64>,
    /// The two possible places of the seal behind the last record, if the lane has one.
    seal: Option<[Place; 2]>,
}

/// Bytes of a segment.
type Place = (u64, Range<usize>);

/// Damaged bytes, by lane.
type Taken = Vec<(u16, Place)>;

/// Runs the walk. Panics if an invariant does not hold.
pub fn run(seed: u64) {
    let mut random = Random::new(seed ^ 0xda3a_6e00_0000);
    let mut script = walk::new_script(&mut random);
    script.options.quota_bytes = 36 * SEGMENT_BYTES;
    for _ in 0..1 + random.below(3) {
        script.open();
        walk::live(&mut script, &mut random, 250);
        script.kill();
        script.disk.crash_randomly(&mut random);
    }
    script.open();
    let before = settle(&mut script, &mut random);
    script.model.is_damaged = true;
    let mut taken = Vec::new();
    for _ in 0..1 + random.below(3) {
        damage(&script, &before, &mut random, &mut taken);
    }
    for lane in &before {
        note_hits(&mut script, lane, &taken);
    }
    let told = recover_and_check(&mut script, &before);
    go_on(&mut script, &told);
}

/// Stops the log in order, with or without seals. Returns its lanes.
fn settle(script: &mut Script, random: &mut Random) -> Vec<Before> {
    let mut sealed = HashSet::new();
    for lane in 0..usize::from(script.options.lanes) {
        // A full log takes no seal.
        script.write(lane).unwrap();
        if random.once_in(2) && script.seal(lane).unwrap() {
            sealed.insert(script.lanes[lane].lane);
        }
    }
    script.kill();
    script.disk.settle();
    let log = script.recover_and_check();
    script.disk.settle();
    let seen = script.read_all(&log);
    let before = |lane: &RecoveredLane| {
        let records = seen[&lane.lane].records.clone();
        let seal_place = |last: &Seen| {
            let end = (last.at.offset as usize + frame_bytes(last)).next_multiple_of(BLOCK_BYTES);
            [(last.at.segment, end..end + 40), (last.at.segment + 1, BLOCK_BYTES..BLOCK_BYTES + 40)]
        };
        Before {
            lane: lane.lane,
            seal: records.last().filter(|_| sealed.contains(&lane.lane)).map(seal_place),
            records,
            segments: lane.segments.iter().filter(|found| found.records > 0).map(|found| found.segment).collect(),
        }
    };
    log.lanes.iter().map(before).collect()
}

/// Damages one thing.
fn damage(script: &Script, before: &[Before], random: &mut Random, taken: &mut Taken) {
    let lane = &before[random.below(before.len() as u64) as usize];
    if lane.segments.is_empty() {
        return;
    }
    let pick = |random: &mut Random| lane.segments[random.below(lane.segments.len() as u64) as usize];
    let (segment, other) = (pick(random), pick(random));
    let path = |segment| script.layout.segment(lane.lane, segment);
    if [segment, other].into_iter().any(|segment| script.disk.file_id(&path(segment)).is_none()) {
        return;
    }
    let at = random.below(SEGMENT_BYTES) as usize;
    let page = at / BLOCK_BYTES * BLOCK_BYTES;
    let mut take = |segment, bytes| taken.push((lane.lane, (segment, bytes)));
    match random.below(9) {
        0 | 1 => {
            script.disk.flip_bit(&path(segment), at, (at % 8) as u8);
            take(segment, at..at + 1);
        }
        2 => {
            script.disk.zero(&path(segment), page, BLOCK_BYTES);
            take(segment, page..page + BLOCK_BYTES);
        }
        // If both the first and the last block fail, the whole disk counts as failed.
        3 if page > 0 => {
            script.disk.break_sector(&path(segment), at);
            take(segment, page..page + BLOCK_BYTES);
        }
        4 => {
            script.disk.truncate(&path(segment), at);
            take(segment, at..SEGMENT);
        }
        5 => {
            script.disk.take_away(&path(segment));
            take(segment, 0..SEGMENT);
        }
        6 => {
            let target = if random.once_in(2) { other } else { segment + 1 + random.below(40) };
            if target != segment {
                script.disk.copy(&path(segment), &path(target));
                take(target, 0..SEGMENT);
            }
        }
        7 if segment != other => {
            script.disk.swap(&path(segment), &path(other));
            take(segment, 0..SEGMENT);
            take(other, 0..SEGMENT);
        }
        // A read that is wrong once costs nothing.
        _ => {
            let sector = random.below((SEGMENT / SECTOR_BYTES) as u64) as usize;
            let faults = [ReadFault::Error, ReadFault::Flip(5), ReadFault::Short(3), ReadFault::OtherSector(sector)];
            script.disk.fail_read(&path(segment), at, faults[random.below(4) as usize]);
        }
    }
}

/// Tells the model which records of a lane the damage may cost, and which of them may be lost silently.
fn note_hits(script: &mut Script, lane: &Before, taken: &Taken) {
    let taken: Vec<&Place> = taken.iter().filter(|(of, _)| *of == lane.lane).map(|(_, place)| place).collect();
    let is_taken = |place: &Place| {
        taken
            .iter()
            .any(|(segment, bytes)| *segment == place.0 && bytes.start < place.1.end && place.1.start < bytes.end)
    };
    let frame = |seen: &Seen| {
        let start = seen.at.offset as usize;
        (seen.at.segment, start..start + frame_bytes(seen))
    };
    let group = |seen: &Seen| (seen.at.segment, seen.header.group_block);
    let is_sealed = lane.seal.as_ref().is_some_and(|places| !places.iter().any(is_taken));
    let last_left = lane.records.iter().rfind(|seen| !is_taken(&frame(seen))).map(group);
    // Without a seal, damage to the last remaining group looks like a write that never finished. So does damage to a group
    // that recovery has found unfinished before. Whole batches are lost then.
    let is_end = |seen: &Seen| !is_sealed && last_left.is_none_or(|last| group(seen) >= last);
    let may_go_whole: HashSet<(u64, u32)> = lane
        .records
        .iter()
        .filter(|seen| is_taken(&frame(seen)) && (seen.unfinished || is_end(seen)))
        .map(group)
        .chain(last_left.filter(|last| !is_sealed && is_cut(lane, *last, &taken)))
        .collect();
    // From the last record to the first, with the next record that remains.
    let mut left: Option<&Seen> = None;
    for seen in lane.records.iter().rev() {
        let is_gone = is_taken(&frame(seen));
        if !is_gone {
            left = Some(seen);
        }
        if !is_gone && !may_go_whole.contains(&group(seen)) {
            continue;
        }
        // Records that are missing before an unfinished group may belong to it, if its start is lost.
        let is_unclear = left.is_some_and(|left| {
            let is_whole = left.at.offset as usize == left.header.group_block as usize * BLOCK_BYTES;
            !is_whole && (left.unfinished || may_go_whole.contains(&group(left)))
        });
        let is_silent = seen.unfinished || is_end(seen) || is_unclear;
        script.model.hit([seen.record], if is_silent { Loss::MaybeSilent } else { Loss::Reported });
    }
}

/// Whether damage hits a group or its padding.
fn is_cut(lane: &Before, (segment, block): (u64, u32), taken: &[&Place]) -> bool {
    let of_group = |seen: &&Seen| (seen.at.segment, seen.header.group_block) == (segment, block);
    let end = lane.records.iter().filter(of_group).map(|seen| seen.at.offset as usize + frame_bytes(seen)).max();
    let start = block as usize * BLOCK_BYTES;
    let end = end.unwrap_or(start).next_multiple_of(BLOCK_BYTES);
    taken.iter().any(|(of, bytes)| *of == segment && bytes.start < end && start < bytes.end)
}

fn frame_bytes(seen: &Seen) -> usize {
    frame_len(seen.header.payload_len as usize)
}

/// Recovers with all checks. Returns the files that were found damaged, with their paths.
fn recover_and_check(script: &mut Script, before: &[Before]) -> BTreeMap<FileId, PathBuf> {
    let mut files = BTreeMap::new();
    for (path, _) in script.disk.files() {
        files.extend(script.disk.file_id(&path).map(|file| (path, file)));
    }
    let first = script.recover().unwrap();
    let seen = script.read_all(&first);
    for lane in before {
        // The log cannot know that its first segment is missing. A reader that starts in it does.
        let first_left =
            first.lanes.iter().find(|found| found.lane == lane.lane).and_then(|found| found.segments.first());
        let is_gone = |seen: &&Seen| first_left.is_none_or(|first| seen.at.segment < first.segment);
        let gone: Vec<u64> = lane.records.iter().filter(is_gone).map(|seen| seen.record).collect();
        script.model.hit(gone, Loss::MaybeSilent);
    }
    script.model.check(&first, &seen);
    let mut told = BTreeMap::new();
    for lane in &first.lanes {
        for found in lane.segments.iter().chain(&lane.unused).filter(|found| found.damaged) {
            let path = script.layout.segment(lane.lane, found.segment);
            told.extend(files.get(&path).map(|file| (*file, path.clone())));
        }
    }
    drop(first);
    script.open();
    told
}

/// The log continues, is drained and released. Damaged segments are set aside and never deleted.
fn go_on(script: &mut Script, told: &BTreeMap<FileId, PathBuf>) {
    script.options.quota_bytes = u64::MAX;
    script.disk.set_room(None);
    script.disk.set_capacity(1000 * SEGMENT, ENOSPC);
    script.kill();
    script.open();
    let is_behind_mark =
        |lane: &SimLane| script.model.marks.get(&lane.lane).is_some_and(|mark| lane.commit.durable_end() < *mark);
    if script.lanes.iter().any(is_behind_mark) {
        // The last segment is gone. The daemon refuses a checkpoint that is ahead of the log.
        return;
    }
    for lane in 0..usize::from(script.options.lanes) {
        for _ in 0..4 {
            script.answer(lane, &[40_000]);
        }
    }
    // A call that failed because of a wrong read succeeds when it is repeated.
    for lane in 0..script.lanes.len() {
        while script.drain(lane, usize::MAX).is_err() {}
        script.release(lane).unwrap();
    }
    let missing = script.model.submitted.iter().find(|(record, submitted)| {
        submitted.answered && !script.model.drained.contains(record) && !script.model.hit.contains_key(record)
    });
    assert!(missing.is_none(), "I1: record {:?} was not touched and is not drained", missing.map(|(record, _)| record));
    for (file, path) in told {
        let now = script.disk.path_of(*file);
        let is_kept = now.as_ref().is_some_and(|now| now.starts_with(script.layout.set_aside()) || now == path);
        assert!(is_kept, "the damaged {} is {now:?} now", path.display());
    }
    script.kill();
    script.open();
}
