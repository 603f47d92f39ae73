//! Case 24 in detail: reads that return wrong bytes once, sectors that cannot be read, and padding that is not zero. Also
//! seals, which tell damage at the end from a write that never finished.

use super::{after_damage, durable_life, findings, goes_on, places, recovered_records};
use crate::{
    disk::{Fate, SECTOR_BYTES, faults::ReadFault},
    script::{Loss, SEGMENT_BYTES, Script, Seen},
};
use forebay_wal::{error::LogError, finding::Finding, frame::frame_len, limits::BLOCK_BYTES};

const SEGMENT: usize = SEGMENT_BYTES as usize;

#[test]
fn case_24_a_read_that_lies_once_during_recovery_or_reading_is_not_believed() {
    let faults = [ReadFault::Error, ReadFault::Flip(2), ReadFault::OtherSector(9), ReadFault::Short(600)];
    for fault in faults {
        for segment in 1..=5 {
            // Headers of groups and of segments, payloads, padding, and bytes that were never written.
            for place in (0..SEGMENT).step_by(5 * SECTOR_BYTES + 8) {
                let script = durable_life();
                script.disk.fail_read(&script.segment(segment), place, fault);
                let log = script.recover().unwrap();
                script.model.check(&log, &script.read_all(&log));
                script.disk.fail_read(&script.segment(segment), place, fault);
                script.model.check(&log, &script.read_all(&log));
            }
        }
    }
}

#[test]
fn case_24_a_header_that_is_misread_once_lets_no_part_of_a_torn_batch_through() {
    let life = || {
        let mut script = Script::opened();
        script.answer(0, &[100]);
        script.append(0, &[3000, 3000, 3000]).unwrap();
        script.begin(0, usize::MAX);
        script.crash(0, |_, sector| if sector < 22 { Fate::Kept } else { Fate::Zero });
        script.open();
        script.answer(0, &[100]);
        script.kill();
        script
    };
    // The header of the next segment records the unfinished group.
    assert_eq!(recovered_records(&life()), [1, 5]);
    for byte in (0..80).step_by(3) {
        for fault in [ReadFault::Flip(0), ReadFault::OtherSector(1), ReadFault::Error, ReadFault::Short(40)] {
            let script = life();
            let log = script.recover().unwrap();
            script.disk.fail_read(&script.segment(2), byte, fault);
            script.model.check(&log, &script.read_all(&log));
        }
    }
}

/// Records with a byte in the block at `start`.
fn records_in_block(places: &[Seen], segment: u64, start: usize) -> Vec<u64> {
    let touched = |seen: &&Seen| {
        seen.at.segment == segment && seen.bytes().start < start + BLOCK_BYTES && start < seen.bytes().end
    };
    places.iter().filter(touched).map(|seen| seen.record).collect()
}

#[test]
fn case_24_a_sector_that_cannot_be_read_costs_the_records_of_its_block_and_the_drain_goes_on_behind_it() {
    let all = places(&durable_life());
    for segment in 1..=3 {
        for block in 0..SEGMENT / BLOCK_BYTES {
            let mut script = durable_life();
            let start = block * BLOCK_BYTES;
            let hit = records_in_block(&all, segment, start);
            script.disk.break_sector(&script.segment(segment), start + 3 * SECTOR_BYTES);
            let found = after_damage(&mut script, &hit, &[segment]);
            let told = |finding: &Finding| matches!(finding, Finding::ReadFailed { at } if at.offset as usize == start);
            assert!(found.iter().any(told), "segment {segment} block {block}: {found:?}");
        }
    }
}

#[test]
fn case_24_a_segment_that_cannot_be_read_at_all_is_a_disk_that_failed_and_nothing_is_given_up() {
    let script = durable_life();
    for sector in 0..SEGMENT / SECTOR_BYTES {
        script.disk.break_sector(&script.segment(2), sector * SECTOR_BYTES);
    }
    let refused = script.recover().map(drop);
    assert!(matches!(refused, Err(LogError::Io { .. })), "{refused:?}");
}

