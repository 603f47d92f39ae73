//! The last bytes that a lane wrote, kept in memory: who reads closely behind the writer needs no disk. Who falls further
//! behind finds them gone and reads the segments; then they serve nobody, and their memory is given back until a reader has
//! come close again.
//!
//! These are bytes of segments, at the places they have there; what they mean is the scan's business. They are kept when
//! their write starts, so they say nothing about what is durable.

use crate::position::Position;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// Bytes copied at once at most: the lane waits for it.
const COPY_BYTES: usize = 64 << 10;

/// The last bytes of one lane.
pub struct Recent {
    capacity_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Round and round: byte `n` of all that were ever kept stands at `n % capacity`.
    ring: Vec<u8>,
    /// How many were ever kept.
    count: u64,
    /// Which bytes of which segments the last of them are, the oldest first.
    runs: VecDeque<Run>,
    /// Up to which of all bytes ever kept somebody has read.
    read: u64,
    /// Whether nothing is kept, since nobody reads as closely.
    is_released: bool,
    /// Segment and offset behind the last bytes that were written, kept or not.
    end: (u64, u64),
}

/// Bytes that follow each other in one segment.
struct Run {
    segment: u64,
    offset: u64,
    /// Which of all bytes ever kept is the first.
    first: u64,
    length: u64,
}

impl Recent {
    /// Keeps up to `capacity_bytes`; the memory is taken with the first of them.
    #[must_use]
    pub fn new(capacity_bytes: usize) -> Self {
        Self { capacity_bytes, kept: Mutex::default() }
    }

    /// Keeps `pieces`, which stand at `position`, as long as there is a reader for them.
    pub fn keep<'a>(&self, position: Position, pieces: impl Iterator<Item = &'a [u8]>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.ring.is_empty() && !kept.is_released {
            kept.ring = vec![0; self.capacity_bytes];
        }
        let mut offset = u64::from(position.offset);
        for piece in pieces {
            kept.push(position.segment, offset, piece);
            offset += piece.len() as u64;
        }
        kept.end = (position.segment, offset);
        // The next byte that somebody would read is overwritten.
        if kept.count - kept.read > self.capacity_bytes as u64 {
            kept.release();
        }
    }

    /// Copies what is kept of `segment` from `offset` on into `buf`; returns how many bytes that were, 0 if the first is not
    /// kept.
    #[must_use]
    pub fn read(&self, segment: u64, offset: u64, buf: &mut [u8]) -> usize {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |run: &&Run| run.segment == segment && (run.offset..run.offset + run.length).contains(&offset);
        let Some(run) = kept.runs.iter().rev().find(holds) else {
            let (end_segment, end_offset) = kept.end;
            if segment == end_segment && end_offset.saturating_sub(offset) <= self.capacity_bytes as u64 / 2 {
                kept.is_released = false;
            }
            return 0;
        };
        let within = offset - run.offset;
        let length = (run.length - within).min(buf.len().min(COPY_BYTES) as u64) as usize;
        let start = run.first + within;
        let (first, second) = kept.slices(start, length);
        buf[..first.len()].copy_from_slice(first);
        buf[first.len()..length].copy_from_slice(second);
        kept.read = kept.read.max(start + length as u64);
        length
    }
}

impl Kept {
    fn push(&mut self, segment: u64, offset: u64, piece: &[u8]) {
        let capacity = self.ring.len();
        if capacity == 0 {
            return;
        }
        // Of more than fits only the end.
        let skipped = piece.len().saturating_sub(capacity);
        let (offset, piece) = (offset + skipped as u64, &piece[skipped..]);
        let at = (self.count % capacity as u64) as usize;
        let (now, wrapped) = piece.split_at(piece.len().min(capacity - at));
        self.ring[at..at + now.len()].copy_from_slice(now);
        self.ring[..wrapped.len()].copy_from_slice(wrapped);
        let length = piece.len() as u64;
        match self.runs.back_mut() {
            Some(last) if last.segment == segment && last.offset + last.length == offset => last.length += length,
            _ => self.runs.push_back(Run { segment, offset, first: self.count, length }),
        }
        self.count += length;
        self.forget_before(self.count.saturating_sub(capacity as u64));
    }

    /// Gives the memory back.
    fn release(&mut self) {
        self.ring = Vec::new();
        self.runs.clear();
        // Whoever comes close again reads on from there.
        self.read = self.count;
        self.is_released = true;
    }

    /// Lets go of what was overwritten.
    fn forget_before(&mut self, first: u64) {
        while let Some(oldest) = self.runs.front_mut() {
            if oldest.first >= first {
                return;
            }
            let gone = (first - oldest.first).min(oldest.length);
            oldest.first += gone;
            oldest.offset += gone;
            oldest.length -= gone;
            if oldest.length > 0 {
                return;
            }
            self.runs.pop_front();
        }
    }

    fn slices(&self, first: u64, length: usize) -> (&[u8], &[u8]) {
        let at = (first % self.ring.len() as u64) as usize;
        let now = length.min(self.ring.len() - at);
        (&self.ring[at..at + now], &self.ring[..length - now])
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
            let recent = Recent::new(CAPACITY_BYTES);
            let mut position = Position { segment: 1, offset: 4096 };
            let mut model: Vec<(Position, u8)> = Vec::new();
            for (length, rolls) in lengths {
                if rolls {
                    position = Position { segment: position.segment + 1, offset: 4096 };
                }
                let bytes: Vec<u8> = (0..length).map(|index| (model.len() + index) as u8).collect();
                recent.keep(position, bytes.chunks(7));
                for byte in bytes {
                    model.push((position, byte));
                    position.offset += 1;
                }
                // Somebody reads closely behind.
                prop_assert_eq!(recent.read(position.segment, u64::from(position.offset) - 1, &mut [0; 1]), 1);
            }
            for (index, (position, _)) in model.iter().enumerate() {
                let mut buf = [0; 10];
                let read = recent.read(position.segment, position.offset.into(), &mut buf);
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
        let recent = Recent::new(CAPACITY_BYTES);
        let memory = || recent.kept.lock().unwrap().ring.capacity();
        let keep = |offset| recent.keep(Position { segment: 1, offset }, [&[7; 16][..]].into_iter());
        let read = |offset| recent.read(1, offset, &mut [0; 16]);
        (0..4).for_each(|n| keep(n * 16));
        assert_eq!((memory(), read(16)), (CAPACITY_BYTES, 16));
        (4..6).for_each(|n| keep(n * 16));
        assert_eq!(read(32), 16, "it is as far behind as there is room");
        (6..9).for_each(|n| keep(n * 16));
        assert_eq!((memory(), read(48)), (0, 0));
        keep(9 * 16);
        assert_eq!((memory(), read(10 * 16 - CAPACITY_BYTES as u64)), (0, 0), "not close enough");
        keep(10 * 16);
        assert_eq!((memory(), read(9 * 16)), (0, 0), "close: from now on it is kept again");
        keep(11 * 16);
        assert_eq!((memory(), read(10 * 16), read(11 * 16)), (CAPACITY_BYTES, 0, 16));
    }

    #[test]
    fn no_room_keeps_nothing() {
        let recent = Recent::new(0);
        recent.keep(Position { segment: 1, offset: 0 }, [&b"bytes"[..]].into_iter());
        assert_eq!(recent.read(1, 0, &mut [0; 5]), 0);
    }
}
