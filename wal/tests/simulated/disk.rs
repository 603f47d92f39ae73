//! A disk that lies as real ones may: what is not synced is kept, lost, zero or old after a crash, sector by sector.
//!
//! Names are pending until their directory is synced; at a crash some first part of the pending changes of names is kept.
//! From a given operation on, one operation fails, or everything does.

use crate::random::Random;
use forebay_wal::{limits::BLOCK_BYTES, scan::ReadAt, storage::Storage};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

pub const SECTOR_BYTES: usize = 512;

/// What a crash makes of a sector that was written and not synced.
const KEPT: u64 = 0;
const ZERO: u64 = 1;

type FileId = u64;

#[derive(Default)]
struct FileData {
    /// What is on the platter.
    durable: Vec<u8>,
    /// What was written since, by sector.
    pending: BTreeMap<usize, Vec<u8>>,
}

impl FileData {
    fn read(&self, buf: &mut [u8], offset: usize) -> usize {
        let length = buf.len().min(self.durable.len().saturating_sub(offset));
        for (at, byte) in buf[..length].iter_mut().enumerate() {
            let (sector, within) = ((offset + at) / SECTOR_BYTES, (offset + at) % SECTOR_BYTES);
            *byte = match self.pending.get(&sector) {
                Some(pending) => pending[within],
                None => self.durable[offset + at],
            };
        }
        length
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        assert!(offset.is_multiple_of(SECTOR_BYTES) && bytes.len().is_multiple_of(SECTOR_BYTES), "whole sectors");
        assert!(offset + bytes.len() <= self.durable.len(), "within the segment");
        for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            self.pending.insert(offset / SECTOR_BYTES + index, sector.to_vec());
        }
    }

    fn sync(&mut self) {
        for (sector, bytes) in std::mem::take(&mut self.pending) {
            self.durable[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].copy_from_slice(&bytes);
        }
    }

    fn crash(&mut self, random: &mut Random) {
        for (sector, bytes) in std::mem::take(&mut self.pending) {
            let durable = &mut self.durable[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES];
            match random.below(4) {
                KEPT => durable.copy_from_slice(&bytes),
                ZERO => durable.fill(0),
                // Lost, which is the same as old.
                _ => {}
            }
        }
    }
}

/// A change of names that is not durable yet: the name that goes, the name that comes.
struct NameChange {
    gone: Option<PathBuf>,
    came: Option<(PathBuf, FileId)>,
}

impl NameChange {
    fn touches(&self, dir: &Path) -> bool {
        let parent_is = |path: &PathBuf| path.parent() == Some(dir);
        self.gone.as_ref().is_some_and(parent_is) || self.came.as_ref().is_some_and(|(path, _)| parent_is(path))
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, FileId>) {
        if let Some(gone) = self.gone {
            names.remove(&gone);
        }
        if let Some((path, id)) = self.came {
            names.insert(path, id);
        }
    }
}

#[derive(Default)]
pub struct State {
    files: HashMap<FileId, FileData>,
    durable_names: BTreeMap<PathBuf, FileId>,
    names: BTreeMap<PathBuf, FileId>,
    changes: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    next_id: FileId,
    operations: u64,
    /// The operation that fails, and all after it until a crash.
    dies_at: Option<u64>,
    /// The next sync of data fails, once, and the kernel calls what it could not write clean.
    sync_fails: bool,
    /// Bytes that all files may have.
    pub capacity_bytes: usize,
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.dies_at.is_some_and(|at| self.operations >= at) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, gone: Option<PathBuf>, came: Option<(PathBuf, FileId)>) {
        let change = || NameChange { gone: gone.clone(), came: came.clone() };
        change().apply(&mut self.names);
        self.changes.push(change());
    }

    fn create(&mut self, path: &Path, durable: Vec<u8>) -> io::Result<()> {
        let used: usize = self.files.values().map(|file| file.durable.len()).sum();
        if used + durable.len() > self.capacity_bytes {
            return Err(io::Error::from_raw_os_error(28));
        }
        self.next_id += 1;
        self.files.insert(self.next_id, FileData { durable, pending: BTreeMap::new() });
        self.change(None, Some((path.to_path_buf(), self.next_id)));
        Ok(())
    }

    /// Lets files go that have no name any more, now or after a crash.
    fn forget_nameless(&mut self) {
        let named: BTreeSet<FileId> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .copied()
            .chain(self.changes.iter().filter_map(|change| change.came.as_ref().map(|(_, id)| *id)))
            .collect();
        self.files.retain(|id, _| named.contains(id));
    }
}

/// A handle to the disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(pub Arc<Mutex<State>>);

/// An open file.
pub struct SimulatedFile {
    disk: SimulatedDisk,
    id: FileId,
}

