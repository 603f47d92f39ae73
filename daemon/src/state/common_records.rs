//! Which records two data directories with the same log have in common, as their lists of incarnations tell.
//!
//! Both have what was there when the copy was made. Its first start says how much that was, and the next start of the original comes
//! after it. So the lists contradict each other if the copy began with more than the original did: then the copy's list was lost, or
//! is older than its segments, and lacks incarnations whose records were copied.

use super::incarnations::Incarnation;

/// How many records of a lane two directories have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommonRecords {
    /// So many at least …
    pub least: u64,
    /// … and so many at most: another number where the lists do not tell.
    pub most: u64,
}

impl CommonRecords {
    /// What a directory with the incarnations `own`, whose log has `records` records of `lane`, has in common with one with the
    /// incarnations `theirs`.
    ///
    /// Only ordinals can be compared: where a copy was made of a log that was being written, the two go on at other positions.
    #[must_use]
    pub fn find(own: &[Incarnation], theirs: &[Incarnation], lane: u16, records: u64) -> Self {
        let in_theirs = |one: &Incarnation| theirs.iter().position(|other| other.id == one.id);
        let last = own.iter().enumerate().rev().find_map(|(index, one)| Some((index, in_theirs(one)?)));
        let Some((own_last, their_last)) = last else { return Self::of_strangers(own, theirs, lane, records) };
        match (own.get(own_last + 1), theirs.get(their_last + 1)) {
            (None, None) => Self::exactly(records),
            // What is listed of the other directory may be older than its last start.
            (Some(one), None) | (None, Some(one)) => Self::exactly(one.records(lane).min(records)),
            (Some(own), Some(their)) => {
                let last = &theirs[their_last];
                match (own.has_moved_since(last), their.has_moved_since(last)) {
                    _ if begins_within(own, their) && begins_within(their, own) => Self::exactly(own.records(lane)),
                    (true, false) if begins_within(own, their) => Self::exactly(own.records(lane)),
                    (false, true) if begins_within(their, own) => Self::exactly(their.records(lane)),
                    _ => {
                        let (own, their) = (own.records(lane), their.records(lane));
                        Self { least: own.min(their).min(records), most: own.max(their).min(records) }
                    }
                }
            }
        }
    }

    /// The same for directories without a common incarnation. Those of an earlier release, which knew none, have in common what was
    /// there before their first ones. A directory whose list was lost looks the same, unless the two began with the same records.
    fn of_strangers(own: &[Incarnation], theirs: &[Incarnation], lane: u16, records: u64) -> Self {
        let (Some(own), Some(their)) = (own.first(), theirs.first()) else { return Self { least: 0, most: records } };
        match begins_within(own, their) && begins_within(their, own) {
            true => Self::exactly(own.records(lane)),
            false => Self { least: 0, most: own.records(lane).max(their.records(lane)).min(records) },
        }
    }

    /// What a directory has in common with any of several others.
    #[must_use]
    pub fn of_any(of_each: impl Iterator<Item = Self>) -> Self {
        of_each.fold(Self::exactly(0), |one, other| Self {
            least: one.least.max(other.least),
            most: one.most.max(other.most),
        })
    }

    const fn exactly(records: u64) -> Self {
        Self { least: records, most: records }
    }
}

/// Whether `one` began with no record of any lane that `other` began without.
fn begins_within(one: &Incarnation, other: &Incarnation) -> bool {
    one.lanes.iter().all(|mark| mark.ordinal <= other.records(mark.lane))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::mark::LaneMark;
    use uuid::Uuid;

    /// Where a directory is.
    const HERE: &str = "boot 1 10";
    const AFTER_REBOOT: &str = "later 1 10";
    const THERE: &str = "boot 1 11";

    /// Incarnations with these ids, each of which began with so many records at a place.
    fn list(list: &[(u128, u64, &str)]) -> Vec<Incarnation> {
        let lanes = |ordinal| vec![LaneMark { lane: 0, segment: 1, offset: 4096, ordinal }];
        let one = |&(id, ordinal, place): &(u128, u64, &str)| Incarnation {
            id: Uuid::from_u128(id),
            place: place.to_owned(),
            is_named: true,
            lanes: lanes(ordinal),
        };
        list.iter().map(one).collect()
    }

    /// What the first has in common with the second, and the other way round, of 20 records each.
    fn common(one: &[(u128, u64, &str)], other: &[(u128, u64, &str)]) -> [(u64, u64); 2] {
        let (one, other) = (list(one), list(other));
        [(&one, &other), (&other, &one)].map(|(own, theirs)| {
            let found = CommonRecords::find(own, theirs, 0, 20);
            (found.least, found.most)
        })
    }

    #[test]
    fn two_copies_have_in_common_what_the_copy_began_with() {
        let original = [(1, 0, HERE), (20, 7, HERE)];
        // The original went on while and after it was copied, also across a restart of the machine.
        assert_eq!(common(&original, &[(1, 0, HERE), (21, 3, THERE)]), [(3, 3); 2]);
        assert_eq!(common(&[(1, 0, HERE), (20, 7, AFTER_REBOOT)], &[(1, 0, HERE), (21, 3, THERE)]), [(3, 3); 2]);
        assert_eq!(common(&[(1, 0, HERE), (21, 1, THERE), (31, 4, THERE)], &original), [(1, 1); 2]);
        // One of them has not started since.
        assert_eq!(common(&[(1, 0, HERE)], &[(1, 0, HERE), (21, 3, THERE)]), [(3, 3); 2]);
        assert_eq!(common(&original, &original), [(20, 20); 2], "all of it");
        assert_eq!(
            common(&[(20, 5, HERE)], &[(21, 5, THERE)]),
            [(5, 5); 2],
            "copies of an earlier release's directory"
        );
    }

    #[test]
    fn what_a_list_that_was_lost_or_is_older_than_its_segments_does_not_tell_is_not_known() {
        let original = [(1, 0, HERE), (20, 3, HERE)];
        assert_eq!(common(&original, &[(1, 0, HERE), (21, 8, THERE)]), [(3, 8); 2], "copied after it began again");
        assert_eq!(common(&original, &[(21, 8, THERE)]), [(0, 8); 2], "copied without its list");
        assert_eq!(common(&original, &[(21, 25, THERE)]), [(0, 20); 2], "no more than there is");
        // Either may be the copy of the other.
        let unknown = (3, 8);
        assert_eq!(common(&[(1, 0, HERE), (20, 3, THERE)], &[(1, 0, HERE), (21, 8, "boot 2 7")]), [unknown; 2]);
        assert_eq!(common(&[(1, 0, HERE), (20, 3, HERE)], &[(1, 0, HERE), (21, 8, HERE)]), [unknown; 2]);
    }
}
