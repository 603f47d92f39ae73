//! Look-ups of host names.
//!
//! The system's resolver blocks its thread, for as long as `/etc/resolv.conf` allows. Therefore each look-up runs on a
//! thread of its own. If its caller times out, the look-up continues there.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream as Pipe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use monoio::net::UnixStream;

use crate::config::{Host, socket_path};
use crate::core::limits::LOOK_UPS_MAX;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::socket::Address;

const LOOK_UP: &str = "the look-up of the host";

/// The number of threads in this process that look up a name, including those whose caller has timed out.
static LOOK_UPS: AtomicUsize = AtomicUsize::new(0);

/// Permission to run a look-up. It counts in [`LOOK_UPS`] until it is dropped.
struct Permit;

impl Permit {
    fn acquire() -> Option<Self> {
        let fits = |count| (count < LOOK_UPS_MAX).then_some(count + 1);
        LOOK_UPS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok().then_some(Self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        LOOK_UPS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The addresses of a host, in the system's order of preference.
pub(crate) async fn resolve(host: &Host, port: u16, deadline: Deadline) -> Result<Vec<Address>, Error> {
    let name = match host {
        Host::Unix(dir) => return Ok(vec![Address::Unix(socket_path(dir, port))]),
        Host::Tcp(name) => name,
    };
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![Address::Tcp(SocketAddr::new(address, port))]);
    }
    let failed = |source| Error::Connect { address: format!("{name}:{port}"), source };
    let addresses = look_up(name.clone(), port, deadline, system).await?.map_err(failed)?;
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(addresses.into_iter().map(Address::Tcp).collect())
}

fn system(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((name, port).to_socket_addrs()?.collect())
}

/// Runs `resolver` on a thread of its own and waits for it until the deadline.
async fn look_up(
    name: String,
    port: u16,
    deadline: Deadline,
    resolver: impl FnOnce(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Result<io::Result<Vec<SocketAddr>>, Error> {
    let start = || -> io::Result<_> {
        let permit =
            Permit::acquire().ok_or_else(|| io::Error::other("too many look-ups of host names are in progress"))?;
        let (caller_end, thread_end) = Pipe::pair()?;
        let done = UnixStream::from_std(caller_end)?;
        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new().name("pgwire-look-up".to_owned()).spawn(move || {
            let _permit = permit;
            let addresses = resolver(&name, port);
            // Sending fails if the caller has timed out. Then nobody needs the addresses.
            drop(sender.send(addresses));
            // Closing this end wakes the caller. A panic closes it, too.
            drop(thread_end);
        })?;
        Ok((done, receiver))
    };
    let (done, receiver) = match start() {
        Ok(started) => started,
        Err(error) => return Ok(Err(error)),
    };
    match deadline.bound(LOOK_UP, done.readable(false)).await? {
        Ok(()) => {}
        Err(error) => return Ok(Err(error)),
    }
    // There is no answer if the thread has panicked.
    Ok(receiver.recv().unwrap_or_else(|_| Err(io::Error::other("the resolver failed"))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn run<F: Future>(future: F) -> F::Output {
        let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
        builder.enable_timer().build().unwrap().block_on(future)
    }

    const SLOW: Duration = Duration::from_secs(60);

    fn slow(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        std::thread::sleep(SLOW);
        Ok(Vec::new())
    }

    #[test]
    fn a_resolver_that_hangs_holds_up_neither_the_thread_nor_the_caller_past_his_deadline() {
        run(async {
            let began = Instant::now();
            let deadline = Deadline::after(Some(Duration::from_millis(200)));
            let ticks = async {
                for _ in 0..5 {
                    monoio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let (result, ()) = monoio::join!(look_up("h".to_owned(), 1, deadline, slow), ticks);
            assert!(matches!(result, Err(Error::Timeout { during: LOOK_UP, .. })), "{result:?}");
            assert!(began.elapsed() < SLOW / 2);
        });
    }

    #[test]
    fn a_resolver_that_fails_or_panics_is_an_error() {
        run(async {
            let failing = |_: &str, _: u16| Err(io::Error::other("no such name"));
            let result = look_up("h".to_owned(), 1, Deadline::after(None), failing).await.unwrap();
            assert_eq!(result.unwrap_err().to_string(), "no such name");
            let panics = |_: &str, _: u16| panic!("a resolver with a bug");
            assert!(look_up("h".to_owned(), 1, Deadline::after(None), panics).await.unwrap().is_err());
        });
    }
}
