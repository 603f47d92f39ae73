//! Memory for bytes that are made and thrown away within a request.

use crate::limits::READ_BUFFER_KEPT_BYTES;
use std::cell::Cell;

/// A buffer that is used by one request after the other.
#[derive(Default)]
pub(super) struct Scratch(Cell<Vec<u8>>);

impl Scratch {
    /// The buffer, empty; to be given back. Whoever comes before that gets a buffer without memory.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.take()
    }

    /// Takes the buffer back. One that has grown large is freed.
    pub(super) fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() <= READ_BUFFER_KEPT_BYTES {
            self.0.set(buffer);
        }
    }
}
