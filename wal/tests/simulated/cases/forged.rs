//! Cases 23, 25 and 26: bytes that verify but cannot be right.

use super::{after_damage, durable_life, goes_on, places};
use crate::script::{SEGMENT_BYTES, Script, Seen, forge};
use forebay_wal::{
    finding::Finding,
    frame::{FrameHeader, HEADER_BYTES, SegmentSeed, frame_len},
    limits::BLOCK_BYTES,
};

fn seed(script: &Script, segment: u64) -> SegmentSeed {
    SegmentSeed::new(script.recover().unwrap().id, 0, segment)
}

/// The bytes of a record's frame, including its padding.
fn frame_of(script: &Script, seen: &Seen) -> Vec<u8> {
    let start = seen.at.offset as usize;
    script.disk.content(&script.segment(seen.at.segment))[start..start + frame_len(seen.header.payload_len as usize)]
        .to_vec()
}

/// Records with a byte among `length` bytes from `start` on.
fn hit_by(places: &[Seen], segment: u64, start: usize, length: usize) -> Vec<u64> {
    let hit =
        |seen: &&Seen| seen.at.segment == segment && seen.bytes().start < start + length && start < seen.bytes().end;
    places.iter().filter(hit).map(|seen| seen.record).collect()
}

#[test]
fn case_23_a_valid_record_at_a_wrong_offset_is_not_read_there_and_costs_only_what_it_was_put_over() {
    let all = places(&durable_life());
    // A small record of segment 2 overwrites others: in its own group, in an earlier and a later one, in another segment, and
    // within a payload.
    let small: Vec<&Seen> = all.iter().filter(|seen| seen.at.segment == 2 && seen.header.payload_len < 900).collect();
    let source = small[small.len() / 2];
    // Not at the start of a segment: nothing before it limits the possible ordinals.
    let in_2 = |seen: &&Seen| seen.at.segment == 2 && seen.at.offset > 4096;
    for target in all.iter().filter(in_2).chain(all.iter().filter(|seen| seen.at.segment == 3)) {
        for within in [0, 8, 512] {
            if within > 0 && target.header.payload_len < 5000 {
                continue;
            }
            let mut script = durable_life();
            let frame = frame_of(&script, source);
            let (segment, start) = (target.at.segment, target.at.offset as usize + within);
            let hit = hit_by(&all, segment, start, frame.len());
            if hit.contains(&source.record) {
                continue;
            }
            script.disk.overwrite(&script.segment(segment), start, &frame);
            // The model panics if a record comes twice or out of order.
            after_damage(&mut script, &hit, &[segment]);
        }
    }
}

#[test]
fn case_23_a_valid_record_in_the_padding_or_behind_the_end_is_not_read_there() {
    let all = places(&durable_life());
    let source = all.iter().find(|seen| seen.at.segment == 2 && seen.header.payload_len < 400).unwrap();
    // In the padding of its own group, where the block of its group is right.
    let group = |seen: &&Seen| seen.at.segment == 2 && seen.header.group_block == source.header.group_block;
    let last = all.iter().rfind(group).unwrap();
    let end = last.at.offset as usize + frame_len(last.header.payload_len as usize);
    let frame = frame_of(&durable_life(), source);
    let room = end.next_multiple_of(BLOCK_BYTES) - end;
    assert!(room >= frame.len(), "{room} bytes of padding");
    for at in [end, end + (room - frame.len()) / 8 * 8] {
        let mut script = durable_life();
        script.disk.overwrite(&script.segment(2), at, &frame);
        let found = after_damage(&mut script, &[], &[2]);
        assert!(found.iter().any(Finding::is_damage), "{found:?}");
    }
    // Behind the end of the log, at the start of a block and within one.
    let tail = all.last().unwrap();
    let end = (tail.at.offset as usize + frame_len(tail.header.payload_len as usize)).next_multiple_of(BLOCK_BYTES);
    assert!(end + 2 * BLOCK_BYTES <= SEGMENT_BYTES as usize);
    for at in [end, end + 8, end + BLOCK_BYTES] {
        let source = all.iter().find(|seen| seen.at.segment == tail.at.segment).unwrap();
        let mut script = durable_life();
        let frame = frame_of(&script, source);
        script.disk.overwrite(&script.segment(tail.at.segment), at, &frame);
        script.model.is_damaged = true;
        script.open();
        script.drain_all();
        assert_eq!(script.model.waiting(), 0, "all is there, once");
        goes_on(&mut script);
    }
}

