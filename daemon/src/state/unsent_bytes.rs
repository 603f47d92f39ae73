//! Bytes of answers that one thread has made and the cores have not sent yet.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The count, which its clones share.
#[derive(Clone, Debug, Default)]
pub struct UnsentBytes(Arc<AtomicUsize>);

impl UnsentBytes {
    /// The bytes.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts an answer of so many bytes, as long as what this returns is there.
    #[must_use]
    pub fn count(&self, bytes: usize) -> Unsent {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Unsent { count: self.clone(), bytes }
    }
}

/// An answer that is not sent yet.
#[derive(Debug)]
pub struct Unsent {
    count: UnsentBytes,
    bytes: usize,
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.count.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
