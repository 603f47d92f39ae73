//! Sockets of this thread's runtime: listeners, connections, and handles that shut a connection down.

use super::{Interrupter, Transport};
use monoio::{
    BufResult,
    buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut},
    io::{AsyncReadRent, AsyncWriteRent},
    net::{TcpListener, TcpStream},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    cell::Cell,
    future::Future,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    rc::Rc,
};

/// A listener of this thread. Other threads have listeners of their own on the same address.
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Takes a bound, listening socket.
    ///
    /// # Errors
    /// When monoio refuses it.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::from_std(socket.into())? })
    }

    /// The next connection. Must be awaited to its end: see [`stop`](Self::stop).
    ///
    /// # Errors
    /// Those of `accept`, and `EINVAL` once stopped.
    pub async fn accept(&self) -> io::Result<Socket> {
        let (stream, _) = self.listener.accept().await?;
        let socket = Socket::new(stream);
        // A server that the daemon starts must not inherit its connections.
        rustix::io::fcntl_setfd(borrow(&socket.stream), rustix::io::FdFlags::CLOEXEC)?;
        // Replies are written whole; waiting for more to send would only delay them.
        socket.stream.set_nodelay(true)?;
        Ok(socket)
    }

    /// Ends listening: a pending accept fails with `EINVAL`.
    pub fn stop(&self) {
        shut_down(borrow(&self.listener), rustix::net::Shutdown::Read);
    }
}

/// The descriptor of a connection as long as it is open.
type OpenDescriptor = Rc<Cell<Option<RawFd>>>;

/// A connection. Its [`ShutdownHandle`]s learn when it is closed.
pub struct Socket {
    descriptor: OpenDescriptor,
    stream: TcpStream,
}

impl Socket {
    fn new(stream: TcpStream) -> Self {
        Self { descriptor: Rc::new(Cell::new(Some(stream.as_raw_fd()))), stream }
    }

    /// A handle that shuts this connection down.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle(Rc::clone(&self.descriptor))
    }

    /// Sends a few bytes to a connection that is closed then. They fit into the socket's empty buffer, so nothing waits.
    pub fn send_last(&self, bytes: &[u8]) {
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        if let Err(error) = rustix::net::send(borrow(&self.stream), bytes, flags) {
            tracing::debug!(%error, "a refused client could not be told why");
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Before the field `stream` is dropped, which closes the descriptor.
        self.descriptor.set(None);
    }
}

/// Shuts a connection down, which ends its pending operations. Does nothing once the connection is closed.
pub struct ShutdownHandle(OpenDescriptor);

impl ShutdownHandle {
    /// The handle of a connection that is closed.
    #[cfg(test)]
    pub(crate) fn closed() -> Self {
        Self(OpenDescriptor::default())
    }

    /// Lets the pending read, and all later ones, find the end of the stream.
    pub fn stop_reading(&self) {
        self.shut_down(rustix::net::Shutdown::Read);
    }

    /// Lets a pending write fail as well.
    pub fn stop(&self) {
        self.shut_down(rustix::net::Shutdown::Both);
    }

