//! The bytes of a file as a scan sees them: a window that moves forward. Blocks that the disk cannot read are zeros.

use crate::limits::{BLOCK_BYTES, UNREADABLE_BLOCKS_MAX, WINDOW_BYTES};
use std::{io, ops::Range};

/// Something that can be read at an offset: a file, a simulated file, or bytes in memory.
pub trait ReadAt {
    /// Reads up to `buf.len()` bytes at `offset`. Returns 0 at the end.
    ///
    /// # Errors
    /// Those of the device.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Announces that the bytes in `range` will be read in order and do not change, so that they can be read ahead. Drops
    /// what was read ahead before.
    fn read_ahead(&self, _range: Range<u64>) {}
}

impl ReadAt for std::fs::File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.get(offset as usize..).unwrap_or(&[]);
        let length = rest.len().min(buf.len());
        buf[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

impl<F: ReadAt + ?Sized> ReadAt for &F {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buf, offset)
    }

    fn read_ahead(&self, range: Range<u64>) {
        (**self).read_ahead(range);
    }
}

/// The window. It takes [`WINDOW_BYTES`] of memory, or the length of the largest frame.
pub(super) struct Window<F> {
    file: F,
    /// Offset to end before.
    to: u32,
    /// Its first `length` bytes are those of the file from `at` on.
    buf: Vec<u8>,
    at: u32,
    length: usize,
    /// Offsets of the blocks that the disk could not read, in no order.
    unreadable_blocks: Vec<u32>,
}

impl<F: ReadAt> Window<F> {
    pub(super) fn new(file: F, from: u32, to: u32) -> Self {
        file.read_ahead(u64::from(from)..u64::from(to));
        Self { file, to, buf: Vec::new(), at: from, length: 0, unreadable_blocks: Vec::new() }
    }

    pub(super) fn file(&self) -> &F {
        &self.file
    }

    /// Offset to end before.
    pub(super) fn to(&self) -> u32 {
        self.to
    }

    /// Extends the window's range to `to`.
    pub(super) fn extend_to(&mut self, to: u32) {
        assert!(to >= self.to, "what is durable stays durable");
        if to > self.to {
            self.to = to;
            self.resume();
        }
    }

    /// Offsets of the blocks so far that the disk could not read.
    pub(super) fn unreadable_blocks(&self) -> &[u32] {
        &self.unreadable_blocks
    }

    /// The bytes in the window from offset `at` on. `at` must not be before the window.
    pub(super) fn bytes(&self, at: u32) -> &[u8] {
        debug_assert!(at >= self.at, "the window has not passed the offset");
        self.buf[..self.length].get((at - self.at) as usize..).unwrap_or(&[])
    }

    /// Empties the window, so that everything from `at` on is read again.
    pub(super) fn forget(&mut self, at: u32) {
        (self.at, self.length) = (at, 0);
        self.resume();
    }

    /// Resumes reading ahead after something else has read the file.
    pub(super) fn resume(&self) {
        self.file.read_ahead(self.end()..u64::from(self.to));
    }

    fn end(&self) -> u64 {
        u64::from(self.at) + self.length as u64
    }

    /// Fills the window with at least `length` bytes from `at` on, as far as its range reaches.
    pub(super) fn fill(&mut self, at: u32, length: usize) -> io::Result<()> {
        let available = (self.to - at) as usize;
        let length = length.min(available);
        if at >= self.at && u64::from(at) + length as u64 <= self.end() {
            return Ok(());
        }
        let kept = if at >= self.at { self.end().saturating_sub(at.into()) as usize } else { 0 };
        self.buf.copy_within(self.length - kept..self.length, 0);
        (self.at, self.length) = (at, kept);
        let wanted = length.max(WINDOW_BYTES).min(available);
        if self.buf.len() < wanted {
            self.buf.resize(wanted, 0);
        }
        while self.length < wanted {
            let offset = self.end();
            match self.file.read_at(&mut self.buf[self.length..wanted], offset) {
                // A file that ends early continues with zeros, as a segment does.
                Ok(0) => {
                    self.buf[self.length..wanted].fill(0);
                    self.length = wanted;
                }
                Ok(bytes) => self.length += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_bad_sector(&error) => self.read_block(wanted)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the rest of one block alone. If the disk cannot read it, fills it with zeros.
    fn read_block(&mut self, wanted: usize) -> io::Result<()> {
        let offset = self.end();
        let block = offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let length = (block + BLOCK_BYTES as u64 - offset).min((wanted - self.length) as u64) as usize;
        let end = self.length + length;
        // This is the second attempt: the first one read more than the block.
        match self.file.read_at(&mut self.buf[self.length..end], offset) {
            Ok(bytes) if bytes > 0 => {
                self.length += bytes;
                return Ok(());
            }
            // The end of the file.
            Ok(_) => {}
            Err(error) if is_bad_sector(&error) => self.add_unreadable_block(block as u32, error)?,
            Err(error) => return Err(error),
        }
        self.buf[self.length..end].fill(0);
        self.length = end;
        Ok(())
    }

    /// Records a block as unreadable. Returns `error` if the whole device seems to have failed.
    fn add_unreadable_block(&mut self, block: u32, error: io::Error) -> io::Result<()> {
        if self.unreadable_blocks.contains(&block) {
            return Ok(());
        }
        if self.unreadable_blocks.len() == UNREADABLE_BLOCKS_MAX || !self.device_answers() {
            return Err(error);
        }
        self.unreadable_blocks.push(block);
        Ok(())
    }

    /// Whether the first or the last block can be read. If not, more than a sector has failed.
    fn device_answers(&self) -> bool {
        let last = u64::from(self.to).saturating_sub(1) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let mut block = [0; BLOCK_BYTES];
        [0, last].into_iter().any(|offset| self.file.read_at(&mut block, offset).is_ok())
    }
}

/// Whether an error concerns the bytes that were read rather than the whole device. Linux's block layer returns `EIO`, or
/// `ENODATA` for a medium error, or `EILSEQ` or `EREMOTEIO`. File systems with checksums return `EBADMSG` or `EUCLEAN`.
pub(crate) fn is_bad_sector(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EREMOTEIO | libc::EBADMSG | libc::EUCLEAN)
    )
}

/// Index of the first byte that is not zero.
pub(super) fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    // No early exit within a stride, so that the compiler compares many bytes at once.
    const STRIDE: usize = 64;
    let mut strides = bytes.chunks(STRIDE);
    let index = strides.position(|stride| stride.iter().fold(0, |all, byte| all | byte) != 0)? * STRIDE;
    bytes[index..].iter().position(|byte| *byte != 0).map(|within| index + within)
}
