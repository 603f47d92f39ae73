//! Cases 1 to 12: torn and lost writes.

use super::{after_every_crash, at, goes_on, recovered_records, sectors};
use crate::{
    disk::{Fate, faults::Kind},
    script::{SEGMENT_BYTES, Script},
};
use forebay_wal::{finding::Finding, frame::frame_len, limits::BLOCK_BYTES};
use std::path::Path;

/// A log with two answered records and one group in flight, which has `batches`.
fn with_a_write_begun(batches: &[&[usize]]) -> Script {
    let mut script = Script::new(1);
    script.open();
    script.answer(0, &[100]);
    script.answer(0, &[5000]);
    for sizes in batches {
        script.append(0, sizes).unwrap();
    }
    script.begin(0, usize::MAX);
    script
}

/// Checks a log after a crash during a write: the earlier records are there, nothing is damaged, and the log continues.
fn a_write_left_unfinished_costs_nothing(script: &mut Script) {
    let there = recovered_records(script);
    assert_eq!(there[..2], [1, 2], "what was answered");
    goes_on(script);
    assert_eq!(recovered_records(script)[..there.len()], there, "what was read once is read again");
}

#[test]
fn case_01_a_crash_before_the_write_completes_costs_no_answered_record() {
    after_every_crash(
        || with_a_write_begun(&[&[300], &[9000, 20, 4000], &[700]]),
        a_write_left_unfinished_costs_nothing,
    );
}

#[test]
fn case_02_a_crash_after_the_write_and_before_its_sync_costs_no_answered_record() {
    let life = || {
        // The write is done and its sync is not.
        let script = with_a_write_begun(&[&[300], &[9000, 20]]);
        assert_eq!(script.lanes[0].commit.durable_ordinal(), 2, "written is not durable");
        script
    };
    after_every_crash(life, a_write_left_unfinished_costs_nothing);
    // Only the process ends: the kernel has the write, and recovery makes it durable before it reads it.
    let mut script = life();
    script.kill();
    script.open();
    assert_eq!(recovered_records(&script), [1, 2, 3, 4, 5]);
    script.crash_all(Fate::Lost);
    assert_eq!(recovered_records(&script), [1, 2, 3, 4, 5], "what was delivered once stays");
}

#[test]
fn case_03_a_crash_after_the_sync_and_before_the_answer_leaves_the_record_there_once() {
    after_every_crash(
        || {
            let mut script = with_a_write_begun(&[&[300, 20, 9000]]);
            script.write(0).unwrap();
            script
        },
        |script| {
            assert_eq!(recovered_records(script), [1, 2, 3, 4, 5]);
            a_write_left_unfinished_costs_nothing(script);
        },
    );
}

#[test]
fn case_04_of_a_group_cut_after_k_of_n_records_whole_batches_are_read_and_others_left_out() {
    // Six batches of one record, then one batch of six. Each frame has two sectors; the first starts at a block.
    let frame_bytes = frame_len(8 + 976);
    let single: [&[usize]; 6] = [&[976]; 6];
    for (batches, is_one_batch) in [(&single[..], false), (&[&[976_usize; 6][..]][..], true)] {
        for whole in 0..=6_usize {
            let mut script = with_a_write_begun(batches);
            let start = 4096 + BLOCK_BYTES + 2 * BLOCK_BYTES;
            let kept = sectors(0..start + whole * frame_bytes);
            script.crash(0, |_, sector| if kept.contains(&sector) { Fate::Kept } else { Fate::Lost });
            let expected = if is_one_batch && whole < 6 { 2 } else { 2 + whole as u64 };
            assert_eq!(recovered_records(&script), (1..=expected).collect::<Vec<_>>(), "{whole} of 6");
            a_write_left_unfinished_costs_nothing(&mut script);
        }
    }
}

/// Crashes with one long record in flight and loses or zeroes `lost` of its three blocks. The record is not read.
fn blocks_of_a_long_record_lost(lost: &[usize]) {
    for fate in [Fate::Lost, Fate::Zero] {
        let mut script = with_a_write_begun(&[&[12_000]]);
        let start = at(1, 4096 + 3 * BLOCK_BYTES as u32);
        script.crash(0, |_, sector| {
            let block = (sector * 512 - start.offset as usize) / BLOCK_BYTES;
            if lost.contains(&block) { fate } else { Fate::Kept }
        });
        let log = script.recover_and_check();
        assert!(
            log.lanes[0].findings.iter().all(|finding| matches!(finding, Finding::UnfinishedWrite { .. })),
            "{:?}",
            log.lanes[0].findings
        );
        assert_eq!(recovered_records(&script), [1, 2]);
        a_write_left_unfinished_costs_nothing(&mut script);
    }
}

#[test]
fn case_05_a_long_record_whose_last_block_was_lost_is_an_unfinished_write_and_no_damage() {
    blocks_of_a_long_record_lost(&[2]);
}

#[test]
fn case_06_a_long_record_whose_first_block_was_lost_and_later_ones_kept_is_never_read() {
    blocks_of_a_long_record_lost(&[0]);
    blocks_of_a_long_record_lost(&[0, 1]);
}

#[test]
fn case_07_a_hole_of_zeros_in_the_last_group_excuses_its_own_records_and_no_others() {
    for hole in 0..6 {
        let mut script = with_a_write_begun(&[&[3000], &[3000, 3000], &[3000], &[3000, 5000]]);
        let start = 4096 + 3 * BLOCK_BYTES;
        let zeros = sectors(start + hole * BLOCK_BYTES..start + (hole + 1) * BLOCK_BYTES);
        script.crash(0, |_, sector| if zeros.contains(&sector) { Fate::Zero } else { Fate::Kept });
        a_write_left_unfinished_costs_nothing(&mut script);
    }
}

