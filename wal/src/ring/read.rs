//! Reading a file in order and ahead of its reader: while the reader scans one buffer, the disk fills the next.

use crate::limits::{BLOCK_BYTES, READ_AHEAD_BYTES, READ_AHEAD_DEPTH};
use aligned_vec::{AVec, ConstAlign};
use io_uring::{IoUring, opcode, types};
use std::{
    fs::File,
    io,
    ops::Range,
    os::{fd::AsRawFd, unix::fs::FileExt},
    sync::{Arc, Mutex, PoisonError},
};

/// Rings for the next files. Creating a ring and first touching its buffers costs as much as reading a megabyte.
static SPARE_RINGS: Mutex<Vec<ReadRing>> = Mutex::new(Vec::new());

/// Rings that are kept in [`SPARE_RINGS`].
const SPARE_RINGS_MAX: usize = 4;

/// A buffer for one read.
struct ReadBuffer {
    bytes: AVec<u8, ConstAlign<BLOCK_BYTES>>,
    /// Offset in the file of the first byte.
    at: u64,
    state: BufferState,
}

impl ReadBuffer {
    fn new() -> Self {
        Self { bytes: AVec::with_capacity(BLOCK_BYTES, READ_AHEAD_BYTES), at: 0, state: BufferState::Empty }
    }

    fn is_in_flight(&self) -> bool {
        matches!(self.state, BufferState::InFlight | BufferState::InFlightAbandoned)
    }

    /// Takes the outcome of the read in flight.
    fn complete(&mut self, outcome: io::Result<usize>) {
        self.state = match (&self.state, outcome) {
            (BufferState::InFlightAbandoned, _) => BufferState::Empty,
            (BufferState::InFlight, Ok(length)) => BufferState::Filled(length),
            (BufferState::InFlight, Err(error)) => BufferState::Failed(error),
            _ => unreachable!("only a read in flight completes"),
        };
    }

    /// Drops what the buffer holds, or will hold once its read is complete.
    fn abandon(&mut self) {
        self.state = if self.is_in_flight() { BufferState::InFlightAbandoned } else { BufferState::Empty };
    }
}

/// The content of a buffer.
enum BufferState {
    Empty,
    /// The kernel writes to the buffer.
    InFlight,
    /// The kernel writes to the buffer, and nobody wants the bytes any more.
    InFlightAbandoned,
    /// So many bytes were read.
    Filled(usize),
    Failed(io::Error),
}

/// A ring and its buffers.
struct ReadRing {
    /// `None` if the system grants no ring. Each read then blocks.
    ring: Option<IoUring>,
    buffers: Vec<ReadBuffer>,
    /// Keeps the descriptor of the reads in flight open.
    file: Option<Arc<File>>,
}

impl ReadRing {
    fn new() -> Self {
        let ring = match IoUring::builder().build(READ_AHEAD_DEPTH as u32) {
            Ok(ring) => Some(ring),
            Err(error) => {
                tracing::debug!(%error, "segments are read without a ring");
                None
            }
        };
        Self { ring, buffers: (0..READ_AHEAD_DEPTH).map(|_| ReadBuffer::new()).collect(), file: None }
    }

    fn take_spare() -> Self {
        SPARE_RINGS.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_else(Self::new)
    }

    /// Starts to read `length` bytes at `at` into a buffer that is not in flight.
    fn start(&mut self, index: usize, file: &Arc<File>, at: u64, length: usize) -> io::Result<()> {
        let buffer = &mut self.buffers[index];
        assert!(!buffer.is_in_flight(), "the kernel does not write to the buffer");
        buffer.at = at;
        buffer.bytes.resize(length, 0);
        let Some(ring) = &mut self.ring else {
            buffer.state = read(file, &mut buffer.bytes, at);
            return Ok(());
        };
        let fd = types::Fd(file.as_raw_fd());
        let entry = opcode::Read::new(fd, buffer.bytes.as_mut_ptr(), length as u32).offset(at).build();
        // SAFETY: `self` owns the buffer's heap memory and neither changes nor drops it while its state says that it is in
        // flight (see `drop`). `self.file` keeps the file open until nothing is in flight.
        let pushed = unsafe { ring.submission().push(&entry.user_data(index as u64)) };
        assert!(pushed.is_ok(), "the submission queue has an entry for each buffer");
        buffer.state = BufferState::InFlight;
        self.file = Some(Arc::clone(file));
        enter(ring, 0)
    }

    /// Waits until a buffer is not in flight.
    fn wait_for(&mut self, index: usize) -> io::Result<()> {
        while self.buffers[index].is_in_flight() {
            let Some(ring) = &mut self.ring else { unreachable!("a read is in flight only in a ring") };
            if ring.completion().is_empty() {
                enter(ring, 1)?;
            }
            for completion in ring.completion() {
                let result = completion.result();
                let outcome = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
                self.buffers[completion.user_data() as usize].complete(outcome);
            }
        }
        Ok(())
    }

    fn wait_for_all(&mut self) -> io::Result<()> {
        (0..self.buffers.len()).try_for_each(|index| self.wait_for(index))?;
        self.file = None;
        Ok(())
    }

