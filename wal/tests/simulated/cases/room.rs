//! A disk without room for writes to segments that exist, as one that copies on write, or a thin volume. See case 39.

use super::{after_every_crash, recovered_records};
use crate::{
    disk::{Fate, faults::Kind},
    script::{SEGMENT_BYTES, Script},
};
use forebay_wal::{group::AppendRefusal, segments::PrepareError};
use std::path::Path;

/// A log with two answered records, and a group of three batches for which there was no room. All its bytes may be on the disk.
fn with_a_write_that_found_no_room() -> Script {
    let mut script = Script::opened();
    script.keep().unwrap();
    script.answer(0, &[100]);
    script.answer(0, &[5000]);
    for sizes in [&[300][..], &[9000, 20], &[700]] {
        script.append(0, sizes).unwrap();
    }
    script.disk.set_room(Some(0));
    script.write(0).unwrap();
    assert!(script.has_given_up(0));
    assert_eq!(script.append(0, &[1]), Err(AppendRefusal::Busy), "nothing is taken before it is settled");
    script
}

/// The same, with the refusal settled: only that needs no room for data.
fn with_a_settled_refusal() -> Script {
    let mut script = with_a_write_that_found_no_room();
    assert!(script.settle(0).unwrap_err().is_no_room(), "there is still no room");
    assert_eq!(script.model.refused.len(), 4, "and what was not kept is certain all the same");
    script
}

/// Lets there be room, and checks that the log continues.
fn continues_with_room(script: &mut Script) {
    script.disk.set_room(None);
    script.open();
    script.keep().unwrap();
    let records = script.answer(0, &[40, 7000]);
    script.drain(0, usize::MAX).unwrap();
    assert!(records.iter().all(|record| script.model.drained.contains(record)));
}

#[test]
fn case_39_what_was_refused_for_lack_of_room_is_not_there_after_any_crash() {
    after_every_crash(with_a_settled_refusal, |script| {
        assert_eq!(recovered_records(script), [1, 2]);
        continues_with_room(script);
    });
    // Only the process ends: recovery makes all that the failed write left durable before it reads it.
    let mut script = with_a_settled_refusal();
    script.kill();
    assert_eq!(recovered_records(&script), [1, 2]);
    continues_with_room(&mut script);
}

#[test]
fn case_39_before_a_refusal_is_settled_a_crash_costs_no_answered_record_and_keeps_whole_batches() {
    after_every_crash(with_a_write_that_found_no_room, |script| {
        assert_eq!(recovered_records(script)[..2], [1, 2]);
        continues_with_room(script);
    });
}

#[test]
fn case_39_a_lane_without_room_goes_on_in_the_next_segment_once_there_is_room_and_is_drained_in_order() {
    let mut script = with_a_settled_refusal();
    assert_eq!(script.drain(0, usize::MAX).unwrap(), 2, "what was answered is drained meanwhile");
    assert_eq!(script.release(0).unwrap(), 0, "the segment tells where numbers and ordinals continue");
    script.disk.set_room(None);
    script.settle(0).unwrap();
    let records = script.answer(0, &[40]);
    assert_eq!(script.submitted(records[0]).ordinal, 2, "ordinals have no gaps");
    script.drain_all();
    let end = script.layout.segment_end(0, 1);
    assert!(script.disk.files().iter().all(|(path, _)| *path != end), "it goes with its segment");
    script.kill();
    assert_eq!(recovered_records(&script), [0; 0]);
}

#[test]
fn case_39_a_lane_drained_and_killed_behind_a_segment_that_it_gave_up_still_knows_where_it_was() {
    let mut script = with_a_settled_refusal();
    script.kill();
    for _ in 0..3 {
        // The tail was made before the records that are drained now.
        script.open();
        script.drain_all();
        script.kill();
    }
    script.disk.set_room(None);
    script.open();
    let records = script.answer(0, &[40]);
    assert_eq!(script.submitted(records[0]).ordinal, 2);
}

#[test]
fn case_39_groups_behind_the_one_without_room_are_refused_with_it_as_far_as_they_reach() {
    let mut script = Script::opened();
    script.answer(0, &[100]);
    script.keep().unwrap();
    script.append(0, &[300]).unwrap();
    script.begin(0, usize::MAX);
    script.complete(0, usize::MAX).unwrap();
    script.disk.set_room(Some(0));
    // In this segment and in the next.
    for _ in 0..2 {
        script.append(0, &[40_000]).unwrap();
    }
    script.write(0).unwrap();
    assert!(script.settle(0).unwrap_err().is_no_room());
    script.kill();
    assert_eq!(recovered_records(&script), [1, 2]);
    continues_with_room(&mut script);
}

#[test]
fn case_39_a_short_write_that_then_finds_no_room_is_refused_whole() {
    let mut script = Script::opened();
    script.answer(0, &[100]);
    for _ in 0..6 {
        script.append(0, &[3000]).unwrap();
    }
    script.disk.set_room(Some(9000));
    script.write(0).unwrap();
    assert!(script.settle(0).unwrap_err().is_no_room());
    script.crash_all(Fate::Kept);
    assert_eq!(recovered_records(&script), [1]);
    continues_with_room(&mut script);
}

#[test]
fn case_39_whichever_step_of_giving_up_fails_it_is_tried_again_and_nothing_refused_comes_back() {
    for kind in [Kind::Create, Kind::Rename, Kind::SyncDir] {
        for errno in [5, 28] {
            let mut script = with_a_write_that_found_no_room();
            script.disk.fail_next(kind, errno);
            let failed = script.settle(0).unwrap_err();
            assert!(script.model.refused.is_empty() || failed.is_no_room(), "{kind:?}");
            assert!(script.settle(0).unwrap_err().is_no_room());
            assert_eq!(script.model.refused.len(), 4);
            script.crash(0, |_: &Path, _| Fate::Kept);
            assert_eq!(recovered_records(&script), [1, 2], "{kind:?} {errno}");
        }
    }
}

#[test]
fn case_39_free_segments_make_room_where_writing_to_them_takes_some() {
    let mut script = Script::opened();
    script.options.quota_bytes = u64::MAX;
    for _ in 0..4 {
        script.answer(0, &[50_000]);
    }
    script.drain_all();
    let free = |script: &Script| script.disk.files().iter().filter(|(path, _)| path.starts_with("/wal/free")).count();
    assert!(free(&script) >= 2);
    script.disk.set_room(Some(0));
    while !script.has_given_up(0) {
        script.append(0, &[100]).unwrap();
        script.write(0).unwrap();
    }
    // A segment is smaller than what a lane wants to see before it goes on, and there are too few of them.
    assert!(script.settle(0).unwrap_err().is_no_room());
    assert_eq!(free(&script), 0, "they were given back to the disk");
    assert!(matches!(script.keep(), Ok(()) | Err(PrepareError::Failed(_))));
    script.disk.set_room(Some(40 * SEGMENT_BYTES as usize));
    script.settle(0).unwrap();
    script.answer(0, &[100]);
}
