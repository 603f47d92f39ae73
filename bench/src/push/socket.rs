//! A query on a socket that tokio-uring does not offer.

use std::io;
use std::net::TcpStream as StdTcpStream;

use tokio_uring::net::TcpStream;

use super::descriptor;

/// Whether a socket is connected to itself.
///
/// If a client connects to a port of the ephemeral range on which nothing listens, the kernel may choose that same port
/// as the client's own. TCP then opens the connection from both ends at once. Such a socket echoes requests, and keeps a
/// restarting server from binding its port.
///
/// # Errors
/// The system's error if it cannot tell the two addresses, for example because the peer has disconnected.
pub(crate) fn is_connected_to_itself(stream: &TcpStream) -> io::Result<bool> {
    let socket = StdTcpStream::from(descriptor::of_socket(stream).try_clone_to_owned()?);
    Ok(socket.local_addr()? == socket.peer_addr()?)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    use super::*;

    #[test]
    fn a_connection_to_a_listener_is_not_connected_to_itself() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        tokio_uring::start(async {
            let stream = TcpStream::connect(address).await.unwrap();
            assert!(!is_connected_to_itself(&stream).unwrap());
        });
    }

    #[test]
    fn a_connection_to_itself_is_detected() {
        // The kernel chooses clients' ports from this range, even ones first. Nothing listens on a port that can be bound.
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
