//! A disk that lies as real ones may: what is not synced is kept, lost, zero or old after a crash, sector by sector.
//!
//! Names are pending until their directory is synced; at a crash some first part of the pending changes of names is kept.
//! What else goes wrong is in [`faults`], what befalls durable bytes in [`damage`].

mod damage;
pub mod faults;
mod file;
mod names;

pub use file::Fate;

use crate::random::Random;
use faults::{EIO, ENOSPC, Faults, Kind, ReadFault, SyncFailure, Verdict};
use file::FileData;
use forebay_wal::{limits::BLOCK_BYTES, scan::ReadAt, storage::Storage};
use names::Names;
use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

pub const SECTOR_BYTES: usize = 512;

pub type FileId = u64;

#[derive(Default)]
pub struct State {
    files: HashMap<FileId, FileData>,
    names: Names,
    dirs: BTreeSet<PathBuf>,
    next_id: FileId,
    operations: u64,
    faults: Faults,
    /// Bytes that all files may have.
    capacity_bytes: usize,
    /// What a lack of space is called.
    space_errno: i32,
    bytes_read: u64,
    /// Changes and syncs in order, for tests that ask.
    trace: Vec<(Kind, PathBuf)>,
}

impl State {
    /// Carries out an operation, as far as the faults let it.
    fn operate<T>(&mut self, kind: Kind, f: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        self.operations += 1;
        match self.faults.verdict(self.operations, kind) {
            Verdict::Passes => f(self),
            Verdict::Fails(errno) => Err(io::Error::from_raw_os_error(errno)),
            Verdict::FailsAfterwards(errno) => f(self).and(Err(io::Error::from_raw_os_error(errno))),
        }
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        self.names.get(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&mut self, path: &Path, file: FileData) {
        self.next_id += 1;
        self.files.insert(self.next_id, file);
        self.names.change(None, Some((path.to_path_buf(), self.next_id)));
    }

    /// Lets files go that have no name any more, now or after a crash.
    fn forget_nameless(&mut self) {
        let named = self.names.files();
        self.files.retain(|id, _| named.contains(id));
    }
}

/// A handle to the disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

/// An open file.
pub struct SimulatedFile {
    disk: SimulatedDisk,
    id: FileId,
    path: PathBuf,
}

impl SimulatedDisk {
    pub fn new(capacity_bytes: usize) -> Self {
        let disk = Self::default();
        disk.set_capacity(capacity_bytes, ENOSPC);
        disk
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    /// How many bytes fit, and what it says where they do not.
    pub fn set_capacity(&self, capacity_bytes: usize, errno: i32) {
        self.with(|state| (state.capacity_bytes, state.space_errno) = (capacity_bytes, errno));
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.with(|state| state.operations)
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.with(|state| state.bytes_read)
    }

    /// Changes and syncs since the last call, in order.
    pub fn take_trace(&self) -> Vec<(Kind, PathBuf)> {
        self.with(|state| std::mem::take(&mut state.trace))
    }

    /// Changes of names that a crash may lose.
    pub fn pending_names(&self) -> usize {
        self.with(|state| state.names.pending())
    }

    /// Loses what is not durable: all changes of names but the first `names_kept`, and of each pending sector of each file
    /// what `fate` says. Whatever was failing is well again, save for bad sectors.
    pub fn crash(&self, names_kept: usize, mut fate: impl FnMut(&Path, usize) -> Fate) {
        self.heal();
        self.with(|state| {
            let paths: HashMap<FileId, PathBuf> =
                state.names.now().iter().map(|(path, id)| (*id, path.clone())).collect();
            state.names.crash(names_kept);
            for id in state.files.keys().copied().collect::<BTreeSet<_>>() {
                let path = paths.get(&id).cloned().unwrap_or_default();
                if let Some(file) = state.files.get_mut(&id) {
                    file.crash(|sector| fate(&path, sector));
                }
            }
            state.forget_nameless();
        });
    }

    /// Loses what is not durable, as it pleases.
    pub fn crash_randomly(&self, random: &mut Random) {
        let names_kept = random.below(self.pending_names() as u64 + 1) as usize;
        self.crash(names_kept, |_, _| [Fate::Kept, Fate::Zero, Fate::Lost, Fate::Old][random.below(4) as usize]);
    }

    /// Writes to a file, not durably.
    pub fn write(&self, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|state| {
            state.trace.push((Kind::Write, path.to_path_buf()));
            state.operate(Kind::Write, |state| {
                let id = state.id(path)?;
                state.files.get_mut(&id).expect("a name has a file").write(bytes, offset as usize);
                Ok(())
            })
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
            state.operate(Kind::Read, |state| {
                let offset = offset as usize;
                let faults = state.faults.of_read(self.id, offset, buf.len())?;
                let Some(file) = state.files.get(&self.id) else { return Ok(0) };
                let mut length = file.read(buf, offset);
                for (at, fault) in faults {
                    match fault {
                        ReadFault::Flip(bit) if at - offset < length => buf[at - offset] ^= 1 << bit,
                        ReadFault::OtherSector(other) => {
                            let from = (at / SECTOR_BYTES * SECTOR_BYTES).max(offset);
                            let to = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(offset + length);
                            if from < to {
                                let within = other * SECTOR_BYTES + from % SECTOR_BYTES;
                                file.read(&mut buf[from - offset..to - offset], within);
                            }
                        }
                        ReadFault::Short(bytes) => length = length.min(bytes),
                        ReadFault::Flip(_) | ReadFault::Error => {}
                    }
                }
                state.bytes_read += length as u64;
                Ok(length)
            })
        })
    }
}

impl Storage for SimulatedDisk {
    type File = SimulatedFile;

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.with(|state| {
            state.operate(Kind::List, |state| {
                let files = state.names.now().keys().chain(state.dirs.iter()).filter(|path| path.parent() == Some(dir));
                Ok(files.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
            })
        })
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // A directory's own name is durable at once: `Disk` syncs its parent.
        self.with(|state| {
            state.operate(Kind::CreateDir, |state| {
                state.dirs.insert(dir.to_path_buf());
                Ok(())
            })
        })
    }

