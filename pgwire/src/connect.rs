//! Connecting, logging in, and cancelling from a second connection.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::config::{Config, Endpoint, Host};
use crate::conn::Connection;
use crate::core::limits::MESSAGE_MAX_BYTES;
use crate::core::{self, CancelKey, Channel, Credentials, Security, SslAnswer, Startup, StartupProgress};
use crate::deadline::Deadline;
use crate::error::{AuthError, Error, PassFileWarning, TlsError};
use crate::options::TcpOptions;
use crate::passfile::{self, Login};
use crate::resolve::resolve;
use crate::session_kind;
use crate::socket::{Address, Socket};
use crate::sqlstate::SqlState;
use crate::tls::{Plan, Target};
use crate::wire::Wire;

const CONNECT: &str = "connect";
const ENCRYPT: &str = "the start of TLS";
const LOG_IN: &str = "log-in";
const CANCEL: &str = "cancel";

/// Connects to the first host that is there and of the kind that is wanted, and logs in.
pub(crate) async fn connect(config: &Config) -> Result<Connection, Error> {
    config.validate()?;
    let deadline = Deadline::after(config.connect_timeout);
    let by_tcp = config.endpoints().any(|endpoint| matches!(endpoint.host, Host::Tcp(_)));
    let plan = if by_tcp { Plan::load(&config.tls)? } else { None };
    let mut last_error = deadline.error(CONNECT);
    let mut left = u32::try_from(config.endpoints().count()).unwrap_or(u32::MAX);
    for endpoint in config.endpoints() {
        match connect_to(&endpoint, plan.as_ref(), config, deadline.share(left)).await {
            Ok(connection) => return Ok(connection),
            Err(error) if left > 1 && another_may_do(&error) => last_error = error,
            Err(error) => return Err(error),
        }
        left -= 1;
    }
    Err(last_error)
}

/// Whether the failure is of this one host. As with libpq, one that refuses us is the last: the others would, too.
fn another_may_do(error: &Error) -> bool {
    match error {
        Error::Connect { .. } | Error::Io { .. } | Error::Timeout { .. } | Error::TargetSessionMismatch { .. } => true,
        _ => error.sqlstate() == Some(SqlState::CANNOT_CONNECT_NOW),
    }
}

async fn connect_to(
    endpoint: &Endpoint,
    plan: Option<&Plan>,
    config: &Config,
    deadline: Deadline,
) -> Result<Connection, Error> {
    let target = match (plan, &endpoint.host) {
        (Some(plan), Host::Tcp(name)) => Some(plan.target(name)?),
        _ => None,
    };
    let addresses = resolve(&endpoint.host, endpoint.port, deadline).await?;
    let (socket, address) = connect_any(&addresses, &config.tcp, deadline).await?;
    let mut way = Way { address, target, tcp: config.tcp };
    let (mut wire, channel) = way.encrypt(socket, deadline).await?;
    if channel == Channel::Open {
        // A cancel of this session goes the way the session went.
        way.target = None;
    }
    let (cancel_key, pass_file_warning) = log_in(&mut wire, channel, endpoint, config, deadline).await?;
    if !session_kind::is_wanted(&mut wire, config.target_session, deadline).await? {
        return Err(Error::TargetSessionMismatch { address: way.address.to_string(), wanted: config.target_session });
    }
    let token = CancelToken { way, key: cancel_key, timeout: config.connect_timeout };
    Ok(Connection::open(wire, token, pass_file_warning, config.statement_deadline))
}

/// Connects to the first address that answers. One that is silent gets its share of the time only.
async fn connect_any(
    addresses: &[Address],
    options: &TcpOptions,
    deadline: Deadline,
) -> Result<(Socket, Address), Error> {
    let mut last_error = deadline.error(CONNECT);
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        match Socket::connect(address, options, deadline.share(left)).await {
            Ok(socket) => return Ok((socket, address.clone())),
            Err(error) => last_error = error,
        }
        left -= 1;
    }
    Err(last_error)
}

/// Where a server is, and how to get there unseen.
#[derive(Clone)]
struct Way {
    address: Address,
    target: Option<Target>,
    tcp: TcpOptions,
}

