use super::*;
use crate::{frame::frame_len, limits::SEGMENT_BYTES_MIN, position::segment_start};
use proptest::prelude::*;

const SEGMENT_BYTES: u64 = SEGMENT_BYTES_MIN;

fn lane() -> GroupCommit {
    let tail = Position { segment: 1, offset: SEGMENT_HEADER_BYTES as u32 };
    GroupCommit::new(LaneStart {
        log_id: [1; 16],
        lane: 0,
        segment_bytes: SEGMENT_BYTES,
        tail,
        next_ordinal: 0,
        is_sealed: true,
        pending_tail: None,
    })
}

fn record(body: &[u8]) -> Record<'_> {
    Record { kind: 1, head: b"head", body }
}

fn push(lane: &mut GroupCommit, body: &[u8]) -> Result<Appended, AppendRefusal> {
    lane.append(&[record(body)], |_| 7)
}

fn bytes_of(group: &Group) -> usize {
    group.unwritten().map(<[u8]>::len).sum()
}

#[test]
fn what_comes_while_a_group_is_in_flight_makes_the_next_group() {
    let mut lane = lane();
    let first = push(&mut lane, b"1").unwrap();
    let group = lane.take_next_group().unwrap();
    let second = push(&mut lane, b"2").unwrap();
    let third = push(&mut lane, b"3").unwrap();
    assert!(lane.take_next_group().is_none(), "one group is in flight at a time");
    let length = bytes_of(&group);
    assert_eq!(length, BLOCK_BYTES);
    assert!(matches!(lane.complete(group, Ok(length)), Ok(Completion::Durable)));
    assert_eq!(lane.durable_ordinal(), first.end_ordinal);
    assert!(second.end_ordinal > lane.durable_ordinal());
    let group = lane.take_next_group().unwrap();
    assert_eq!(group.next_write(), Position { segment: 1, offset: 2 * BLOCK_BYTES as u32 });
    let length = bytes_of(&group);
    assert!(matches!(lane.complete(group, Ok(length)), Ok(Completion::Durable)));
    assert_eq!(lane.durable_ordinal(), third.end_ordinal);
    assert!(lane.is_idle());
    assert_eq!(lane.queued_bytes(), 0);
}

#[test]
fn case_9_a_short_write_is_continued_where_it_ended_and_nothing_is_durable_before() {
    let mut lane = lane();
    push(&mut lane, &vec![b'x'; 3 * BLOCK_BYTES]).unwrap();
    let group = lane.take_next_group().unwrap();
    let Ok(Completion::ShortWrite(group)) = lane.complete(group, Ok(BLOCK_BYTES)) else { panic!("not done yet") };
    assert_eq!(lane.durable_ordinal(), 0);
    assert_eq!(group.next_write(), Position { segment: 1, offset: 2 * BLOCK_BYTES as u32 });
    let rest = bytes_of(&group);
    assert_eq!(rest, 3 * BLOCK_BYTES);
    assert!(matches!(lane.complete(group, Ok(rest)), Ok(Completion::Durable)));
}

#[test]
fn case_27_after_a_failed_write_or_sync_nothing_is_taken_or_acknowledged() {
    let mut lane = lane();
    push(&mut lane, b"1").unwrap();
    let group = lane.take_next_group().unwrap();
    push(&mut lane, b"2").unwrap();
    assert!(lane.complete(group, Err(io::Error::from_raw_os_error(5))).is_err());
    assert_eq!(push(&mut lane, b"3"), Err(AppendRefusal::Poisoned));
    assert!(lane.take_next_group().is_none());
    assert_eq!(lane.durable_ordinal(), 0);
}

#[test]
fn a_write_that_ends_within_a_block_continues_at_its_start_or_has_no_room() {
    for (written, continues) in [(0, false), (512, false), (BLOCK_BYTES + 512, true)] {
        let mut lane = lane();
        push(&mut lane, &vec![b'x'; 2 * BLOCK_BYTES]).unwrap();
        let group = lane.take_next_group().unwrap();
        match lane.complete(group, Ok(written)).unwrap() {
            Completion::ShortWrite(group) => {
                assert!(continues);
                assert_eq!(group.next_write().offset as usize, SEGMENT_HEADER_BYTES + BLOCK_BYTES);
            }
            Completion::NoRoom(_) => assert!(!continues),
            Completion::Durable => panic!("not all was written"),
        }
    }
}

