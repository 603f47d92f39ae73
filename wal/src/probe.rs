//! Probes which sync methods the log's file system supports, and measures which of the durable ones is faster.
//!
//! It runs before the log is opened and blocks. It writes to scratch files in the log's directory and removes them.

use crate::{
    error::{LogError, ignore, is_no_room},
    group::SyncMethod,
    limits::BLOCK_BYTES,
    storage::{Disk, Storage},
};
use aligned_vec::{AVec, RuntimeAlign};
use rustix::{fs::OFlags, io::ReadWriteFlags};
use std::{
    fs::File,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The time budget for [`measure`]. With the removal of its files a start is delayed by less than 300 ms.
pub const MEASURE_BUDGET: Duration = Duration::from_millis(250);

/// Bytes of the larger of two measured writes: a group of some dozens of messages. The smaller is one block.
const LARGE_BYTES: usize = 64 << 10;

/// Rounds of a measurement. Each has one write of both sizes by both methods. More rounds do not move the medians.
const ROUNDS_MAX: usize = 32;

/// How much less time `fdatasync` must take to be chosen, in percent. Measurements of one idle disk differ by some percent.
pub const MARGIN_PERCENT: u128 = 10;

/// Bytes of a scratch file. It holds zeros that are written to the disk, like a segment; writes start over at its end.
const SCRATCH_BYTES: u64 = 1 << 20;

/// Whether the file system supports `O_DIRECT` with `RWF_DSYNC`.
#[derive(Debug)]
pub enum DirectIo {
    /// It does.
    Supported,
    /// It does not: tmpfs before Linux 6.6, ramfs and some overlays. Or its blocks are larger than [`BLOCK_BYTES`].
    Unsupported(io::Error),
    /// It has no room for a test.
    Unknown(io::Error),
}

impl DirectIo {
    /// Interprets the outcome of opening the scratch file and writing one block to it.
    ///
    /// # Errors
    /// An error that does not depend on `O_DIRECT`: the disk failed, or a permission is missing.
    fn from_outcome(outcome: io::Result<usize>) -> io::Result<Self> {
        let error = match outcome {
            Ok(BLOCK_BYTES) => return Ok(Self::Supported),
            Ok(_) => io::Error::from(io::ErrorKind::StorageFull),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(Self::Unsupported(error)),
            // On a full disk the daemon must start too: only the drain makes room.
            _ if is_no_room(&error) => Ok(Self::Unknown(error)),
            _ => Err(error),
        }
    }
}

/// Tries [`SyncMethod::Direct`] in the log's directory.
///
/// # Errors
/// [`LogError::Io`] if writing fails in a way that every method would meet.
pub fn probe_direct_io(disk: &Disk) -> Result<DirectIo, LogError> {
    let scratch = Scratch::new(disk, SyncMethod::Direct);
    let outcome = scratch.open(true).and_then(|file| write_synced(&file, &pattern(BLOCK_BYTES), 0));
    DirectIo::from_outcome(outcome).map_err(LogError::io("write with O_DIRECT to", scratch.path()))
}

/// Median times of a write with its sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medians {
    /// Of a write of 4 KiB.
    pub block: Duration,
    /// Of a write of 64 KiB.
    pub large: Duration,
}

/// The result of [`measure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// Of [`SyncMethod::Direct`].
    pub direct: Medians,
    /// Of [`SyncMethod::Fdatasync`].
    pub fdatasync: Medians,
}

impl Measurement {
    /// The faster durable method. Both sizes count alike, as ratios, for a log needs both latency and throughput.
    ///
    /// [`SyncMethod::Direct`] leaves the page cache alone, so `fdatasync` must be faster by more than [`MARGIN_PERCENT`]. The
    /// choice is kept for later starts, so it must not depend on noise.
    #[must_use]
    pub fn faster_method(&self) -> SyncMethod {
        let product = |medians: Medians| medians.block.as_nanos().saturating_mul(medians.large.as_nanos());
        // Each product has two times, so the margin is squared.
        let (share, whole) = ((100 - MARGIN_PERCENT).pow(2), 100_u128.pow(2));
        let is_fdatasync = product(self.fdatasync).saturating_mul(whole) < product(self.direct).saturating_mul(share);
        if is_fdatasync { SyncMethod::Fdatasync } else { SyncMethod::Direct }
    }
}

