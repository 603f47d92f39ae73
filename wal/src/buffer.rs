//! The bytes of a group on their way to the disk: block-aligned chunks, so that `O_DIRECT` takes them as they are.

use crate::limits::{BLOCK_BYTES, CHUNK_BYTES, CHUNKS_KEPT, GROUP_BYTES_MAX};
use aligned_vec::{AVec, ConstAlign};

type Chunk = AVec<u8, ConstAlign<BLOCK_BYTES>>;

/// Bytes in chunks of [`CHUNK_BYTES`], each aligned to a block; all but the last are full.
#[derive(Default)]
pub struct GroupBuffer {
    chunks: Vec<Chunk>,
}

impl GroupBuffer {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.chunks.split_last() {
            Some((last, full)) => full.len() * CHUNK_BYTES + last.len(),
            None => 0,
        }
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Appends `bytes`, taking chunks from `pool` as needed.
    pub fn extend(&mut self, mut bytes: &[u8], pool: &mut ChunkPool) {
        while !bytes.is_empty() {
            let room = self.chunks.last().map_or(0, |chunk| CHUNK_BYTES - chunk.len());
            if room == 0 {
                if self.chunks.capacity() == 0 {
                    self.chunks = pool.take_list();
                }
                self.chunks.push(pool.take());
            } else if let Some(chunk) = self.chunks.last_mut() {
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                chunk.extend_from_slice(now);
                bytes = later;
            }
        }
    }

    /// Appends zeros up to the next multiple of `align`, which divides a chunk.
    pub fn pad_to(&mut self, align: usize) {
        debug_assert!(CHUNK_BYTES.is_multiple_of(align));
        if let Some(chunk) = self.chunks.last_mut() {
            // Chunks are a multiple of `align` themselves, so the padding always fits in the last one.
            chunk.resize(chunk.len().next_multiple_of(align), 0);
        }
    }

    /// The bytes from `from` on, chunk by chunk.
    pub fn slices_from(&self, from: usize) -> impl Iterator<Item = &[u8]> {
        let first = from / CHUNK_BYTES;
        self.chunks.iter().enumerate().skip(first).map(move |(index, chunk)| {
            let skip = if index == first { from % CHUNK_BYTES } else { 0 };
            &chunk[skip..]
        })
    }

    /// Gives the chunks back, and the list of them.
    pub fn recycle(mut self, pool: &mut ChunkPool) {
        for chunk in self.chunks.drain(..) {
            pool.give(chunk);
        }
        pool.give_list(self.chunks);
    }
}

/// Chunks, and lists for them, kept for the next groups, so that appending allocates nothing in the steady state.
#[derive(Default)]
pub struct ChunkPool {
    free: Vec<Chunk>,
    /// Empty ones that have room, never more than there were groups at once.
    free_lists: Vec<Vec<Chunk>>,
}

impl ChunkPool {
    fn take(&mut self) -> Chunk {
        self.free.pop().unwrap_or_else(|| AVec::with_capacity(BLOCK_BYTES, CHUNK_BYTES))
    }

    fn give(&mut self, mut chunk: Chunk) {
        if self.free.len() < CHUNKS_KEPT {
            chunk.clear();
            self.free.push(chunk);
        }
    }

    fn take_list(&mut self) -> Vec<Chunk> {
        // Room for all that a group holds, save one of a single larger batch.
        self.free_lists.pop().unwrap_or_else(|| Vec::with_capacity(GROUP_BYTES_MAX / CHUNK_BYTES))
    }

    fn give_list(&mut self, list: Vec<Chunk>) {
        self.free_lists.push(list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_in_order_from_anywhere_and_every_chunk_is_aligned() {
        let mut pool = ChunkPool::default();
        let bytes: Vec<u8> = (0..CHUNK_BYTES * 2 + 777).map(|i| (i % 251) as u8).collect();
        let mut buffer = GroupBuffer::default();
        for piece in bytes.chunks(1001) {
            buffer.extend(piece, &mut pool);
        }
        assert_eq!(buffer.len(), bytes.len());
        buffer.pad_to(BLOCK_BYTES);
        assert!(buffer.len().is_multiple_of(BLOCK_BYTES));
        for from in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 5, bytes.len()] {
            let read: Vec<u8> = buffer.slices_from(from).flatten().copied().collect();
            assert_eq!(read[..bytes.len() - from], bytes[from..]);
            assert!(read[bytes.len() - from..].iter().all(|byte| *byte == 0));
        }
        assert!(buffer.slices_from(0).all(|chunk| (chunk.as_ptr() as usize).is_multiple_of(BLOCK_BYTES)));
    }
}