impl Way {
    /// Asks for TLS and begins it, where that is wanted.
    async fn encrypt(&self, socket: Socket, deadline: Deadline) -> Result<(Wire, Channel), Error> {
        let mut wire = Wire::new(socket);
        let (target, ip) = match (&self.address, &self.target) {
            (Address::Unix(_), _) => return Ok((wire, Channel::Local)),
            (Address::Tcp(_), None) => return Ok((wire, Channel::Open)),
            (Address::Tcp(address), Some(target)) => (target, SocketAddr::ip(address)),
        };
        let mut send = BytesMut::new();
        core::ssl_request(&mut send);
        wire.send(&mut send, deadline, ENCRYPT).await?;
        wire.read_first(deadline, ENCRYPT).await?;
        match wire.received.take_ssl_answer()? {
            SslAnswer::Accepted => {}
            SslAnswer::Refused if target.may_be_open() => return Ok((wire, Channel::Open)),
            SslAnswer::Refused => return Err(TlsError::Refused { mode: target.mode() }.into()),
            SslAnswer::Failed => {
                let source = std::io::Error::other("the server answers the request for TLS with an error");
                return Err(Error::Connect { address: self.address.to_string(), source });
            }
        }
        wire.begin_tls(target.begin(ip)?, deadline, ENCRYPT).await?;
        let end_point_hash = wire.end_point_hash();
        Ok((wire, Channel::Tls { end_point_hash }))
    }
}

async fn log_in(
    wire: &mut Wire,
    channel: Channel,
    endpoint: &Endpoint,
    config: &Config,
    deadline: Deadline,
) -> Result<(Option<CancelKey>, Option<PassFileWarning>), Error> {
    let (password, warning) = password_for(endpoint, config);
    let credentials = Credentials { user: config.user.clone(), password };
    let security = Security { channel, channel_binding: config.tls.channel_binding };
    let mut send = BytesMut::new();
    let mut startup = Startup::begin(credentials, security, config.startup_parameters(), &mut send)?;
    loop {
        wire.send(&mut send, deadline, LOG_IN).await?;
        let message = wire.next(deadline, LOG_IN).await?;
        match startup.on_message(message, &mut send) {
            Ok(StartupProgress::More) => {}
            Ok(StartupProgress::Ready { cancel_key, .. }) => {
                wire.received.set_message_max_bytes(MESSAGE_MAX_BYTES);
                return Ok((cancel_key, warning));
            }
            Err(Error::Auth(AuthError::PasswordMissing)) => {
                return Err(warning.map_or(AuthError::PasswordMissing, AuthError::PassFileIgnored).into());
            }
            Err(error) => return Err(error),
        }
    }
}

/// The password to log in with, and why there may be none.
fn password_for(endpoint: &Endpoint, config: &Config) -> (Option<String>, Option<PassFileWarning>) {
    let given = config.password.clone().filter(|password| !password.is_empty());
    let (None, Some(file)) = (&given, &config.passfile) else { return (given, None) };
    let database = config.database.as_deref().unwrap_or(&config.user);
    let login = Login { host: &endpoint.host, port: endpoint.port, database, user: &config.user };
    match passfile::find(file, &login) {
        Ok(found) => (found, None),
        Err(warning) => (None, Some(warning)),
    }
}

/// Cancels what a session is doing, by a connection of its own, encrypted if the session's is.
#[derive(Clone)]
pub struct CancelToken {
    way: Way,
    key: Option<CancelKey>,
    timeout: Option<Duration>,
}

impl CancelToken {
    /// Asks the server to cancel, and waits until it has taken the request. Whether there was still anything to
    /// cancel is not known: a statement that was under way ends with 57014 or is done.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Tls`], [`Error::Io`], [`Error::Timeout`] (after the `connect_timeout` of the
    /// connection), or [`Error::Usage`] if the server gave no key to cancel with.
    pub async fn cancel(&self) -> Result<(), Error> {
        let Some(key) = self.key else {
            return Err(Error::Usage { what: "the server gave no key to cancel with".to_owned() });
        };
        let deadline = Deadline::after(self.timeout);
        let socket = Socket::connect(&self.way.address, &self.way.tcp, deadline).await?;
        let (mut wire, _) = self.way.encrypt(socket, deadline).await?;
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

impl std::fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelToken")
            .field("address", &self.way.address)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