/// Measures both durable methods in the log's directory, in turns. The file system must support `O_DIRECT`. After `budget`
/// no further write starts, but the last one is waited for. Returns `None` if no round ended in time, or if there is no
/// room.
///
/// # Errors
/// [`LogError::Io`] if the file system fails otherwise.
pub fn measure(disk: &Disk, budget: Duration) -> Result<Option<Measurement>, LogError> {
    match measure_until(disk, Instant::now() + budget) {
        Err(error) if is_no_room(&error) => Ok(None),
        outcome => outcome.map_err(LogError::io("measure writes in", disk.dir().path())),
    }
}

fn measure_until(disk: &Disk, deadline: Instant) -> io::Result<Option<Measurement>> {
    let mut probes = [MethodProbe::new(disk, SyncMethod::Direct)?, MethodProbe::new(disk, SyncMethod::Fdatasync)?];
    'measuring: for _ in 0..ROUNDS_MAX {
        for large in [false, true] {
            for probe in &mut probes {
                if Instant::now() >= deadline {
                    break 'measuring;
                }
                probe.write(large)?;
            }
        }
        // The first of two writes may have to wake the disk.
        probes.reverse();
    }
    if probes[0].sync != SyncMethod::Direct {
        probes.reverse();
    }
    let [direct, fdatasync] = probes.map(MethodProbe::medians);
    Ok(direct.zip(fdatasync).map(|(direct, fdatasync)| Measurement { direct, fdatasync }))
}

/// A scratch file, and the times of writes to it by one method.
struct MethodProbe {
    sync: SyncMethod,
    file: File,
    _scratch: Scratch,
    bytes: AVec<u8, RuntimeAlign>,
    offset: u64,
    block_times: Vec<Duration>,
    large_times: Vec<Duration>,
}

impl MethodProbe {
    fn new(disk: &Disk, sync: SyncMethod) -> io::Result<Self> {
        let scratch = Scratch::new(disk, sync);
        disk.create_segment(Path::new(scratch.name), &[0; BLOCK_BYTES], SCRATCH_BYTES)?;
        let file = scratch.open(sync == SyncMethod::Direct)?;
        let (block_times, large_times) = (Vec::new(), Vec::new());
        let bytes = pattern(LARGE_BYTES);
        Ok(Self { sync, file, _scratch: scratch, bytes, offset: 0, block_times, large_times })
    }

    fn write(&mut self, large: bool) -> io::Result<()> {
        let bytes = if large { &self.bytes[..] } else { &self.bytes[..BLOCK_BYTES] };
        if self.offset + bytes.len() as u64 > SCRATCH_BYTES {
            self.offset = 0;
        }
        let start = Instant::now();
        let written = write_synced(&self.file, bytes, self.offset)?;
        let time = start.elapsed();
        if written != bytes.len() {
            // The space is allocated, so a write is never short. One that is cannot be compared.
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.offset += bytes.len() as u64;
        if large { &mut self.large_times } else { &mut self.block_times }.push(time);
        Ok(())
    }

    fn medians(mut self) -> Option<Medians> {
        Some(Medians { block: median(&mut self.block_times)?, large: median(&mut self.large_times)? })
    }
}

/// A scratch file in the log's directory. It is removed at the end.
struct Scratch {
    disk: Disk,
    name: &'static str,
}

impl Scratch {
    fn new(disk: &Disk, sync: SyncMethod) -> Self {
        let name = if sync == SyncMethod::Direct { "probe-direct.tmp" } else { "probe-fdatasync.tmp" };
        Self { disk: disk.clone(), name }
    }

    fn path(&self) -> PathBuf {
        self.disk.dir().path().join(self.name)
    }

    /// Opens or creates the file. A crash may have left one.
    fn open(&self, direct: bool) -> io::Result<File> {
        let flags = if direct { OFlags::DIRECT } else { OFlags::empty() };
        self.disk.dir().open_file(self.name, OFlags::WRONLY | OFlags::CREATE | flags)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        ignore(self.disk.dir().remove(self.name), "a scratch file that stays is used and removed by the next probe");
    }
}

fn write_synced(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pwritev2(file, &[IoSlice::new(bytes)], offset, ReadWriteFlags::DSYNC)?)
}

