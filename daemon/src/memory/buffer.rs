//! Bytes whose memory grows only with leave.

use super::Grow;
use crate::limits::CONNECTION_FREE_BYTES;
use std::ops::Deref;

/// Bytes of a request. Content is appended within the capacity that there is; [`grow_to`](Self::grow_to) adds to it.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// An empty one with so many bytes of those that each connection has.
    ///
    /// # Panics
    /// If a connection does not have so many.
    #[must_use]
    pub fn free(bytes: usize) -> Self {
        assert!(bytes <= CONNECTION_FREE_BYTES, "{bytes} bytes need leave");
        Self(Vec::with_capacity(bytes))
    }

    /// One that holds these bytes, which are counted already, and no room for more.
    #[must_use]
    pub fn of(bytes: Box<[u8]>) -> Self {
        Self(bytes.into_vec())
    }

    /// Bytes of memory that it has.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Bytes that can be appended.
    #[must_use]
    pub fn room(&self) -> usize {
        self.0.capacity() - self.0.len()
    }

    /// Raises the capacity to `capacity`, exactly; a larger one stays. `leave` is for all that the connection has then.
    pub fn grow_to(&mut self, capacity: usize, leave: Grow) {
        assert!(capacity <= leave.total_bytes(), "the leave is for {} bytes", leave.total_bytes());
        self.0.reserve_exact(capacity.saturating_sub(self.0.len()));
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "room is made before something is appended");
        self.0.extend_from_slice(bytes);
    }

    /// Removes bytes from its start.
    pub fn remove(&mut self, bytes: usize) {
        if bytes == self.0.len() {
            self.0.clear();
        } else {
            self.0.drain(..bytes);
        }
    }

    /// Removes all bytes; the memory stays.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Gives memory back, save for `capacity` bytes or what its content needs.
    pub fn shrink_to(&mut self, capacity: usize) {
        self.0.shrink_to(capacity);
    }

    /// The bytes, for an operation that needs them as its own and does not make them grow. [`restore`](Self::restore) puts them
    /// back.
    #[must_use]
    pub fn lend(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    /// Puts back what was lent.
    pub fn restore(&mut self, bytes: Vec<u8>) {
        self.0 = bytes;
    }

    /// The content, in as much memory as it needs.
    #[must_use]
    pub fn into_boxed_slice(self) -> Box<[u8]> {
        self.0.into_boxed_slice()
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_what_fits_and_grows_by_leave_alone() {
        let mut buffer = Buffer::free(4);
        buffer.append(b"abc");
        assert_eq!((&buffer[..], buffer.room()), (&b"abc"[..], 1));
        let fails = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| buffer.append(b"de")));
        assert!(fails.is_err(), "there is no room");
        buffer.grow_to(100, Grow::unbounded());
        buffer.append(b"de");
        buffer.remove(2);
        assert_eq!((&buffer[..], buffer.capacity()), (&b"cde"[..], 100));
        let lent = buffer.lend();
        assert_eq!(buffer.capacity(), 0);
        buffer.restore(lent);
        buffer.shrink_to(0);
        assert_eq!((&buffer[..], buffer.capacity()), (&b"cde"[..], 3));
    }
}
