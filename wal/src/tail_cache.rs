//! The bytes that a lane wrote last, in memory. A reader close behind the writer needs no disk.
//!
//! A reader that falls further behind finds the bytes evicted and reads the segments. The cache is of no use then: it frees
//! its memory until a reader has come close again.
//!
//! The cache holds bytes of segments, by segment and offset. It does not interpret them. A lane inserts them when their
//! write starts, so the cache says nothing about what is durable.

use crate::position::Position;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// Bytes that one [`read`](TailCache::read) copies at most. The lane waits for the lock meanwhile.
const COPY_BYTES: usize = 64 << 10;

/// The last bytes of one lane.
pub struct TailCache {
    capacity_bytes: usize,
    content: Mutex<Content>,
}

/// Bytes are counted from the first that was ever inserted. The ring holds those below `inserted_bytes` that are not
/// overwritten; `extents` says which segments they belong to.
#[derive(Default)]
struct Content {
    /// Byte `n` is at `n % capacity`. Empty until the first insertion, and after [`release`](Content::release).
    ring: Vec<u8>,
    /// Bytes ever inserted.
    inserted_bytes: u64,
    /// The ranges of segments that the ring holds, the oldest first.
    extents: VecDeque<Extent>,
    /// End of the furthest read, in bytes ever inserted.
    read_end: u64,
    /// Whether insertions are skipped because no reader is close.
    is_released: bool,
    /// Segment and offset behind the last bytes that the lane wrote, cached or not.
    write_end: (u64, u64),
}

/// Consecutive bytes of one segment.
struct Extent {
    segment: u64,
    offset: u64,
    /// The first byte, in bytes ever inserted.
    first: u64,
    length: u64,
}

impl TailCache {
    /// A cache of `capacity_bytes`. The first insertion allocates them.
    #[must_use]
    pub fn new(capacity_bytes: usize) -> Self {
        Self { capacity_bytes, content: Mutex::default() }
    }

    /// Inserts `slices`, which the lane writes at `position`, unless no reader is close.
    pub fn insert<'a>(&self, position: Position, slices: impl Iterator<Item = &'a [u8]>) {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        if content.ring.is_empty() && !content.is_released {
            content.ring = vec![0; self.capacity_bytes];
        }
        let mut offset = u64::from(position.offset);
        for slice in slices {
            content.push(position.segment, offset, slice);
            offset += slice.len() as u64;
        }
        content.write_end = (position.segment, offset);
        // The next byte that a reader would want is overwritten.
        if content.inserted_bytes - content.read_end > self.capacity_bytes as u64 {
            content.release();
        }
    }

    /// Copies bytes of `segment` from `offset` on into `buf`. Returns their number, which is 0 if the first byte is not
    /// cached.
    #[must_use]
    pub fn read(&self, segment: u64, offset: u64, buf: &mut [u8]) -> usize {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |extent: &&Extent| extent.segment == segment && (extent.offset..extent.end()).contains(&offset);
        let Some(extent) = content.extents.iter().rev().find(holds) else {
            let (end_segment, end_offset) = content.write_end;
            if segment == end_segment && end_offset.saturating_sub(offset) <= self.capacity_bytes as u64 / 2 {
                content.is_released = false;
            }
            return 0;
        };
        let within = offset - extent.offset;
        let length = (extent.length - within).min(buf.len().min(COPY_BYTES) as u64) as usize;
        let start = extent.first + within;
        let (first, second) = content.slices(start, length);
        buf[..first.len()].copy_from_slice(first);
        buf[first.len()..length].copy_from_slice(second);
        content.read_end = content.read_end.max(start + length as u64);
        length
    }
}

impl Extent {
    /// Offset behind the last byte.
    fn end(&self) -> u64 {
        self.offset + self.length
    }
}

impl Content {
    fn push(&mut self, segment: u64, offset: u64, slice: &[u8]) {
        let capacity = self.ring.len();
        if capacity == 0 {
            return;
        }
        // Only the end of a slice that is larger than the ring stays.
        let skipped = slice.len().saturating_sub(capacity);
        let (offset, slice) = (offset + skipped as u64, &slice[skipped..]);
        let at = (self.inserted_bytes % capacity as u64) as usize;
        let (head, wrapped) = slice.split_at(slice.len().min(capacity - at));
        self.ring[at..at + head.len()].copy_from_slice(head);
        self.ring[..wrapped.len()].copy_from_slice(wrapped);
        let length = slice.len() as u64;
        match self.extents.back_mut() {
            Some(last) if last.segment == segment && last.end() == offset => last.length += length,
            _ => self.extents.push_back(Extent { segment, offset, first: self.inserted_bytes, length }),
        }
        self.inserted_bytes += length;
        self.evict_before(self.inserted_bytes.saturating_sub(capacity as u64));
    }

