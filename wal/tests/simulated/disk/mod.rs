//! A simulated disk with the faults of real ones. In a crash each unsynced sector is kept, lost, zeroed or old.
//!
//! Names are pending until their directory is synced. In a crash the first of the pending changes are kept, however many.
//! [`faults`] has the other faults. Damage to durable bytes is durable at once.

pub mod faults;
mod file;
mod names;
mod storage;

pub use file::Fate;

use crate::random::Random;
use faults::{ENOSPC, Faults, Kind, ReadFault, SyncFailure, Verdict};
use file::FileData;
use forebay_wal::storage::Storage;
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
    /// Bytes that all files together may have.
    capacity_bytes: usize,
    /// The error for a lack of space.
    space_errno: i32,
    /// Bytes that can be written, also to files that exist: the disk copies on write. `None`: as many as are asked for.
    room_bytes: Option<usize>,
    bytes_read: u64,
    /// Changes and syncs in order, for tests that check them.
    trace: Vec<(Kind, PathBuf)>,
}

impl State {
    /// Carries out an operation, unless a fault prevents it.
    fn operate<T>(&mut self, kind: Kind, f: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        self.operations += 1;
        match self.faults.verdict(self.operations, kind) {
            Verdict::Passes => f(self),
            Verdict::Fails(errno) => Err(io::Error::from_raw_os_error(errno)),
            Verdict::FailsAfterwards(errno) => f(self).and(Err(io::Error::from_raw_os_error(errno))),
        }
    }

    fn take_room(&mut self, bytes: usize, unit: usize) -> usize {
        let Some(room) = &mut self.room_bytes else { return bytes };
        let taken = bytes.min(*room / unit * unit);
        *room -= taken;
        taken
    }

    /// Takes room for `bytes` or fails.
    fn need_room(&mut self, bytes: usize) -> io::Result<()> {
        match self.take_room(bytes, bytes.max(1)) {
            taken if taken == bytes => Ok(()),
            _ => Err(io::Error::from_raw_os_error(self.space_errno)),
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

    /// Removes the files that have no name, nor get one in a crash.
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

    /// Sets how many bytes fit, and the error for more.
    pub fn set_capacity(&self, capacity_bytes: usize, errno: i32) {
        self.with(|state| (state.capacity_bytes, state.space_errno) = (capacity_bytes, errno));
    }

    /// Sets how many bytes can be written from now on, also to files that exist. Removed files make room.
    pub fn set_room(&self, room_bytes: Option<usize>) {
        self.with(|state| state.room_bytes = room_bytes);
    }

    /// Takes room for at most `bytes`, in units of `unit`. Returns for how many there was some.
    pub fn take_room(&self, bytes: usize, unit: usize) -> usize {
        self.with(|state| state.take_room(bytes, unit))
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

    /// Crashes the machine. Keeps the first `names_kept` pending changes of names; `fate` decides for each pending sector of
    /// each file. All faults end but bad sectors.
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

    /// Crashes with random fates.
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

    /// Lets the disk die at its `after`-th operation from now on.
    pub fn die_after(&self, after: u64) {
        self.with(|state| state.faults.dies_at = Some(state.operations + after));
    }

    /// Lets only the `nth` operation from now on fail. `happens` says whether it is carried out all the same.
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

    /// Ends all faults but bad sectors.
    pub fn heal(&self) {
        self.with(|state| {
            let bad_sectors = std::mem::take(&mut state.faults.bad_sectors);
            state.faults = Faults { bad_sectors, ..Faults::default() };
        });
    }

    /// Makes everything durable, as an orderly shutdown does.
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

    /// The content of a file.
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

    /// Creates or replaces a file.
    pub fn put_file(&self, path: &Path, content: &[u8], length: usize) {
        self.put_files([(path.to_path_buf(), content.to_vec(), length)]);
    }

    /// Creates or replaces files, each with its content and length.
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

    /// The id of a file. It stays the same when the file is renamed.
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
