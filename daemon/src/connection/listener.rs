//! Listening: one socket a core on the same address, the kernel spreads connections over them.

use super::{CLOSING, registry::Registered};
use crate::{
    api, connection,
    http::{ErrorCode, Refusal},
    ingest::Core,
    limits::{BIND_PATIENCE, LISTEN_BACKLOG},
    rt,
    rt::Stopper,
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

pub(crate) async fn accept_all(core: Rc<Core>) {
    let mut spare = Spare::default();
    loop {
        // A connection that was turned away gives its descriptor back only after a while.
        spare.take();
        if core.registry.len() >= core.connections_max {
            rt::sleep(ACCEPT_PAUSE).await;
            continue;
        }
        match core.listener.accept().await {
            Ok((stream, _)) if !core.is_stopping() => {
                spare.there_is_room();
                let registered = Registered::new(&core, Stopper::new(&stream));
                match core.shared.gate.tls.as_ref().map(Tls::accept) {
                    None => rt::spawn(connection::serve(stream, registered)),
                    Some(Ok(session)) => rt::spawn(connection::serve_sealed(stream, session, registered)),
                    Some(Err(error)) => tracing::warn!(%error, "a connection was not accepted"),
                }
            }
            _ if core.is_stopping() => return,
            Ok(_) => {}
            Err(error) if is_out_of_descriptors(&error) => {
                spare.out_of_descriptors(&error);
                if !spare.give_up() {
                    rt::sleep(ACCEPT_PAUSE).await;
                } else if let Ok((stream, _)) = core.listener.accept().await {
                    rt::say(&stream, &out_of_descriptors_answer(&core));
                }
                // Not at once: those who come in the meantime wait, and nothing spins.
                rt::sleep(ACCEPT_PAUSE).await;
            }
            Err(error) => {
                // Out of memory, or the client gave up: the next one may fare better, but not at once.
                tracing::warn!(%error, "a connection was not accepted");
                rt::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The answer to a client for whom there is no descriptor.
fn out_of_descriptors_answer(core: &Core) -> Vec<u8> {
    let mut answer = Vec::new();
    let refusal = Refusal::new(ErrorCode::Overloaded, "the daemon may not open more connections").closing();
    api::write_refusal(core, &refusal, None, CLOSING, &mut answer);
    answer
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// A descriptor that is kept, so that a connection can be taken and told so when there is no other.
#[derive(Default)]
struct Spare {
    file: Option<std::fs::File>,
    told: bool,
}

impl Spare {
    fn take(&mut self) {
        if self.file.is_none() {
            self.file = std::fs::File::open("/dev/null").ok();
        }
    }

    /// Whether there was one to be given up.
    fn give_up(&mut self) -> bool {
        self.file.take().is_some()
    }

    /// Says so, once until there is room again.
    fn out_of_descriptors(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::error!(
                code = "accept_failed",
                %error,
                "no descriptor is left for another connection; those that there are are served, others are told to come back"
            );
        }
    }

    fn there_is_room(&mut self) {
        if std::mem::take(&mut self.told) {
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
