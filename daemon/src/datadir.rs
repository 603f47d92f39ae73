//! The data directory: it is private and locked, nobody has prepared it, and its disk sets the log's quota.

mod check;
mod error;

pub use error::DataDirError;

use crate::limits::{
    LOCK_WAIT, QUOTA_BYTES_DEFAULT_MAX, QUOTA_FREE_SPACE_PERCENT, QUOTA_SEGMENTS_PER_LANE, SEGMENT_STEP_BYTES,
};
use forebay_os::dir::Dir;
use forebay_wal::limits::{SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENTS_AHEAD};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::{
    fs::{DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Mode of the data directory, and of the log's in any case.
const PRIVATE_MODE: u32 = 0o700;

/// Mode of a data directory in which another account runs the private PostgreSQL. It may pass, and list nothing.
const PASSABLE_MODE: u32 = 0o711;

/// Name of the file that is locked.
const LOCK_FILE: &str = "lock";
/// Name of the log's directory.
const WAL_DIR: &str = "wal";
/// Name of the private PostgreSQL's directory.
const POSTGRES_DIR: &str = "postgres";

/// A data directory that this process has locked.
pub struct DataDir {
    dir: Dir,
    wal: Dir,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, checks who owns it and what is below it, and locks it. It waits up to
    /// [`LOCK_WAIT`] for the lock, which the kernel may still hold for the operations of a process that was killed.
    ///
    /// Only the own account may use a directory that is made here. With `has_postgres`, root lets other accounts pass, for
    /// the private PostgreSQL does not run as root.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path, has_postgres: bool) -> Result<Self, DataDirError> {
        let is_passable = has_postgres && rustix::process::geteuid().is_root();
        make(path, if is_passable { PASSABLE_MODE } else { PRIVATE_MODE })?;
        let dir = check::open_own(path)?;
        check::check_below(&dir)?;
        check::warn_about_parents(dir.path());
        if let Some(parent) = dir.path().parent() {
            // Messages are answered only when they are durable, so the directory's name must be durable first.
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(DataDirError::io("sync", parent))?;
        }
        let lock_path = dir.path().join(LOCK_FILE);
        let lock = dir.open_or_create(LOCK_FILE).map_err(DataDirError::io("open", &lock_path))?;
        lock_in_time(&lock, &dir, &lock_path)?;
        let wal = dir.make_dir(WAL_DIR, PRIVATE_MODE).map_err(DataDirError::io("make", dir.path().join(WAL_DIR)))?;
        make_private(&wal);
        Ok(Self { dir, wal, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Directory of the log.
    #[must_use]
    pub fn wal(&self) -> &Dir {
        &self.wal
    }

    /// Path of the private PostgreSQL's directory.
    #[must_use]
    pub fn postgres(&self) -> PathBuf {
        Self::postgres_of(self.dir.path())
    }

    /// The same below a data directory that another process has locked.
    #[must_use]
    pub fn postgres_of(data_dir: &Path) -> PathBuf {
        data_dir.join(POSTGRES_DIR)
    }

    /// The log's quota and the size of its segments, in bytes: as configured, else by the free space.
    ///
    /// # Errors
    /// [`DataDirError`] for a size or quota that is out of its range, or when the free space cannot be read.
    pub fn quota(
        &self,
        quota_bytes: Option<u64>,
        segment_bytes: Option<u64>,
        lanes: u16,
    ) -> Result<(u64, u64), DataDirError> {
        let configured = quota_bytes.is_some();
        let log_bytes = used_bytes(&self.wal);
        let stat = rustix::fs::fstatvfs(&self.dir).map_err(|error| DataDirError::Io {
            what: "read the free space of",
            path: self.dir.path().into(),
            source: error.into(),
        })?;
        // The space that the log already has counts as free for it.
        let free_bytes = stat.f_bavail * stat.f_frsize + log_bytes;
        let quota_bytes =
            quota_bytes.unwrap_or((free_bytes / 100 * QUOTA_FREE_SPACE_PERCENT).min(QUOTA_BYTES_DEFAULT_MAX));
        let lanes = u64::from(lanes);
        let limit_bytes = rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX);
        let segment_bytes = segment_bytes.unwrap_or_else(|| {
            // The disk may hold less than the quota. Each lane should still have several segments, or the drain would have none
            // to release.
            let fair = (quota_bytes.min(free_bytes) / (lanes * QUOTA_SEGMENTS_PER_LANE)).min(limit_bytes);
            (fair / SEGMENT_STEP_BYTES * SEGMENT_STEP_BYTES).clamp(SEGMENT_STEP_BYTES, SEGMENT_BYTES_DEFAULT)
        });
        let allowed = SEGMENT_STEP_BYTES..=SEGMENT_BYTES_MAX;
        if !allowed.contains(&segment_bytes) || !segment_bytes.is_multiple_of(SEGMENT_STEP_BYTES) {
            return Err(DataDirError::SegmentSize { segment_bytes });
        }
        if segment_bytes > limit_bytes {
            return Err(DataDirError::FileSizeLimit { limit_bytes, segment_bytes });
        }
        // The segment in use and those that are ready. With fewer, a lane could be full with nothing to drain.
        let needed_bytes = (1 + SEGMENTS_AHEAD as u64) * lanes * segment_bytes;
        if !configured && log_bytes > 0 {
            // Others filled the disk beside an existing log. The log must open to be drained, and the disk itself bounds it.
            return Ok((quota_bytes.max(needed_bytes), segment_bytes));
        }
        if quota_bytes < needed_bytes {
            return Err(DataDirError::QuotaTooSmall { quota_bytes, needed_bytes });
        }
        Ok((quota_bytes, segment_bytes))
    }
}

/// Path of the log's directory below a data directory.
#[must_use]
pub fn wal_dir(data_dir: &Path) -> PathBuf {
    data_dir.join(WAL_DIR)
}

/// Opens the log's directory below a data directory, whoever owns that, to look at the log.
///
/// # Errors
/// Those of the file system, also when there is no log.
pub fn open_wal(data_dir: &Path) -> io::Result<Dir> {
    Dir::open(data_dir)?.dir(WAL_DIR)
}

/// Whether a daemon has locked the data directory.
#[must_use]
pub fn is_in_use(data_dir: &Path) -> bool {
    let lock = Dir::open(data_dir).and_then(|dir| dir.open_file(LOCK_FILE, OFlags::RDONLY));
    let Ok(lock) = lock else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
}

/// Makes a directory, and those above it, with `mode`, unless they are there.
fn make(path: &Path, mode: u32) -> Result<(), DataDirError> {
    let is_there = |path: &Path| path.as_os_str().is_empty() || path.symlink_metadata().is_ok();
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !is_there(path)).collect();
    for path in missing.into_iter().rev() {
        match DirBuilder::new().mode(PRIVATE_MODE).create(path) {
            // The umask counts for a new directory.
            Ok(()) if mode != PRIVATE_MODE => {
                let widened = std::fs::set_permissions(path, Permissions::from_mode(mode));
                widened.map_err(DataDirError::io("change the mode of", path))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(DataDirError::io("make", path))?,
        }
    }
    Ok(())
}

/// Waits for the lock, up to [`LOCK_WAIT`].
fn lock_in_time(lock: &File, dir: &Dir, path: &Path) -> Result<(), DataDirError> {
    let give_up = Instant::now() + LOCK_WAIT;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DataDirError::InUse { path: dir.path().into() }),
            Err(error) => return Err(DataDirError::io("lock", path)(error.into())),
        }
    }
}

