//! The free segments: files that wait to become another segment.

use crate::{
    error::LogError,
    layout::Layout,
    limits::SEGMENTS_FREE_MAX,
    segment::{file_name, parse_file_name},
    storage::Storage,
};
use std::path::PathBuf;

/// The free segments, and names for further ones.
pub(super) struct FreeList {
    dir: PathBuf,
    paths: Vec<PathBuf>,
    /// The highest number that named a file of the directory since the start.
    last_name: u64,
}

impl FreeList {
    /// Reads the directory of free segments. Removes those that are not of `segment_bytes`, for a crash may leave them half
    /// made, and those that are too many.
    pub(super) fn load<S: Storage>(storage: &S, layout: &Layout, segment_bytes: u64) -> Result<Self, LogError> {
        let mut list = Self { dir: layout.free(), paths: Vec::new(), last_name: 0 };
        for name in storage.list(&list.dir).map_err(LogError::io("list", &list.dir))? {
            // Foreign files stay.
            let Some(number) = parse_file_name(&name) else { continue };
            list.last_name = list.last_name.max(number);
            let path = list.dir.join(name);
            let (_, length_bytes) = storage.open(&path).map_err(LogError::io("open", &path))?;
            if length_bytes == segment_bytes && list.has_room() {
                list.paths.push(path);
            } else {
                storage.remove(&path).map_err(LogError::io("remove", &path))?;
            }
        }
        Ok(list)
    }

    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.paths.len() < SEGMENTS_FREE_MAX
    }

    pub(super) fn push(&mut self, path: PathBuf) {
        self.paths.push(path);
    }

    pub(super) fn pop(&mut self) -> Option<PathBuf> {
        self.paths.pop()
    }

    /// A path in the directory that no file has had since the start.
    pub(super) fn new_path(&mut self) -> PathBuf {
        self.last_name += 1;
        self.dir.join(file_name(self.last_name))
    }
}
