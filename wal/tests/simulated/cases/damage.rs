//! Cases 13 to 22 and 24: damage to what was durable.

use super::{after_damage, at, durable_life, findings, places};
use crate::{
    disk::{SECTOR_BYTES, faults::ReadFault},
    script::{Loss, SEGMENT_BYTES, Script, Seen, forge},
};
use forebay_wal::{error::LogError, finding::Finding, limits::BLOCK_BYTES, position::segment_start, reader::Event};

/// Records of many sizes from the middle of the log: some are the first or the last of a segment, a group or a batch.
fn samples(script: &Script) -> Vec<Seen> {
    let places = places(script);
    // Damage to the last group may look like a write that never finished.
    let group = |seen: &Seen| (seen.at.segment, seen.header.group_block);
    let last = group(places.last().unwrap());
    let samples: Vec<Seen> = places.iter().filter(|seen| group(seen) != last).step_by(5).copied().collect();
    assert!(samples.len() > 8 && samples.iter().any(|seen| !seen.header.starts_batch()));
    samples
}

/// Flips one bit in a record's frame. Only this record is lost, and its loss is reported.
fn a_flipped_bit_costs_one_record(offset_in_frame: impl Fn(&Seen) -> usize) {
    let script = durable_life();
    for (index, sample) in samples(&script).iter().enumerate() {
        let mut script = durable_life();
        let path = script.segment(sample.at.segment);
        script.disk.flip_bit(&path, sample.at.offset as usize + offset_in_frame(sample), (index % 8) as u8);
        let found = after_damage(&mut script, &[sample.record], &[sample.at.segment]);
        assert!(found.iter().any(Finding::is_damage), "{found:?}");
        let first_ordinal = sample.header.ordinal;
        if first_ordinal > 0 {
            let lost = |finding: &Finding| matches!(finding, Finding::Lost { records: 1, first_ordinal: first, .. } if *first == first_ordinal);
            assert!(found.iter().any(lost), "{found:?}");
        }
    }
}

#[test]
fn case_13_one_bit_in_a_payload_costs_that_record_and_is_told_with_its_number() {
    for part in [0, 1, 2] {
        a_flipped_bit_costs_one_record(|seen| 40 + (seen.header.payload_len as usize - 1) * part / 2);
    }
    let mut script = durable_life();
    let sample = samples(&script)[3];
    script.disk.flip_bit(&script.segment(sample.at.segment), sample.at.offset as usize + 44, 3);
    let found = after_damage(&mut script, &[sample.record], &[sample.at.segment]);
    let told = Finding::BadPayload { at: sample.at, number: sample.header.number };
    assert!(found.contains(&told), "{found:?}");
}

#[test]
fn case_14_one_bit_in_a_length_costs_that_record_and_those_behind_it_are_found_again() {
    (8..12).for_each(|byte| a_flipped_bit_costs_one_record(|_| byte));
}

#[test]
fn case_15_one_bit_in_a_checksum_or_another_field_costs_that_record() {
    (0..8).chain([12, 14, 16, 24, 31, 32, 36, 38]).for_each(|byte| a_flipped_bit_costs_one_record(|_| byte));
}

#[test]
fn case_16_one_bit_in_a_segment_header_costs_no_record_and_the_segment_is_set_aside() {
    for byte in (0..80).step_by(7) {
        for segment in [1, 2, 4] {
            let mut script = durable_life();
            script.disk.flip_bit(&script.segment(segment), byte, (byte % 8) as u8);
            let found = after_damage(&mut script, &[], &[segment]);
            assert!(found.contains(&Finding::HeaderDamaged { segment }), "{found:?}");
        }
    }
    // The header of the segment where the lane continues.
    let mut script = durable_life();
    let tail = places(&script).last().unwrap().at.segment;
    script.disk.flip_bit(&script.segment(tail), 50, 0);
    let found = after_damage(&mut script, &[], &[tail]);
    assert!(found.contains(&Finding::HeaderDamaged { segment: tail }), "{found:?}");
}

/// Records with a byte in a range of a segment.
fn records_in(places: &[Seen], segment: u64, bytes: std::ops::Range<usize>) -> Vec<u64> {
    let touched =
        |seen: &&Seen| seen.at.segment == segment && seen.bytes().start < bytes.end && bytes.start < seen.bytes().end;
    places.iter().filter(touched).map(|seen| seen.record).collect()
}

#[test]
fn case_17_a_zeroed_page_costs_the_records_that_touch_it_and_none_behind_it() {
    for segment in 1..=3 {
        for page in 1..SEGMENT_BYTES as usize / BLOCK_BYTES {
            let mut script = durable_life();
            let bytes = page * BLOCK_BYTES..(page + 1) * BLOCK_BYTES;
            let hit = records_in(&places(&script), segment, bytes.clone());
            script.disk.zero(&script.segment(segment), bytes.start, BLOCK_BYTES);
            let touched: &[u64] = if hit.is_empty() { &[] } else { &[segment] };
            let found = after_damage(&mut script, &hit, touched);
            assert_eq!(found.iter().any(Finding::is_damage), !hit.is_empty(), "page {page}: {found:?}");
        }
    }
}

#[test]
fn case_18_a_middle_segment_cut_short_costs_the_records_that_were_cut_off_and_none_of_the_next() {
    let last = SEGMENT_BYTES as usize;
    for length in [0, 100, 4096, 4097, 4096 + 39, 4096 + 41, 8192, 20_000, 20_480, 40_001, 53_248, last - 4096] {
        let mut script = durable_life();
        let hit = records_in(&places(&script), 2, length..last);
        script.disk.truncate(&script.segment(2), length);
        let touched: &[u64] = if hit.is_empty() && length > 4096 { &[] } else { &[2] };
        after_damage(&mut script, &hit, touched);
    }
}