#[test]
fn without_room_what_is_not_durable_is_dropped_and_the_lane_continues_in_the_next_segment() {
    for errno in [28, 122, 27] {
        let mut lane = lane();
        push(&mut lane, b"durable").unwrap();
        let group = lane.take_next_group().unwrap();
        let length = bytes_of(&group);
        assert!(matches!(lane.complete(group, Ok(length)), Ok(Completion::Durable)));
        let durable_end = lane.durable_end();

        // One group in flight, and others behind it as far as the segment after the next.
        lane.add_ready_segment(2);
        lane.add_ready_segment(3);
        push(&mut lane, b"in flight").unwrap();
        let group = lane.take_next_group().unwrap();
        for _ in 0..3 {
            push(&mut lane, &vec![b'x'; SEGMENT_BYTES as usize / 2]).unwrap();
        }
        assert_eq!((lane.tail.segment, lane.ready_segments()), (3, 0));
        let outcome = lane.complete(group, Err(io::Error::from_raw_os_error(errno))).unwrap();
        let Completion::NoRoom(error) = outcome else { panic!("errno {errno} is a lack of room") };
        assert_eq!(error.at, durable_end);
        assert_eq!((lane.durable_end(), lane.durable_ordinal()), (durable_end, 1));
        assert!(lane.is_idle() && lane.is_sealed() && !lane.seal(9) && lane.queued_bytes() == 0);
        assert_eq!((lane.tail, lane.ready_segments()), (segment_start(2), 1));

        assert_eq!(push(&mut lane, b"later").unwrap().end_ordinal, 2, "the ordinal is given again");
        let group = lane.take_next_group().unwrap();
        assert_eq!(group.start(), segment_start(2));
    }
}

#[test]
fn without_room_before_the_next_segment_is_there_the_lane_waits_for_it() {
    let mut lane = lane();
    push(&mut lane, b"1").unwrap();
    let group = lane.take_next_group().unwrap();
    assert!(matches!(lane.complete(group, Err(io::Error::from_raw_os_error(28))), Ok(Completion::NoRoom(_))));
    assert_eq!(push(&mut lane, b"2"), Err(AppendRefusal::Busy));
    let header = lane.take_segment_request(40).unwrap();
    assert_eq!((header.segment, header.base_number, header.base_ordinal), (2, 40, 0));
    lane.add_ready_segment(2);
    assert_eq!(push(&mut lane, b"2").unwrap().end_ordinal, 1);
}

#[test]
fn a_batch_that_does_not_fit_goes_whole_into_the_next_segment_or_is_refused_whole() {
    let mut lane = lane();
    let half = vec![b'x'; SEGMENT_BYTES as usize / 2];
    push(&mut lane, &half).unwrap();
    assert_eq!(push(&mut lane, &half), Err(AppendRefusal::Busy), "no segment is ready");
    lane.add_ready_segment(2);
    push(&mut lane, &half).unwrap();
    assert_eq!(lane.ready_segments(), 0);
    let segments: Vec<_> = std::iter::from_fn(|| {
        let group = lane.take_next_group()?;
        let position = group.next_write();
        let length = bytes_of(&group);
        assert!(matches!(lane.complete(group, Ok(length)), Ok(Completion::Durable)));
        Some(position)
    })
    .collect();
    assert_eq!(segments, [1, 2].map(segment_start));
    assert_eq!(lane.durable_ordinal(), 2);
}

#[test]
fn the_largest_batch_fills_a_segment_and_one_byte_more_is_refused() {
    let mut lane = lane();
    let largest = record_bytes_max(SEGMENT_BYTES) - b"head".len();
    assert_eq!(frame_len(largest + 4), SEGMENT_BYTES as usize - SEGMENT_HEADER_BYTES);
    assert!(matches!(push(&mut lane, &vec![0; largest + 1]), Err(AppendRefusal::TooLarge { .. })));
    push(&mut lane, &vec![0; largest]).unwrap();
}

#[test]
fn memory_that_waits_for_the_disk_is_bounded() {
    let tail = Position { segment: 1, offset: SEGMENT_HEADER_BYTES as u32 };
    let start = LaneStart {
        log_id: [1; 16],
        lane: 0,
        segment_bytes: 256 << 20,
        tail,
        next_ordinal: 0,
        is_sealed: true,
        pending_tail: None,
    };
    let mut lane = GroupCommit::new(start);
    let mebibyte = vec![b'x'; 1 << 20];
    let taken = std::iter::repeat_with(|| push(&mut lane, &mebibyte)).take_while(Result::is_ok).count();
    assert!(taken >= 16 && lane.queued_bytes() <= QUEUED_BYTES_MAX);
    assert_eq!(push(&mut lane, &mebibyte), Err(AppendRefusal::Busy));
}

