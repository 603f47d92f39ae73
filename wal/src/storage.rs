//! The seam between the log and what holds its files: directories, whole-file operations and reads. Writes of groups go
//! through the ring ([`crate::ring`]), not through here.
//!
//! All paths are below the log's directory. A name is durable only after [`sync_dir`](Storage::sync_dir).

use crate::{limits::BLOCK_BYTES, ring::ReadAhead, scan::ReadAt};
use aligned_vec::{AVec, ConstAlign};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Files and directories as the log needs them; blocking.
pub trait Storage: Send + Sync + 'static {
    /// An open file.
    type File: ReadAt + Send + Sync;

    /// Names in a directory, in no order.
    ///
    /// # Errors
    /// Those of the file system, here and below.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a directory unless it is there, and makes its name durable.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Opens a file for reading; also tells its length in bytes.
    fn open(&self, path: &Path) -> io::Result<(Self::File, u64)>;
    /// Makes a file's data durable, written by whomever.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Makes a file of `length` bytes of zeros that stand on the disk, with `first_block` as its first; its data is
    /// durable afterwards, its name is not.
    fn create_segment(&self, path: &Path, first_block: &[u8; BLOCK_BYTES], length: u64) -> io::Result<()>;
    /// Overwrites a file's first block, durably.
    fn write_first_block(&self, path: &Path, block: &[u8; BLOCK_BYTES]) -> io::Result<()>;
    /// Makes a small file with this content, durably but for its name.
    fn write_small(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// The content of a small file.
    fn read_small(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Renames; the target is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

/// Bytes of zeros written at once: a disk needs a fraction of a millisecond for them.
const ZEROS_BYTES: usize = 256 << 10;

/// Files are for the daemon's own account only.
const FILE_MODE: u32 = 0o600;

/// A file opened for reading: past the page cache where the file system allows it, for what is read once in large pieces
/// would only displace what others need, and what is read again because it did not verify must come from the device.
pub struct DiskFile {
    file: Arc<File>,
    ahead: Mutex<Ahead>,
}

/// What is read in order.
struct Ahead {
    range: Range<u64>,
    /// Begins with the first read: who has all it needs in memory takes no ring.
    reading: Option<ReadAhead>,
}

/// One block of memory that `O_DIRECT` takes.
#[repr(align(4096))]
struct AlignedBlock([u8; BLOCK_BYTES]);

const _: () = assert!(align_of::<AlignedBlock>() == BLOCK_BYTES);

impl DiskFile {
    fn open(path: &Path) -> io::Result<Self> {
        let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
        let file = match direct {
            // What knows no O_DIRECT: ramfs, some overlays.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => File::open(path)?,
            opened => opened?,
        };
        Ok(Self { file: Arc::new(file), ahead: Mutex::new(Ahead { range: 0..0, reading: None }) })
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        // A block asked for alone is one to try again, or to look at: nobody reads on from there.
        let is_in_order = buf.len() > BLOCK_BYTES && ahead.range.contains(&offset);
        let bytes = match (&mut ahead.reading, is_in_order) {
            (Some(reading), true) => reading.read_on(offset)?,
            (Some(reading), false) => reading.peek(offset)?,
            (None, true) => {
                let range = ahead.range.clone();
                ahead.reading.insert(ReadAhead::new(&self.file, range)).read_on(offset)?
            }
            (None, false) => None,
        };
        if let Some(bytes) = bytes {
            let length = bytes.len().min(buf.len());
            buf[..length].copy_from_slice(&bytes[..length]);
            return Ok(length);
        }
        drop(ahead);
        self.read_block(buf, offset)
    }

    /// Reads within one block.
    fn read_block(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let block = offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let within = (offset - block) as usize;
        let mut bytes = AlignedBlock([0; BLOCK_BYTES]);
        let read = FileExt::read_at(&*self.file, &mut bytes.0, block)?;
        let bytes = bytes.0[..read].get(within..).unwrap_or_default();
        let length = bytes.len().min(buf.len());
        buf[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }
}

/// Goes on through the page cache; returns whether that is another way than before.
fn leave_direct(file: &File) -> io::Result<bool> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags - rustix::fs::OFlags::DIRECT)?;
    Ok(flags.contains(rustix::fs::OFlags::DIRECT))
}

/// Writes whole blocks, past the page cache where that works.
fn write_at(file: &File, blocks: &[u8], offset: u64) -> io::Result<()> {
    match file.write_all_at(blocks, offset) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && leave_direct(file)? => {
            file.write_all_at(blocks, offset)
        }
        outcome => outcome,
    }
}

impl ReadAt for DiskFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.try_read_at(buf, offset) {
            // A file system that takes O_DIRECT and then wants larger blocks than ours.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && leave_direct(&self.file)? => {
                self.try_read_at(buf, offset)
            }
            outcome => outcome,
        }
    }

    fn read_ahead(&self, range: Range<u64>) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = &mut ahead.reading {
            reading.restart(range.clone());
        }
        ahead.range = range;
    }
}

impl Storage for Disk {
    type File = DiskFile;

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is none of ours; it is still shown to whoever reports strangers.
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        // Also when it was there: whoever made it may have been killed before this.
        match dir.parent() {
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }

    fn open(&self, path: &Path) -> io::Result<(DiskFile, u64)> {
        let file = DiskFile::open(path)?;
        let length = file.file.metadata()?.len();
        Ok((file, length))
    }

    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        file.file.sync_data()
    }

    fn create_segment(&self, path: &Path, first_block: &[u8; BLOCK_BYTES], length: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(FILE_MODE);
        // Past the page cache, a piece at a time: what lanes write meanwhile waits for one piece at most, and not for all that
        // a sync would send off at once.
        let file = match options.clone().custom_flags(libc::O_DIRECT).open(path) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.open(path)?,
            opened => opened?,
        };
        // Space first: a full disk is then known before a megabyte is written.
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length) {
            // A file system that does not know it: the zeros find out.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let mut piece = AVec::<u8, ConstAlign<BLOCK_BYTES>>::new(BLOCK_BYTES);
        piece.resize(ZEROS_BYTES, 0);
        piece[..BLOCK_BYTES].copy_from_slice(first_block);
        let mut at = 0;
        while at < length {
            let now = (length - at).min(ZEROS_BYTES as u64) as usize;
            write_at(&file, &piece[..now], at)?;
            piece[..BLOCK_BYTES].fill(0);
            at += now as u64;
        }
        file.sync_all()?;
        // Where it went through the page cache, the lane's direct writes would have to invalidate the pages one by one. Only
        // advice: where it fails they do.
        if let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed) {
            tracing::debug!(%error, "the pages of a new segment stay cached");
        }
        Ok(())
    }

    fn write_first_block(&self, path: &Path, block: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(block, 0)?;
        file.sync_data()
    }

    fn write_small(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn read_small(&self, path: &Path) -> io::Result<Vec<u8>> {
        const SMALL_BYTES: u64 = 64 << 10;
        let mut content = Vec::new();
        File::open(path)?.take(SMALL_BYTES).read_to_end(&mut content)?;
        Ok(content)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}
