//! The paths of the log's files, and the file that names the log.

use crate::{
    error::LogError,
    segment::{end_name, file_name, lane_dir_name, parse_lane_dir_name},
    storage::Storage,
};
use std::{
    io,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Directory of segments that wait to be recycled.
const FREE_DIR: &str = "free";
/// Directory of damaged segments whose sound records are drained.
const SET_ASIDE_DIR: &str = "set-aside";
/// File that names the log.
const LOG_ID_FILE: &str = "log-id";
/// The first word of that file.
const LOG_ID_WORD: &str = "forebay-log";

/// Paths below the log's directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of the log in `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The log's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a lane.
    #[must_use]
    pub fn lane(&self, lane: u16) -> PathBuf {
        self.root.join(lane_dir_name(lane))
    }

    /// The file of a segment.
    #[must_use]
    pub fn segment(&self, lane: u16, segment: u64) -> PathBuf {
        self.lane(lane).join(file_name(segment))
    }

    /// The file that says where a segment ends that the lane gave up: see [`end_name`].
    #[must_use]
    pub fn segment_end(&self, lane: u16, segment: u64) -> PathBuf {
        self.lane(lane).join(end_name(segment))
    }

    /// The directory of segments that wait to be recycled.
    #[must_use]
    pub fn free(&self) -> PathBuf {
        self.root.join(FREE_DIR)
    }

    /// The directory of damaged segments whose sound records are drained.
    #[must_use]
    pub fn set_aside(&self) -> PathBuf {
        self.root.join(SET_ASIDE_DIR)
    }

    /// The block at which a segment ends that the lane gave up; `None` if it did not give it up.
    ///
    /// # Errors
    /// [`LogError::Io`] if the file that says so cannot be opened.
    pub fn read_segment_end<S: Storage>(&self, storage: &S, lane: u16, segment: u64) -> Result<Option<u32>, LogError> {
        let path = self.segment_end(lane, segment);
        match storage.open(&path) {
            // A block beyond every segment excludes nothing.
            Ok((_, length)) => Ok(Some(u32::try_from(length).unwrap_or(u32::MAX))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("open", path)(error)),
        }
    }

    /// The lanes that have a directory, in ascending order.
    ///
    /// # Errors
    /// [`LogError::Io`] if the directory cannot be read.
    pub fn lanes<S: Storage>(&self, storage: &S) -> Result<Vec<u16>, LogError> {
        let names = storage.list(&self.root).map_err(LogError::io("list", &self.root))?;
        let mut lanes: Vec<u16> = names.iter().filter_map(|name| parse_lane_dir_name(name)).collect();
        lanes.sort_unstable();
        Ok(lanes)
    }

    /// Reads the log's id from its file.
    ///
    /// # Errors
    /// [`LogError::LogIdLost`] if the file is damaged or missing, [`LogError::Io`] if it cannot be read.
    pub fn read_log_id<S: Storage>(&self, storage: &S) -> Result<[u8; 16], LogError> {
        let path = self.root.join(LOG_ID_FILE);
        match storage.read_small(&path) {
            Ok(content) => parse_log_id(&content).ok_or(LogError::LogIdLost { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LogError::LogIdLost { path }),
            Err(error) => Err(LogError::io("read", path)(error)),
        }
    }

    /// Reads the log's id from its file, or creates a random one if the directory has no lane.
    ///
    /// # Errors
    /// Those of [`read_log_id`](Self::read_log_id), and [`LogError::Io`] if the file cannot be created.
    pub fn read_or_create_log_id<S: Storage>(&self, storage: &S) -> Result<[u8; 16], LogError> {
        match self.read_log_id(storage) {
            Err(LogError::LogIdLost { path }) => {
                // Lanes are created after the file is durable: without a lane, a crash cut the creation short.
                if !self.lanes(storage)?.is_empty() {
                    return Err(LogError::LogIdLost { path });
                }
                let id = Uuid::new_v4();
                let temporary = path.with_extension("tmp");
                storage.write_small(&temporary, &render_log_id(id)).map_err(LogError::io("write", &temporary))?;
                storage.rename(&temporary, &path).map_err(LogError::io("rename to", &path))?;
                storage.sync_dir(&self.root).map_err(LogError::io("sync", &self.root))?;
                Ok(id.into_bytes())
            }
            other => other,
        }
    }
}

fn render_log_id(id: Uuid) -> Vec<u8> {
    let line = format!("{LOG_ID_WORD} 1 {id}");
    format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes())).into_bytes()
}

fn parse_log_id(content: &[u8]) -> Option<[u8; 16]> {
    let content = std::str::from_utf8(content).ok()?.strip_suffix('\n')?;
    let (line, crc) = content.rsplit_once(' ')?;
    let id = line.strip_prefix(LOG_ID_WORD)?.strip_prefix(" 1 ")?;
    let crc_matches = u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(line.as_bytes());
    crc_matches.then(|| Uuid::try_parse(id).ok()).flatten().map(Uuid::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Disk;

    #[test]
    fn a_log_keeps_its_id_and_a_damaged_id_is_not_replaced_while_there_are_segments() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, disk) = (Layout::new(dir.path()), Disk::at(dir.path()).unwrap());
        let id = layout.read_or_create_log_id(&disk).unwrap();
        assert_eq!(layout.read_or_create_log_id(&disk).unwrap(), id);
        std::fs::create_dir(layout.lane(0)).unwrap();
        let path = dir.path().join(LOG_ID_FILE);
        let mut content = std::fs::read(&path).unwrap();
        content[20] ^= 1;
        std::fs::write(&path, content).unwrap();
        assert!(matches!(layout.read_or_create_log_id(&disk), Err(LogError::LogIdLost { .. })));
    }
}
