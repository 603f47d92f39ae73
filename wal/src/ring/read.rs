//! Reading a file in order, some pieces ahead of who reads. While one piece is looked at, the disk fetches the next.

use crate::limits::{BLOCK_BYTES, READ_AHEAD_PIECES, READ_PIECE_BYTES};
use aligned_vec::{AVec, ConstAlign};
use io_uring::{IoUring, opcode, types};
use std::{
    fs::File,
    io,
    ops::Range,
    os::{fd::AsRawFd, unix::fs::FileExt},
    sync::{Arc, Mutex, PoisonError},
};

/// Rings that wait for another file: making one, and its buffers' first use, cost as much as a megabyte of reading.
static SPARE: Mutex<Vec<Pieces>> = Mutex::new(Vec::new());

/// Spare rings kept.
const SPARE_MAX: usize = 4;

/// One piece of the file, or room for it.
struct Piece {
    buf: AVec<u8, ConstAlign<BLOCK_BYTES>>,
    /// Offset in the file of what is, or will be, in `buf`.
    at: u64,
    state: State,
}

/// What is in a piece's buffer.
enum State {
    Nothing,
    /// The kernel writes to it.
    InFlight,
    /// The same, but what comes is not wanted any more.
    InFlightForNothing,
    /// So many bytes.
    Read(usize),
    Failed(io::Error),
}

/// The ring and its buffers.
struct Pieces {
    /// `None` where the system gives none: then pieces are read one after the other.
    ring: Option<IoUring>,
    pieces: Vec<Piece>,
    /// Keeps the descriptor of what is in flight open.
    file: Option<Arc<File>>,
}

impl Pieces {
    fn new() -> Self {
        let ring = IoUring::builder().build(READ_AHEAD_PIECES as u32);
        let ring = ring.inspect_err(|error| tracing::debug!(%error, "segments are read without a ring")).ok();
        let piece = |_| Piece { buf: AVec::with_capacity(BLOCK_BYTES, READ_PIECE_BYTES), at: 0, state: State::Nothing };
        Self { ring, pieces: (0..READ_AHEAD_PIECES).map(piece).collect(), file: None }
    }

    fn take_spare() -> Self {
        SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_else(Self::new)
    }

    /// Starts to fill a piece, which the kernel does not use, with `length` bytes at `at`.
    fn start(&mut self, index: usize, file: &Arc<File>, at: u64, length: usize) -> io::Result<()> {
        let piece = &mut self.pieces[index];
        assert!(!matches!(piece.state, State::InFlight | State::InFlightForNothing), "the kernel writes to it");
        piece.at = at;
        piece.buf.resize(length, 0);
        let Some(ring) = &mut self.ring else {
            piece.state = read(file, &mut piece.buf, at);
            return Ok(());
        };
        let fd = types::Fd(file.as_raw_fd());
        let entry = opcode::Read::new(fd, piece.buf.as_mut_ptr(), length as u32).offset(at).build();
        // SAFETY: the buffer's heap memory is owned by `self`, which neither changes nor drops it while the state says that
        // it is in flight (see `drop`); the file is kept open in `self.file` until nothing is in flight.
        let pushed = unsafe { ring.submission().push(&entry.user_data(index as u64)) };
        pushed.map_err(|_| io::Error::other("the submission queue is full"))?;
        piece.state = State::InFlight;
        self.file = Some(Arc::clone(file));
        enter(ring, 0)
    }

    /// Waits until the kernel is done with a piece.
    fn wait_for(&mut self, index: usize) -> io::Result<()> {
        while self.is_in_flight(index) {
            let Some(ring) = &mut self.ring else { return Ok(()) };
            if ring.completion().is_empty() {
                enter(ring, 1)?;
            }
            for completed in ring.completion() {
                let Some(piece) = self.pieces.get_mut(completed.user_data() as usize) else { continue };
                piece.state = match (&piece.state, usize::try_from(completed.result())) {
                    (State::InFlightForNothing, _) => State::Nothing,
                    (_, Ok(bytes)) => State::Read(bytes),
                    (_, Err(_)) => State::Failed(io::Error::from_raw_os_error(-completed.result())),
                };
            }
        }
        Ok(())
    }

    fn is_in_flight(&self, index: usize) -> bool {
        matches!(self.pieces[index].state, State::InFlight | State::InFlightForNothing)
    }

    fn wait_for_all(&mut self) -> io::Result<()> {
        (0..self.pieces.len()).try_for_each(|index| self.wait_for(index))?;
        self.file = None;
        Ok(())
    }

