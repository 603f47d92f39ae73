//! The simulated disk as the log's storage.

use super::{
    SECTOR_BYTES, SimulatedDisk, SimulatedFile,
    faults::{EIO, Kind, ReadFault, SyncFailure},
    file::FileData,
};
use forebay_wal::{limits::BLOCK_BYTES, scan::ReadAt, storage::Storage};
use std::{io, path::Path};

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
        // A directory's own name is durable at once, for `Disk` syncs the parent.
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
            } else if let Err(error) = state.need_room(length) {
                Err(error)
            } else {
                state.operate(Kind::Create, |state| {
                    state.create(path, FileData::new(first_block, length));
                    Ok(())
                })
            };
            if made.is_err() && state.names.get(path).is_none() {
                // The file got its name before.
                state.create(path, FileData::default());
            }
            made
        })
    }

    fn write_first_block(&self, path: &Path, block: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        self.with(|state| state.need_room(block.len()))?;
        self.write(path, block, 0)?;
        self.sync_path(path)
    }

    fn write_small(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.with(|state| {
            state.operate(Kind::Create, |state| {
                state.need_room(content.len())?;
                state.create(path, FileData::new(content, content.len()));
                Ok(())
            })
        })
    }

    fn create_sparse(&self, path: &Path, length: u64) -> io::Result<()> {
        self.with(|state| {
            state.trace.push((Kind::Create, path.to_path_buf()));
            state.operate(Kind::Create, |state| {
                state.create(path, FileData::new(&[], length as usize));
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
                let id = state.id(path)?;
                let length = state.files.get(&id).map_or(0, FileData::len);
                state.room_bytes = state.room_bytes.map(|room| room + length);
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
