//! How large the messages of a queue are, as far as is known: nobody counts the bytes of what is to be taken.

/// The largest one that is remembered shrinks by this part with each look at messages.
const DECAY: u64 = 64;

/// The mean moves by this part towards that of the messages seen last.
const WEIGHT: u64 = 8;

/// Sizes of payloads in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) mean: u64,
    pub(super) largest: u64,
}

impl Sizes {
    /// Messages were seen: their number, their bytes, and those of the largest one. Larger ones count at once, smaller ones in time.
    pub(super) fn seen(&mut self, count: usize, bytes: u64, largest: u64) {
        let mean = bytes / count.max(1) as u64;
        self.mean = if mean > self.mean { mean } else { (self.mean * (WEIGHT - 1) + mean) / WEIGHT };
        self.largest = largest.max(self.largest - self.largest / DECAY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_counts_at_once_and_what_is_smaller_in_time() {
        let mut sizes = Sizes::default();
        sizes.seen(10, 1000, 500);
        assert_eq!(sizes, Sizes { mean: 100, largest: 500 });
        sizes.seen(1, 10_000, 10_000);
        assert_eq!(sizes, Sizes { mean: 10_000, largest: 10_000 });
        for _ in 0..1000 {
            sizes.seen(10, 1000, 200);
        }
        assert!(sizes.mean < 110 && sizes.largest == 200, "{sizes:?}");
    }
}