    /// Empties the buffers that end at or before `offset`.
    fn discard_before(&mut self, offset: u64) {
        for buffer in &mut self.buffers {
            if matches!(buffer.state, BufferState::Filled(_)) && buffer.at + buffer.bytes.len() as u64 <= offset {
                buffer.state = BufferState::Empty;
            }
        }
    }

    fn abandon_all(&mut self) {
        self.buffers.iter_mut().for_each(ReadBuffer::abandon);
    }
}

impl Drop for ReadRing {
    fn drop(&mut self) {
        if let Err(error) = self.wait_for_all() {
            // The kernel may still write to the buffers, so they are leaked.
            tracing::debug!(%error, "a ring ends with reads in flight");
            std::mem::forget((std::mem::take(&mut self.buffers), self.file.take()));
        }
    }
}

/// Submits the entries that were pushed, and waits for `completions`.
fn enter(ring: &IoUring, completions: usize) -> io::Result<()> {
    loop {
        match ring.submit_and_wait(completions) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn read(file: &File, buf: &mut [u8], at: u64) -> BufferState {
    loop {
        match file.read_at(buf, at) {
            Ok(length) => return BufferState::Filled(length),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return BufferState::Failed(error),
        }
    }
}

/// Reads one file in order.
pub(crate) struct ReadAhead {
    ring: ReadRing,
    file: Arc<File>,
    /// The bytes that no read was started for yet.
    unread: Range<u64>,
}

impl ReadAhead {
    /// Prepares to read `range` of `file`. The first [`read_on`](Self::read_on) starts to read.
    pub(crate) fn new(file: &Arc<File>, range: Range<u64>) -> Self {
        Self { ring: ReadRing::take_spare(), file: Arc::clone(file), unread: range }
    }

    /// Reads `range` instead, and drops what was read ahead.
    pub(crate) fn restart(&mut self, range: Range<u64>) {
        self.ring.abandon_all();
        self.unread = range;
    }

    /// The bytes from `offset` on, as far as one buffer holds them. Starts to read what follows. `None` behind the end.
    ///
    /// # Errors
    /// Those of the read at `offset`. Each is returned once.
    pub(crate) fn read_on(&mut self, offset: u64) -> io::Result<Option<&[u8]>> {
        if self.buffer_with(offset).is_none() {
            if offset >= self.unread.end {
                return Ok(None);
            }
            self.restart(offset..self.unread.end);
        }
        self.ring.discard_before(offset);
        // Waits before it starts more reads: a virtual disk may complete a read only with those that were started meanwhile.
        if let Some(index) = self.buffer_with(offset) {
            self.ring.wait_for(index)?;
        }
        self.start_reads()?;
        self.peek(offset)
    }

    /// The bytes from `offset` on, as far as one buffer holds them. `None` if no read was started for them.
    ///
    /// # Errors
    /// As [`read_on`](Self::read_on).
    pub(crate) fn peek(&mut self, offset: u64) -> io::Result<Option<&[u8]>> {
        let Some(index) = self.buffer_with(offset) else { return Ok(None) };
        self.ring.wait_for(index)?;
        let buffer = &mut self.ring.buffers[index];
        match std::mem::replace(&mut buffer.state, BufferState::Empty) {
            BufferState::Filled(length) => {
                buffer.state = BufferState::Filled(length);
                // Nothing is known of the bytes behind a short read.
                Ok(buffer.bytes[..length].get((offset - buffer.at) as usize..).filter(|bytes| !bytes.is_empty()))
            }
            BufferState::Failed(error) => Err(error),
            BufferState::Empty | BufferState::InFlight | BufferState::InFlightAbandoned => {
                unreachable!("a read that was waited for is complete")
            }
        }
    }

    /// The buffer that holds the byte at `offset`, or will hold it.
    fn buffer_with(&self, offset: u64) -> Option<usize> {
        self.ring.buffers.iter().position(|buffer| {
            !matches!(buffer.state, BufferState::Empty | BufferState::InFlightAbandoned)
                && (buffer.at..buffer.at + buffer.bytes.len() as u64).contains(&offset)
        })
    }

    /// Starts a read into each empty buffer.
    fn start_reads(&mut self) -> io::Result<()> {
        for index in 0..self.ring.buffers.len() {
            if self.unread.is_empty() {
                return Ok(());
            }
            if matches!(self.ring.buffers[index].state, BufferState::InFlightAbandoned) {
                self.ring.wait_for(index)?;
            }
            if matches!(self.ring.buffers[index].state, BufferState::Empty) {
                let at = self.unread.start / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
                let end = (at + READ_AHEAD_BYTES as u64).min(self.unread.end.next_multiple_of(BLOCK_BYTES as u64));
                self.unread.start = end;
                self.ring.start(index, &self.file, at, (end - at) as usize)?;
            }
        }
        Ok(())
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.ring.abandon_all();
        let mut spare_rings = SPARE_RINGS.lock().unwrap_or_else(PoisonError::into_inner);
        if spare_rings.len() < SPARE_RINGS_MAX && self.ring.ring.is_some() && self.ring.wait_for_all().is_ok() {
            let empty = ReadRing { ring: None, buffers: Vec::new(), file: None };
            spare_rings.push(std::mem::replace(&mut self.ring, empty));
        }
    }
}
