//! Cases 34 to 37: recovery itself.

use super::{after_damage, durable_life, goes_on, places, recovered_records};
use crate::{
    disk::Fate,
    memory,
    random::Random,
    script::{SEGMENT_BYTES, Script, forge, may_fail},
};
use forebay_wal::{
    error::LogError,
    frame::SegmentSeed,
    limits::{BLOCK_BYTES, WINDOW_BYTES},
    segment::{FORMAT_VERSION, SegmentHeader},
};

/// A log whose last write never finished, so that recovery has work to do.
fn torn_life() -> Script {
    let mut script = Script::opened();
    for _ in 0..3 {
        script.answer(0, &[20_000, 9_000]);
    }
    script.drain(0, 2).unwrap();
    script.release(0).unwrap();
    script.append(0, &[300]).unwrap();
    script.append(0, &[9000, 9000]).unwrap();
    script.begin(0, usize::MAX);
    script.crash(0, |_, sector| if sector.is_multiple_of(3) { Fate::Kept } else { Fate::Zero });
    script
}

#[test]
fn case_34_a_kill_during_recovery_and_another_during_the_next_one_change_nothing() {
    let whole = recovered_records(&torn_life());
    let operations = (1..).find(|operations| recovery_dies_at(&mut torn_life(), *operations).is_none()).unwrap();
    assert!(operations > 20, "{operations}");
    for first in (1..operations).step_by(2) {
        for second in (1..operations).step_by(5) {
            let mut script = torn_life();
            for at in [first, second] {
                recovery_dies_at(&mut script, at);
                // Only the process ends, or the machine crashes.
                match (first + second) % 3 {
                    0 => script.kill(),
                    1 => script.crash_all(Fate::Lost),
                    _ => script.disk.crash_randomly(&mut Random::new(first * 1000 + second)),
                }
            }
            assert_eq!(recovered_records(&script), whole, "killed at {first}, then at {second}");
            goes_on(&mut script);
        }
    }
}

fn recovery_dies_at(script: &mut Script, operation: u64) -> Option<LogError> {
    script.disk.die_after(operation);
    let outcome = script.recover().err();
    script.disk.heal();
    outcome
}

/// Runs every operation of a log on a disk where one operation may fail. Gives up or retries like the daemon.
fn whole_life(script: &mut Script) -> Result<(), LogError> {
    for generation in 0..2 {
        let log = script.recover()?;
        script.live(log);
        for round in 0..3 {
            for lane in 0..2 {
                for sizes in [&[300, 2000][..], &[25_000], &[9]] {
                    may_fail(script.append(lane, sizes));
                }
                // A lane whose write failed takes nothing more. The others continue.
                may_fail(script.write(lane));
                may_fail(script.keep());
            }
            for lane in 0..2 {
                if script.drain(lane, 4 + round).is_ok() {
                    may_fail(script.release(lane));
                }
            }
        }
        if generation == 0 {
            may_fail(script.seal(0));
        }
    }
    Ok(())
}

#[test]
fn case_35_whichever_operation_fails_alone_or_with_all_after_it_the_log_recovers_on_a_disk_that_is_well() {
    // The operation fails, or takes effect and returns an error, or the disk dies with it.
    for how in 0..3 {
        for nth in 1.. {
            let mut script = Script::new(2);
            match how {
                0 => script.disk.fail_nth(nth, false),
                1 => script.disk.fail_nth(nth, true),
                _ => script.disk.die_after(nth),
            }
            may_fail(whole_life(&mut script));
            let reached = script.disk.operations() >= nth;
            script.kill();
            match nth % 3 {
                0 => {}
                1 => script.crash_all(Fate::Lost),
                _ => script.disk.crash_randomly(&mut Random::new(nth)),
            }
            script.open();
            script.drain_all();
            assert_eq!(script.model.waiting(), 0);
            if nth.is_multiple_of(5) {
                goes_on(&mut script);
            }
            if !reached {
                assert!(nth > 150, "the life has {nth} operations");
                break;
            }
        }
    }
}