#[test]
fn padding_that_is_not_zero_costs_no_record_and_its_segment_is_set_aside() {
    let all = places(&durable_life());
    let end = |seen: &Seen| seen.at.offset as usize + frame_len(seen.header.payload_len as usize);
    // The padding of a frame, that of a group, and the unused bytes of a segment's header.
    let unaligned = all.iter().find(|seen| seen.at.segment == 2 && !seen.bytes().end.is_multiple_of(8)).unwrap();
    let next_group = all.iter().rposition(|seen| seen.at.segment == 2).unwrap();
    let mut at = vec![end(unaligned) - 1, 80, 200, BLOCK_BYTES - 1];
    for pair in all[..next_group].windows(2) {
        if pair[0].at.segment == 2 && pair[0].header.group_block != pair[1].header.group_block {
            let padding = end(&pair[0])..end(&pair[0]).next_multiple_of(BLOCK_BYTES);
            at.extend([padding.start, padding.end - 1].into_iter().filter(|at| padding.contains(at)));
        }
    }
    assert!(at.len() > 6);
    for at in at {
        let mut script = durable_life();
        script.disk.flip_bit(&script.segment(2), at, 4);
        let found = after_damage(&mut script, &[], &[2]);
        let told =
            |finding: &Finding| matches!(finding, Finding::DirtyPadding { .. } | Finding::HeaderDamaged { segment: 2 });
        assert!(found.iter().any(told), "{at}: {found:?}");
    }
}

/// A log of several groups, of which the last has three batches. A seal follows if `sealed`.
fn life_with_a_last_group(sealed: bool) -> Script {
    let mut script = Script::opened();
    script.answer(0, &[100]);
    for sizes in [&[300, 3000][..], &[5000, 20, 900], &[2000]] {
        script.append(0, sizes).unwrap();
    }
    script.write(0).unwrap();
    if sealed {
        assert!(script.seal(0).unwrap());
        assert!(!script.seal(0).unwrap(), "one is enough");
    }
    script.kill();
    script.disk.settle();
    script
}

#[test]
fn damage_in_the_last_group_of_a_sealed_lane_costs_what_it_hit_and_is_told() {
    let all = places(&life_with_a_last_group(true));
    for seen in &all {
        for byte in [2, 9, 41] {
            let mut script = life_with_a_last_group(true);
            script.disk.flip_bit(&script.segment(1), seen.at.offset as usize + byte, 1);
            let found = after_damage(&mut script, &[seen.record], &[1]);
            assert!(found.iter().any(Finding::is_damage), "{found:?}");
        }
    }
    for block in 1..5 {
        let mut script = life_with_a_last_group(true);
        script.disk.zero(&script.segment(1), block * BLOCK_BYTES, BLOCK_BYTES);
        after_damage(&mut script, &records_in_block(&all, 1, block * BLOCK_BYTES), &[1]);
    }
    // The whole last group: only the seal shows its loss.
    let mut script = life_with_a_last_group(true);
    script.disk.zero(&script.segment(1), 2 * BLOCK_BYTES, 3 * BLOCK_BYTES);
    script.model.hit(2..=7, Loss::MaybeSilent);
    let log = script.recover_and_check();
    let told = |finding: &Finding| matches!(finding, Finding::Lost { records: 6, first_ordinal: 1, .. });
    assert!(findings(&log).iter().any(told), "{:?}", findings(&log));
    goes_on(&mut script);
}

#[test]
fn damage_in_the_last_group_of_a_lane_without_a_seal_may_be_an_unfinished_write_and_takes_whole_batches() {
    let mut script = life_with_a_last_group(false);
    let hit = places(&script)[2];
    script.disk.flip_bit(&script.segment(1), hit.at.offset as usize + 41, 1);
    script.model.hit([2, 3], Loss::MaybeSilent);
    let log = script.recover_and_check();
    assert!(!findings(&log).iter().any(Finding::is_damage), "{:?}", findings(&log));
    assert_eq!(recovered_records(&script), [1, 4, 5, 6, 7]);
}

