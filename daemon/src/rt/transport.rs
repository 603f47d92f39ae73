//! What a connection is served over: a socket, or TLS over one.

use monoio::{
    buf::{IoBuf, IoBufMut},
    io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, CancelableAsyncReadRent, Canceller},
};
use std::{cell::RefCell, future::Future, io};

/// Reads into the free room behind `buffer`'s content. Returns the number of bytes, 0 at the end of the stream. Must be awaited
/// to its end.
///
/// # Errors
/// Those of `recv`.
pub async fn read_more(stream: &mut impl AsyncReadRent, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
    let (length, capacity) = (buffer.len(), buffer.capacity());
    debug_assert!(length < capacity, "there is room to read into");
    let (outcome, slice) = stream.read(buffer.slice_mut(length..capacity)).await;
    (outcome, slice.into_inner())
}

/// Writes all of `buffer`, which is not empty. Must be awaited to its end.
///
/// # Errors
/// Those of `send`.
pub async fn write_all(stream: &mut impl AsyncWriteRent, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
    let length = buffer.len();
    let (outcome, buffer) = stream.write(buffer).await;
    let written = match outcome {
        Ok(written) if written < length => written,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
        // Nearly always all of it.
        known => return (known, buffer),
    };
    let (outcome, slice) = Box::pin(stream.write_all(buffer.slice(written..length))).await;
    (outcome, slice.into_inner())
}

/// A stream of bytes in both directions. The provided methods are right for any stream: it keeps its buffer while it is idle.
pub trait Transport: AsyncReadRent + AsyncWriteRent + Sized {
    /// Whether [`readable`](Self::readable) waits at all.
    const WAITS_WITHOUT_BUFFER: bool = false;

    /// Waits until there may be something to read, without a buffer to read into.
    fn readable(&mut self) -> impl Future<Output = io::Result<()>> {
        async { Ok(()) }
    }

    /// As [`read_more`], but `interrupter` may end it: [`is_interrupted`] then, and nothing was read.
    fn read_interruptibly(
        &mut self,
        buffer: Vec<u8>,
        interrupter: &Interrupter,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> {
        // Nothing of it can be ended without loss.
        let _: &Interrupter = interrupter;
        read_more(self, buffer)
    }
}

/// Ends a pending read, so that its buffer comes back. The read is awaited to its end all the same: it may have got bytes.
#[derive(Default)]
pub struct Interrupter {
    canceller: RefCell<Option<Canceller>>,
}

impl Interrupter {
    /// As [`read_more`], until [`interrupt`](Self::interrupt) ends it.
    pub(super) async fn read(
        &self,
        stream: &mut impl CancelableAsyncReadRent,
        buffer: Vec<u8>,
    ) -> (io::Result<usize>, Vec<u8>) {
        let (length, capacity) = (buffer.len(), buffer.capacity());
        debug_assert!(length < capacity, "there is room to read into");
        let handle = self.canceller.borrow_mut().get_or_insert_default().handle();
        let (outcome, slice) = stream.cancelable_read(buffer.slice_mut(length..capacity), handle).await;
        (outcome, slice.into_inner())
    }

    /// Ends the read that is pending, if one is.
    pub fn interrupt(&self) {
        if let Some(canceller) = self.canceller.take() {
            // The result is a canceller for later reads; each of them makes its own.
            drop(canceller.cancel());
        }
    }
}

/// Whether a read was ended by its [`Interrupter`].
#[must_use]
pub fn is_interrupted(outcome: &io::Result<usize>) -> bool {
    matches!(outcome, Err(error) if error.raw_os_error() == Some(libc::ECANCELED))
}
