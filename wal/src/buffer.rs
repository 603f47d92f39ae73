//! Memory for the bytes of a group. Its chunks are aligned to blocks, so that `O_DIRECT` takes them without a copy.

use crate::limits::{BLOCK_BYTES, CHUNK_BYTES, GROUP_BYTES_MAX, POOLED_CHUNKS_MAX};
use aligned_vec::{AVec, ConstAlign};

type Chunk = AVec<u8, ConstAlign<BLOCK_BYTES>>;

/// Bytes in chunks of [`CHUNK_BYTES`], each aligned to a block. All chunks but the last are full.
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

    /// Whether the buffer holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Appends `bytes`, taking chunks from `pool` as needed.
    pub fn extend(&mut self, mut bytes: &[u8], pool: &mut ChunkPool) {
        while !bytes.is_empty() {
            let room_bytes = self.chunks.last().map_or(0, |chunk| CHUNK_BYTES - chunk.len());
            if room_bytes == 0 {
                if self.chunks.capacity() == 0 {
                    self.chunks = pool.take_list();
                }
                self.chunks.push(pool.take());
            } else if let Some(chunk) = self.chunks.last_mut() {
                let (fitting, rest) = bytes.split_at(room_bytes.min(bytes.len()));
                chunk.extend_from_slice(fitting);
                bytes = rest;
            }
        }
    }

    /// Appends zeros up to the next multiple of `align` bytes. `align` must divide [`CHUNK_BYTES`].
    pub fn pad_to(&mut self, align: usize) {
        debug_assert!(CHUNK_BYTES.is_multiple_of(align));
        if let Some(chunk) = self.chunks.last_mut() {
            // A chunk's size is a multiple of `align`, so the padding fits in the last chunk.
            chunk.resize(chunk.len().next_multiple_of(align), 0);
        }
    }

    /// The bytes from offset `from` on, chunk by chunk.
    pub fn slices_from(&self, from: usize) -> impl Iterator<Item = &[u8]> {
        let first = from / CHUNK_BYTES;
        self.chunks.iter().enumerate().skip(first).map(move |(index, chunk)| {
            let skip = if index == first { from % CHUNK_BYTES } else { 0 };
            &chunk[skip..]
        })
    }

    /// Returns the chunks, and the list that holds them, to `pool`.
    pub fn recycle(mut self, pool: &mut ChunkPool) {
        for chunk in self.chunks.drain(..) {
            pool.give(chunk);
        }
        pool.give_list(self.chunks);
    }
}

/// Chunks, and lists of chunks, for the next groups. With them appending allocates nothing in the steady state.
#[derive(Default)]
pub struct ChunkPool {
    free_chunks: Vec<Chunk>,
    /// Empty lists with capacity. There are never more than there were groups at once.
    free_lists: Vec<Vec<Chunk>>,
}

impl ChunkPool {
    fn take(&mut self) -> Chunk {
        self.free_chunks.pop().unwrap_or_else(|| AVec::with_capacity(BLOCK_BYTES, CHUNK_BYTES))
    }

    fn give(&mut self, mut chunk: Chunk) {
        if self.free_chunks.len() < POOLED_CHUNKS_MAX {
            chunk.clear();
            self.free_chunks.push(chunk);
        }
    }

    fn take_list(&mut self) -> Vec<Chunk> {
        // Room for a group of the usual size. A batch beyond it makes the list grow.
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
