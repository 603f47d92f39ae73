//! The cases of the list of faults that a disk can cause, real or simulated. Each has a test with its number.

mod damage;
mod forged;
mod names;
mod reads;
mod recovery;
mod retention;
mod room;
mod torn;

use crate::{
    disk::{Fate, SECTOR_BYTES},
    random::Random,
    script::{Loss, Script},
};
use forebay_wal::{finding::Finding, log::Recovered, position::Position};

/// The number of ways in which a test crashes.
const CRASHES: u64 = 24;

/// Crashes in the `way`-th way: all sectors have one fate, or alternate, or a seed decides.
fn crash(script: &mut Script, way: u64) {
    use Fate::{Kept, Lost, Old, Zero};
    let by_turns = |first, second| move |sector: usize| if sector.is_multiple_of(2) { first } else { second };
    match way {
        0 => script.crash_all(Kept),
        1 => script.crash_all(Lost),
        2 => script.crash_all(Zero),
        3 => script.crash_all(Old),
        4 => script.crash(usize::MAX, |_, sector| by_turns(Kept, Lost)(sector)),
        5 => script.crash(0, |_, sector| by_turns(Lost, Kept)(sector)),
        6 => script.crash(usize::MAX, |_, sector| by_turns(Zero, Kept)(sector)),
        7 => script.crash(0, |_, sector| by_turns(Kept, Zero)(sector)),
        seed => {
            script.kill();
            script.disk.crash_randomly(&mut Random::new(seed));
        }
    }
}

/// Crashes the log that `life` makes in every way. After each crash recovers and checks it, and passes it to `then`.
fn after_every_crash(life: impl Fn() -> Script, then: impl Fn(&mut Script)) {
    for way in 0..CRASHES {
        let mut script = life();
        crash(&mut script, way);
        script.open();
        then(&mut script);
    }
}

/// The records in lane 0 of a recovered log, by the model's numbers.
fn records(script: &Script, log: &Recovered<crate::disk::SimulatedDisk>) -> Vec<u64> {
    script.read_all(log)[&0].records.iter().map(|seen| seen.record).collect()
}

/// Recovers once more. Returns the records of lane 0.
fn recovered_records(script: &Script) -> Vec<u64> {
    records(script, &script.recover_and_check())
}

/// The findings about lane 0.
fn findings(log: &Recovered<crate::disk::SimulatedDisk>) -> &[Finding] {
    &log.lanes[0].findings
}

/// Checks that the log continues: it answers appends, and has their records after a crash that loses all unsynced writes.
fn goes_on(script: &mut Script) {
    script.open();
    for lane in 0..usize::from(script.options.lanes) {
        script.answer(lane, &[100, 3000]);
    }
    script.crash_all(Fate::Lost);
    script.open();
    for lane in 0..usize::from(script.options.lanes) {
        script.answer(lane, &[100]);
    }
    script.kill();
}

/// The sectors that overlap a range of a segment's bytes.
fn sectors(bytes: std::ops::Range<usize>) -> std::ops::Range<usize> {
    bytes.start / SECTOR_BYTES..bytes.end.div_ceil(SECTOR_BYTES)
}

/// The records of lane 0 that are not drained, with their positions.
fn places(script: &Script) -> Vec<crate::script::Seen> {
    script.read_all(&script.recover_and_check())[&0].records.clone()
}

/// A position.
fn at(segment: u64, offset: u32) -> Position {
    Position { segment, offset }
}

/// A durable log of one lane with several segments. It has records of many sizes, alone and in batches, one to five batches a
/// group. The process has ended.
fn durable_life() -> Script {
    let mut script = Script::opened();
    let sizes = [30, 700, 5000, 9, 2500, 12_000, 300];
    let mut size = (0..).map(|index: usize| sizes[index % sizes.len()] + index);
    for group in 0..24 {
        for batch in 0..=group % 5 {
            let sizes: Vec<usize> = size.by_ref().take(1 + (group + batch) % 3).collect();
            while script.append(0, &sizes).is_err() {
                script.write(0).unwrap();
                script.keep().unwrap();
            }
        }
        script.write(0).unwrap();
        script.keep().unwrap();
    }
    assert!(script.lanes[0].commit.durable_end().segment >= 5, "{}", script.lanes[0].commit.durable_end());
    script.kill();
    script.disk.settle();
    script
}

/// Checks a log after damage hit the records `hit` of lane 0, in `segments`. All other records are drained, the loss of these
/// is reported, the segments are set aside and not deleted, and the log continues. Returns the findings of the first recovery.
fn after_damage(script: &mut Script, hit: &[u64], segments: &[u64]) -> Vec<Finding> {
    script.model.hit(hit.iter().copied(), Loss::Reported);
    let files: Vec<_> =
        segments.iter().map(|segment| script.disk.file_id(&script.segment(*segment)).unwrap()).collect();
    let first = script.recover().unwrap();
    let found = findings(&first).to_vec();
    drop(first);
    script.open();
    let lost = script.model.waiting() - script.read_all(&script.recover().unwrap())[&0].records.len();
    assert!(lost <= hit.len(), "{found:?}");
    // The lane must leave the damaged segments behind.
    for _ in 0..4 {
        script.answer(0, &[40_000]);
    }
    script.drain_all();
    assert!(script.model.waiting() <= hit.len(), "all others are drained: {found:?}");
    let set_aside = script.layout.set_aside();
    for (segment, file) in segments.iter().zip(files) {
        let path = script.disk.path_of(file);
        assert!(
            path.as_ref().is_some_and(|path| path.starts_with(&set_aside)),
            "segment {segment} is {path:?}: {found:?}"
        );
    }
    goes_on(script);
    found
}
