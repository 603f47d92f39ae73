//! Numbers that are done ahead of a cursor: sorted ranges that do not touch.

use std::ops::RangeInclusive;

/// Whether a number is in one of the ranges.
#[must_use]
pub fn covers(ranges: &[RangeInclusive<i64>], seq: i64) -> bool {
    ranges.iter().any(|range| range.contains(&seq))
}

/// Where the cursor is, and what is done ahead of it, once `done` is done as well. What of it lies outside of
/// `cursor + 1..=end` does not count.
#[must_use]
pub fn advance(
    cursor: i64,
    end: i64,
    acked: &[RangeInclusive<i64>],
    done: &[RangeInclusive<i64>],
) -> (i64, Vec<RangeInclusive<i64>>) {
    let within = done.iter().map(|range| *range.start().max(&(cursor + 1))..=*range.end().min(&end));
    let mut all: Vec<_> = acked.iter().cloned().chain(within).filter(|range| !range.is_empty()).collect();
    all.sort_by_key(|range| *range.start());
    let mut ahead: Vec<RangeInclusive<i64>> = Vec::new();
    for range in all {
        match ahead.last_mut() {
            Some(last) if *range.start() <= last.end() + 1 => *last = *last.start()..=*last.end().max(range.end()),
            _ => ahead.push(range),
        }
    }
    match ahead.first() {
        Some(first) if *first.start() <= cursor + 1 => {
            let cursor = *ahead.remove(0).end();
            (cursor, ahead)
        }
        _ => (cursor, ahead),
    }
}

/// The numbers of `from + 1..=to` that are not among `seqs`, which rise.
pub(super) fn gaps(from: i64, to: i64, seqs: impl Iterator<Item = i64>) -> Vec<RangeInclusive<i64>> {
    let mut gaps = Vec::new();
    let mut next = from + 1;
    for seq in seqs.chain(std::iter::once(to + 1)) {
        if next < seq {
            gaps.push(next..=seq - 1);
        }
        next = seq + 1;
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_is_not_there() {
        assert_eq!(gaps(0, 6, [2, 3, 6].into_iter()), [1..=1, 4..=5]);
        assert_eq!(gaps(3, 6, [4].into_iter()), [5..=6]);
        assert!(gaps(3, 5, [4, 5].into_iter()).is_empty());
        assert_eq!(gaps(3, 5, std::iter::empty()), [4..=5]);
    }

    #[test]
    fn what_is_done_behind_a_gap_stays_ahead_and_the_cursor_goes_on_where_there_is_none() {
        assert_eq!(advance(3, 9, &[], &[4..=5, 7..=7]), (5, vec![7..=7]));
        assert_eq!(advance(5, 9, &[7..=7], &[6..=6]), (7, vec![]));
        assert_eq!(advance(5, 9, &[7..=7, 9..=9], &[8..=8]), (5, vec![7..=9]));
        assert_eq!(advance(3, 9, &[], &[1..=20]), (9, vec![]), "nothing outside of the lease");
        assert_eq!(advance(3, 9, &[11..=12], &[]), (3, vec![11..=12]), "what an earlier, longer lease had done stays");
        assert_eq!(advance(3, 9, &[5..=6], &[4..=4, 9..=9, 5..=5]), (6, vec![9..=9]));
        assert!(covers(&[7..=9], 8) && !covers(&[7..=9], 6));
    }
}