    fn shut_down(&self, how: rustix::net::Shutdown) {
        if let Some(descriptor) = self.descriptor() {
            shut_down(descriptor, how);
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the socket, which owns the descriptor, takes it out of the cell before it closes it. Socket and handles
        // stay on one thread, and nothing that is done with the result drops a socket.
        self.0.get().map(|descriptor| unsafe { BorrowedFd::borrow_raw(descriptor) })
    }
}

/// Which of these connections' peers have closed their side, or are gone, by their index: one call of the kernel for all of
/// them. It waits for nothing.
///
/// # Errors
/// Those of `poll`.
pub fn hung_up<'h>(handles: impl Iterator<Item = &'h ShutdownHandle>) -> io::Result<Vec<usize>> {
    let open = handles.enumerate().filter_map(|(index, handle)| Some((index, handle.descriptor()?)));
    let (indexes, mut polled): (Vec<usize>, Vec<PollFd<'_>>) =
        open.map(|(index, descriptor)| (index, PollFd::from_borrowed_fd(descriptor, PollFlags::RDHUP))).unzip();
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(indexes.into_iter().zip(&polled).filter(|(_, fd)| !fd.revents().is_empty()).map(|(index, _)| index).collect())
}

fn shut_down(descriptor: BorrowedFd<'_>, how: rustix::net::Shutdown) {
    // Not connected any more: nothing is left to shut down.
    if let Err(error) = rustix::net::shutdown(descriptor, how) {
        tracing::debug!(%error, "shutdown");
    }
}

fn borrow(of: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the callers pass monoio's sockets, which own the descriptor that they name, and are borrowed as long as the
    // result.
    unsafe { BorrowedFd::borrow_raw(of.as_raw_fd()) }
}

impl Transport for Socket {
    const WAITS_WITHOUT_BUFFER: bool = true;

    async fn readable(&mut self) -> io::Result<()> {
        self.stream.readable(false).await
    }

    fn read_interruptibly(
        &mut self,
        buffer: Vec<u8>,
        interrupter: &Interrupter,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> {
        interrupter.read(&mut self.stream, buffer)
    }
}

impl AsyncReadRent for Socket {
    #[inline]
    fn read<T: IoBufMut>(&mut self, buffer: T) -> impl Future<Output = BufResult<usize, T>> {
        self.stream.read(buffer)
    }

    #[inline]
    fn readv<T: IoVecBufMut>(&mut self, buffer: T) -> impl Future<Output = BufResult<usize, T>> {
        self.stream.readv(buffer)
    }
}

impl AsyncWriteRent for Socket {
    #[inline]
    fn write<T: IoBuf>(&mut self, buffer: T) -> impl Future<Output = BufResult<usize, T>> {
        self.stream.write(buffer)
    }

    #[inline]
    fn writev<T: IoVecBuf>(&mut self, buffer: T) -> impl Future<Output = BufResult<usize, T>> {
        self.stream.writev(buffer)
    }

    #[inline]
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> {
        self.stream.flush()
    }

    #[inline]
    fn shutdown(&mut self) -> impl Future<Output = io::Result<()>> {
        self.stream.shutdown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt;
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpStream as Client},
        os::unix::net::UnixStream,
        time::{Duration, Instant},
    };

    /// Runs `test` with a connection of this thread and its peer.
    fn with_connection(test: impl AsyncFnOnce(Socket, Client)) {
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        rt::runtime(8).unwrap().block_on(async {
            let listener = Listener::new(listener.into()).unwrap();
            let client = Client::connect(address).unwrap();
            test(listener.accept().await.unwrap(), client).await;
        });
    }

    #[test]
    fn a_handle_does_nothing_once_its_socket_is_closed_whoever_has_the_descriptor_then() {
        with_connection(async |socket, _client| {
            let handle = socket.shutdown_handle();
            drop(socket);
            assert!(handle.descriptor().is_none());
            // The kernel gives the lowest free number away next, most likely to one of these.
            let (mut reader, mut writer) = UnixStream::pair().unwrap();
            handle.stop_reading();
            handle.stop();
            assert_eq!(hung_up([&handle].into_iter()).unwrap(), [0_usize; 0]);
            writer.write_all(b"still open").unwrap();
            let mut bytes = [0; 10];
            reader.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"still open");
        });
    }

    #[test]
    fn a_peer_that_closed_or_stopped_sending_has_hung_up_and_one_that_sent_something_has_not() {
        with_connection(async |socket, mut client| {
            let (here, there) = UnixStream::pair().unwrap();
            let handles = [socket.shutdown_handle(), ShutdownHandle(Rc::new(Cell::new(Some(here.as_raw_fd()))))];
            let wait_for = |expected: &[usize]| {
                let give_up = Instant::now() + Duration::from_secs(10);
                while hung_up(handles.iter()).unwrap() != expected && Instant::now() < give_up {}
                assert_eq!(hung_up(handles.iter()).unwrap(), expected);
            };
            client.write_all(b"x").unwrap();
            wait_for(&[]);
            client.shutdown(std::net::Shutdown::Write).unwrap();
            wait_for(&[0]);
            drop(there);
            wait_for(&[0, 1]);
        });
    }
}
