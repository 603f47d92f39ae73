//! Where the server is, who we are to it, and how long we wait.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config_url;
use crate::error::{ConfigError, Error};

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

/// How to reach a server and log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the server listens.
    pub host: Host,
    /// Its port; for a unix socket, the number in the socket's name.
    pub port: u16,
    /// The role to log in as.
    pub user: String,
    /// Its password.
    pub password: Option<String>,
    /// The database; the role's name if none is set.
    pub database: Option<String>,
    /// What `pg_stat_activity` shows for us.
    pub application_name: Option<String>,
    /// Time for everything from the first packet to the end of the log-in, over all addresses of a name together;
    /// `None` waits for ever. The look-up of a name is not within it (see [`crate::Connection::connect`]).
    pub connect_timeout: Option<Duration>,
    /// Time for each operation, until [`crate::Connection::set_deadline`] says otherwise; `None` waits for ever.
    pub statement_deadline: Option<Duration>,
    /// Run-time parameters to begin the session with, for example `("lock_timeout", "2s")`.
    pub options: Vec<(String, String)>,
}

impl Config {
    /// A server at this place for this role, and all else as by default.
    pub fn new(host: Host, user: impl Into<String>) -> Self {
        Self {
            host,
            port: DEFAULT_PORT,
            user: user.into(),
            password: None,
            database: None,
            application_name: None,
            connect_timeout: Some(DEFAULT_CONNECT_TIMEOUT),
            statement_deadline: None,
            options: Vec::new(),
        }
    }

    /// Reads `postgres://user:password@host:port/database?parameter=value&…`, every part percent-encoded.
    ///
    /// A unix socket is `?host=/directory` or the directory percent-encoded in the host's place; an empty host is
    /// [`DEFAULT_SOCKET_DIR`]. Parameters: `host`, `port`, `user`, `password`, `dbname`, `application_name`,
    /// `connect_timeout` (whole seconds, 0 for ever), `options` (as `-c name=value`), and `sslmode`, which may be
    /// `disable`, `allow` or `prefer`: there is no TLS yet, so they all mean an open connection. An address without a
    /// user is read; [`Config::validate`], and so connecting, wants one.
    ///
    /// # Errors
    /// [`Error::Config`], naming what cannot be read; an unknown parameter is an error, not ignored.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        config_url::parse(url).map_err(Error::Config)
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
        if self.port == 0 {
            return value_error("port", "must be 1 to 65535");
        }
        match &self.host {
            Host::Tcp(name) if name.is_empty() => value_error("host", "is empty"),
            Host::Tcp(name) if name.contains(',') => value_error("host", "several hosts are not supported"),
            Host::Unix(dir) if !dir.is_absolute() => value_error("host", "a socket directory must be absolute"),
            _ => Ok(()),
        }
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