    /// Frees the memory.
    fn release(&mut self) {
        self.ring = Vec::new();
        self.extents.clear();
        // A reader that comes close again continues here.
        self.read_end = self.inserted_bytes;
        self.is_released = true;
    }

    /// Removes the bytes before `first` from the extents: they are overwritten.
    fn evict_before(&mut self, first: u64) {
        while let Some(oldest) = self.extents.front_mut() {
            if oldest.first >= first {
                return;
            }
            let evicted = (first - oldest.first).min(oldest.length);
            oldest.first += evicted;
            oldest.offset += evicted;
            oldest.length -= evicted;
            if oldest.length > 0 {
                return;
            }
            self.extents.pop_front();
        }
    }

    /// `length` bytes from byte `first` on, in two parts where the ring wraps around.
    fn slices(&self, first: u64, length: usize) -> (&[u8], &[u8]) {
        let at = (first % self.ring.len() as u64) as usize;
        let head = length.min(self.ring.len() - at);
        (&self.ring[at..at + head], &self.ring[..length - head])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPACITY_BYTES: usize = 64;

    proptest! {
        #[test]
        fn what_is_read_is_what_was_kept_last_and_the_last_bytes_are_always_there(
            lengths in proptest::collection::vec((1_usize..CAPACITY_BYTES, any::<bool>()), 1..50)
        ) {
            let cache = TailCache::new(CAPACITY_BYTES);
            let mut position = Position { segment: 1, offset: 4096 };
            let mut model: Vec<(Position, u8)> = Vec::new();
            for (length, rolls) in lengths {
                if rolls {
                    position = Position { segment: position.segment + 1, offset: 4096 };
                }
                let bytes: Vec<u8> = (0..length).map(|index| (model.len() + index) as u8).collect();
                cache.insert(position, bytes.chunks(7));
                for byte in bytes {
                    model.push((position, byte));
                    position.offset += 1;
                }
                // A reader is close behind.
                prop_assert_eq!(cache.read(position.segment, u64::from(position.offset) - 1, &mut [0; 1]), 1);
            }
            for (index, (position, _)) in model.iter().enumerate() {
                let mut buf = [0; 10];
                let read = cache.read(position.segment, position.offset.into(), &mut buf);
                let expected = model[index..].iter().take_while(|(other, _)| other.segment == position.segment);
                let expected: Vec<u8> = expected.map(|(_, byte)| *byte).take(buf.len()).collect();
                if index + CAPACITY_BYTES >= model.len() {
                    prop_assert_eq!(&buf[..read], &expected[..]);
                } else {
                    prop_assert_eq!(read, 0);
                }
            }
        }
    }

    #[test]
    fn when_the_reader_falls_behind_the_memory_is_given_back_until_it_has_come_close_again() {
        let cache = TailCache::new(CAPACITY_BYTES);
        let memory = || cache.content.lock().unwrap().ring.capacity();
        let insert = |offset| cache.insert(Position { segment: 1, offset }, [&[7; 16][..]].into_iter());
        let read = |offset| cache.read(1, offset, &mut [0; 16]);
        (0..4).for_each(|n| insert(n * 16));
        assert_eq!((memory(), read(16)), (CAPACITY_BYTES, 16));
        (4..6).for_each(|n| insert(n * 16));
        assert_eq!(read(32), 16, "the reader is behind by the whole capacity");
        (6..9).for_each(|n| insert(n * 16));
        assert_eq!((memory(), read(48)), (0, 0));
        insert(9 * 16);
        assert_eq!((memory(), read(10 * 16 - CAPACITY_BYTES as u64)), (0, 0), "not close enough");
        insert(10 * 16);
        assert_eq!((memory(), read(9 * 16)), (0, 0), "close: later bytes are cached again");
        insert(11 * 16);
        assert_eq!((memory(), read(10 * 16), read(11 * 16)), (CAPACITY_BYTES, 0, 16));
    }

    #[test]
    fn no_room_keeps_nothing() {
        let cache = TailCache::new(0);
        cache.insert(Position { segment: 1, offset: 0 }, [&b"bytes"[..]].into_iter());
        assert_eq!(cache.read(1, 0, &mut [0; 5]), 0);
    }
}
