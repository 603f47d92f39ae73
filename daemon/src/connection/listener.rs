//! Listening: one socket a core on the same address; the kernel spreads connections over them.

use super::{
    registry::Registered,
    serve::{serve, serve_tls},
    server::Server,
};
use crate::{
    http::{ErrorCode, Refusal, ResponseOptions},
    limits::{BIND_PATIENCE, LISTEN_BACKLOG},
    rt,
    tls::Tls,
};
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

/// Wait after an accept that failed for want of something, or while the core is full.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The address cannot be listened on. Next step: name another one, or end the process that has it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Binds `count` sockets to `address`; port 0 takes a free one, the same for all. Returns them and the address they have.
///
/// # Errors
/// [`ListenError`], also when another process listens there for longer than [`BIND_PATIENCE`], whether it would share the
/// address or not.
pub fn bind_all(address: SocketAddr, count: usize) -> Result<(Vec<OwnedFd>, SocketAddr), ListenError> {
    let fail = |source: io::Error| ListenError { address, source };
    // Sockets that share an address do so with those of other processes too: only one that does not share finds them.
    let alone = bind_alone(address).map_err(fail)?;
    let bound = rustix::net::getsockname(&alone).map_err(|error| fail(error.into()))?;
    let bound = SocketAddr::try_from(bound).map_err(|error| fail(error.into()))?;
    drop(alone);
    let sockets: io::Result<Vec<_>> = (0..count).map(|_| bind(bound, true)).collect();
    Ok((sockets.map_err(fail)?, bound))
}

/// A daemon that was killed just now listens until the kernel has put its rings away, which goes on after its process is gone.
fn bind_alone(address: SocketAddr) -> io::Result<OwnedFd> {
    const PAUSE: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match bind(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(PAUSE)
            }
            outcome => return outcome,
        }
    }
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

/// Accepts connections until the daemon shuts down.
pub(super) async fn accept_all(server: Rc<Server>) {
    let mut spare = SpareDescriptor::default();
    loop {
        // Each time: a refused connection gives its descriptor back only after a while.
        spare.open();
        if server.registry.len() >= server.connections_max {
            rt::sleep(ACCEPT_PAUSE).await;
            continue;
        }
        match server.listener.accept().await {
            Ok(socket) if !server.is_shutting_down() => {
                spare.accepted();
                let registered = Registered::new(&server, socket.shutdown_handle());
                match server.gate.tls.as_ref().map(Tls::accept) {
                    None => rt::spawn(serve(socket, registered)),
                    Some(Ok(session)) => rt::spawn(serve_tls(socket, session, registered)),
                    Some(Err(error)) => tracing::warn!(%error, "a connection was not accepted"),
                }
            }
            _ if server.is_shutting_down() => return,
            Ok(_) => {}
            Err(error) if is_out_of_descriptors(&error) => {
                spare.ran_out(&error);
                if !spare.give_up() {
                    rt::sleep(ACCEPT_PAUSE).await;
                } else if let Ok(socket) = server.listener.accept().await {
                    socket.send_last(&out_of_descriptors_reply(&server));
                }
                // Other clients wait meanwhile, and the loop does not spin.
                rt::sleep(ACCEPT_PAUSE).await;
            }
            Err(error) => {
                // Out of memory, or the client gave up. The next one may fare better, but not at once.
                tracing::warn!(%error, "a connection was not accepted");
                rt::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The reply to a client for which no descriptor is left.
fn out_of_descriptors_reply(server: &Server) -> Vec<u8> {
    let mut reply = Vec::new();
    let refusal = Refusal::new(ErrorCode::Overloaded, "the daemon may not open more connections").closing();
    server.api.write_refusal(&refusal, ResponseOptions::CLOSING, &mut reply);
    reply
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// A descriptor in reserve. When there is no other, it is closed so that one more connection can be accepted and refused.
#[derive(Default)]
struct SpareDescriptor {
    file: Option<std::fs::File>,
    is_logged: bool,
}

impl SpareDescriptor {
    /// Opens the descriptor, if one is left for it.
    fn open(&mut self) {
        if self.file.is_none() {
            self.file = std::fs::File::open("/dev/null").ok();
        }
    }

    /// Closes it. Returns whether it was open.
    fn give_up(&mut self) -> bool {
        self.file.take().is_some()
    }

    /// Logs that no descriptor is left, once until a connection is accepted again.
    fn ran_out(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_logged, true) {
            tracing::error!(
                code = "accept_failed",
                %error,
                "no descriptor is left for another connection; open connections are served, others are told to come back"
            );
        }
    }

    fn accepted(&mut self) {
        if std::mem::take(&mut self.is_logged) {
            tracing::info!("connections are accepted again");
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

    #[test]
    fn an_address_that_is_given_up_meanwhile_is_waited_for() {
        let (sockets, address) = bind_all(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
        let holder = std::thread::spawn(move || {
            std::thread::sleep(BIND_PATIENCE / 10);
            drop(sockets);
        });
        assert_eq!(bind_all(address, 1).unwrap().1, address);
        holder.join().unwrap();
    }
}
