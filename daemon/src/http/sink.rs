//! Where the content of a body goes.

use crate::memory::Buffer;

/// Takes the content of a body.
pub trait Sink {
    /// Takes the next bytes.
    fn append(&mut self, bytes: &[u8]);
}

/// Throws everything away.
pub struct Discard;

impl Sink for Discard {
    fn append(&mut self, _bytes: &[u8]) {}
}

impl Sink for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for Buffer {
    fn append(&mut self, bytes: &[u8]) {
        Self::append(self, bytes);
    }
}
