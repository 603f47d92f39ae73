//! The one question to a socket that tokio-uring cannot answer.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::{AsRawFd, BorrowedFd};

use tokio_uring::net::TcpStream;

/// Whether a socket is connected to itself. While nobody listens on a port of the ephemeral range, the kernel may pick
/// that very port for a client that connects to it, and TCP then opens the connection from both ends at once. Such a
/// socket echoes requests, and keeps the server that is to come back from its port.
///
/// # Errors
/// What the system says when it is asked for the two addresses, such as that the peer is gone already.
pub(crate) fn is_connected_to_itself(stream: &TcpStream) -> io::Result<bool> {
    // SAFETY: `stream` owns the descriptor and is borrowed for longer than this borrow of it lives.
    let descriptor = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    let socket = StdTcpStream::from(descriptor.try_clone_to_owned()?);
    Ok(socket.local_addr()? == socket.peer_addr()?)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    use super::*;

    #[test]
    fn a_connection_to_a_listener_is_not_one_to_itself() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        tokio_uring::start(async {
            let stream = TcpStream::connect(address).await.unwrap();
            assert!(!is_connected_to_itself(&stream).unwrap());
        });
    }

    #[test]
    fn a_connection_to_itself_is_seen() {
        // A client's port is picked from this range, even ones first; nobody listens on the one that could be bound.
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let free = (first..).step_by(2).find(|&port| TcpListener::bind(address(port)).is_ok());
        let target = address(free.unwrap());
        tokio_uring::start(async {
            for _ in 0..1_000_000 {
                if let Ok(stream) = TcpStream::connect(target).await {
                    assert!(is_connected_to_itself(&stream).unwrap());
                    return;
                }
            }
            panic!("no connection to itself in a million attempts");
        });
    }
}
