//! The storage below the log: directories, operations on whole files, and reads. A test replaces it by a simulated disk.
//! Groups are written through [`crate::ring`] instead.
//!
//! All paths are below the log's directory. A name is durable only after [`sync_dir`](Storage::sync_dir).

use crate::{error::ignore, limits::BLOCK_BYTES, ring::ReadAhead, scan::ReadAt};
use aligned_vec::{AVec, ConstAlign};
use forebay_os::dir::Dir;
use rustix::fs::OFlags;
use std::{
    fs::File,
    io::{self, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// The operations on files and directories that the log needs. They block.
pub trait Storage: Send + Sync + 'static {
    /// An open file.
    type File: ReadAt + Send + Sync;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// Those of the file system, for this and every other operation.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a directory unless it exists, and makes its name durable.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Opens a file for reading. Returns it with its length in bytes.
    fn open(&self, path: &Path) -> io::Result<(Self::File, u64)>;
    /// Makes a file's data durable, also what another process wrote.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Creates a file of `length` bytes: `first_block`, and zeros that are written to the disk. Its data is durable
    /// afterwards, its name is not.
    fn create_segment(&self, path: &Path, first_block: &[u8; BLOCK_BYTES], length: u64) -> io::Result<()>;
    /// Overwrites the first block of a file, and makes its data durable.
    fn write_first_block(&self, path: &Path, block: &[u8; BLOCK_BYTES]) -> io::Result<()>;
    /// Creates or replaces a small file. Its data is durable afterwards, its name is not.
    fn write_small(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Creates or replaces a file of `length` bytes without content: it takes no room for data. It is durable afterwards,
    /// its name is not.
    fn create_sparse(&self, path: &Path, length: u64) -> io::Result<()>;
    /// Reads a small file: at most 64 KiB of it.
    fn read_small(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Renames a file. Replaces the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The real file system: a log's directory, and what is below it. No link is followed there.
#[derive(Clone, Debug)]
pub struct Disk {
    dir: Dir,
}

/// Bytes of zeros that are written at once. A disk takes a fraction of a millisecond for them.
const ZEROS_BYTES: usize = 256 << 10;

/// Bytes of a small file that are read: the log's own are far smaller.
const SMALL_FILE_BYTES_MAX: u64 = 64 << 10;

/// Only the daemon's own account may use the directories.
const DIR_MODE: u32 = 0o700;

/// A file opened for reading. It bypasses the page cache if the file system can: bytes that are read once would displace
/// what others need, and bytes that are read again because they did not verify must come from the device.
pub struct DiskFile {
    file: Arc<File>,
    sequential: Mutex<Sequential>,
}

/// The range of a file that is read in order.
struct Sequential {
    range: Range<u64>,
    /// Created by the first read: a reader that finds all it needs in the tail cache takes no ring.
    read_ahead: Option<ReadAhead>,
}

/// One block of memory, aligned for `O_DIRECT`.
#[repr(align(4096))]
struct AlignedBlock([u8; BLOCK_BYTES]);

const _: () = assert!(align_of::<AlignedBlock>() == BLOCK_BYTES);

impl Disk {
    /// A log's directory.
    #[must_use]
    pub fn new(dir: Dir) -> Self {
        Self { dir }
    }

    /// Opens a log's directory by its path. Creates it if it is missing.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn at(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self::new(Dir::open(path)?))
    }

    /// The log's directory.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Opens a file as `flags` say, past the page cache if the file system can.
    fn open_direct(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        match self.dir.open_file(path, flags | OFlags::DIRECT) {
            // ramfs and some overlays do not support O_DIRECT. They may have created the file.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.dir.open_file(path, flags - OFlags::EXCL),
            opened => opened,
        }
    }
}

impl DiskFile {
    fn open(disk: &Disk, path: &Path) -> io::Result<Self> {
        let file = disk.open_direct(path, OFlags::RDONLY)?;
        Ok(Self { file: Arc::new(file), sequential: Mutex::new(Sequential { range: 0..0, read_ahead: None }) })
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut sequential = self.sequential.lock().unwrap_or_else(PoisonError::into_inner);
        // A read of one block is a probe or a second attempt: the reader does not continue behind it.
        let is_in_order = buf.len() > BLOCK_BYTES && sequential.range.contains(&offset);
        let bytes = match (&mut sequential.read_ahead, is_in_order) {
            (Some(read_ahead), true) => read_ahead.read_on(offset)?,
            (Some(read_ahead), false) => read_ahead.peek(offset)?,
            (None, true) => {
                let range = sequential.range.clone();
                sequential.read_ahead.insert(ReadAhead::new(&self.file, range)).read_on(offset)?
            }
            (None, false) => None,
        };
        if let Some(bytes) = bytes {
            let length = bytes.len().min(buf.len());
            buf[..length].copy_from_slice(&bytes[..length]);
            return Ok(length);
        }
        drop(sequential);
        self.read_block(buf, offset)
    }

    /// Reads bytes of one block.
    fn read_block(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let block = offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let within = (offset - block) as usize;
        let mut bytes = AlignedBlock([0; BLOCK_BYTES]);
        let read = FileExt::read_at(&*self.file, &mut bytes.0, block)?;
        let length = read.saturating_sub(within).min(buf.len());
        buf[..length].copy_from_slice(&bytes.0[within..within + length]);
        Ok(length)
    }
}

/// Switches a file to the page cache. Returns whether it was not there before.
fn disable_direct_io(file: &File) -> io::Result<bool> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags - rustix::fs::OFlags::DIRECT)?;
    Ok(flags.contains(rustix::fs::OFlags::DIRECT))
}

/// Writes whole blocks. Bypasses the page cache if the file system can.
fn write_at(file: &File, blocks: &[u8], offset: u64) -> io::Result<()> {
    match file.write_all_at(blocks, offset) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && disable_direct_io(file)? => {
            file.write_all_at(blocks, offset)
        }
        outcome => outcome,
    }
}

