//! Connecting and logging in, and cancel requests over a second connection.

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
use crate::options::{SearchPath, TcpOptions};
use crate::passfile::{self, Login};
use crate::resolve::resolve;
use crate::session_kind;
use crate::session_settings;
use crate::socket::{Address, Socket};
use crate::sqlstate::SqlState;
use crate::tls::{HostTls, TlsSettings};
use crate::wire::Wire;

const CONNECT: &str = "connect";
const START_TLS: &str = "the start of TLS";
const LOG_IN: &str = "log-in";
const CANCEL: &str = "cancel";

/// Connects to the first host that answers and provides a session of the required kind, and logs in.
pub(crate) async fn connect(config: &Config, search_path: SearchPath) -> Result<Connection, Error> {
    config.validate()?;
    let deadline = Deadline::after(config.connect_timeout);
    let by_tcp = config.endpoints().any(|endpoint| matches!(endpoint.host, Host::Tcp(_)));
    let tls = if by_tcp { TlsSettings::load(&config.tls)? } else { None };
    let mut last_error = deadline.error(CONNECT);
    let mut hosts_left = u32::try_from(config.endpoints().count()).unwrap_or(u32::MAX);
    for endpoint in config.endpoints() {
        match connect_to(&endpoint, tls.as_ref(), config, search_path, deadline.share(hosts_left)).await {
            Ok(connection) => return Ok(connection),
            Err(error) if hosts_left > 1 && is_worth_another_host(&error) => last_error = error,
            Err(error) => return Err(error),
        }
        hosts_left -= 1;
    }
    Err(last_error)
}

/// Whether another host may succeed after this error. If a host refuses the log-in, the others would refuse it, too.
/// libpq decides in the same way.
fn is_worth_another_host(error: &Error) -> bool {
    match error {
        Error::Connect { .. } | Error::Io { .. } | Error::Timeout { .. } | Error::TargetSessionMismatch { .. } => true,
        _ => error.sqlstate() == Some(SqlState::CANNOT_CONNECT_NOW),
    }
}

async fn connect_to(
    endpoint: &Endpoint,
    tls: Option<&TlsSettings>,
    config: &Config,
    search_path: SearchPath,
    deadline: Deadline,
) -> Result<Connection, Error> {
    let tls = match (tls, &endpoint.host) {
        (Some(tls), Host::Tcp(name)) => Some(tls.for_host(name)?),
        _ => None,
    };
    let addresses = resolve(&endpoint.host, endpoint.port, deadline).await?;
    let (socket, address) = connect_any(&addresses, &config.tcp, deadline).await?;
    let mut route = Route { address, tls, tcp: config.tcp };
    let (mut wire, channel) = route.encrypt(socket, deadline).await?;
    if channel == Channel::Open {
        // A cancel request is encrypted only if its session is.
        route.tls = None;
    }
    let (cancel_key, pass_file_warning) = log_in(&mut wire, channel, endpoint, config, deadline).await?;
    session_settings::apply(&mut wire, search_path, &config.session_settings, deadline).await?;
    if !session_kind::is_of_kind(&mut wire, config.target_session, deadline).await? {
        return Err(Error::TargetSessionMismatch { address: route.address.to_string(), wanted: config.target_session });
    }
    let token = CancelToken { route, key: cancel_key, timeout: config.connect_timeout };
    Ok(Connection::open(wire, token, pass_file_warning, config.statement_deadline))
}

/// Connects to the first address that answers. Each address gets an equal share of the remaining time.
async fn connect_any(
    addresses: &[Address],
    options: &TcpOptions,
    deadline: Deadline,
) -> Result<(Socket, Address), Error> {
    let mut last_error = deadline.error(CONNECT);
    let mut addresses_left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        match Socket::connect(address, options, deadline.share(addresses_left)).await {
            Ok(socket) => return Ok((socket, address.clone())),
            Err(error) => last_error = error,
        }
        addresses_left -= 1;
    }
    Err(last_error)
}