    fn open(&self, path: &Path) -> io::Result<(SimulatedFile, u64)> {
        self.with(|state| {
            state.operate(Kind::Open, |state| {
                let id = state.id(path)?;
                let file = SimulatedFile { disk: self.clone(), id, path: path.to_path_buf() };
                Ok((file, state.files[&id].len() as u64))
            })
        })
    }

    fn sync(&self, file: &SimulatedFile) -> io::Result<()> {
        self.with(|state| {
            state.trace.push((Kind::Sync, file.path.clone()));
            state.operate(Kind::Sync, |state| {
                let fails = state.faults.sync_fails.take();
                match (state.files.get_mut(&file.id), fails) {
                    (Some(file), Some(how)) => {
                        file.fail_sync(how == SyncFailure::Cached);
                        Err(io::Error::from_raw_os_error(EIO))
                    }
                    (Some(file), None) => {
                        file.sync();
                        Ok(())
                    }
                    (None, _) => Ok(()),
                }
            })
        })
    }

    fn create_segment(&self, path: &Path, first_block: &[u8; BLOCK_BYTES], length: u64) -> io::Result<()> {
        self.with(|state| {
            state.trace.push((Kind::Create, path.to_path_buf()));
            let length = length as usize;
            let used: usize = state.files.values().map(FileData::len).sum();
            let made = if used + length > state.capacity_bytes {
                Err(io::Error::from_raw_os_error(state.space_errno))
            } else {
                state.operate(Kind::Create, |state| {
                    state.create(path, FileData::new(first_block, length));
                    Ok(())
                })
            };
            if made.is_err() && state.names.get(path).is_none() {
                // The name came first.
                state.create(path, FileData::default());
            }
            made
        })
    }

    fn write_first_block(&self, path: &Path, block: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        self.write(path, block, 0)?;
        self.sync_path(path)
    }

    fn write_small(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.with(|state| {
            state.operate(Kind::Create, |state| {
                state.create(path, FileData::new(content, content.len()));
                Ok(())
            })
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
            state.trace.push((Kind::Rename, to.to_path_buf()));
            state.operate(Kind::Rename, |state| {
                let id = state.id(from)?;
                state.names.change(Some(from.to_path_buf()), Some((to.to_path_buf(), id)));
                Ok(())
            })
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.with(|state| {
            state.trace.push((Kind::Remove, path.to_path_buf()));
            state.operate(Kind::Remove, |state| {
                state.id(path)?;
                state.names.change(Some(path.to_path_buf()), None);
                Ok(())
            })
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.with(|state| {
            state.trace.push((Kind::SyncDir, dir.to_path_buf()));
            state.operate(Kind::SyncDir, |state| {
                state.names.sync(dir);
                state.forget_nameless();
                Ok(())
            })
        })
    }
}
