//! A lane's ring. One operation is in flight at a time. Its [`Group`] (whose buffers the kernel reads) and its file are owned
//! by the ring from submission until the completion was taken.

use crate::group::{Group, SyncMethod};
use io_uring::{IoUring, opcode, types};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

/// Entries of the submission queue; one is used at a time.
const ENTRIES: u32 = 8;

/// Pieces that one write takes: the kernel's `UIO_MAXIOV`.
const IOVECS_MAX: usize = 1024;

struct InFlight {
    group: Group,
    /// Keeps the descriptor open.
    _file: Arc<File>,
    /// What the kernel reads the buffers' addresses from; not touched before the completion.
    _iovecs: Vec<libc::iovec>,
}

/// A ring and the eventfd that becomes readable with each completion.
pub struct Ring {
    ring: IoUring,
    event: Arc<OwnedFd>,
    in_flight: Option<InFlight>,
    spare_iovecs: Vec<libc::iovec>,
    write_flags: i32,
}

impl Ring {
    /// A ring for a lane that syncs by `sync`, signalling on `event`.
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

    /// Starts to write `group` to `file`, which is its segment's.
    ///
    /// # Errors
    /// Those of `io_uring_enter`; the operation may have been started all the same, so the lane must be given up.
    pub fn start(&mut self, group: Group, file: Arc<File>) -> io::Result<()> {
        assert!(self.in_flight.is_none(), "one operation at a time");
        let mut iovecs = std::mem::take(&mut self.spare_iovecs);
        iovecs.clear();
        let fd = types::Fd(file.as_raw_fd());
        // A longer group goes on as after a short write.
        let pieces = group.unwritten().take(IOVECS_MAX);
        iovecs.extend(
            pieces.map(|bytes| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }),
        );
        let entry = opcode::Writev::new(fd, iovecs.as_ptr(), iovecs.len() as u32)
            .offset(group.next_write().offset.into())
            .rw_flags(self.write_flags)
            .build();
        self.in_flight = Some(InFlight { group, _file: file, _iovecs: iovecs });
        // SAFETY: the entry points to the iovecs' heap memory and these to the group's chunks; all are owned by
        // `in_flight`, which is neither changed nor dropped before the completion was taken (see `drop`). Moving the
        // vectors does not move their heap memory. The kernel only reads them.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| io::Error::other("the submission queue is full"))?;
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

    /// The group that is being written. The kernel only reads its bytes.
    #[must_use]
    pub fn in_flight(&self) -> Option<&Group> {
        self.in_flight.as_ref().map(|in_flight| &in_flight.group)
    }

    /// The group whose write is complete, and its outcome: the number of bytes.
    pub fn take_completed(&mut self) -> Option<(Group, io::Result<usize>)> {
        let result = self.ring.completion().next()?.result();
        let in_flight = self.in_flight.take()?;
        self.spare_iovecs = in_flight._iovecs;
        let outcome = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        Some((in_flight.group, outcome))
    }

    /// Waits until the operation in flight, if any, is complete.
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
        if self.wait().is_err() {
            // The kernel may still read the buffers: they must outlive this process' use of the ring.
            std::mem::forget(self.in_flight.take());
        }
    }
}
