//! A lane's ring. One write is in flight at a time. The ring owns its [`Group`] and its file from the submission until the
//! completion is taken; the kernel reads the group's buffers meanwhile.

use crate::group::{Group, SyncMethod};
use io_uring::{IoUring, opcode, types};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

/// Entries of the submission queue. One is used at a time.
const ENTRIES: u32 = 8;

/// Buffers that one write takes: the kernel's `UIO_MAXIOV`.
const IOVECS_MAX: usize = 1024;

/// What the kernel uses until the write in flight is complete.
struct InFlight {
    /// The kernel reads its buffers.
    group: Group,
    /// Keeps the descriptor open.
    _file: Arc<File>,
    /// The kernel reads the buffers' addresses from here.
    iovecs: Vec<libc::iovec>,
}

/// A ring, and the eventfd that becomes readable with each completion.
pub struct Ring {
    ring: IoUring,
    event: Arc<OwnedFd>,
    in_flight: Option<InFlight>,
    spare_iovecs: Vec<libc::iovec>,
    write_flags: i32,
}

impl Ring {
    /// A ring for a lane that syncs by `sync` and signals completions on `event`.
    ///
    /// # Errors
    /// Those of `io_uring_setup` and `io_uring_register`.
    pub fn new(sync: SyncMethod, event: Arc<OwnedFd>) -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(ENTRIES).or_else(|error| {
            // Kernels before 6.0 know neither flag.
            if error.raw_os_error() == Some(libc::EINVAL) { IoUring::new(ENTRIES) } else { Err(error) }
        })?;
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        let write_flags = if sync == SyncMethod::None { 0 } else { libc::RWF_DSYNC };
        Ok(Self { ring, event, in_flight: None, spare_iovecs: Vec::new(), write_flags })
    }

    /// The eventfd.
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Starts to write `group` to `file`, which must be the file of its segment.
    ///
    /// # Errors
    /// Those of `io_uring_enter`. The write may have started all the same, so the lane must be given up.
    ///
    /// # Panics
    /// If a write is in flight.
    pub fn start(&mut self, group: Group, file: Arc<File>) -> io::Result<()> {
        assert!(self.in_flight.is_none(), "one write is in flight at a time");
        let mut iovecs = std::mem::take(&mut self.spare_iovecs);
        iovecs.clear();
        let fd = types::Fd(file.as_raw_fd());
        // A group with more buffers continues as after a short write.
        let buffers = group.unwritten().take(IOVECS_MAX);
        iovecs.extend(
            buffers.map(|bytes| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }),
        );
        let entry = opcode::Writev::new(fd, iovecs.as_ptr(), iovecs.len() as u32)
            .offset(group.next_write().offset.into())
            .rw_flags(self.write_flags)
            .build();
        // SAFETY: the entry points to the heap memory of the iovecs, and these to the group's chunks. The kernel only reads
        // both, from `submit` on. Before that, `in_flight` owns them: it is neither changed nor dropped until the completion
        // is taken (see `drop`), and moving the vectors into it does not move their heap memory.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "the submission queue has room for the only write");
        self.in_flight = Some(InFlight { group, _file: file, iovecs });
        self.submit()
    }

    fn submit(&mut self) -> io::Result<()> {
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The group in flight.
    #[must_use]
    pub fn in_flight(&self) -> Option<&Group> {
        self.in_flight.as_ref().map(|in_flight| &in_flight.group)
    }

    /// The group whose write is complete, and the outcome of the write: the number of bytes. `None` if no write completed.
    pub fn take_completed(&mut self) -> Option<(Group, io::Result<usize>)> {
        let result = self.ring.completion().next()?.result();
        let Some(in_flight) = self.in_flight.take() else { unreachable!("only a write in flight completes") };
        self.spare_iovecs = in_flight.iovecs;
        let outcome = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        Some((in_flight.group, outcome))
    }

    /// Waits until the write in flight, if there is one, is complete.
    ///
    /// # Errors
    /// Those of `io_uring_enter`.
    pub fn wait(&mut self) -> io::Result<()> {
        while self.in_flight.is_some() && self.ring.completion().is_empty() {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Err(error) = self.wait() {
            // The kernel may still read the buffers, so they are leaked.
            tracing::debug!(%error, "a lane's ring ends with a write in flight");
            std::mem::forget(self.in_flight.take());
        }
    }
}