#[test]
fn numbers_are_taken_only_for_what_is_kept() {
    let mut lane = lane();
    let refused = lane.append(&[record(&vec![0; SEGMENT_BYTES as usize])], |_| panic!("no number for a refused batch"));
    assert!(refused.is_err());
    let appended = lane.append(&[record(b"1"), record(b"2")], |count| 40 + count).unwrap();
    assert_eq!(appended, Appended { first_number: 42, end_ordinal: 2 });
}

/// The positions and the ordinals of a lane, from durable to appended.
fn progress(lane: &GroupCommit) -> ([Position; 3], [u64; 4]) {
    let ends = [lane.durable_end, lane.in_flight_end, lane.tail];
    (ends, [lane.durable_ordinal, lane.in_flight_ordinal, lane.closed_ordinal, lane.next_ordinal])
}

proptest! {
    #[test]
    fn durable_stays_behind_in_flight_behind_closed_behind_appended_whatever_happens(
        steps in proptest::collection::vec((0_u8..8, 1_usize..30_000), 1..200)
    ) {
        let mut lane = lane();
        let mut in_flight: Option<Group> = None;
        // What must be durable by the model: the end of the last group whose write is complete.
        let mut durable = (lane.tail, 0);
        let mut appended = 0;
        for (step, size) in steps {
            let (ends_before, ordinals_before) = progress(&lane);
            match step {
                0..3 => appended = push(&mut lane, &vec![b'x'; size]).map_or(appended, |batch| batch.end_ordinal),
                3 => in_flight = in_flight.or_else(|| lane.take_next_group()),
                4 | 5 => {
                    if let Some(group) = in_flight.take() {
                        let length = bytes_of(&group);
                        // A short write, now and then.
                        let written = if step == 4 { length } else { length.min(size.next_multiple_of(BLOCK_BYTES)) };
                        let end = (group.end(), group.end_ordinal);
                        match lane.complete(group, Ok(written)).unwrap() {
                            Completion::ShortWrite(group) => in_flight = Some(group),
                            Completion::Durable => durable = end,
                            Completion::NoRoom(error) => panic!("{error}"),
                        }
                    }
                }
                6 => {
                    lane.seal(7);
                }
                _ => {
                    if let Some(header) = lane.take_segment_request(7) {
                        lane.add_ready_segment(header.segment);
                    }
                }
            }
            let (ends, ordinals) = progress(&lane);
            prop_assert!(ends.is_sorted() && ordinals.is_sorted(), "{ends:?} {ordinals:?}");
            prop_assert!(ends_before.iter().zip(ends).all(|(before, after)| *before <= after), "none goes back");
            prop_assert!(ordinals_before.iter().zip(ordinals).all(|(before, after)| *before <= after));
            prop_assert_eq!((lane.durable_end, lane.durable_ordinal), durable);
            prop_assert_eq!(lane.next_ordinal, appended);
            prop_assert_eq!(in_flight.is_some(), lane.durable_end < lane.in_flight_end);
        }
    }

    #[test]
    fn segments_are_requested_once_and_become_current_in_order_only_when_they_are_ready(
        steps in proptest::collection::vec(0_u8..3, 1..100), is_missing: bool
    ) {
        let header = SegmentHeader {
            log_id: [1; 16],
            lane: 0,
            segment: 5,
            segment_bytes: SEGMENT_BYTES,
            base_number: 0,
            base_ordinal: 0,
            previous_unfinished_block: 7,
            zeroed: false,
        };
        let start = LaneStart {
            log_id: [1; 16],
            lane: 0,
            segment_bytes: SEGMENT_BYTES,
            tail: segment_start(5),
            next_ordinal: 0,
            is_sealed: true,
            pending_tail: is_missing.then_some(header),
        };
        let mut supply = SegmentSupply::new(&start);
        let mut requested = VecDeque::new();
        let (mut next_request, mut next_current) = (if is_missing { 5 } else { 6 }, 6);
        for step in steps {
            match step {
                0 => {
                    if let Some(header) = supply.take_request(9, 0) {
                        prop_assert_eq!((header.segment, header.base_number), (next_request, 9));
                        next_request += 1;
                        requested.push_back(header.segment);
                    }
                }
                1 => {
                    if let Some(segment) = requested.pop_front() {
                        supply.add_ready(segment);
                    }
                }
                _ => {
                    if supply.ready_count() > 0 {
                        prop_assert!(supply.is_current_ready());
                        prop_assert_eq!(supply.roll_over(), segment_start(next_current));
                        next_current += 1;
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "the group is in flight")]
fn a_group_that_is_not_in_flight_completes_nothing() {
    let (mut one, mut other) = (lane(), lane());
    push(&mut one, b"1").unwrap();
    let group = one.take_next_group().unwrap();
    let length = bytes_of(&group);
    drop(other.complete(group, Ok(length)));
}
