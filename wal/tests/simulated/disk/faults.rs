//! The faults that a test has set. Every operation checks them.

use super::{FileId, SECTOR_BYTES};
use std::{collections::BTreeSet, io};

/// `EIO`, by its number on Linux like the others.
pub const EIO: i32 = 5;
/// `EROFS`.
pub const EROFS: i32 = 30;
/// `ENOSPC`.
pub const ENOSPC: i32 = 28;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    List,
    Open,
    Read,
    Write,
    Sync,
    CreateDir,
    Create,
    Rename,
    Remove,
    SyncDir,
}

impl Kind {
    /// Whether a read-only file system refuses the operation.
    fn changes(self) -> bool {
        matches!(self, Self::Write | Self::Create | Self::Rename | Self::Remove)
    }
}

/// The outcome of an operation.
pub enum Verdict {
    Passes,
    /// It fails and has no effect.
    Fails(i32),
    /// It takes effect and returns an error.
    FailsAfterwards(i32),
}

/// A failing sync of data. The kernel then considers clean what it could not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFailure {
    /// Readers see the loss at once, like those that bypass the page cache.
    Dropped,
    /// Readers see the data until a crash.
    Cached,
}

/// A fault of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// `EIO`.
    Error,
    /// This bit of the byte is flipped.
    Flip(u8),
    /// The read returns another sector's bytes.
    OtherSector(usize),
    /// The read returns at most so many bytes.
    Short(usize),
}

#[derive(Default)]
pub struct Faults {
    /// The operation that fails, and all after it.
    pub dies_at: Option<u64>,
    /// The one operation that fails, and whether it takes effect all the same.
    pub fails_at: Option<(u64, bool)>,
    /// The next operations of these kinds fail, each once.
    pub next_of: Vec<(Kind, i32)>,
    /// The next sync of data fails, once.
    pub sync_fails: Option<SyncFailure>,
    pub read_only: bool,
    /// Sectors that cannot be read.
    pub bad_sectors: BTreeSet<(FileId, usize)>,
    /// Bytes whose next read has a fault.
    pub reads: Vec<(FileId, usize, ReadFault)>,
}

impl Faults {
    pub fn verdict(&mut self, operation: u64, kind: Kind) -> Verdict {
        if self.dies_at.is_some_and(|at| operation >= at) {
            return Verdict::Fails(EIO);
        }
        if let Some((_, happens)) = self.fails_at.take_if(|(at, _)| *at == operation) {
            return if happens { Verdict::FailsAfterwards(EIO) } else { Verdict::Fails(EIO) };
        }
        if let Some(index) = self.next_of.iter().position(|(next, _)| *next == kind) {
            return Verdict::Fails(self.next_of.remove(index).1);
        }
        if self.read_only && kind.changes() { Verdict::Fails(EROFS) } else { Verdict::Passes }
    }

    /// The faults of a read of `length` bytes at `offset`. All of them end with it, so that the next read is right.
    pub fn of_read(&mut self, file: FileId, offset: usize, length: usize) -> io::Result<Vec<(usize, ReadFault)>> {
        let reaches =
            |(of, at, _): &mut (FileId, usize, ReadFault)| *of == file && (offset..offset + length).contains(at);
        let faults: Vec<_> = self.reads.extract_if(.., reaches).map(|(_, at, fault)| (at, fault)).collect();
        let sectors = offset / SECTOR_BYTES..(offset + length).div_ceil(SECTOR_BYTES);
        let is_bad = |(of, sector): &(FileId, usize)| *of == file && sectors.contains(sector);
        if self.bad_sectors.iter().any(is_bad) || faults.iter().any(|(_, fault)| *fault == ReadFault::Error) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(faults)
    }
}
