use super::*;
use crate::{frame::frame_len, limits::SEGMENT_BYTES_MIN, position::segment_start};

const SEGMENT_BYTES: u64 = SEGMENT_BYTES_MIN;

fn lane() -> GroupCommit {
    let tail = Position { segment: 1, offset: SEGMENT_HEADER_BYTES as u32 };
    GroupCommit::new(Start {
        log_id: [1; 16],
        lane: 0,
        segment_bytes: SEGMENT_BYTES,
        tail,
        next_ordinal: 0,
        sealed: true,
        pending_tail: None,
    })
}

fn record(body: &[u8]) -> Record<'_> {
    Record { kind: 1, head: b"head", body }
}

fn push(lane: &mut GroupCommit, body: &[u8]) -> Result<Appended, Refused> {
    lane.append(&[record(body)], |_| 7)
}

fn bytes_of(group: &Group) -> usize {
    group.unwritten().map(<[u8]>::len).sum()
}

#[test]
fn what_comes_while_a_group_is_in_flight_makes_the_next_group() {
    let mut lane = lane();
    let first = push(&mut lane, b"1").unwrap();
    let group = lane.next_group().unwrap();
    let second = push(&mut lane, b"2").unwrap();
    let third = push(&mut lane, b"3").unwrap();
    assert!(lane.next_group().is_none(), "one group is in flight at a time");
    let length = bytes_of(&group);
    assert_eq!(length, BLOCK_BYTES);
    assert!(matches!(lane.completed(group, Ok(length)), Ok(Step::Durable)));
    assert_eq!(lane.durable_ordinal(), first.end_ordinal);
    assert!(second.end_ordinal > lane.durable_ordinal());
    let group = lane.next_group().unwrap();
    assert_eq!(group.next_write(), Position { segment: 1, offset: 2 * BLOCK_BYTES as u32 });
    let length = bytes_of(&group);
    assert!(matches!(lane.completed(group, Ok(length)), Ok(Step::Durable)));
    assert_eq!(lane.durable_ordinal(), third.end_ordinal);
    assert!(lane.is_idle());
    assert_eq!(lane.queued_bytes(), 0);
}

#[test]
fn case_9_a_short_write_is_continued_where_it_ended_and_nothing_is_durable_before() {
    let mut lane = lane();
    push(&mut lane, &vec![b'x'; 3 * BLOCK_BYTES]).unwrap();
    let group = lane.next_group().unwrap();
    let Ok(Step::Again(group)) = lane.completed(group, Ok(BLOCK_BYTES)) else { panic!("not done yet") };
    assert_eq!(lane.durable_ordinal(), 0);
    assert_eq!(group.next_write(), Position { segment: 1, offset: 2 * BLOCK_BYTES as u32 });
    let rest = bytes_of(&group);
    assert_eq!(rest, 3 * BLOCK_BYTES);
    assert!(matches!(lane.completed(group, Ok(rest)), Ok(Step::Durable)));
}

#[test]
fn case_27_after_a_failed_write_or_sync_nothing_is_taken_or_acknowledged() {
    let mut lane = lane();
    push(&mut lane, b"1").unwrap();
    let group = lane.next_group().unwrap();
    push(&mut lane, b"2").unwrap();
    assert!(lane.completed(group, Err(io::Error::from_raw_os_error(5))).is_err());
    assert_eq!(push(&mut lane, b"3"), Err(Refused::Poisoned));
    assert!(lane.next_group().is_none());
    assert_eq!(lane.durable_ordinal(), 0);
}

#[test]
fn a_write_without_progress_or_within_a_block_poisons_instead_of_looping() {
    for bytes in [0, 512] {
        let mut lane = lane();
        push(&mut lane, b"1").unwrap();
        let group = lane.next_group().unwrap();
        assert!(lane.completed(group, Ok(bytes)).is_err());
    }
}

#[test]
fn a_batch_that_does_not_fit_goes_whole_into_the_next_segment_or_is_refused_whole() {
    let mut lane = lane();
    let half = vec![b'x'; SEGMENT_BYTES as usize / 2];
    push(&mut lane, &half).unwrap();
    assert_eq!(push(&mut lane, &half), Err(Refused::Busy), "no segment is ready");
    lane.segment_ready(2);
    push(&mut lane, &half).unwrap();
    assert_eq!(lane.segments_ready(), 0);
    let segments: Vec<_> = std::iter::from_fn(|| {
        let group = lane.next_group()?;
        let position = group.next_write();
        let length = bytes_of(&group);
        assert!(matches!(lane.completed(group, Ok(length)), Ok(Step::Durable)));
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
    assert!(matches!(push(&mut lane, &vec![0; largest + 1]), Err(Refused::TooLarge { .. })));
    push(&mut lane, &vec![0; largest]).unwrap();
}

#[test]
fn memory_that_waits_for_the_disk_is_bounded() {
    let tail = Position { segment: 1, offset: SEGMENT_HEADER_BYTES as u32 };
    let start = Start {
        log_id: [1; 16],
        lane: 0,
        segment_bytes: 256 << 20,
        tail,
        next_ordinal: 0,
        sealed: true,
        pending_tail: None,
    };
    let mut lane = GroupCommit::new(start);
    let mebibyte = vec![b'x'; 1 << 20];
    let taken = std::iter::repeat_with(|| push(&mut lane, &mebibyte)).take_while(Result::is_ok).count();
    assert!(taken >= 16 && lane.queued_bytes() <= QUEUED_BYTES_MAX);
    assert_eq!(push(&mut lane, &mebibyte), Err(Refused::Busy));
}

#[test]
fn numbers_are_taken_only_for_what_is_kept() {
    let mut lane = lane();
    let refused = lane.append(&[record(&vec![0; SEGMENT_BYTES as usize])], |_| panic!("no number for a refused batch"));
    assert!(refused.is_err());
    let appended = lane.append(&[record(b"1"), record(b"2")], |count| 40 + count).unwrap();
    assert_eq!(appended, Appended { first_number: 42, end_ordinal: 2 });
}
