//! The leases that were handed out: which messages they have, by the keys of their transaction ids.

use super::batch::PairId;
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

/// How long a lease is known after its end, in milliseconds: an ack whose answer was lost comes again within it.
const KNOWN_AFTER_MS: u64 = 600_000;

/// Leases that are known at most. Beyond that the oldest are forgotten; PostgreSQL knows those that are held.
const LEASES_MAX: usize = 200_000;

/// Bits of the partition's id in a lease.
const PARTITION_BITS: u32 = 48;

/// Bits of the group's id in a lease.
const GROUP_BITS: u32 = 30;

/// A lease that was handed out.
pub(super) struct HeldLease {
    pub(super) pair: PairId,
    /// Numbers by key.
    seqs: HashMap<Uuid, i64>,
    /// Numbers that are not done yet.
    open: BTreeSet<i64>,
    /// Numbers that failed before.
    retried: BTreeSet<i64>,
    forget_at_ms: u64,
}

impl HeldLease {
    /// The number of the message with this key.
    pub(super) fn seq(&self, key: Uuid) -> Option<i64> {
        self.seqs.get(&key).copied()
    }

    /// These numbers are done. Returns whether all are.
    pub(super) fn done(&mut self, seqs: &[i64]) -> bool {
        self.open.retain(|seq| !seqs.contains(seq));
        self.open.is_empty()
    }

    /// Those of the numbers that failed before.
    pub(super) fn retried(&self, seqs: &[i64]) -> Vec<i64> {
        seqs.iter().copied().filter(|seq| self.retried.contains(seq)).collect()
    }
}

/// All leases that are known.
#[derive(Default)]
pub(super) struct Leases {
    held: HashMap<Uuid, HeldLease>,
    /// When to forget which.
    ends: BTreeSet<(u64, Uuid)>,
}

impl Leases {
    /// A lease was handed out until `until_ms`, with these messages: number, key, and whether it failed before.
    pub(super) fn add(
        &mut self,
        lease: Uuid,
        pair: PairId,
        until_ms: u64,
        messages: impl Iterator<Item = (i64, Uuid, bool)>,
    ) {
        let forget_at_ms = until_ms + KNOWN_AFTER_MS;
        let mut held =
            HeldLease { pair, seqs: HashMap::new(), open: BTreeSet::new(), retried: BTreeSet::new(), forget_at_ms };
        for (seq, key, is_retried) in messages {
            held.seqs.insert(key, seq);
            held.open.insert(seq);
            if is_retried {
                held.retried.insert(seq);
            }
        }
        self.held.insert(lease, held);
        self.ends.insert((forget_at_ms, lease));
        while self.held.len() > LEASES_MAX
            && let Some((_, oldest)) = self.ends.pop_first()
        {
            self.held.remove(&oldest);
        }
    }

    /// A lease that is known.
    pub(super) fn get(&mut self, lease: Uuid) -> Option<&mut HeldLease> {
        self.held.get_mut(&lease)
    }

    /// The lease of a group that has the message with this key: the newest one.
    pub(super) fn find(&self, key: Uuid, is_of_group: impl Fn(i64) -> bool) -> Option<Uuid> {
        let has = |held: &&HeldLease| is_of_group(held.pair.group) && held.seqs.contains_key(&key);
        let found = self.held.iter().filter(|(_, held)| has(held)).max_by_key(|(_, held)| held.forget_at_ms);
        found.map(|(lease, _)| *lease)
    }

    /// A lease goes on until `until_ms`.
    pub(super) fn extend(&mut self, lease: Uuid, until_ms: u64) {
        if let Some(held) = self.held.get_mut(&lease) {
            self.ends.remove(&(held.forget_at_ms, lease));
            held.forget_at_ms = until_ms + KNOWN_AFTER_MS;
            self.ends.insert((held.forget_at_ms, lease));
        }
    }

    /// Forgets leases that ended long ago.
    pub(super) fn tick(&mut self, now_ms: u64) {
        while let Some(&(at, lease)) = self.ends.first().filter(|(at, _)| *at <= now_ms) {
            self.ends.remove(&(at, lease));
            self.held.remove(&lease);
        }
    }
}

/// A lease of a pair: a UUID of version 8 (RFC 9562 section 5.8) that names the pair, and `number` in its 44 other bits.
#[must_use]
pub(super) fn lease_of(pair: PairId, number: u64) -> Uuid {
    let partition = pair.partition as u64 & ((1 << PARTITION_BITS) - 1);
    let group = pair.group as u64 & ((1 << GROUP_BITS) - 1);
    let (high, low) = (number >> 32 & 0xfff, number & 0xffff_ffff);
    Uuid::from_u64_pair(partition << 16 | 8 << 12 | high, 0b10 << 62 | group << 32 | low)
}

/// The pair that a lease names.
#[must_use]
pub(super) fn pair_of(lease: Uuid) -> Option<PairId> {
    let (high, low) = lease.as_u64_pair();
    let is_ours = high >> 12 & 0xf == 8 && low >> 62 == 0b10;
    is_ours.then_some(PairId { partition: (high >> 16) as i64, group: (low >> 32 & ((1 << GROUP_BITS) - 1)) as i64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_names_its_pair() {
        let pair = PairId { partition: 0x1234_5678_9abc, group: 0x3fff_ffff };
        for number in [0, 1, u64::MAX] {
            let lease = lease_of(pair, number);
            assert_eq!((lease.get_version_num(), pair_of(lease)), (8, Some(pair)));
        }
        assert_ne!(lease_of(pair, 1), lease_of(pair, 2));
        assert_ne!(lease_of(pair, 1), lease_of(pair, 1 + (1 << 32)));
        assert_eq!(pair_of(Uuid::from_u128(7)), None);
    }

    #[test]
    fn a_lease_is_known_for_a_while_after_its_end() {
        let mut leases = Leases::default();
        let pair = PairId { partition: 1, group: 2 };
        let (lease, key) = (lease_of(pair, 1), Uuid::from_u128(5));
        leases.add(lease, pair, 1000, [(7, key, true), (8, Uuid::from_u128(6), false)].into_iter());
        assert_eq!((leases.find(key, |group| group == 2), leases.find(key, |group| group == 3)), (Some(lease), None));
        let held = leases.get(lease).unwrap();
        assert_eq!((held.seq(key), held.retried(&[7, 8])), (Some(7), vec![7]));
        assert!(!held.done(&[7]) && held.done(&[7, 8]));
        leases.extend(lease, 2000);
        leases.tick(1000 + KNOWN_AFTER_MS);
        assert!(leases.get(lease).is_some());
        leases.tick(2000 + KNOWN_AFTER_MS);
        assert!(leases.get(lease).is_none());
    }
}