#[test]
fn case_08_old_records_with_valid_checksums_behind_the_tail_of_a_recycled_segment_are_never_read() {
    after_every_crash(
        || {
            let mut script = Script::opened();
            for _ in 0..40 {
                script.answer(0, &[4000]);
                script.keep().unwrap();
            }
            let first_file = script.disk.file_id(&script.segment(1));
            script.drain_all();
            let reused = |script: &Script| {
                let path = script.disk.path_of(first_file.unwrap()).unwrap();
                path.starts_with(script.layout.lane(0)) && path != script.segment(1)
            };
            // Each group has the place of an earlier one, so that an old group follows each that is written.
            for _ in 0..40 {
                script.answer(0, &[4000]);
                script.keep().unwrap();
                if reused(&script) && script.lanes[0].commit.ready_segments() == 0 {
                    break;
                }
            }
            assert!(reused(&script), "a drained segment is used again");
            script.append(0, &[4000]).unwrap();
            script.begin(0, usize::MAX);
            script
        },
        |script| {
            // The model has drained the old records and panics if one comes again.
            script.drain_all();
            goes_on(script);
        },
    );
}

#[test]
fn case_09_a_short_write_is_gone_on_with_and_answered_only_when_all_of_it_is_durable() {
    for blocks in 1..4 {
        let mut script = Script::new(1);
        script.open();
        script.append(0, &[100, 9000, 5000]).unwrap();
        script.begin(0, blocks);
        let mut writes = 0;
        while script.complete(0, blocks).unwrap() {
            writes += 1;
        }
        assert_eq!(writes, 4_usize.div_ceil(blocks), "{blocks} blocks a write");
        script.crash_all(Fate::Lost);
        assert_eq!(recovered_records(&script), [1, 2, 3], "{blocks} blocks a write");
        goes_on(&mut script);
    }
}

#[test]
fn case_10_a_short_write_and_then_a_crash_is_an_unfinished_write() {
    after_every_crash(
        || {
            let mut script = Script::new(1);
            script.open();
            script.answer(0, &[100]);
            script.answer(0, &[5000]);
            script.append(0, &[100, 9000, 5000]).unwrap();
            script.begin(0, 2);
            script.complete(0, 1).unwrap();
            assert_eq!(script.lanes[0].commit.durable_ordinal(), 2, "a part is not the whole");
            script
        },
        a_write_left_unfinished_costs_nothing,
    );
}

#[test]
fn case_11_two_writes_that_complete_in_reverse_order_are_answered_in_that_order_and_each_stays() {
    let life = |reverse: bool| {
        let mut script = Script::new(2);
        script.open();
        let first = script.append(0, &[5000]).unwrap();
        let second = script.append(1, &[5000]).unwrap();
        for lane in [0, 1] {
            script.begin(lane, usize::MAX);
            // A lane has one write in flight, so its own writes never overtake each other.
            script.append(lane, &[300]).unwrap();
            assert_eq!(script.begin(lane, usize::MAX), None);
        }
        script.complete(usize::from(reverse), usize::MAX).unwrap();
        assert_eq!(script.submitted(first[0]).answered, !reverse);
        assert_eq!(script.submitted(second[0]).answered, reverse);
        script
    };
    for reverse in [false, true] {
        after_every_crash(|| life(reverse), goes_on);
        let mut script = life(reverse);
        script.complete(usize::from(!reverse), usize::MAX).unwrap();
        script.crash_all(Fate::Lost);
        goes_on(&mut script);
    }
}

#[test]
fn case_12_at_a_roll_over_nothing_is_written_to_segment_n_before_the_one_before_is_synced() {
    let life = || {
        let mut script = Script::new(1);
        script.open();
        script.keep().unwrap();
        // Two groups that do not fit in one segment: the second starts the next one.
        const { assert!(2 * 50_000 > SEGMENT_BYTES) };
        script.append(0, &[50_000]).unwrap();
        script.append(0, &[50_000]).unwrap();
        script
    };
    let mut script = life();
    script.disk.take_trace();
    script.write(0).unwrap();
    let (first, second) = (script.segment(1), script.segment(2));
    let trace = script.disk.take_trace();
    let position = |kind, path: &Path| trace.iter().position(|step| (step.0, &*step.1) == (kind, path)).unwrap();
    assert!(position(Kind::Sync, &first) < position(Kind::Write, &second), "{trace:?}");
    // A crash in the first write leaves nothing in the second segment.
    after_every_crash(
        || {
            let mut script = life();
            script.begin(0, usize::MAX);
            script
        },
        |script| {
            assert!(places_in_segment_2(script).is_empty());
            goes_on(script);
        },
    );
    // After a crash in the second write the first is there.
    after_every_crash(
        || {
            let mut script = life();
            while !script.submitted(1).answered {
                assert!(script.begin(0, usize::MAX).is_some() || script.complete(0, usize::MAX).unwrap());
            }
            script.begin(0, usize::MAX);
            script
        },
        |script| {
            assert_eq!(recovered_records(script)[0], 1);
            goes_on(script);
        },
    );
}

fn places_in_segment_2(script: &Script) -> Vec<u64> {
    super::places(script).iter().filter(|seen| seen.at.segment == 2).map(|seen| seen.record).collect()
}
