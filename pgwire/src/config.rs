//! Where the server is, who we are to it, and how long we wait.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config_url;
use crate::error::{ConfigError, Error};
use crate::options::{RootCert, SslMode, TargetSession, TcpOptions, TlsOptions};

/// Port of a server that does not say otherwise.
pub const DEFAULT_PORT: u16 = 5432;

/// Directory of the unix socket on Debian and its kin, taken where an address names no host.
pub const DEFAULT_SOCKET_DIR: &str = "/var/run/postgresql";

/// Time to connect and log in where nothing else is set.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or address, over TCP.
    Tcp(String),
    /// The directory that holds the unix socket.
    Unix(PathBuf),
}

/// One more place where the server may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub host: Host,
    /// Its port, as [`Config::port`].
    pub port: u16,
}

/// How to reach a server and log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the server listens.
    pub host: Host,
    /// Its port; for a unix socket, the number in the socket's name.
    pub port: u16,
    /// Further places, tried in order where the one before cannot be reached, is starting up, or is not of the kind
    /// that [`Config::target_session`] names.
    pub more_hosts: Vec<Endpoint>,
    /// Which of them is wanted.
    pub target_session: TargetSession,
    /// The role to log in as.
    pub user: String,
    /// Its password.
    pub password: Option<String>,
    /// File to look for the password in, at each connect, where none is set: libpq's `~/.pgpass`. One that others may
    /// read is not used; see [`crate::Connection::pass_file_warning`].
    pub passfile: Option<PathBuf>,
    /// The database; the role's name if none is set.
    pub database: Option<String>,
    /// What `pg_stat_activity` shows for us.
    pub application_name: Option<String>,
    /// Time for everything from the look-up of the name to the end of the log-in, over all hosts and all addresses of a
    /// name together (libpq's is for each of them); `None` waits for ever.
    pub connect_timeout: Option<Duration>,
    /// Time for each operation, until [`crate::Connection::set_deadline`] says otherwise; `None` waits for ever.
    pub statement_deadline: Option<Duration>,
    /// How TCP connections are encrypted.
    pub tls: TlsOptions,
    /// When silent TCP connections are given up.
    pub tcp: TcpOptions,
    /// Run-time parameters to begin the session with, for example `("lock_timeout", "2s")`.
    pub options: Vec<(String, String)>,
}

impl Config {
    /// A server at this place for this role, and all else as by default.
    pub fn new(host: Host, user: impl Into<String>) -> Self {
        Self {
            host,
            port: DEFAULT_PORT,
            more_hosts: Vec::new(),
            target_session: TargetSession::Any,
            user: user.into(),
            password: None,
            passfile: None,
            database: None,
            application_name: None,
            connect_timeout: Some(DEFAULT_CONNECT_TIMEOUT),
            statement_deadline: None,
            tls: TlsOptions::default(),
            tcp: TcpOptions::default(),
            options: Vec::new(),
        }
    }

    /// Reads `postgres://user:password@host:port/database?parameter=value&…`, every part percent-encoded.
    ///
    /// A unix socket is `?host=/directory` or the directory percent-encoded in the host's place; an empty host is
    /// [`DEFAULT_SOCKET_DIR`]. Several hosts are parted by commas (`a:1,b:2`, or `?host=a,b&port=1,2`).
    ///
    /// Parameters: `host`, `port`, `user`, `password`, `passfile`, `dbname`, `application_name`, `connect_timeout` (whole
    /// seconds, 0 for ever), `options` (as `-c name=value`), `sslmode`, `sslrootcert` (a file, or `system`), `sslcert`,
    /// `sslkey`, `channel_binding`, `target_session_attrs`, `keepalives`, `keepalives_idle`, `keepalives_interval`,
    /// `keepalives_count`, `tcp_user_timeout`; their meaning is with the fields of [`Config`]. The last of several
    /// counts. Nothing is read but the address: [`Config::from_url_and_env`] does as libpq does. An address without a
    /// user is read; [`Config::validate`], and so connecting, wants one.
    ///
    /// # Errors
    /// [`Error::Config`], naming what cannot be read; an unknown parameter is an error, not ignored.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        Ok(config_url::settings(url)?.into_config()?)
    }

    /// The address with the password masked, for logs.
    pub fn masked_url(&self) -> String {
        config_url::render_masked(self)
    }

    /// Checks what can be checked without the server.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn validate(&self) -> Result<(), Error> {
        let value_error = |name, reason| Err(ConfigError::Value { name, reason }.into());
        if self.user.is_empty() {
            return Err(ConfigError::UserMissing.into());
        }
        for Endpoint { host, port } in self.endpoints() {
            match host {
                _ if port == 0 => return value_error("port", "must be 1 to 65535"),
                Host::Tcp(name) if name.is_empty() => return value_error("host", "is empty"),
                Host::Tcp(name) if name.contains(',') => return value_error("host", "is one name; see more_hosts"),
                Host::Unix(dir) if !dir.is_absolute() => {
                    return value_error("host", "a socket directory must be absolute");
                }
                _ => {}
            }
        }
        let by_tcp = self.endpoints().any(|endpoint| matches!(endpoint.host, Host::Tcp(_)));
        let TlsOptions { mode, root_cert, cert, key, .. } = &self.tls;
        if !by_tcp || *mode == SslMode::Disable {
            return Ok(());
        }
        match root_cert {
            None if *mode >= SslMode::VerifyCa => return Err(ConfigError::RootCertMissing { mode: *mode }.into()),
            Some(RootCert::System) if *mode != SslMode::VerifyFull => {
                return value_error("sslmode", "must be verify-full with sslrootcert=system");
            }
            _ => {}
        }
        if cert.is_some() != key.is_some() {
            return value_error("sslcert", "and sslkey go together");
        }
        Ok(())
    }

    /// All places in order.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        let first = Endpoint { host: self.host.clone(), port: self.port };
        std::iter::once(first).chain(self.more_hosts.iter().cloned())
    }

    /// The run-time parameters of the StartupMessage.
    pub(crate) fn startup_parameters(&self) -> Vec<(&str, &str)> {
        let mut parameters = vec![("user", self.user.as_str()), ("client_encoding", "UTF8")];
        parameters.extend(self.database.as_deref().map(|database| ("database", database)));
        parameters.extend(self.application_name.as_deref().map(|name| ("application_name", name)));
        parameters.extend(self.options.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        parameters
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.masked_url())
            .field("statement_deadline", &self.statement_deadline)
            .field("options", &self.options)
            .finish()
    }
}

/// The socket's path in its directory.
pub(crate) fn socket_path(dir: &Path, port: u16) -> PathBuf {
    dir.join(format!(".s.PGSQL.{port}"))
}