    /// Lets go of what was read and ends at or before `offset`.
    fn drop_before(&mut self, offset: u64) {
        for piece in &mut self.pieces {
            if matches!(piece.state, State::Read(_)) && piece.at + piece.buf.len() as u64 <= offset {
                piece.state = State::Nothing;
            }
        }
    }

    /// Lets go of all that was read, or is being read.
    fn forget(&mut self) {
        for piece in &mut self.pieces {
            piece.state = match piece.state {
                State::InFlight | State::InFlightForNothing => State::InFlightForNothing,
                _ => State::Nothing,
            };
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if self.wait_for_all().is_err() {
            // The kernel may still write to the buffers: they must outlive this process' use of the ring.
            std::mem::forget((std::mem::take(&mut self.pieces), self.file.take()));
        }
    }
}

/// Submits what was pushed, and waits for `completions`.
fn enter(ring: &IoUring, completions: usize) -> io::Result<()> {
    loop {
        match ring.submit_and_wait(completions) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn read(file: &File, buf: &mut [u8], at: u64) -> State {
    loop {
        match file.read_at(buf, at) {
            Ok(bytes) => return State::Read(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return State::Failed(error),
        }
    }
}

/// A reading of one file, in order.
pub(crate) struct ReadAhead {
    pieces: Pieces,
    file: Arc<File>,
    /// Offsets of the piece that is started next, and of the end.
    next: Range<u64>,
}

impl ReadAhead {
    /// A reading of `range`, which begins when something is asked for.
    pub(crate) fn new(file: &Arc<File>, range: Range<u64>) -> Self {
        Self { pieces: Pieces::take_spare(), file: Arc::clone(file), next: range }
    }

    /// Reads `range` instead; what was read of the file before is forgotten.
    pub(crate) fn restart(&mut self, range: Range<u64>) {
        self.pieces.forget();
        self.next = range;
    }

    /// Bytes at `offset` and what follows of a piece, to read on from there; `None` behind the end.
    ///
    /// # Errors
    /// That of the read which should have brought them, once.
    pub(crate) fn read_on(&mut self, offset: u64) -> io::Result<Option<&[u8]>> {
        if self.covering(offset).is_none() {
            if offset >= self.next.end {
                return Ok(None);
            }
            self.restart(offset..self.next.end);
        }
        self.pieces.drop_before(offset);
        // First what is wanted now, then more: a virtual disk may tell of a read only when it has carried out all that were
        // asked for meanwhile.
        if let Some(index) = self.covering(offset) {
            self.pieces.wait_for(index)?;
        }
        self.start_pieces()?;
        self.peek(offset)
    }

    /// Bytes at `offset` and what follows of a piece, if they were read or are being read.
    ///
    /// # Errors
    /// As [`read_on`](Self::read_on).
    pub(crate) fn peek(&mut self, offset: u64) -> io::Result<Option<&[u8]>> {
        let Some(index) = self.covering(offset) else { return Ok(None) };
        self.pieces.wait_for(index)?;
        let piece = &mut self.pieces.pieces[index];
        match std::mem::replace(&mut piece.state, State::Nothing) {
            State::Read(bytes) => {
                piece.state = State::Read(bytes);
                // Behind a short read it is not known what stands there.
                Ok(piece.buf[..bytes].get((offset - piece.at) as usize..).filter(|bytes| !bytes.is_empty()))
            }
            State::Failed(error) => Err(error),
            _ => Ok(None),
        }
    }

    fn covering(&self, offset: u64) -> Option<usize> {
        self.pieces.pieces.iter().position(|piece| {
            !matches!(piece.state, State::Nothing | State::InFlightForNothing)
                && (piece.at..piece.at + piece.buf.len() as u64).contains(&offset)
        })
    }

    /// Fills the pieces that wait for use.
    fn start_pieces(&mut self) -> io::Result<()> {
        for index in 0..self.pieces.pieces.len() {
            if self.next.start >= self.next.end {
                return Ok(());
            }
            if matches!(self.pieces.pieces[index].state, State::InFlightForNothing) {
                self.pieces.wait_for(index)?;
            }
            if matches!(self.pieces.pieces[index].state, State::Nothing) {
                let at = self.next.start / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
                let end = (at + READ_PIECE_BYTES as u64).min(self.next.end.next_multiple_of(BLOCK_BYTES as u64));
                self.next.start = end;
                self.pieces.start(index, &self.file, at, (end - at) as usize)?;
            }
        }
        Ok(())
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.pieces.forget();
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX && self.pieces.ring.is_some() && self.pieces.wait_for_all().is_ok() {
            spare.push(std::mem::replace(&mut self.pieces, Pieces { ring: None, pieces: Vec::new(), file: None }));
        }
    }
}
