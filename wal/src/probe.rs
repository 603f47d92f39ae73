//! Which sync methods the file system under the log takes, and which of the durable ones is faster there.
//!
//! Asked before the log is opened, with scratch files in its directory that are removed again. Blocking.

use crate::{
    error::{LogError, is_no_room},
    group::SyncMethod,
    limits::BLOCK_BYTES,
    storage::{Disk, Storage},
};
use aligned_vec::{AVec, RuntimeAlign};
use rustix::io::ReadWriteFlags;
use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Time that [`measure`] should get: with the removal of its files a start is delayed by less than 300 ms.
pub const MEASURE_BUDGET: Duration = Duration::from_millis(250);

/// Bytes of the larger write that is measured: a group of some dozens of messages. The smaller is one block.
const LARGE_BYTES: usize = 64 << 10;

/// Rounds of one write each of either size by either method: more do not move the medians.
const ROUNDS_MAX: usize = 32;

/// How much less time `fdatasync` must take to be chosen, in percent: runs on one idle disk differ by some percent.
pub const MARGIN_PERCENT: u128 = 10;

/// Bytes of a scratch file that is written to round and round: zeros that stand on the disk, as in a segment.
const SCRATCH_BYTES: u64 = 1 << 20;

/// What the file system says to `O_DIRECT` with `RWF_DSYNC`.
#[derive(Debug)]
pub enum Direct {
    /// It took a write.
    Taken,
    /// It does not know it: tmpfs before Linux 6.6, ramfs, some overlays; or its blocks are larger than [`BLOCK_BYTES`].
    Refused(io::Error),
    /// There is no room to try it.
    Undecided(io::Error),
}

impl Direct {
    /// The meaning of what opening the scratch file, and writing one block to it, came to.
    ///
    /// # Errors
    /// What says nothing about `O_DIRECT`: the disk, or the rights.
    fn from_outcome(outcome: io::Result<usize>) -> io::Result<Self> {
        let error = match outcome {
            Ok(BLOCK_BYTES) => return Ok(Self::Taken),
            Ok(_) => io::Error::from(io::ErrorKind::StorageFull),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(Self::Refused(error)),
            // A full disk is no reason not to start: the backlog must be drained, or it stays full.
            _ if is_no_room(&error) => Ok(Self::Undecided(error)),
            _ => Err(error),
        }
    }
}

/// Tries [`SyncMethod::Direct`] in the log's directory, which is made if it is missing.
///
/// # Errors
/// [`LogError::Io`] for what would stop any other method too.
pub fn direct(dir: &Path) -> Result<Direct, LogError> {
    Disk.create_dir(dir).map_err(LogError::io("make", dir))?;
    let scratch = Scratch::new(dir, SyncMethod::Direct);
    let outcome = scratch.open(true).and_then(|file| write_synced(&file, &pattern(BLOCK_BYTES), 0));
    Direct::from_outcome(outcome).map_err(LogError::io("write with O_DIRECT to", &scratch.path))
}

/// Medians of write and sync together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medians {
    /// Of 4 KiB.
    pub block: Duration,
    /// Of 64 KiB.
    pub large: Duration,
}

/// What [`measure`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// [`SyncMethod::Direct`]
    pub direct: Medians,
    /// [`SyncMethod::Fdatasync`]
    pub fdatasync: Medians,
}

impl Measured {
    /// The faster durable method. Both sizes count alike, as ratios: neither latency nor throughput alone is what a log
    /// needs. It is [`SyncMethod::Direct`], which leaves the page cache alone, unless the other is faster by more than
    /// [`MARGIN_PERCENT`]: what is chosen is kept, so noise must not choose.
    #[must_use]
    pub fn faster(&self) -> SyncMethod {
        let product = |medians: Medians| medians.block.as_nanos().saturating_mul(medians.large.as_nanos());
        // A product of two times, hence the square.
        let (share, whole) = ((100 - MARGIN_PERCENT).pow(2), 100_u128.pow(2));
        let is_fdatasync = product(self.fdatasync).saturating_mul(whole) < product(self.direct).saturating_mul(share);
        if is_fdatasync { SyncMethod::Fdatasync } else { SyncMethod::Direct }
    }
}

/// Measures both durable methods in the log's directory, in turns; the file system must be known to take `O_DIRECT`. Nothing
/// is begun once `budget` is used up, but what was begun is waited for. `None`: not one round was done in that time, or
/// there is no room.
///
/// # Errors
/// [`LogError::Io`] when the file system fails otherwise.
pub fn measure(dir: &Path, budget: Duration) -> Result<Option<Measured>, LogError> {
    match measure_until(dir, Instant::now() + budget) {
        Err(error) if is_no_room(&error) => Ok(None),
        outcome => outcome.map_err(LogError::io("measure writes in", dir)),
    }
}

