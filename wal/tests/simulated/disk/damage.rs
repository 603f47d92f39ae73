//! What happens to a disk behind the log's back: all of it is durable at once.

use super::{
    FileId, SECTOR_BYTES, SimulatedDisk,
    faults::{Faults, Kind, ReadFault, SyncFailure},
    file::FileData,
};
use std::path::{Path, PathBuf};

/// Faults that are set and wait.
impl SimulatedDisk {
    /// Lets the disk die at its `after`-th operation from now on.
    pub fn die_after(&self, after: u64) {
        self.with(|state| state.faults.dies_at = Some(state.operations + after));
    }

    /// Lets the `nth` operation from now on fail, and no other; `happens` says whether it is carried out all the same.
    pub fn fail_nth(&self, nth: u64, happens: bool) {
        self.with(|state| state.faults.fails_at = Some((state.operations + nth, happens)));
    }

    /// Lets the next operation of this kind fail.
    pub fn fail_next(&self, kind: Kind, errno: i32) {
        self.with(|state| state.faults.next_of.push((kind, errno)));
    }

    /// Lets the next sync of data fail, once.
    pub fn fail_next_sync(&self, how: SyncFailure) {
        self.with(|state| state.faults.sync_fails = Some(how));
    }

    /// Lets every change be refused, or no longer.
    pub fn set_read_only(&self, read_only: bool) {
        self.with(|state| state.faults.read_only = read_only);
    }

    /// Lets every read of the sector that holds this byte fail.
    pub fn break_sector(&self, path: &Path, at: usize) {
        self.with(|state| {
            let id = state.id(path).unwrap();
            state.faults.bad_sectors.insert((id, at / SECTOR_BYTES));
        });
    }

    /// Lets the next read that reaches this byte go wrong.
    pub fn fail_read(&self, path: &Path, at: usize, fault: ReadFault) {
        self.with(|state| {
            let id = state.id(path).unwrap();
            state.faults.reads.push((id, at, fault));
        });
    }

    /// Nothing goes wrong any more, save that bad sectors stay bad.
    pub fn heal(&self) {
        self.with(|state| {
            let bad_sectors = std::mem::take(&mut state.faults.bad_sectors);
            state.faults = Faults { bad_sectors, ..Faults::default() };
        });
    }
}

/// Damage.
impl SimulatedDisk {
    /// Makes everything durable, as a machine that is shut down in order does.
    pub fn settle(&self) {
        self.with(|state| {
            state.files.values_mut().for_each(FileData::sync);
            state.names.crash(usize::MAX);
            state.forget_nameless();
        });
    }

    fn damage<T>(&self, path: &Path, f: impl FnOnce(&mut FileData) -> T) -> T {
        self.settle();
        self.with(|state| {
            let id = state.id(path).unwrap();
            f(state.files.get_mut(&id).unwrap())
        })
    }

    /// All of a file.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        self.damage(path, |file| {
            let mut content = vec![0; file.len()];
            file.read(&mut content, 0);
            content
        })
    }

    pub fn overwrite(&self, path: &Path, at: usize, bytes: &[u8]) {
        self.damage(path, |file| file.put(bytes, at));
    }

    pub fn flip_bit(&self, path: &Path, at: usize, bit: u8) {
        let mut byte = [0];
        self.damage(path, |file| file.read(&mut byte, at));
        self.overwrite(path, at, &[byte[0] ^ 1 << bit]);
    }

    pub fn zero(&self, path: &Path, at: usize, length: usize) {
        self.overwrite(path, at, &vec![0; length]);
    }

    pub fn truncate(&self, path: &Path, length: usize) {
        self.damage(path, |file| file.truncate(length));
    }

    pub fn take_away(&self, path: &Path) {
        self.settle();
        self.with(|state| state.names.change(Some(path.to_path_buf()), None));
        self.settle();
    }

    /// Puts a file there, in the place of another if there is one.
    pub fn put_file(&self, path: &Path, content: &[u8], length: usize) {
        self.put_files([(path.to_path_buf(), content.to_vec(), length)]);
    }

    /// Puts many files there, each with its content and its length.
    pub fn put_files(&self, files: impl IntoIterator<Item = (PathBuf, Vec<u8>, usize)>) {
        for (path, content, length) in files {
            self.with(|state| state.create(&path, FileData::new(&content, length)));
        }
        self.settle();
    }

    pub fn copy(&self, from: &Path, to: &Path) {
        let content = self.content(from);
        self.put_file(to, &content, content.len());
    }

    /// Exchanges two names.
    pub fn swap(&self, one: &Path, other: &Path) {
        self.settle();
        self.with(|state| {
            let (first, second) = (state.id(one).unwrap(), state.id(other).unwrap());
            state.names.change(None, Some((one.to_path_buf(), second)));
            state.names.change(None, Some((other.to_path_buf(), first)));
        });
        self.settle();
    }

    /// The file behind a name, which it keeps when it is renamed.
    pub fn file_id(&self, path: &Path) -> Option<FileId> {
        self.with(|state| state.names.get(path))
    }

    /// The name of a file.
    pub fn path_of(&self, id: FileId) -> Option<PathBuf> {
        self.with(|state| state.names.now().iter().find(|(_, file)| **file == id).map(|(path, _)| path.clone()))
    }

    /// Names and lengths of all files.
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        self.with(|state| {
            let length = |id| state.files.get(id).map_or(0, FileData::len);
            state.names.now().iter().map(|(path, id)| (path.clone(), length(id))).collect()
        })
    }
}
