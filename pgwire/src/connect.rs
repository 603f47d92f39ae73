//! Connecting, logging in, and cancelling from a second connection.

use std::net::ToSocketAddrs;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::config::{Config, Host, socket_path};
use crate::conn::Connection;
use crate::core::limits::MESSAGE_MAX_BYTES;
use crate::core::{CancelKey, Credentials, Startup, StartupProgress};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::socket::{Address, Socket};
use crate::wire::Wire;

const CONNECT: &str = "connect";
const LOG_IN: &str = "log-in";
const CANCEL: &str = "cancel";

/// Finds the addresses of a host. A name is looked up by the system, which blocks the thread.
fn resolve(config: &Config) -> Result<Vec<Address>, Error> {
    match &config.host {
        Host::Unix(dir) => Ok(vec![Address::Unix(socket_path(dir, config.port))]),
        Host::Tcp(name) => {
            let failed = |source| Error::Connect { address: format!("{name}:{}", config.port), source };
            let addresses: Vec<Address> =
                (name.as_str(), config.port).to_socket_addrs().map_err(failed)?.map(Address::Tcp).collect();
            if addresses.is_empty() {
                return Err(failed(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address")));
            }
            Ok(addresses)
        }
    }
}

/// Connects to the first address that answers. One that is silent gets its share of the time only.
async fn connect_any(addresses: &[Address], deadline: Deadline) -> Result<(Socket, Address), Error> {
    let mut last_error = deadline.error(CONNECT);
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        match Socket::connect(address, deadline.share(left)).await {
            Ok(socket) => return Ok((socket, address.clone())),
            Err(error) => last_error = error,
        }
        left -= 1;
    }
    Err(last_error)
}

/// Connects and logs in.
pub(crate) async fn connect(config: &Config) -> Result<Connection, Error> {
    config.validate()?;
    let addresses = resolve(config)?;
    let deadline = Deadline::after(config.connect_timeout);
    let (socket, address) = connect_any(&addresses, deadline).await?;
    let mut wire = Wire::new(socket);
    let cancel_key = log_in(&mut wire, config, deadline).await?;
    let token = CancelToken { address, key: cancel_key, timeout: config.connect_timeout };
    Ok(Connection::open(wire, token, config.statement_deadline))
}

async fn log_in(wire: &mut Wire, config: &Config, deadline: Deadline) -> Result<Option<CancelKey>, Error> {
    let credentials = Credentials { user: config.user.clone(), password: config.password.clone() };
    let mut send = BytesMut::new();
    let mut startup = Startup::begin(credentials, config.startup_parameters(), &mut send)?;
    loop {
        wire.send(&mut send, deadline, LOG_IN).await?;
        let message = wire.next(deadline, LOG_IN).await?;
        if let StartupProgress::Ready { cancel_key, .. } = startup.on_message(message, &mut send)? {
            wire.received.set_message_max_bytes(MESSAGE_MAX_BYTES);
            return Ok(cancel_key);
        }
    }
}

/// Cancels what a session is doing, by a connection of its own.
#[derive(Debug, Clone)]
pub struct CancelToken {
    address: Address,
    key: Option<CancelKey>,
    timeout: Option<Duration>,
}

impl CancelToken {
    /// Asks the server to cancel, and waits until it has taken the request. Whether there was still anything to
    /// cancel is not known: a statement that was under way ends with 57014 or is done.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Io`], [`Error::Timeout`] (after the `connect_timeout` of the connection), or
    /// [`Error::Usage`] if the server gave no key to cancel with.
    pub async fn cancel(&self) -> Result<(), Error> {
        let Some(key) = self.key else {
            return Err(Error::Usage { what: "the server gave no key to cancel with".to_owned() });
        };
        let deadline = Deadline::after(self.timeout);
        let mut wire = Wire::new(Socket::connect(&self.address, deadline).await?);
        let mut send = BytesMut::new();
        frontend::cancel_request(key.process_id, key.secret_key, &mut send);
        wire.send(&mut send, deadline, CANCEL).await?;
        // The server answers by closing, after it has signalled the backend.
        wire.read_to_end(deadline, CANCEL).await
    }

    pub(crate) fn process_id(&self) -> Option<i32> {
        self.key.map(|key| key.process_id)
    }
}