impl SimulatedDisk {
    pub fn new(capacity_bytes: usize) -> Self {
        let disk = Self::default();
        disk.with(|state| state.capacity_bytes = capacity_bytes);
        disk
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    /// Lets the disk die at its `after`-th operation from now on; `None`: never, and nothing else fails either.
    pub fn die_after(&self, after: Option<u64>) {
        self.with(|state| {
            state.sync_fails = false;
            state.dies_at = after.map(|after| state.operations + after);
        });
    }

    /// Lets the next sync of data fail, once.
    pub fn fail_next_sync(&self) {
        self.with(|state| state.sync_fails = true);
    }

    /// Loses what is not durable, as it pleases.
    pub fn crash(&self, random: &mut Random) {
        self.with(|state| {
            state.dies_at = None;
            state.sync_fails = false;
            let kept = random.below(state.changes.len() as u64 + 1) as usize;
            for change in state.changes.drain(..).take(kept) {
                change.apply(&mut state.durable_names);
            }
            state.changes.clear();
            state.names = state.durable_names.clone();
            for id in state.files.keys().copied().collect::<BTreeSet<_>>() {
                if let Some(file) = state.files.get_mut(&id) {
                    file.crash(random);
                }
            }
            state.forget_nameless();
        });
    }

    /// Writes to a file, not durably.
    pub fn write(&self, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|state| {
            state.step()?;
            let id = state.id(path)?;
            state.files.get_mut(&id).expect("a name has a file").write(bytes, offset as usize);
            Ok(())
        })
    }

    /// Makes what was written to a file durable.
    pub fn sync_path(&self, path: &Path) -> io::Result<()> {
        let (file, _) = self.open(path)?;
        self.sync(&file)
    }
}

impl ReadAt for SimulatedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.with(|state| {
            state.step()?;
            Ok(state.files.get(&self.id).map_or(0, |file| file.read(buf, offset as usize)))
        })
    }
}

impl Storage for SimulatedDisk {
    type File = SimulatedFile;

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.with(|state| {
            state.step()?;
            let files = state.names.keys().chain(state.dirs.iter()).filter(|path| path.parent() == Some(dir));
            Ok(files.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
        })
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // A directory's own name is durable at once: `Disk` syncs its parent.
        self.with(|state| {
            state.step()?;
            state.dirs.insert(dir.to_path_buf());
            Ok(())
        })
    }

    fn open(&self, path: &Path) -> io::Result<(SimulatedFile, u64)> {
        self.with(|state| {
            state.step()?;
            let id = state.id(path)?;
            Ok((SimulatedFile { disk: self.clone(), id }, state.files[&id].durable.len() as u64))
        })
    }

    fn sync(&self, file: &SimulatedFile) -> io::Result<()> {
        self.with(|state| {
            state.step()?;
            let fails = std::mem::take(&mut state.sync_fails);
            if let Some(file) = state.files.get_mut(&file.id) {
                if fails {
                    // What could not be written is gone once nobody reads it from memory any more; here at once.
                    file.pending.clear();
                    return Err(io::Error::from_raw_os_error(5));
                }
                file.sync();
            }
            Ok(())
        })
    }

    fn create_segment(&self, path: &Path, first_block: &[u8; BLOCK_BYTES], length: u64) -> io::Result<()> {
        self.with(|state| {
            state.step()?;
            let mut content = vec![0; length as usize];
            content[..BLOCK_BYTES].copy_from_slice(first_block);
            state.create(path, content)
        })
    }

    fn write_first_block(&self, path: &Path, block: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        self.write(path, block, 0)?;
        self.sync_path(path)
    }

    fn write_small(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.with(|state| {
            state.step()?;
            state.create(path, content.to_vec())
        })
    }

    fn read_small(&self, path: &Path) -> io::Result<Vec<u8>> {
        let (file, length) = self.open(path)?;
        let mut content = vec![0; length as usize];
        let read = file.read_at(&mut content, 0)?;
        content.truncate(read);
        Ok(content)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|state| {
            state.step()?;
            let id = state.id(from)?;
            state.change(Some(from.to_path_buf()), Some((to.to_path_buf(), id)));
            state.forget_nameless();
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.with(|state| {
            state.step()?;
            state.id(path)?;
            state.change(Some(path.to_path_buf()), None);
            state.forget_nameless();
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.with(|state| {
            state.step()?;
            // A journal commits in order: what came before the last change of this directory becomes durable too.
            if let Some(last) = state.changes.iter().rposition(|change| change.touches(dir)) {
                for change in state.changes.drain(..=last) {
                    change.apply(&mut state.durable_names);
                }
            }
            state.forget_nameless();
            Ok(())
        })
    }
}