/// Bytes aligned for `O_DIRECT`. They are not all zero, for some file systems do not store zeros.
fn pattern(length: usize) -> AVec<u8, RuntimeAlign> {
    AVec::from_iter(BLOCK_BYTES, (0..length).map(|i| (i % 251) as u8))
}

fn median(times: &mut [Duration]) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

const _: () = {
    assert!(LARGE_BYTES.is_multiple_of(BLOCK_BYTES) && LARGE_BYTES > BLOCK_BYTES);
    assert!(SCRATCH_BYTES >= LARGE_BYTES as u64);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn is_empty(dir: &Path) -> bool {
        std::fs::read_dir(dir).unwrap().next().is_none()
    }

    #[test]
    fn a_refusal_is_told_from_a_full_disk_and_both_from_one_that_fails() {
        let outcome = |code| DirectIo::from_outcome(Err(io::Error::from_raw_os_error(code)));
        assert!(matches!(DirectIo::from_outcome(Ok(BLOCK_BYTES)), Ok(DirectIo::Supported)));
        for code in [libc::EINVAL, libc::EOPNOTSUPP] {
            assert!(matches!(outcome(code), Ok(DirectIo::Unsupported(_))), "{code}");
        }
        for code in [libc::ENOSPC, libc::EDQUOT] {
            assert!(matches!(outcome(code), Ok(DirectIo::Unknown(_))), "{code}");
        }
        assert!(matches!(DirectIo::from_outcome(Ok(512)), Ok(DirectIo::Unknown(_))));
        for code in [libc::EIO, libc::EROFS, libc::EACCES] {
            assert_eq!(outcome(code).unwrap_err().raw_os_error(), Some(code));
        }
    }

    #[test]
    fn the_probe_leaves_nothing_in_the_directory_also_not_what_a_crash_left() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("wal");
        let disk = Disk::at(&dir).unwrap();
        for _ in 0..2 {
            assert!(!matches!(probe_direct_io(&disk).unwrap(), DirectIo::Unknown(_)));
            assert!(is_empty(&dir));
            std::fs::write(dir.join("probe-direct.tmp"), "left").unwrap();
        }
    }

    #[test]
    fn a_directory_that_takes_no_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::at(dir.path()).unwrap();
        drop(dir);
        assert!(matches!(probe_direct_io(&disk), Err(LogError::Io { .. })));
    }

    #[test]
    fn fdatasync_is_the_faster_only_by_more_than_the_margin_over_both_sizes() {
        let medians =
            |block, large| Medians { block: Duration::from_micros(block), large: Duration::from_micros(large) };
        for (direct, fdatasync, faster) in [
            ((200, 300), (220, 900), SyncMethod::Direct),
            ((200, 300), (150, 290), SyncMethod::Fdatasync),
            ((200, 300), (100, 450), SyncMethod::Fdatasync),
            ((200, 300), (190, 450), SyncMethod::Direct),
            ((200, 300), (181, 271), SyncMethod::Direct),
            ((200, 300), (179, 269), SyncMethod::Fdatasync),
            ((200, 300), (300, 200), SyncMethod::Direct),
            ((200, 300), (200, 300), SyncMethod::Direct),
        ] {
            let measured =
                Measurement { direct: medians(direct.0, direct.1), fdatasync: medians(fdatasync.0, fdatasync.1) };
            assert_eq!(measured.faster_method(), faster, "{measured:?}");
        }
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let mut times = [5, 1, 9].map(Duration::from_micros);
        assert_eq!(median(&mut times), Some(Duration::from_micros(5)));
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn both_methods_are_measured_or_without_time_none_and_the_scratch_files_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::at(dir.path()).unwrap();
        if matches!(probe_direct_io(&disk).unwrap(), DirectIo::Supported) {
            assert_eq!(measure(&disk, Duration::ZERO).unwrap(), None);
            assert!(is_empty(dir.path()));
            let measured = measure(&disk, Duration::from_secs(60)).unwrap().unwrap();
            for medians in [measured.direct, measured.fdatasync] {
                assert!(medians.block > Duration::ZERO && medians.large > Duration::ZERO, "{measured:?}");
            }
        }
        assert!(is_empty(dir.path()));
    }
}