/// A lane of `count` segments, each with one record that the model knows.
fn segments_of_one_record(count: u64) -> Script {
    let mut script = Script::opened();
    script.disk.set_capacity((count as usize + 8) * SEGMENT_BYTES as usize, crate::disk::faults::ENOSPC);
    script.options.quota_bytes = (count + 8) * SEGMENT_BYTES;
    script.kill();
    let log_id = script.recover().unwrap().id;
    let mut files = Vec::new();
    for segment in 1..=count {
        let record = script.model.submit_durable(0, segment - 1, &[7; 400]);
        let payload = [&record.to_le_bytes()[..], &[7; 400]].concat();
        let header = SegmentHeader {
            log_id,
            lane: 0,
            segment,
            segment_bytes: SEGMENT_BYTES,
            base_number: segment - 1,
            base_ordinal: segment - 1,
            previous_unfinished_block: 0,
            zeroed: true,
        };
        let frame = forge::header(segment - 1, segment - 1, payload.len(), 1);
        let group = forge::group(SegmentSeed::new(log_id, 0, segment), &frame, &payload);
        let content = [&header.encode()[..], &group].concat();
        files.push((script.segment(segment), content, SEGMENT_BYTES as usize));
    }
    script.disk.put_files(files);
    script
}

#[test]
fn case_36_of_0_1_and_10_000_segments_each_byte_is_read_about_twice_and_memory_does_not_grow_with_them() {
    for count in [0, 1, 10_000] {
        let script = segments_of_one_record(count);
        let before = script.disk.bytes_read();
        let (log, peak_bytes) = memory::peak_of(|| script.recover().unwrap());
        let read = script.disk.bytes_read() - before;
        let there = (count.max(1) + 2) * SEGMENT_BYTES;
        assert!(read <= there * 5 / 2, "{read} bytes read of {there}");
        // A window, a few fields of each segment, and names; not the segments' content.
        let bound = 4 * WINDOW_BYTES as u64 + count * 1024;
        assert!(peak_bytes <= bound, "{peak_bytes} bytes held for {count} segments");
        let lane = &log.lanes[0];
        assert_eq!(lane.segments.iter().map(|found| found.records).sum::<u64>(), count);
        let (before, held) = (script.disk.bytes_read(), memory::peak_of(|| script.read_all(&log)));
        let (read, (seen, _)) = (script.disk.bytes_read() - before, held);
        assert!(read <= there * 5 / 2, "{read} bytes read of {there} by a reader");
        script.model.check(&log, &seen);
    }
}

#[test]
fn case_37_the_next_format_version_is_refused_aloud_and_the_only_one_before_it_is_read() {
    assert_eq!(FORMAT_VERSION, 1, "there is a previous version now: read one of its logs here");
    let mut script = durable_life();
    let tail = places(&script).last().unwrap().at.segment;
    // In the oldest segment, in one in the middle, and in the last that was written to.
    for segment in [1, 3, tail] {
        let path = script.segment(segment);
        let before = script.disk.content(&path)[..BLOCK_BYTES].to_vec();
        script.disk.overwrite(&path, 0, &forge::with_version(&before, FORMAT_VERSION + 1));
        let files = script.disk.files();
        for _ in 0..2 {
            match script.recover().map(drop) {
                Err(error @ LogError::FormatTooNew { version: 2, .. }) => {
                    assert!(error.to_string().contains("newer release"), "{error}");
                }
                outcome => panic!("segment {segment}: {outcome:?}"),
            }
        }
        assert_eq!(script.disk.files(), files, "nothing was changed");
        script.disk.overwrite(&path, 0, &before);
    }
    // This version reads its own format. A version that never existed is damage, and no reason to refuse the log.
    script.disk.overwrite(
        &script.segment(2),
        0,
        &forge::with_version(&script.disk.content(&script.segment(2)), 0)[..80],
    );
    after_damage(&mut script, &[], &[2]);
}