#[test]
fn a_seal_that_was_not_written_to_its_end_is_an_unfinished_write_and_costs_nothing() {
    for fate in [Fate::Kept, Fate::Lost, Fate::Zero] {
        let mut script = Script::opened();
        script.answer(0, &[100]);
        assert!(script.lanes[0].commit.seal(script.model.next_number));
        script.begin(0, usize::MAX);
        script.crash(0, |_, sector| if sector.is_multiple_of(2) { fate } else { Fate::Kept });
        assert_eq!(recovered_records(&script), [1]);
        goes_on(&mut script);
    }
}

#[test]
fn records_lost_before_a_torn_write_of_which_nothing_counts_are_told() {
    // The next segment's header shows it too, once recovery found the group unfinished.
    for is_cut in [false, true] {
        let mut script = Script::opened();
        for size in [100, 5000, 700] {
            script.answer(0, &[size]);
        }
        script.append(0, &[3000, 9000]).unwrap();
        script.begin(0, usize::MAX);
        // Only the first block of the last write is durable: it has a header of a batch that is not whole.
        let first_block = 5 * BLOCK_BYTES / SECTOR_BYTES..6 * BLOCK_BYTES / SECTOR_BYTES;
        script.crash(0, |_, sector| if first_block.contains(&sector) { Fate::Kept } else { Fate::Lost });
        if is_cut {
            script.open();
            script.kill();
        }
        script.disk.zero(&script.segment(1), 2 * BLOCK_BYTES, 3 * BLOCK_BYTES);
        script.model.hit([2, 3], Loss::Reported);
        let log = script.recover_and_check();
        let told = |finding: &Finding| matches!(finding, Finding::Lost { records: 2, first_ordinal: 1, .. });
        assert!(findings(&log).iter().any(told), "{:?}", findings(&log));
        goes_on(&mut script);
    }
}

#[test]
fn case_24_a_last_group_of_one_record_that_is_misread_once_is_no_end() {
    let life = || {
        let mut script = Script::opened();
        // Groups of one record each, over two segments, and then over recycled segments.
        for _ in 0..2 {
            for _ in 0..12 {
                script.answer(0, &[10_000]);
                script.keep().unwrap();
            }
            script.drain_all();
        }
        for _ in 0..8 {
            script.answer(0, &[10_000]);
            script.keep().unwrap();
        }
        script.kill();
        script
    };
    let all = places(&life());
    assert_eq!(all.len(), 8);
    for seen in &all {
        for fault in [ReadFault::Flip(3), ReadFault::OtherSector(0)] {
            let script = life();
            let path = script.segment(seen.at.segment);
            script.disk.fail_read(&path, seen.at.offset as usize + 20, fault);
            let log = script.recover().unwrap();
            script.model.check(&log, &script.read_all(&log));
            script.disk.fail_read(&path, seen.at.offset as usize + 20, fault);
            script.model.check(&log, &script.read_all(&log));
        }
    }
}

#[test]
fn case_24_what_cannot_be_read_in_the_last_group_excuses_nothing_else_of_it() {
    // The second record of a batch of three is in a block that cannot be read. The others are delivered, its loss is reported.
    let mut script = life_with_a_last_group(false);
    script.open();
    script.answer(0, &[5000, 9000, 300]);
    script.kill();
    script.disk.settle();
    let hit = places(&script)[8];
    let block = hit.bytes().end / BLOCK_BYTES - 1;
    script.disk.break_sector(&script.segment(1), block * BLOCK_BYTES);
    let found = after_damage(&mut script, &[hit.record], &[1]);
    assert!(found.iter().any(|finding| matches!(finding, Finding::ReadFailed { .. })), "{found:?}");
    assert!(!found.iter().any(|finding| matches!(finding, Finding::UnfinishedWrite { .. })), "{found:?}");
}
