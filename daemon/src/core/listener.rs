//! Listening: one socket a core on the same address, the kernel spreads connections over them.

use super::{Core, connection};
use crate::{limits::LISTEN_BACKLOG, rt};
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::{io, net::SocketAddr, os::fd::OwnedFd, rc::Rc, time::Duration};

/// Wait after an accept that failed for want of something, or while the core is full.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The address cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.source)
    }
}

impl std::error::Error for ListenError {}

/// Binds `count` sockets to `address`; port 0 takes a free one, the same for all. Returns them and the address they have.
///
/// # Errors
/// [`ListenError`], also when another process listens there, whether it would share the address or not.
pub fn bind_all(address: SocketAddr, count: usize) -> Result<(Vec<OwnedFd>, SocketAddr), ListenError> {
    let fail = |source: io::Error| ListenError { address, source };
    // Sockets that share an address do so with those of other processes too: only one that does not share finds them.
    let alone = bind(address, false).map_err(fail)?;
    let bound = rustix::net::getsockname(&alone).map_err(|error| fail(error.into()))?;
    let bound = SocketAddr::try_from(bound).map_err(|error| fail(error.into()))?;
    drop(alone);
    let sockets: io::Result<Vec<_>> = (0..count).map(|_| bind(bound, true)).collect();
    Ok((sockets.map_err(fail)?, bound))
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(socket)
}

pub(super) async fn accept_all(core: Rc<Core>) {
    let mut next_id = 0;
    loop {
        if core.registry.len() >= core.connections_max {
            rt::sleep(ACCEPT_PAUSE).await;
            continue;
        }
        match core.listener.accept().await {
            Ok((stream, _)) if !core.is_stopping() => {
                next_id += 1;
                rt::spawn(connection::serve(Rc::clone(&core), stream, next_id));
            }
            _ if core.is_stopping() => return,
            Ok(_) => {}
            Err(error) => {
                // Out of descriptors or memory, or the client gave up: the next one may fare better, but not at once.
                tracing::warn!(%error, "a connection was not accepted");
                rt::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_sockets_share_a_free_port_and_nobody_else_gets_it() {
        let (sockets, address) = bind_all(SocketAddr::from(([127, 0, 0, 1], 0)), 3).unwrap();
        assert_eq!(sockets.len(), 3);
        assert_ne!(address.port(), 0);
        let error = bind_all(address, 1).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse, "{error}");
    }
}
