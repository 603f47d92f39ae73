//! The memory that records are read into: chunks, of which the records of a round are pieces.

use crate::limits::LOAD_BYTES;
use std::{collections::VecDeque, ops::Deref, rc::Rc};

/// Room beyond [`LOAD_BYTES`] for the record that fills a chunk up; a larger one makes the chunk grow. Together they are a power
/// of two, of which the allocator's pages hold several with little between them.
const ROOM_BYTES: usize = 16 << 10;

const _: () = assert!((LOAD_BYTES + ROOM_BYTES).is_power_of_two());

/// A part of a chunk, which is kept until the last part of it is let go.
#[derive(Clone, Debug)]
pub struct Piece {
    read: Rc<Vec<u8>>,
    at: u32,
    length: u32,
}

impl Piece {
    /// `length` bytes of `read` from `at` on.
    ///
    /// # Panics
    /// If there are not so many: a mistake of the caller's.
    #[must_use]
    pub fn new(read: &Rc<Vec<u8>>, at: usize, length: usize) -> Self {
        assert!(at + length <= read.len() && read.len() <= u32::MAX as usize, "a piece lies within what was read");
        Self { read: Rc::clone(read), at: at as u32, length: length as u32 }
    }
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        Self::new(&Rc::new(bytes), 0, length)
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.read[self.at as usize..][..self.length as usize]
    }
}

/// The chunks of a lane, to be used again once the last piece of one is let go: while a backlog is drained the memory goes round.
#[derive(Default)]
pub(crate) struct Chunks {
    lent: VecDeque<Rc<Vec<u8>>>,
}

impl Chunks {
    /// An empty chunk. Rounds are let go in order, and so the oldest chunk is free first.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let free = self.lent.pop_front_if(|chunk| Rc::strong_count(chunk) == 1);
        match free.and_then(|chunk| Rc::try_unwrap(chunk).ok()) {
            Some(mut chunk) => {
                chunk.clear();
                chunk
            }
            None => Vec::with_capacity(LOAD_BYTES + ROOM_BYTES),
        }
    }

    /// Lends a chunk that was filled; an empty one is let go, with all that are free: nothing more is read now.
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
    fn a_chunk_is_used_again_once_its_last_piece_is_let_go() {
        let mut chunks = Chunks::default();
        let mut first = chunks.take();
        first.extend_from_slice(b"abcdef");
        // Known again by its size.
        first.reserve(8 * LOAD_BYTES);
        let room = first.capacity();
        let first = chunks.lend(first);
        let (ab, ef) = (Piece::new(&first, 0, 2), Piece::new(&first, 4, 2));
        drop(first);
        assert_eq!((&*ab, &*ef), (&b"ab"[..], &b"ef"[..]));
        assert_ne!(chunks.take().capacity(), room, "two pieces of it are there");
        drop(ab);
        assert_ne!(chunks.take().capacity(), room, "one piece of it is there");
        drop(ef);
        assert_eq!(chunks.take().capacity(), room);
    }

    #[test]
    fn what_is_free_is_let_go_when_nothing_more_is_read() {
        let mut chunks = Chunks::default();
        let pieces: Vec<Piece> = (0..4)
            .map(|n| {
                let mut chunk = chunks.take();
                chunk.push(n);
                Piece::new(&chunks.lend(chunk), 0, 1)
            })
            .collect();
        assert_eq!(chunks.lent.len(), 4);
        drop(pieces);
        let empty = chunks.take();
        drop(chunks.lend(empty));
        assert!(chunks.lent.is_empty());
    }
}