/// Earlier releases made the log's directory with the mode that the umask left.
fn make_private(wal: &Dir) {
    let outcome = wal.stat_self().and_then(|stat| {
        let is_private = stat.st_mode & 0o777 == PRIVATE_MODE;
        if is_private { Ok(()) } else { Ok(rustix::fs::fchmod(wal, Mode::from_raw_mode(PRIVATE_MODE))?) }
    });
    if let Err(error) = outcome {
        tracing::warn!(dir = %wal.path().display(), %error, "the mode of the log's directory could not be set to 0700");
    }
}

fn used_bytes(dir: &Dir) -> u64 {
    let sizes = dir.names().into_iter().flatten().map(|name| match dir.stat(&name) {
        Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() => {
            dir.dir(&name).map_or(0, |below| used_bytes(&below))
        }
        Ok(stat) => stat.st_size.unsigned_abs(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn case_49_a_second_daemon_finds_the_directory_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::open(&path, false).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(is_in_use(&path));
        assert!(matches!(DataDir::open(&path, false), Err(DataDirError::InUse { .. })));
        drop(first);
        assert!(DataDir::open(&path, false).is_ok());
    }

    #[test]
    fn segments_shrink_with_the_quota_and_a_quota_without_room_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = DataDir::open(dir.path(), false).unwrap();
        assert_eq!(dir.quota(Some(64 << 30), None, 2).unwrap(), (64 << 30, SEGMENT_BYTES_DEFAULT));
        assert_eq!(dir.quota(Some(48 << 20), None, 2).unwrap(), (48 << 20, 3 << 20));
        assert!(matches!(dir.quota(Some(1 << 20), None, 2), Err(DataDirError::QuotaTooSmall { .. })));
        assert!(matches!(dir.quota(None, Some(1000), 2), Err(DataDirError::SegmentSize { .. })));
        let (quota, _) = dir.quota(None, None, 1).unwrap();
        assert!(quota > 0 && quota <= QUOTA_BYTES_DEFAULT_MAX);
    }
}
