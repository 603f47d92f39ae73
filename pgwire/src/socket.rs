//! Sockets. They are connected by readiness and read through the ring.
//!
//! A write is tried at once with `MSG_DONTWAIT`, because a request nearly always fits into the socket's buffer. If it
//! does not fit, the driver waits for readiness through the ring. Such a wait can be dropped without loss, but a `send`
//! operation of the ring cannot.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use monoio::buf::SliceMut;
use monoio::io::AsyncReadRent;
use monoio::net::{TcpStream, UnixStream};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    sockopt,
};

use crate::deadline::Deadline;
use crate::error::Error;
use crate::options::TcpOptions;

/// The pause before another attempt to connect to a unix socket whose backlog is full. There is no readiness to wait
/// for.
const BACKLOG_RETRY: Duration = Duration::from_millis(10);

/// The bytes read at once without waiting, as during a write.
const TRY_RECV_BYTES: usize = 16 * 1024;

/// A resolved address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connected socket.
pub(crate) struct Socket {
    stream: Stream,
    /// A second descriptor of the same socket, for system calls outside of the ring. The runtime owns the first one.
    control: Rc<OwnedFd>,
}

impl Drop for Socket {
    /// Completes a read whose future was dropped. Until it completes, it keeps the runtime's descriptor open. monoio
    /// asks the kernel to cancel such a read, but drops that request if its queue is full.
    fn drop(&mut self) {
        shut_down(&self.control);
    }
}

