//! The bytes of a file as a scan sees them: a window that moves forward, with holes where the disk cannot be read.

use crate::limits::{BLOCK_BYTES, HOLES_MAX, WINDOW_BYTES};
use std::{io, ops::Range};

/// Something that can be read at an offset: a file, a simulated file, bytes.
pub trait ReadAt {
    /// Reads up to `buf.len()` bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    /// Whatever the device says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Says that the bytes in `range` will be read in order and do not change, so that they may be read ahead. What was
    /// read ahead before is forgotten.
    fn read_ahead(&self, _range: Range<u64>) {}
}

impl ReadAt for std::fs::File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.get(offset as usize..).unwrap_or_default();
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

/// The window. Memory: [`WINDOW_BYTES`], or the largest piece asked for.
pub(super) struct Window<F> {
    file: F,
    /// Offset to end before.
    to: u32,
    /// Holds the `held` bytes from `at` on; the rest is room.
    buf: Vec<u8>,
    at: u32,
    held: usize,
    /// Offsets of the blocks that could not be read, in no order.
    holes: Vec<u32>,
}

impl<F: ReadAt> Window<F> {
    pub(super) fn new(file: F, from: u32, to: u32) -> Self {
        file.read_ahead(u64::from(from)..u64::from(to));
        Self { file, to, buf: Vec::new(), at: from, held: 0, holes: Vec::new() }
    }

    pub(super) fn file(&self) -> &F {
        &self.file
    }

    /// Offset to end before.
    pub(super) fn to(&self) -> u32 {
        self.to
    }

    /// More may be read.
    pub(super) fn extend_to(&mut self, to: u32) {
        assert!(to >= self.to, "what is durable stays so");
        if to > self.to {
            self.to = to;
            self.resume();
        }
    }

    /// Blocks met so far that could not be read, by their offset.
    pub(super) fn holes(&self) -> &[u32] {
        &self.holes
    }

    /// What is held from `at` on.
    pub(super) fn bytes(&self, at: u32) -> &[u8] {
        self.buf[..self.held].get((at - self.at) as usize..).unwrap_or_default()
    }

    /// Lets everything be read again, from `at` on.
    pub(super) fn forget(&mut self, at: u32) {
        (self.at, self.held) = (at, 0);
        self.resume();
    }

    /// Goes on with reading ahead after the file was read by somebody else.
    pub(super) fn resume(&self) {
        self.file.read_ahead(self.end()..u64::from(self.to));
    }

    fn end(&self) -> u64 {
        u64::from(self.at) + self.held as u64
    }

    /// Sees to it that `length` bytes at `at` are held, as far as the file may be read.
    pub(super) fn fill(&mut self, at: u32, length: usize) -> io::Result<()> {
        let available = (self.to - at) as usize;
        let length = length.min(available);
        if at >= self.at && u64::from(at) + length as u64 <= self.end() {
            return Ok(());
        }
        let kept = if at >= self.at { self.end().saturating_sub(at.into()) as usize } else { 0 };
        self.buf.copy_within(self.held - kept..self.held, 0);
        (self.at, self.held) = (at, kept);
        let wanted = length.max(WINDOW_BYTES).min(available);
        if self.buf.len() < wanted {
            self.buf.resize(wanted, 0);
        }
        while self.held < wanted {
            let offset = self.end();
            match self.file.read_at(&mut self.buf[self.held..wanted], offset) {
                // A file that ends early reads as zeros, as the rest of a segment does.
                Ok(0) => {
                    self.buf[self.held..wanted].fill(0);
                    self.held = wanted;
                }
                Ok(bytes) => self.held += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_bad_sector(&error) => self.read_block(wanted)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads up to the next block's start alone, or leaves a hole of zeros.
    fn read_block(&mut self, wanted: usize) -> io::Result<()> {
        let offset = self.end();
        let block = offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let length = (block + BLOCK_BYTES as u64 - offset).min((wanted - self.held) as u64) as usize;
        let end = self.held + length;
        // The second attempt at it: the first was a longer one.
        match self.file.read_at(&mut self.buf[self.held..end], offset) {
            Ok(bytes) if bytes > 0 => {
                self.held += bytes;
                return Ok(());
            }
            // The end of the file.
            Ok(_) => {}
            Err(error) if is_bad_sector(&error) => self.note_hole(block as u32, error)?,
            Err(error) => return Err(error),
        }
        self.buf[self.held..end].fill(0);
        self.held = end;
        Ok(())
    }

    fn note_hole(&mut self, block: u32, error: io::Error) -> io::Result<()> {
        if self.holes.contains(&block) {
            return Ok(());
        }
        if self.holes.len() == HOLES_MAX || !self.device_answers() {
            return Err(error);
        }
        self.holes.push(block);
        Ok(())
    }

    /// Whether the first or the last block can be read. If not, it is not one sector that failed.
    fn device_answers(&self) -> bool {
        let last = u64::from(self.to).saturating_sub(1) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let mut block = [0; BLOCK_BYTES];
        [0, last].into_iter().any(|offset| self.file.read_at(&mut block, offset).is_ok())
    }
}

/// Whether an error speaks of the bytes asked for rather than of the whole device: Linux' block layer says `EIO`, or `ENODATA`
/// for a medium error, `EILSEQ` and `EREMOTEIO` for others; file systems with checksums say `EBADMSG` or `EUCLEAN`.
pub(crate) fn is_bad_sector(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EREMOTEIO | libc::EBADMSG | libc::EUCLEAN)
    )
}

/// Index of the first byte that is not zero.
pub(super) fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    // Without an early exit within a piece, so that the compiler takes many bytes at once.
    const PIECE: usize = 64;
    let pieces = bytes.chunks(PIECE);
    let index = pieces.into_iter().position(|piece| piece.iter().fold(0, |all, byte| all | byte) != 0)? * PIECE;
    bytes[index..].iter().position(|byte| *byte != 0).map(|within| index + within)
}
