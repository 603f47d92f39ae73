//! The data directory: it is private and locked, and its disk sets the log's quota.

use crate::limits::{
    LOCK_WAIT, QUOTA_BYTES_DEFAULT_MAX, QUOTA_FREE_SPACE_PERCENT, QUOTA_SEGMENTS_PER_LANE, SEGMENT_STEP_BYTES,
};
use forebay_wal::limits::{SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENTS_AHEAD};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has locked it.
    #[error("{} is in use by another forebay", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// Segments have 1 MiB to 1 GiB, in steps of 1 MiB.
    #[error("a segment has 1 MiB to 1 GiB, a multiple of 1 MiB; not {segment_bytes} bytes")]
    SegmentSize {
        /// The configured size in bytes.
        segment_bytes: u64,
    },
    /// The process may not write files as large as a segment.
    #[error(
        "the limit of file sizes is {limit_bytes} bytes, a segment of the log has {segment_bytes}: raise the limit (ulimit -f, \
         LimitFSIZE=) or lower --wal-segment-bytes, which can be 1 MiB"
    )]
    FileSizeLimit {
        /// The limit in bytes.
        limit_bytes: u64,
        /// Size of a segment in bytes.
        segment_bytes: u64,
    },
    /// The quota is too small for a log of so many lanes.
    #[error("the log's quota of {quota_bytes} bytes is too small: it needs {needed_bytes} at least")]
    QuotaTooSmall {
        /// The quota in bytes.
        quota_bytes: u64,
        /// The least quota in bytes.
        needed_bytes: u64,
    },
}

/// A data directory that this process has locked.
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, with access for the own account only, and locks it. It waits up to [`LOCK_WAIT`]
    /// for the lock, which the kernel may still hold for the operations of a process that was killed.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |what, path: &Path| {
            let path = path.to_path_buf();
            move |source| DataDirError::Io { what, path, source }
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(io("make", path))?;
        let path = path.canonicalize().map_err(io("find", path))?;
        if let Some(parent) = path.parent() {
            // Messages are answered only when they are durable, so the directory's name must be durable first.
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(io("sync", parent))?;
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(io("open", &lock_path))?;
        let give_up = Instant::now() + LOCK_WAIT;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { path, _lock: lock }),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(DataDirError::InUse { path }),
                Err(error) => return Err(io("lock", &lock_path)(error.into())),
            }
        }
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Directory of the log.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        wal_dir(&self.path)
    }

    /// Directory of the private PostgreSQL.
    #[must_use]
    pub fn postgres(&self) -> PathBuf {
        Self::postgres_of(&self.path)
    }

    /// The same below a data directory that another process has locked.
    #[must_use]
    pub fn postgres_of(data_dir: &Path) -> PathBuf {
        data_dir.join("postgres")
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
        let log_bytes = used_bytes(&self.wal());
        let stat = rustix::fs::statvfs(&self.path).map_err(|error| DataDirError::Io {
            what: "read the free space of",
            path: self.path.clone(),
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

/// Directory of the log below a data directory.
#[must_use]
pub fn wal_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("wal")
}

/// Whether a daemon has locked the data directory.
#[must_use]
pub fn is_in_use(data_dir: &Path) -> bool {
    let Ok(lock) = File::open(data_dir.join("lock")) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
}

fn used_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => used_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
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
        let first = DataDir::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(is_in_use(&path));
        assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse { .. })));
        drop(first);
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn segments_shrink_with_the_quota_and_a_quota_without_room_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = DataDir::open(dir.path()).unwrap();
        assert_eq!(dir.quota(Some(64 << 30), None, 2).unwrap(), (64 << 30, SEGMENT_BYTES_DEFAULT));
        assert_eq!(dir.quota(Some(48 << 20), None, 2).unwrap(), (48 << 20, 3 << 20));
        assert!(matches!(dir.quota(Some(1 << 20), None, 2), Err(DataDirError::QuotaTooSmall { .. })));
        assert!(matches!(dir.quota(None, Some(1000), 2), Err(DataDirError::SegmentSize { .. })));
        let (quota, _) = dir.quota(None, None, 1).unwrap();
        assert!(quota > 0 && quota <= QUOTA_BYTES_DEFAULT_MAX);
    }
}
