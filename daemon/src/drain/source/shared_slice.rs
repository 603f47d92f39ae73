//! The memory that records are read into: chunks, of which each record of a round is a slice.

use crate::limits::LOAD_BYTES;
use std::{collections::VecDeque, ops::Deref, rc::Rc};

/// Bytes of a chunk beyond [`LOAD_BYTES`]. The record that fills a chunk up may need them; a larger record makes the chunk
/// grow. A chunk of this size fits the allocator's pages: they hold several, with little space between them.
const RESERVE_BYTES: usize = 16 << 10;

const _: () = assert!((LOAD_BYTES + RESERVE_BYTES).is_power_of_two());

/// A part of a chunk. The chunk stays in memory until its last slice is dropped.
#[derive(Clone, Debug)]
pub(crate) struct SharedSlice {
    chunk: Rc<Vec<u8>>,
    start: u32,
    length: u32,
}

impl SharedSlice {
    /// The `length` bytes of `chunk` that begin at `start`.
    ///
    /// # Panics
    /// If the chunk ends before, or is 4 GiB or larger.
    pub(crate) fn new(chunk: &Rc<Vec<u8>>, start: usize, length: usize) -> Self {
        assert!(start + length <= chunk.len(), "a slice lies within its chunk");
        assert!(u32::try_from(chunk.len()).is_ok(), "a chunk is smaller than 4 GiB");
        Self { chunk: Rc::clone(chunk), start: start as u32, length: length as u32 }
    }
}

impl From<Vec<u8>> for SharedSlice {
    fn from(bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        Self::new(&Rc::new(bytes), 0, length)
    }
}

impl Deref for SharedSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.chunk[self.start as usize..][..self.length as usize]
    }
}

/// The chunks of a lane. A chunk is filled again once its last slice is dropped, so draining a backlog allocates no memory.
#[derive(Default)]
pub(crate) struct Slab {
    /// Chunks with slices, or free again; the oldest first.
    lent: VecDeque<Rc<Vec<u8>>>,
}

impl Slab {
    /// An empty chunk. Rounds are dropped in order, so the oldest chunk is the first to be free.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let free = self.lent.pop_front_if(|chunk| Rc::strong_count(chunk) == 1);
        match free.and_then(Rc::into_inner) {
            Some(mut chunk) => {
                chunk.clear();
                chunk
            }
            None => Vec::with_capacity(LOAD_BYTES + RESERVE_BYTES),
        }
    }

    /// Lends a chunk, of which slices may be made. An empty chunk means that nothing more is read at present: it is dropped,
    /// and so are all free chunks.
    pub(crate) fn lend(&mut self, chunk: Vec<u8>) -> Rc<Vec<u8>> {
        if chunk.is_empty() {
            self.lent.retain(|chunk| Rc::strong_count(chunk) > 1);
            return Rc::new(Vec::new());
        }
        let chunk = Rc::new(chunk);
        self.lent.push_back(Rc::clone(&chunk));
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_used_again_once_its_last_slice_is_dropped() {
        let mut slab = Slab::default();
        let mut first = slab.take();
        first.extend_from_slice(b"abcdef");
        // The size tells this chunk from others.
        first.reserve(8 * LOAD_BYTES);
        let capacity = first.capacity();
        let first = slab.lend(first);
        let (ab, ef) = (SharedSlice::new(&first, 0, 2), SharedSlice::new(&first, 4, 2));
        drop(first);
        assert_eq!((&*ab, &*ef), (&b"ab"[..], &b"ef"[..]));
        assert_ne!(slab.take().capacity(), capacity, "it has two slices");
        drop(ab);
        assert_ne!(slab.take().capacity(), capacity, "it has one slice");
        drop(ef);
        assert_eq!(slab.take().capacity(), capacity);
    }

    #[test]
    fn free_chunks_are_dropped_when_nothing_more_is_read() {
        let mut slab = Slab::default();
        let slices: Vec<SharedSlice> = (0..4)
            .map(|n| {
                let mut chunk = slab.take();
                chunk.push(n);
                SharedSlice::new(&slab.lend(chunk), 0, 1)
            })
            .collect();
        assert_eq!(slab.lent.len(), 4);
        drop(slices);
        let empty = slab.take();
        drop(slab.lend(empty));
        assert!(slab.lent.is_empty());
    }
}