impl Socket {
    pub(crate) async fn connect(address: &Address, options: &TcpOptions, deadline: Deadline) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Connect { address: address.to_string(), source };
        let socket = open(address, options).map_err(|errno| failed(errno.into()))?;
        let pending = match begin_connect(&socket, address) {
            Ok(()) => false,
            Err(Errno::INPROGRESS) => true,
            Err(Errno::AGAIN) => {
                retry_connect(&socket, address, deadline).await?;
                false
            }
            Err(errno) => return Err(failed(errno.into())),
        };
        let connected = Self::wrap(socket, address).map_err(failed)?;
        if pending {
            // A writable socket is connected or refused. After a timeout, the wait is dropped and the socket is closed.
            deadline.bound("connect", connected.writable()).await?.map_err(failed)?;
        }
        match sockopt::socket_error(&connected.control) {
            Ok(Ok(())) => {}
            Ok(Err(errno)) | Err(errno) => return Err(failed(errno.into())),
        }
        // The ring waits on a blocking socket, but fails with EAGAIN on a non-blocking one.
        rustix::fs::fcntl_setfl(&connected.control, OFlags::empty()).map_err(|errno| failed(errno.into()))?;
        Ok(connected)
    }

    fn wrap(socket: OwnedFd, address: &Address) -> io::Result<Self> {
        let control = Rc::new(socket.try_clone()?);
        let stream = match address {
            Address::Tcp(_) => Stream::Tcp(TcpStream::from_std(socket.into())?),
            Address::Unix(_) => Stream::Unix(UnixStream::from_std(socket.into())?),
        };
        Ok(Self { stream, control })
    }

    /// Reads at least one byte and appends what was read to the buffer. 0 at the end of the stream. The future must not
    /// be dropped before it has completed.
    pub(crate) async fn read(&mut self, buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        let (begin, end) = (buffer.len(), buffer.capacity());
        let room = SliceMut::new(buffer, begin, end);
        let (result, room) = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(room).await,
            Stream::Unix(stream) => stream.read(room).await,
        };
        (result, room.into_inner())
    }

    /// Sends as much of two pieces as the socket takes, without waiting. `None` if it takes nothing.
    pub(crate) fn try_send(&self, first: &[u8], second: &[u8]) -> io::Result<Option<usize>> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            let pieces = [IoSlice::new(first), IoSlice::new(second)];
            match rustix::net::sendmsg(&self.control, &pieces, &mut SendAncillaryBuffer::default(), flags) {
                Ok(sent_bytes) => return Ok(Some(sent_bytes)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Reads some of the bytes that have arrived, without waiting. `None` if there are none, 0 at the end of the
    /// stream.
    pub(crate) fn try_recv(&self, mut take: impl FnMut(&[u8])) -> io::Result<Option<usize>> {
        let mut chunk = [0; TRY_RECV_BYTES];
        loop {
            match rustix::net::recv(&self.control, &mut chunk[..], RecvFlags::DONTWAIT) {
                Ok((received_bytes, _)) => {
                    take(&chunk[..received_bytes]);
                    return Ok(Some(received_bytes));
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits until the socket takes bytes.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.writable(false).await,
            Stream::Unix(stream) => stream.writable(false).await,
        }
    }

    /// Waits until bytes have arrived.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.readable(false).await,
            Stream::Unix(stream) => stream.readable(false).await,
        }
    }

    /// Waits until the socket takes bytes, or until bytes have arrived.
    pub(crate) async fn writable_or_readable(&self) -> io::Result<()> {
        monoio::select! {
            result = self.writable() => result,
            result = self.readable() => result,
        }
    }

    /// Closes both directions, so that every operation on the socket completes.
    pub(crate) fn shut_down(&self) {
        shut_down(&self.control);
    }

    /// The descriptor for [`shut_down`], for use while a read borrows the socket.
    pub(crate) fn control(&self) -> Rc<OwnedFd> {
        Rc::clone(&self.control)
    }
}

/// Closes both directions of a socket.
pub(crate) fn shut_down(control: &OwnedFd) {
    // It fails only if the connection has ended already, and then there is nothing to do.
    let _ignored = rustix::net::shutdown(control, Shutdown::Both);
}

fn open(address: &Address, options: &TcpOptions) -> rustix::io::Result<OwnedFd> {
    let family = match address {
        Address::Tcp(SocketAddr::V4(_)) => AddressFamily::INET,
        Address::Tcp(SocketAddr::V6(_)) => AddressFamily::INET6,
        Address::Unix(_) => AddressFamily::UNIX,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if matches!(address, Address::Tcp(_)) {
        sockopt::set_tcp_nodelay(&socket, true)?;
        set_tcp_timeouts(&socket, options)?;
    }
    Ok(socket)
}

fn set_tcp_timeouts(socket: &OwnedFd, options: &TcpOptions) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(socket, options.keepalives)?;
    if options.keepalives {
        options.keepalives_idle.map(|idle| sockopt::set_tcp_keepidle(socket, idle)).transpose()?;
        options.keepalives_interval.map(|interval| sockopt::set_tcp_keepintvl(socket, interval)).transpose()?;
        options.keepalives_count.map(|count| sockopt::set_tcp_keepcnt(socket, count)).transpose()?;
    }
    if let Some(timeout) = options.user_timeout {
        sockopt::set_tcp_user_timeout(socket, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?;
    }
    Ok(())
}

fn begin_connect(socket: &OwnedFd, address: &Address) -> rustix::io::Result<()> {
    match address {
        Address::Tcp(address) => rustix::net::connect(socket, address),
        Address::Unix(path) => rustix::net::connect(socket, &SocketAddrUnix::new(path.as_path())?),
    }
}

async fn retry_connect(socket: &OwnedFd, address: &Address, deadline: Deadline) -> Result<(), Error> {
    loop {
        deadline.bound("connect", monoio::time::sleep(BACKLOG_RETRY)).await?;
        match begin_connect(socket, address) {
            Ok(()) => return Ok(()),
            Err(Errno::AGAIN) => {}
            Err(errno) => {
                return Err(Error::Connect { address: address.to_string(), source: errno.into() });
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;

    fn opened(options: &TcpOptions) -> OwnedFd {
        open(&Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 1))), options).unwrap()
    }

    #[test]
    fn the_kernel_is_told_when_to_give_a_silent_peer_up() {
        let socket = opened(&TcpOptions::default());
        assert!(sockopt::socket_keepalive(&socket).unwrap() && sockopt::tcp_nodelay(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(30));
        assert_eq!(sockopt::tcp_keepintvl(&socket).unwrap(), Duration::from_secs(10));
        assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), 3);
        assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), 60_000);
    }

    #[test]
    fn what_is_left_to_the_system_stays_as_the_system_has_it() {
        let none = TcpOptions {
            keepalives: false,
            keepalives_idle: None,
            keepalives_interval: None,
            keepalives_count: None,
            user_timeout: None,
        };
        let (socket, untouched) =
            (opened(&none), rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap());
        assert!(!sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), sockopt::tcp_keepidle(&untouched).unwrap());
        assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), 0);
    }
}