impl ReadAt for DiskFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.try_read_at(buf, offset) {
            // The file system supports O_DIRECT, but for larger blocks only.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && disable_direct_io(&self.file)? => {
                self.try_read_at(buf, offset)
            }
            outcome => outcome,
        }
    }

    fn read_ahead(&self, range: Range<u64>) {
        let mut sequential = self.sequential.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read_ahead) = &mut sequential.read_ahead {
            read_ahead.restart(range.clone());
        }
        sequential.range = range;
    }
}

impl Storage for Disk {
    type File = DiskFile;

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        // The log's own names are UTF-8. A foreign name is only reported.
        let names = self.dir.dir(dir)?.names()?;
        Ok(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // Its name is synced even if it existed: the process that created it may have died before it did that.
        self.dir.make_dir(dir, DIR_MODE).map(drop)
    }

    fn open(&self, path: &Path) -> io::Result<(DiskFile, u64)> {
        let file = DiskFile::open(self, path)?;
        let length = file.file.metadata()?.len();
        Ok((file, length))
    }

    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        file.file.sync_data()
    }

    fn create_segment(&self, path: &Path, first_block: &[u8; BLOCK_BYTES], length: u64) -> io::Result<()> {
        // A file that a crash left is never written to: its bytes may have another name.
        self.dir.remove_if_there(path)?;
        // Past the page cache, and a part at a time: a lane's write then waits for one part at most, not for the whole file
        // that a sync would write at once.
        let file = self.open_direct(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        // Allocates first, so that a full disk refuses before a megabyte is written.
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length) {
            // Not supported: writing the zeros then finds out whether there is room.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let mut part = AVec::<u8, ConstAlign<BLOCK_BYTES>>::new(BLOCK_BYTES);
        part.resize(ZEROS_BYTES, 0);
        part[..BLOCK_BYTES].copy_from_slice(first_block);
        let mut at = 0;
        while at < length {
            let part_bytes = (length - at).min(ZEROS_BYTES as u64) as usize;
            write_at(&file, &part[..part_bytes], at)?;
            part[..BLOCK_BYTES].fill(0);
            at += part_bytes as u64;
        }
        file.sync_all()?;
        // The lane's direct writes would have to invalidate cached pages one by one.
        let advice = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        ignore(advice, "the pages of a segment that was just made stay cached, and its first writes are slower");
        Ok(())
    }

    fn write_first_block(&self, path: &Path, block: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        let file = self.dir.open_file(path, OFlags::WRONLY)?;
        file.write_all_at(block, 0)?;
        file.sync_data()
    }

    fn write_small(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = self.dir.recreate_file(path, OFlags::empty())?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn create_sparse(&self, path: &Path, length: u64) -> io::Result<()> {
        let file = self.dir.recreate_file(path, OFlags::empty())?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn read_small(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.dir.read(path, SMALL_FILE_BYTES_MAX)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.dir.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.dir.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.dir.dir(dir)?.sync()
    }
}