/// Overwrites a record's header with another one that verifies.
fn reforge(script: &Script, seen: &Seen, change: impl Fn(&mut FrameHeader)) {
    let start = seen.at.offset as usize;
    let content = script.disk.content(&script.segment(seen.at.segment));
    let payload = &content[start + HEADER_BYTES..start + HEADER_BYTES + seen.header.payload_len as usize];
    let mut header = seen.header;
    change(&mut header);
    let header = &forge::frame(seed(script, seen.at.segment), &header, payload)[..HEADER_BYTES];
    script.disk.overwrite(&script.segment(seen.at.segment), start, header);
}

/// Records from the middle of the log: one in a batch, the first and the last of a segment, and the log's first.
fn samples() -> Vec<Seen> {
    let all = places(&durable_life());
    let in_batch = all.iter().position(|seen| !seen.header.starts_batch()).unwrap();
    let of_3 = |seen: &Seen| seen.at.segment == 3;
    let samples = [0, in_batch, all.iter().position(of_3).unwrap(), all.iter().rposition(of_3).unwrap()];
    samples.map(|index| all[index]).to_vec()
}

#[test]
fn case_25_a_record_longer_than_the_largest_possible_is_damage_and_no_more_is_read_for_it() {
    for length in [SEGMENT_BYTES as u32, SEGMENT_BYTES as u32 - 4096, 1 << 31, u32::MAX - 39, u32::MAX] {
        for sample in samples() {
            let mut script = durable_life();
            reforge(&script, &sample, |header| header.payload_len = length);
            let (_, peak_bytes) = crate::memory::peak_of(|| drop(script.recover().unwrap()));
            assert!(peak_bytes < 4 << 20, "{peak_bytes} bytes held for a length of {length}");
            let found = after_damage(&mut script, &[sample.record], &[sample.at.segment]);
            assert!(found.iter().any(Finding::is_damage), "{found:?}");
        }
    }
}

#[test]
fn case_26_a_valid_checksum_with_an_impossible_ordinal_costs_no_other_record_and_is_told() {
    for ordinal in [u64::MAX, u64::MAX - 1, i64::MAX as u64, 1 << 40, 100_000] {
        for sample in samples() {
            let mut script = durable_life();
            reforge(&script, &sample, |header| header.ordinal = ordinal);
            let found = after_damage(&mut script, &[sample.record], &[sample.at.segment]);
            assert!(found.iter().any(Finding::is_damage), "{found:?}");
        }
    }
    // An ordinal that was read before.
    for sample in samples().into_iter().skip(1) {
        let mut script = durable_life();
        reforge(&script, &sample, |header| header.ordinal = 0);
        let found = after_damage(&mut script, &[sample.record], &[sample.at.segment]);
        assert!(found.iter().any(Finding::is_damage), "{found:?}");
    }
}

#[test]
fn case_26_a_valid_checksum_with_an_impossible_number_costs_no_other_record_and_no_number_is_given_twice() {
    for number in [u64::MAX, u64::MAX - 1, i64::MAX as u64] {
        for sample in samples() {
            let mut script = durable_life();
            reforge(&script, &sample, |header| header.number = number);
            let found = after_damage(&mut script, &[sample.record], &[sample.at.segment]);
            assert!(found.iter().any(Finding::is_damage), "{found:?}");
        }
    }
    // A number that goes back but is possible: the record may count or not, and no other record is lost.
    for sample in samples().into_iter().skip(1) {
        let mut script = durable_life();
        reforge(&script, &sample, |header| header.number -= 1);
        script.model.hit([sample.record], crate::script::Loss::MaybeSilent);
        script.open();
        script.drain_all();
        assert!(script.model.waiting() <= 1);
        goes_on(&mut script);
    }
}