#[test]
fn case_19_a_missing_segment_costs_its_records_and_is_told() {
    for missing in [&[2][..], &[3], &[2, 3], &[2, 4]] {
        let mut script = durable_life();
        let all = places(&script);
        let hit: Vec<u64> = missing.iter().flat_map(|segment| records_in(&all, *segment, 0..usize::MAX)).collect();
        missing.iter().for_each(|segment| script.disk.take_away(&script.segment(*segment)));
        let found = after_damage(&mut script, &hit, &[]);
        for segment in missing {
            assert!(found.contains(&Finding::SegmentMissing { segment: *segment }), "{found:?}");
        }
    }
    // The log cannot know that its first segment is missing. A reader that starts in it does.
    let mut script = durable_life();
    let hit = records_in(&places(&script), 1, 0..usize::MAX);
    script.disk.take_away(&script.segment(1));
    script.model.hit(hit, Loss::MaybeSilent);
    let log = script.recover_and_check();
    let disk = script.disk.clone();
    let mut reader = forebay_wal::reader::LaneReader::new(disk, script.layout.clone(), log.id, 0, segment_start(1));
    let event = reader.next_event(log.lanes[0].tail).unwrap();
    assert!(matches!(event, Some(Event::Damaged { segment: 1, .. })), "{event:?}");
}

#[test]
fn case_20_a_segment_duplicated_by_a_copy_adds_no_record_and_the_copy_is_set_aside() {
    let tail = places(&durable_life()).last().unwrap().at.segment;
    // The copy is behind all segments, far behind them, or in the place of another.
    for (target, is_new) in [(tail + 1, true), (tail + 5, true), (99, true), (3, false)] {
        let mut script = durable_life();
        let hit = if is_new { Vec::new() } else { records_in(&places(&script), target, 0..usize::MAX) };
        script.disk.copy(&script.segment(2), &script.segment(target));
        let found = after_damage(&mut script, &hit, &[target]);
        assert!(found.contains(&Finding::Misplaced { segment: target }), "{found:?}");
    }
}

#[test]
fn case_21_two_names_swapped_cost_the_records_of_both_and_nothing_is_read_in_the_wrong_place() {
    for (one, other) in [(2, 3), (2, 4), (1, 2)] {
        let mut script = durable_life();
        let all = places(&script);
        let hit: Vec<u64> = [one, other].iter().flat_map(|segment| records_in(&all, *segment, 0..usize::MAX)).collect();
        script.disk.swap(&script.segment(one), &script.segment(other));
        let found = after_damage(&mut script, &hit, &[one, other]);
        for segment in [one, other] {
            assert!(found.contains(&Finding::Misplaced { segment }), "{found:?}");
        }
    }
}

#[test]
fn case_22_a_strangers_file_and_a_leftover_temporary_one_are_left_alone_and_an_unknown_version_is_refused() {
    let mut script = durable_life();
    let lane = script.layout.lane(0);
    let strangers = [
        lane.join("notes.txt"),
        lane.join("0000000002.seg.tmp"),
        lane.join("7.seg"),
        script.layout.root().join("lane-7"),
        script.layout.root().join("log-id.tmp"),
        script.layout.set_aside().join("notes.txt"),
        script.layout.free().join("notes.txt"),
    ];
    strangers.iter().for_each(|path| script.disk.put_file(path, b"mine", 4));
    let log = script.recover_and_check();
    for name in ["notes.txt", "0000000002.seg.tmp", "7.seg"] {
        assert!(findings(&log).contains(&Finding::ForeignFile { name: name.into() }), "{:?}", findings(&log));
    }
    script.live(log);
    script.drain_all();
    assert_eq!(script.model.waiting(), 0);
    for path in &strangers {
        assert_eq!(script.disk.content(path), b"mine", "{}", path.display());
    }
    let mut script = durable_life();
    let before = script.disk.content(&script.segment(3))[..80].to_vec();
    script.disk.overwrite(&script.segment(3), 0, &forge::with_version(&before, 9));
    let files = script.disk.files();
    let refused = script.recover().err();
    assert!(matches!(refused, Some(LogError::FormatTooNew { version: 9, .. })), "{refused:?}");
    assert_eq!(script.disk.files(), files, "nothing was changed");
    // A release that knows the version reads everything.
    script.disk.overwrite(&script.segment(3), 0, &before);
    script.open();
    script.drain_all();
    assert_eq!(script.model.waiting(), 0);
}

#[test]
fn case_24_a_read_that_fails_once_while_draining_costs_nothing() {
    for fault in [ReadFault::Error, ReadFault::Short(1), ReadFault::Short(700)] {
        for segment in 1..=3 {
            for place in (4096..SEGMENT_BYTES as usize).step_by(9 * SECTOR_BYTES) {
                let mut script = durable_life();
                script.open();
                script.drain(0, 3).unwrap();
                script.disk.fail_read(&script.segment(segment), place, fault);
                // The drain returns the error, or has repeated the read itself.
                if let Err(error) = script.drain(0, usize::MAX) {
                    assert!(matches!(error, LogError::Io { .. }), "{error}");
                }
                script.drain_all();
                assert_eq!(script.model.waiting(), 0, "segment {segment} at {place}, {fault:?}");
                let set_aside = script.layout.set_aside();
                assert!(script.disk.files().iter().all(|(path, _)| !path.starts_with(&set_aside)));
            }
        }
    }
    assert_eq!(at(1, 4096), segment_start(1));
}