/// How to reach a server.
#[derive(Clone)]
struct Route {
    address: Address,
    /// `None` if the connection is not to be encrypted.
    tls: Option<HostTls>,
    tcp: TcpOptions,
}

impl Route {
    /// Starts TLS over a TCP socket, if TLS is to be used.
    async fn encrypt(&self, socket: Socket, deadline: Deadline) -> Result<(Wire, Channel), Error> {
        let mut wire = Wire::new(socket);
        let (tls, ip) = match (&self.address, &self.tls) {
            (Address::Unix(_), _) => return Ok((wire, Channel::Local)),
            (Address::Tcp(_), None) => return Ok((wire, Channel::Open)),
            (Address::Tcp(address), Some(tls)) => (tls, SocketAddr::ip(address)),
        };
        let mut send = BytesMut::new();
        core::ssl_request(&mut send);
        wire.send(&mut send, deadline, START_TLS).await?;
        match wire.read_ssl_answer(deadline, START_TLS).await? {
            SslAnswer::Accepted => {}
            SslAnswer::Refused if tls.may_be_open() => return Ok((wire, Channel::Open)),
            SslAnswer::Refused => return Err(TlsError::Refused { mode: tls.mode() }.into()),
            SslAnswer::Failed => {
                let source = std::io::Error::other("the server replied to the TLS request with an error");
                return Err(Error::Connect { address: self.address.to_string(), source });
            }
        }
        wire.start_tls(tls.start(ip)?, deadline, START_TLS).await?;
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
                wire.set_message_max_bytes(MESSAGE_MAX_BYTES);
                return Ok((cancel_key, warning));
            }
            Err(Error::Auth(AuthError::PasswordMissing)) => {
                return Err(warning.map_or(AuthError::PasswordMissing, AuthError::PassFileIgnored).into());
            }
            Err(error) => return Err(error),
        }
    }
}

/// The password to log in with, and why the password file was ignored.
fn password_for(endpoint: &Endpoint, config: &Config) -> (Option<String>, Option<PassFileWarning>) {
    let password = config.password.clone().filter(|password| !password.is_empty());
    let (None, Some(file)) = (&password, &config.passfile) else { return (password, None) };
    let database = config.database.as_deref().unwrap_or(&config.user);
    let login = Login { host: &endpoint.host, port: endpoint.port, database, user: &config.user };
    match passfile::find(file, &login) {
        Ok(found) => (found, None),
        Err(warning) => (None, Some(warning)),
    }
}

/// A token that cancels the operation in progress on a connection. The cancel request uses a connection of its own,
/// which is encrypted if the session is.
#[derive(Clone)]
pub struct CancelToken {
    route: Route,
    key: Option<CancelKey>,
    timeout: Option<Duration>,
}

impl CancelToken {
    /// Sends a cancel request, and waits until the server has taken it. The statement in progress then fails with
    /// 57014, or it has completed before.
    ///
    /// # Errors
    /// - [`Error::Connect`], [`Error::Tls`], [`Error::Io`],
    /// - [`Error::Timeout`] after the `connect_timeout` of the connection,
    /// - [`Error::Usage`] if the server sent no key for cancel requests.
    pub async fn cancel(&self) -> Result<(), Error> {
        let Some(key) = self.key else {
            return Err(Error::Usage { what: "the server sent no key for cancel requests".to_owned() });
        };
        let deadline = Deadline::after(self.timeout);
        let socket = Socket::connect(&self.route.address, &self.route.tcp, deadline).await?;
        let (mut wire, _) = self.route.encrypt(socket, deadline).await?;
        let mut send = BytesMut::new();
        frontend::cancel_request(key.process_id, key.secret_key, &mut send);
        wire.send(&mut send, deadline, CANCEL).await?;
        // The server closes the connection after it has signalled the backend.
        wire.read_to_end(deadline, CANCEL).await
    }

    pub(crate) fn process_id(&self) -> Option<i32> {
        self.key.map(|key| key.process_id)
    }
}

impl std::fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelToken")
            .field("address", &self.route.address)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