fn measure_until(dir: &Path, deadline: Instant) -> io::Result<Option<Measured>> {
    let mut targets = [Target::new(dir, SyncMethod::Direct)?, Target::new(dir, SyncMethod::Fdatasync)?];
    'measuring: for _ in 0..ROUNDS_MAX {
        for large in [false, true] {
            for target in &mut targets {
                if Instant::now() >= deadline {
                    break 'measuring;
                }
                target.write(large)?;
            }
        }
        // Whoever is second may find the disk awake.
        targets.reverse();
    }
    if targets[0].sync != SyncMethod::Direct {
        targets.reverse();
    }
    let [direct, fdatasync] = targets.map(Target::medians);
    Ok(direct.zip(fdatasync).map(|(direct, fdatasync)| Measured { direct, fdatasync }))
}

/// A scratch file and what it took to write to it by one method.
struct Target {
    sync: SyncMethod,
    file: File,
    _scratch: Scratch,
    bytes: AVec<u8, RuntimeAlign>,
    offset: u64,
    block: Vec<Duration>,
    large: Vec<Duration>,
}

impl Target {
    fn new(dir: &Path, sync: SyncMethod) -> io::Result<Self> {
        let scratch = Scratch::new(dir, sync);
        Disk.create_segment(&scratch.path, &[0; BLOCK_BYTES], SCRATCH_BYTES)?;
        let file = scratch.open(sync == SyncMethod::Direct)?;
        let (block, large) = (Vec::new(), Vec::new());
        Ok(Self { sync, file, _scratch: scratch, bytes: pattern(LARGE_BYTES), offset: 0, block, large })
    }

    fn write(&mut self, large: bool) -> io::Result<()> {
        let bytes = if large { &self.bytes[..] } else { &self.bytes[..BLOCK_BYTES] };
        if self.offset + bytes.len() as u64 > SCRATCH_BYTES {
            self.offset = 0;
        }
        let start = Instant::now();
        let written = write_synced(&self.file, bytes, self.offset)?;
        let took = start.elapsed();
        if written != bytes.len() {
            // A file that stands on the disk is written whole; what else happened, it cannot be compared.
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.offset += bytes.len() as u64;
        if large { &mut self.large } else { &mut self.block }.push(took);
        Ok(())
    }

    fn medians(mut self) -> Option<Medians> {
        Some(Medians { block: median(&mut self.block)?, large: median(&mut self.large)? })
    }
}

/// A name in the log's directory that is removed at the end.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(dir: &Path, sync: SyncMethod) -> Self {
        let name = if sync == SyncMethod::Direct { "probe-direct.tmp" } else { "probe-fdatasync.tmp" };
        Self { path: dir.join(name) }
    }

    /// Opens the file; it may be left from a crash.
    fn open(&self, direct: bool) -> io::Result<File> {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(&self.path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Where O_DIRECT is refused, the file is made all the same. A file that stays is used, and removed, the next time.
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, path = %self.path.display(), "a scratch file stays");
            }
            _ => {}
        }
    }
}

fn write_synced(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pwritev2(file, &[IoSlice::new(bytes)], offset, ReadWriteFlags::DSYNC)?)
}

/// Bytes that are not all zero (some file systems would store none), aligned for `O_DIRECT`.
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
        let outcome = |code| Direct::from_outcome(Err(io::Error::from_raw_os_error(code)));
        assert!(matches!(Direct::from_outcome(Ok(BLOCK_BYTES)), Ok(Direct::Taken)));
        for code in [libc::EINVAL, libc::EOPNOTSUPP] {
            assert!(matches!(outcome(code), Ok(Direct::Refused(_))), "{code}");
        }
        for code in [libc::ENOSPC, libc::EDQUOT] {
            assert!(matches!(outcome(code), Ok(Direct::Undecided(_))), "{code}");
        }
        assert!(matches!(Direct::from_outcome(Ok(512)), Ok(Direct::Undecided(_))));
        for code in [libc::EIO, libc::EROFS, libc::EACCES] {
            assert_eq!(outcome(code).unwrap_err().raw_os_error(), Some(code));
        }
    }

    #[test]
    fn the_probe_makes_the_directory_and_leaves_nothing_in_it_also_not_what_a_crash_left() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("wal");
        for _ in 0..2 {
            assert!(!matches!(direct(&dir).unwrap(), Direct::Undecided(_)));
            assert!(is_empty(&dir));
            std::fs::write(dir.join("probe-direct.tmp"), "left").unwrap();
        }
    }

    #[test]
    fn a_directory_that_takes_no_file_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(direct(&file.path().join("wal")), Err(LogError::Io { .. })));
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
                Measured { direct: medians(direct.0, direct.1), fdatasync: medians(fdatasync.0, fdatasync.1) };
            assert_eq!(measured.faster(), faster, "{measured:?}");
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
        if matches!(direct(dir.path()).unwrap(), Direct::Taken) {
            assert_eq!(measure(dir.path(), Duration::ZERO).unwrap(), None);
            assert!(is_empty(dir.path()));
            let measured = measure(dir.path(), Duration::from_secs(60)).unwrap().unwrap();
            for medians in [measured.direct, measured.fdatasync] {
                assert!(medians.block > Duration::ZERO && medians.large > Duration::ZERO, "{measured:?}");
            }
        }
        assert!(is_empty(dir.path()));
    }
}
